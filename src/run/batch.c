// batch: see batch.h.
#include "batch.h"

#include "bytes.h"
#include "cli.h"
#include "result.h"
#include "stops.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <stb/stb_ds.h>

enum { STEP_TOKENS = 256, STATUS_INTERRUPTED = 130 }; // prompts are read in steps of so many tokens, beside the others
static const uint64_t PREFIX_BYTES = 256 << 20;       // of what prompts that begin alike share

typedef struct {
    int index; // of the line
    Session *session;
    Sampler *sampler;
    TextOut *out;
    int32_t *tokens;
    int n, n_prompt, n_done; // n_done: in the session
    Stops stops;
    char *text;       // stb_ds array
    const char *stop; // NULL: it goes on
    char err[256];
} Job;

typedef struct {
    const Engine *engine;
    const Options *options;
    Job *jobs; // stb_ds array: those begun and not yet printed, in order
    int n_lines, n_begun, n_printed, n_failed;
    int64_t n_generated;
} Batch;

// ---- one prompt

static void fail_job(Job *j, const char *line) {
    snprintf(j->err, sizeof j->err, "%s", line);
    j->stop = "error";
}

static void close_job(Job *j) {
    session_close(j->session);
    sampler_close(j->sampler);
    textout_close(j->out);
    stops_free(&j->stops);
    free(j->tokens);
    arrfree(j->text);
}

static Job open_job(const Batch *b, int index) {
    char err[256] = "";
    const Options *o = b->options;
    Line line = o->lines[index];
    SamplerOptions sampling = o->sampler;
    sampling.seed += (uint64_t)index;
    Job j = {.index = index, .stops = {.strings = o->stops}};
    j.n_prompt = j.n = engine_encode(b->engine, line.text, line.n, true, o->special, &j.tokens, err, sizeof err);
    if (j.n < 0) j.n_prompt = j.n = 0;
    else if ((j.session = session_open(b->engine, &o->session, err, sizeof err)))
        j.sampler = sampler_open(&sampling, engine_info(b->engine).vocab_size, err, sizeof err);
    if (!j.sampler) {
        fail_job(&j, err);
        return j;
    }
    int n_ctx = session_info(j.session).n_ctx, most = n_ctx - j.n + 1;
    if (o->n_new >= 0 && o->n_new < most) most = o->n_new;
    j.out = textout_open(b->engine, !line.n);
    int32_t *tokens = realloc(j.tokens, sizeof *tokens * (size_t)(j.n + (most > 0 ? most : 0) + 1));
    if (tokens) j.tokens = tokens;
    if (!j.out || !tokens) fail_job(&j, "out of memory for the text");
    else if (!j.n) fail_job(&j, "the prompt is empty, and the model has no BOS to start from");
    else if (!o->n_new) j.stop = "limit";
    else if (j.n > n_ctx) {
        snprintf(j.err, sizeof j.err, "the prompt has %d tokens, the context %d; a larger -c holds more", j.n, n_ctx);
        j.stop = "error";
    }
    if (j.stop) return j;
    textout_show_special(j.out, o->special);
    sampler_history(j.sampler, j.tokens, j.n);
    j.n_done = session_keep(j.session, j.tokens, j.n);
    return j;
}

// The next token, from the session's logits.
static void generate(Batch *b, Job *j) {
    const Options *o = b->options;
    int32_t id = sampler_pick(j->sampler, session_logits(j->session));
    if (engine_is_end(b->engine, id) && !o->ignore_eos) j->stop = "end";
    else {
        bytes_append_text(&j->text, stops_push(&j->stops, textout_push(j->out, id)));
        j->tokens[j->n++] = id;
        b->n_generated++;
        if (j->stops.found) j->stop = "word";
        else if (j->n - j->n_prompt == o->n_new) j->stop = "limit";
        else if (j->n > session_info(j->session).n_ctx) j->stop = "context";
    }
    if (!j->stop) return;
    bytes_append_text(&j->text, stops_push(&j->stops, textout_finish(j->out)));
    bytes_append_text(&j->text, stops_finish(&j->stops));
}

// ---- all

// One step of every prompt that goes on, as far as the step has room for it.
static void step(Batch *b) {
    StepSegment *list = NULL;
    Job **of = NULL;
    for (ptrdiff_t i = 0, room = STEP_TOKENS; i < arrlen(b->jobs); i++) {
        Job *j = &b->jobs[i];
        int left = j->n - j->n_done, n = left < room ? left : (int)room;
        if (left == 1) n = 1; // what is decoded does not wait
        if (j->stop || !n) continue;
        StepSegment part = {.session = j->session, .tokens = j->tokens + j->n_done, .n = n, .logits = n == left};
        arrput(list, part);
        arrput(of, j);
        room = room > n ? room - n : 0;
    }
    engine_step(b->engine, list, (int)arrlen(list), false);
    for (ptrdiff_t i = 0; i < arrlen(list); i++) {
        of[i]->n_done += list[i].done;
        if (list[i].err[0]) fail_job(of[i], list[i].err);
        else if (list[i].logits) generate(b, of[i]);
    }
    arrfree(list);
    arrfree(of);
}

static void print_job(Batch *b, const Job *j) {
    const Options *o = b->options;
    json_t *line = result_json(&(Result){.prompt = o->lines[j->index].text,
                                         .n_prompt_bytes = o->lines[j->index].n,
                                         .text = j->text,
                                         .n_text_bytes = arrlenu(j->text),
                                         .tokens = j->tokens,
                                         .n = j->n,
                                         .n_prompt = j->n_prompt,
                                         .stop = j->stop,
                                         .seed = o->sampler.seed + (uint64_t)j->index});
    json_object_set_new(line, "index", json_integer(j->index));
    if (j->err[0]) json_object_set_new(line, "error", json_string(j->err));
    b->n_failed += j->err[0] != 0;
    json_dumpf(line, stdout, 0);
    putchar('\n');
    json_decref(line);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the results could not be written");
}

// Prints the results whose turn it is. Returns how many there were.
static int print_ready(Batch *b) {
    int n = 0;
    while (n < (int)arrlen(b->jobs) && b->jobs[n].stop) {
        print_job(b, &b->jobs[n]);
        close_job(&b->jobs[n++]);
    }
    if (n) arrdeln(b->jobs, 0, n);
    b->n_printed += n;
    return n;
}

// New prompts where there is room for them.
static void begin_some(Batch *b) {
    int n_running = 0;
    for (ptrdiff_t i = 0; i < arrlen(b->jobs); i++) {
        Job *j = &b->jobs[i];
        n_running += !j->stop;
        if (!j->stop || !j->session) continue;
        session_close(j->session); // it waits for its turn to be printed, without its cache
        j->session = NULL;
    }
    for (; n_running < b->options->parallel && b->n_begun < b->n_lines; n_running++) {
        Job j = open_job(b, b->n_begun++);
        arrput(b->jobs, j);
    }
}

static void tell(const Batch *b, double start, bool end) {
    bool line = !b->options->quiet && (end || isatty(STDERR_FILENO));
    if (!line) return;
    double took = seconds() - start;
    fprintf(stderr, "%s%d of %d prompts | generated %lld tokens, %.1f tok/s%s", isatty(STDERR_FILENO) ? "\r" : "",
            b->n_printed, b->n_lines, (long long)b->n_generated, (double)b->n_generated / took, end ? "\n" : "\033[K");
}

int batch_run(const Engine *e, const Options *o, volatile sig_atomic_t *interrupted) {
    Batch b = {.engine = e, .options = o, .n_lines = (int)arrlen(o->lines)};
    double start = seconds();
    engine_limit(e, 0, PREFIX_BYTES);
    while (b.n_printed < b.n_lines && !*interrupted) {
        begin_some(&b);
        step(&b);
        if (print_ready(&b)) tell(&b, start, false);
    }
    tell(&b, start, true);
    for (ptrdiff_t i = 0; i < arrlen(b.jobs); i++) close_job(&b.jobs[i]);
    arrfree(b.jobs);
    if (b.n_failed && !o->quiet)
        fprintf(stderr, "%d of %d prompts have failed; their lines say why\n", b.n_failed, b.n_lines);
    return *interrupted ? STATUS_INTERRUPTED : b.n_failed ? 1 : 0;
}
