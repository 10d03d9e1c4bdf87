// step: new tokens of many sessions, computed together (engine_step).
//
// Owns how segments are cut into passes, and what a session keeps of a pass. A segment that fails leaves the step with
// a line of its own; the runner computes the others. Called by session_sync, too.
#include "session.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

enum { WORTH_KEEPING = 16 }; // tokens of a prompt whose last, partly filled block is kept too

// ---- one segment

static int session_fail(StepSegment *part, const char *line) {
    return fail(part->err, sizeof part->err, "%s", line);
}

// Is session i one that the step can compute, and named once?
static int check_segment(const Engine *e, StepSegment *list, int i) {
    StepSegment *part = &list[i];
    const Session *s = part->session;
    part->done = 0;
    part->err[0] = 0;
    if (!s || s->engine != e) return session_fail(part, "step: expected a session of this engine");
    if (part->n < 1) return fail(part->err, sizeof part->err, "step: expected at least 1 token, found %d", part->n);
    for (int j = 0; j < i; j++) {
        if (list[j].session == s) return session_fail(part, "step: the session is in it twice");
        if (list[j].err[0] || list[j].session->runner == s->runner) continue;
        int n_threads = runner_threads(s->runner), expected = runner_threads(list[j].session->runner);
        if (n_threads == expected) return session_fail(part, "step: expected a session of the others' precision");
        return fail(part->err, sizeof part->err, "step: expected a session with %d threads, as the others, found %d",
                    expected, n_threads);
    }
    return session_check(s, part->tokens, part->n, part->err, sizeof part->err);
}

bool session_check_logits(Session *s, int position, const float *logits) {
    if (s->bad_logits < 0 && !floats_finite(logits, s->engine->model.config.vocab_size)) s->bad_logits = position;
    return s->bad_logits < 0;
}

static void visit_checked(void *context, int position, const float *logits) {
    Session *s = context;
    if (session_check_logits(s, position, logits)) s->visit(s->visit_context, position, logits);
}

// How many of the segment's tokens the next pass takes, `room` at most. With a window it is no longer than the window
// (or a cache block), so that memory stays O(window + sinks). Where other texts may start from the states of recurrent
// layers, a pass ends at the border of a block, since only there they are kept.
static int count_next(const StepSegment *part, int room) {
    const Session *s = part->session;
    int left = part->n - part->done, length = session_length(s);
    if (s->window && s->window < room) room = s->window > KV_BLOCK ? s->window : room < KV_BLOCK ? room : KV_BLOCK;
    int count = left < room ? left : room, over = (length + count) % KV_BLOCK;
    bool cut = over < count && memory_border_bytes(&s->memory) &&
               prefixes_on(runners_prefixes(s->engine->runners), &s->memory);
    return cut ? count - over : count;
}

int session_reserve(Session *s, int n, char *err, size_t errlen) {
    if (session_reserve_tokens(s, session_length(s) + n, err, errlen)) return -1;
    while (memory_reserve(&s->memory, n, err, errlen)) {
        if (!prefixes_evict(runners_prefixes(s->engine->runners))) return -1;
    }
    if (errlen) err[0] = 0;
    return 0;
}

// The segment's next tokens for a pass with room for so many. -1: it has failed.
static int prepare(StepSegment *part, int room, DecoderSegment *to) {
    Session *s = part->session;
    int length = session_length(s), n_all = length + part->n - part->done, count = count_next(part, room);
    char *err = part->err;
    size_t errlen = sizeof part->err;
    if (length + count > s->n_ctx) count = s->n_ctx - length;
    if (count < 1)
        return fail(err, errlen, "context full: %d tokens do not fit in %d; a larger -c makes room", n_all, s->n_ctx);
    if (s->watch && !s->watch(s->watch_context, length, n_all)) return session_fail(part, "stopped");
    if (session_reserve(s, count, err, errlen)) return -1;
    s->bad_logits = -1;
    *to = (DecoderSegment){.memory = &s->memory,
                           .tokens = part->tokens + part->done,
                           .n = count,
                           .logits = part->logits ? s->logits : NULL,
                           .callback = s->visit ? visit_checked : NULL,
                           .callback_context = s,
                           .states = s->visit_states,
                           .states_context = s->states_context};
    return 0;
}

int session_fail_bad(const Session *s, char *err, size_t errlen) {
    if (s->bad_logits < 0) return 0;
    return fail(err, errlen, "the logits after token %d are not finite: a weight of the model may be damaged",
                s->bad_logits + 1);
}

// After a pass of n of its tokens.
static void keep(StepSegment *part, int n) {
    Session *s = part->session;
    int length = session_length(s);
    memcpy(s->tokens + length - n, part->tokens + part->done, sizeof *s->tokens * (size_t)n);
    part->done += n;
    if (part->logits) session_check_logits(s, length - 1, s->logits);
    s->has_logits = part->logits && s->bad_logits < 0;
    session_publish_new(s, n, n >= WORTH_KEEPING && part->done == part->n);
    session_fail_bad(s, part->err, sizeof part->err);
}

// ---- passes

// One pass over the next tokens of as many segments as fit.
static void run_pass(StepSegment *list, int n, bool exact) {
    DecoderSegment pass[MAX_SEGMENTS];
    StepSegment *parts[MAX_SEGMENTS];
    int count = 0, rows = 0;
    PassOptions options = {.exact = exact};
    for (int i = 0; i < n && count < MAX_SEGMENTS && rows < PREFILL_BLOCK; i++) {
        if (list[i].err[0] || list[i].done == list[i].n) continue;
        int room = PREFILL_BLOCK - rows;
        if (exact && count_next(&list[i], PREFILL_BLOCK) > room) continue; // neighbours do not cut it
        if (prepare(&list[i], room, &pass[count])) continue;
        if (!options.profile) options.profile = list[i].session->profile;
        rows += pass[count].n;
        parts[count++] = &list[i];
    }
    char err[sizeof list->err] = "";
    bool failed = count && runner_step(parts[0]->session->runner, pass, count, options, err, sizeof err);
    for (int i = 0; i < count; i++) {
        if (failed) session_fail(parts[i], err);
        else keep(parts[i], pass[i].n);
    }
}

static bool is_complete(const StepSegment *list, int n) {
    int i = 0;
    while (i < n && (list[i].err[0] || list[i].done == list[i].n)) i++;
    return i == n;
}

int engine_step(const Engine *e, StepSegment *segments, int n, bool exact) {
    int n_failed = 0;
    for (int i = 0; i < n; i++) {
        if (!check_segment(e, segments, i)) segments[i].session->has_logits = false;
    }
    while (!is_complete(segments, n)) run_pass(segments, n, exact);
    for (int i = 0; i < n; i++) n_failed += segments[i].err[0] != 0;
    return n_failed;
}
