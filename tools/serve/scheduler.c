// scheduler: see scheduler.h.
#include "scheduler.h"

#include <math.h>
#include <stdlib.h>

#include <stb/stb_ds.h>

enum {
    LEAST_CHUNK = 8,  // prompt tokens that every pass has room for, so that prompts advance beside any decoding
    FIRST_CHUNK = 64, // of the first passes, before any is measured
    HEADROOM = 64,    // tokens that each running task must have room to grow by before another one begins
    N_SIZES = 16,     // of passes whose cost is kept apart
};

// What passes of more than 2^(i-1) and up to 2^i rows took, i its index: averages that forget.
typedef struct {
    double rows, seconds; // 0: none yet
} Cost;

struct Scheduler {
    SchedulerOptions options;
    Stepper stepper;
    Task **waiting, **running; // stb_ds arrays; parked tasks stand first in `waiting`, by age
    Part *parts;               // stb_ds array: of this pass
    Cost costs[N_SIZES];
    double token_s;
    int64_t n_submitted, n_parked;
    uint64_t needed; // bytes that the parts so far would add
};

Scheduler *scheduler_open(const SchedulerOptions *o, const Stepper *stepper) {
    Scheduler *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    *s = (Scheduler){.options = *o, .stepper = *stepper};
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

// ---- what passes cost

static void learn(Scheduler *s, int rows, int prompt_tokens, double took) {
    if (took <= 0) return;
    int i = 0;
    while (i < N_SIZES - 1 && 1 << i < rows) i++;
    Cost *c = &s->costs[i];
    double weight = c->rows > 0 ? 0.3 : 1;
    c->rows += weight * (rows - c->rows);
    c->seconds += weight * (took - c->seconds);
    if (!prompt_tokens) return;
    double each = took / prompt_tokens;
    s->token_s = s->token_s <= 0 ? each : 0.8 * s->token_s + 0.2 * each;
}

// Seconds of a pass of so many rows: between the nearest sizes that were measured; beyond the largest, as much for each
// row; below the smallest, half of it and the rest by rows. 0: none was measured. Since rows that are many do not cost
// more each, a pass of the larger size that something held up counts for no more than that.
static double predict(const Scheduler *s, int rows) {
    Cost less = {0}, more = {0};
    for (int i = 0; i < N_SIZES && more.rows <= 0; i++) {
        if (s->costs[i].rows <= rows) less = s->costs[i].rows > 0 ? s->costs[i] : less;
        else more = s->costs[i];
    }
    if (less.rows <= 0) return more.rows > 0 ? more.seconds * (0.5 + 0.5 * rows / more.rows) : 0;
    if (more.rows <= 0) return less.seconds * rows / less.rows;
    double most = less.seconds * more.rows / less.rows;
    if (more.seconds > most) more.seconds = most;
    return less.seconds + (more.seconds - less.seconds) * (rows - less.rows) / (more.rows - less.rows);
}

// Seconds that a pass may take in which so many prompts are read beside so many rows: the gap, where no more texts wait
// for their first token than for their next; then longer, in proportion. Where even the least chunk takes most of a gap
// the pass may take half as long again, in which most models read three times as many tokens, but for its sake no
// longer than a gap and a half.
static double allowed(const Scheduler *s, int rows, int prompts) {
    double gap = s->options.gap, least = predict(s, rows + LEAST_CHUNK);
    double most = !rows ? 4 * gap : prompts > rows ? 0.8 * gap * prompts / rows : 0.8 * gap;
    if (most > 4 * gap) most = 4 * gap;
    return fmax(most, fmax(least, 1.5 * fmin(least, gap)));
}

// Prompt tokens that a pass with so many rows has room for.
static int room_beside(const Scheduler *s, int rows, int prompts) {
    int most = s->options.block > rows + LEAST_CHUNK ? s->options.block - rows : LEAST_CHUNK;
    double seconds = allowed(s, rows, prompts);
    if (predict(s, most) <= 0) return most < FIRST_CHUNK ? most : FIRST_CHUNK;
    while (most > LEAST_CHUNK && predict(s, rows + most) > seconds) most--;
    return most;
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

static int count_prompts(const Scheduler *s) {
    int n = 0;
    for (ptrdiff_t i = 0; i < arrlen(s->running); i++) n += left(s->running[i]) > 1 && !s->running[i]->blocked;
    return n;
}

// Fills the parts, and parks tasks until what is left has room. Returns the prompt tokens; *rows: those that decode.
static int fill(Scheduler *s, int *rows) {
    for (bool parked = false;;) {
        if (!parked) admit(s);
        arrsetlen(s->parts, 0);
        s->needed = 0;
        bool roomy = add_rows(s);
        *rows = (int)arrlen(s->parts);
        int prompts = roomy ? count_prompts(s) : 0, used = prompts ? add_prompts(s, room_beside(s, *rows, prompts)) : 0;
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

int scheduler_pass(Scheduler *s) {
    int rows, used = fill(s, &rows), n = (int)arrlen(s->parts);
    if (!n) return 0;
    double start = s->stepper.now(s->stepper.context);
    s->stepper.step(s->stepper.context, s->parts, n);
    learn(s, rows + used, used, s->stepper.now(s->stepper.context) - start);
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
