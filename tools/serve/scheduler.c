// scheduler: see scheduler.h.
#include "scheduler.h"

#include <stdlib.h>

#include <stb/stb_ds.h>

enum {
    LEAST_CHUNK = 16, // prompt tokens that every pass has room for, so that prompts advance beside any decoding
    FIRST_CHUNK = 64, // of the first passes, before any is measured
    HEADROOM = 64,    // tokens that each running task must have room to grow by before another one begins
};

// How many prompt tokens a pass may have so that it takes `target` seconds: follows what passes took.
typedef struct {
    double tokens, target;
} Budget;

struct Scheduler {
    SchedulerOptions options;
    Stepper stepper;
    Task **waiting, **running; // stb_ds arrays; parked tasks stand first in `waiting`, by age
    Part *parts;               // stb_ds array: of this pass
    Budget beside, alone;      // beside rows that decode, and without them
    bool was_beside;           // `beside` is measured; until then it follows from token_s
    double token_s;
    int64_t n_submitted, n_parked;
    uint64_t needed; // bytes that the parts so far would add
};

Scheduler *scheduler_open(const SchedulerOptions *o, const Stepper *stepper) {
    Scheduler *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    *s = (Scheduler){.options = *o, .stepper = *stepper};
    s->beside = (Budget){LEAST_CHUNK, 0.8 * o->gap};
    s->alone = (Budget){FIRST_CHUNK < o->block ? FIRST_CHUNK : o->block, 4 * o->gap};
    return s;
}

void scheduler_close(Scheduler *s) {
    if (!s) return;
    arrfree(s->waiting);
    arrfree(s->running);
    arrfree(s->parts);
    free(s);
}

static int left(const Task *t) {
    return t->n_tokens - t->n_done;
}

static bool list_drop(Task **list, const Task *t) {
    for (ptrdiff_t i = 0; i < arrlen(list); i++) {
        if (list[i] != t) continue;
        arrdel(list, i);
        return true;
    }
    return false;
}

// ---- tasks in and out

bool scheduler_submit(Scheduler *s, Task *t) {
    bool starts_at_once = !arrlen(s->waiting) && arrlen(s->running) < s->options.parallel;
    if (!starts_at_once && arrlen(s->waiting) >= s->options.queue) return false;
    t->since = s->stepper.now(s->stepper.context);
    t->order = s->n_submitted++;
    arrput(s->waiting, t);
    return true;
}

void scheduler_cancel(Scheduler *s, Task *t) {
    if (!list_drop(s->waiting, t)) list_drop(s->running, t);
}

static bool fits(const Scheduler *s, const Task *t, int n) {
    if (!s->options.kv_bytes) return true;
    uint64_t held = s->stepper.held(s->stepper.context) + s->needed;
    return held + s->stepper.need(s->stepper.context, t, n) <= s->options.kv_bytes;
}

static void admit(Scheduler *s) {
    while (arrlen(s->waiting) && arrlen(s->running) < s->options.parallel) {
        Task *t = s->waiting[0];
        if (arrlen(s->running) && !fits(s, t, t->n_tokens + HEADROOM * (int)(arrlen(s->running) + 1))) return;
        arrdel(s->waiting, 0);
        arrput(s->running, t);
        s->stepper.open(s->stepper.context, t);
    }
}

static Task *youngest(const Scheduler *s) {
    Task *found = s->running[0];
    for (ptrdiff_t i = 1; i < arrlen(s->running); i++)
        if (s->running[i]->order > found->order) found = s->running[i];
    return found;
}

static void park_youngest(Scheduler *s) {
    Task *t = youngest(s);
    ptrdiff_t at = 0;
    list_drop(s->running, t);
    s->stepper.park(s->stepper.context, t);
    while (at < arrlen(s->waiting) && s->waiting[at]->order < t->order) at++;
    arrins(s->waiting, at, t);
    s->n_parked++;
}

// ---- a pass

static bool add_part(Scheduler *s, Task *t, int n) {
    if (s->stepper.piece) n = s->stepper.piece(s->stepper.context, t);
    while (n && !fits(s, t, n)) n = s->stepper.piece ? 0 : n / 2;
    if (!n) return false;
    if (s->options.kv_bytes) s->needed += s->stepper.need(s->stepper.context, t, n);
    arrput(s->parts, ((Part){.task = t, .n = n}));
    return true;
}

// Seconds of work left, less seconds waited: the shortest first, and none waits for ever.
static double urgency(const Scheduler *s, const Task *t, double now) {
    return left(t) * s->token_s - (now - t->since);
}

static bool has_part(const Scheduler *s, const Task *t) {
    for (ptrdiff_t i = 0; i < arrlen(s->parts); i++)
        if (s->parts[i].task == t) return true;
    return false;
}

static Task *next_prompt(const Scheduler *s, double now) {
    Task *best = NULL;
    for (ptrdiff_t i = 0; i < arrlen(s->running); i++) {
        Task *t = s->running[i];
        if (left(t) < 2 || t->blocked || has_part(s, t)) continue;
        if (!best || urgency(s, t, now) < urgency(s, best, now)) best = t;
    }
    return best;
}

// Every row that decodes; false: one of them has no room.
static bool add_rows(Scheduler *s) {
    for (ptrdiff_t i = 0; i < arrlen(s->running); i++) {
        Task *t = s->running[i];
        if (left(t) == 1 && !t->blocked && !add_part(s, t, 1)) return false;
    }
    return true;
}

// Returns the prompt tokens of the pass.
static int add_prompts(Scheduler *s, int budget) {
    double now = s->stepper.now(s->stepper.context);
    int used = 0;
    for (Task *t; used < budget && (t = next_prompt(s, now));) {
        if (!add_part(s, t, left(t) < budget - used ? left(t) : budget - used)) break;
        used += arrlast(s->parts).n;
    }
    return used;
}

static bool can_step(const Scheduler *s) {
    for (ptrdiff_t i = 0; i < arrlen(s->running); i++)
        if (left(s->running[i]) && !s->running[i]->blocked) return true;
    return false;
}

// Fills the parts, and parks tasks until what is left has room. Returns the prompt tokens; *rows: those that decode.
static int fill(Scheduler *s, int *rows) {
    for (bool parked = false;;) {
        if (!parked) admit(s);
        arrsetlen(s->parts, 0);
        s->needed = 0;
        bool roomy = add_rows(s);
        *rows = (int)arrlen(s->parts);
        Budget *b = *rows ? &s->beside : &s->alone;
        int used = roomy ? add_prompts(s, (int)b->tokens) : 0;
        if ((roomy && arrlen(s->parts)) || !can_step(s)) return used;
        if (arrlen(s->running) > 1) {
            park_youngest(s);
            parked = true;
            continue;
        }
        Task *t = s->running[0];
        arrsetlen(s->running, 0);
        s->stepper.overflow(s->stepper.context, t);
    }
}

static double limited(const Scheduler *s, double tokens) {
    return tokens < LEAST_CHUNK ? LEAST_CHUNK : tokens > s->options.block ? s->options.block : tokens;
}

// A pass of `used` prompt tokens took `took` seconds. A budget that was not used up may grow, but shows nothing else.
static void learn(Scheduler *s, Budget *b, int used, double took) {
    if (!used || took <= 0) return;
    double each = took / used, ratio = b->target / took;
    s->token_s = s->token_s <= 0 ? each : 0.8 * s->token_s + 0.2 * each;
    if (b == &s->alone && !s->was_beside) s->beside.tokens = limited(s, s->beside.target / s->token_s);
    s->was_beside |= b == &s->beside;
    if (used < (int)b->tokens && ratio > 1) return;
    double next = (used < (int)b->tokens ? used : b->tokens) * (ratio > 1.5 ? 1.5 : ratio);
    b->tokens = limited(s, next);
}

int scheduler_pass(Scheduler *s) {
    int rows, used = fill(s, &rows), n = (int)arrlen(s->parts);
    if (!n) return 0;
    double start = s->stepper.now(s->stepper.context);
    s->stepper.step(s->stepper.context, s->parts, n);
    learn(s, rows ? &s->beside : &s->alone, used, s->stepper.now(s->stepper.context) - start);
    for (int i = 0; i < n; i++) {
        if (s->parts[i].ended) list_drop(s->running, s->parts[i].task);
        else s->parts[i].task->n_done += s->parts[i].n;
    }
    return n;
}

SchedulerState scheduler_state(const Scheduler *s) {
    return (SchedulerState){.running = (int)arrlen(s->running),
                            .waiting = (int)arrlen(s->waiting),
                            .parked = s->n_parked,
                            .token_s = s->token_s};
}
