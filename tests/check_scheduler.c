// check_scheduler: the server's scheduler over a fake engine with a clock of its own.
//
// The fake takes FIXED seconds a pass, ROW or more a row that decodes and TOKEN a prompt token; it checks every
// pass that it is given, and picks tokens until a task has its answer.
#include "scheduler.h"

#include "test.h"

#include <math.h>
#include <stb/stb_ds.h>

static const double FIXED = 0.010, ROW = 0.001, TOKEN = 0.002;
enum { BYTES = 10 }; // of memory a token

typedef struct {
    Task task; // first, so that a Task is its FakeTask
    int n_prompt, n_answer, n_parked;
    double arrived, first, last, worst_gap; // seconds; 0: not yet
    bool over, overflowed, open;
} FakeTask;

typedef struct {
    double now;
    FakeTask **tasks; // stb_ds array
    uint64_t most_held, limit;
    int n_passes, longest_pass;
    double slower; // seconds more that a row takes; a prompt token a quarter of it
    double hiccup; // seconds more that the next pass takes
} Fake;

static FakeTask *fake_task(Task *t) {
    return (FakeTask *)t;
}

static double fake_now(void *context) {
    return ((Fake *)context)->now;
}

static void fake_open(void *context, Task *t) {
    (void)context;
    CHECK(!fake_task(t)->open, "a task that runs is opened");
    CHECK(t->n_done == 0, "a task begins with %d tokens done", t->n_done);
    fake_task(t)->open = true;
}

static void fake_park(void *context, Task *t) {
    (void)context;
    CHECK(fake_task(t)->open, "a task that does not run is parked");
    fake_task(t)->open = false;
    fake_task(t)->n_parked++;
    t->n_done = 0;
}

static uint64_t fake_held(void *context) {
    Fake *f = context;
    uint64_t sum = 0;
    for (ptrdiff_t i = 0; i < arrlen(f->tasks); i++)
        if (f->tasks[i]->open) sum += (uint64_t)f->tasks[i]->task.n_done * BYTES;
    return sum;
}

static uint64_t fake_need(void *context, const Task *t, int n) {
    (void)context, (void)t;
    return (uint64_t)n * BYTES;
}

static void pick(Fake *f, Part *p) {
    FakeTask *x = fake_task(p->task);
    if (!x->first) x->first = f->now;
    else if (f->now - x->last > x->worst_gap) x->worst_gap = f->now - x->last;
    x->last = f->now;
    p->task->n_tokens++;
    p->ended = p->task->n_tokens == x->n_prompt + x->n_answer;
    if (p->ended) x->over = true;
}

static void fake_step(void *context, Part *parts, int n) {
    Fake *f = context;
    int prompt = 0, rows = 0;
    uint64_t held = fake_held(f);
    for (int i = 0; i < n; i++) {
        Task *t = parts[i].task;
        int left = t->n_tokens - t->n_done;
        CHECK(parts[i].n >= 1 && parts[i].n <= left, "a part of %d of %d tokens", parts[i].n, left);
        CHECK(fake_task(t)->open && !t->blocked, "a task that must not be computed is");
        for (int j = 0; j < i; j++) CHECK(parts[j].task != t, "a task is twice in one pass");
        held += (uint64_t)parts[i].n * BYTES;
        if (left == 1) rows++;
        else prompt += parts[i].n;
    }
    if (f->limit) CHECK(held <= f->limit, "%llu bytes of %llu", (unsigned long long)held, (unsigned long long)f->limit);
    if (held > f->most_held) f->most_held = held;
    f->now += FIXED + (ROW + f->slower) * rows + (TOKEN + f->slower / 4) * prompt + f->hiccup;
    f->hiccup = 0;
    f->n_passes++;
    if (prompt > f->longest_pass) f->longest_pass = prompt;
    for (int i = 0; i < n; i++) {
        Part *p = &parts[i];
        if (p->task->n_done + p->n == p->task->n_tokens) pick(f, p);
    }
    for (int i = 0; i < n; i++)
        if (parts[i].ended) fake_task(parts[i].task)->open = false;
}

static void fake_overflow(void *context, Task *t) {
    (void)context;
    fake_task(t)->overflowed = fake_task(t)->over = true;
    fake_task(t)->open = false;
}

static Stepper fake_stepper(Fake *f) {
    return (Stepper){f, fake_now, fake_open, fake_park, fake_held, fake_need, fake_step, fake_overflow, NULL};
}

static FakeTask *add(Fake *f, int n_prompt, int n_answer) {
    FakeTask *t = calloc(1, sizeof *t);
    *t = (FakeTask){.task.n_tokens = n_prompt, .n_prompt = n_prompt, .n_answer = n_answer, .arrived = f->now};
    arrput(f->tasks, t);
    return t;
}

static FakeTask *submit(Scheduler *s, Fake *f, int n_prompt, int n_answer) {
    FakeTask *t = add(f, n_prompt, n_answer);
    CHECK(scheduler_submit(s, &t->task), "the queue is full at task %td", arrlen(f->tasks));
    return t;
}

static void forget(Fake *f) {
    for (ptrdiff_t i = 0; i < arrlen(f->tasks); i++) free(f->tasks[i]);
    arrfree(f->tasks);
}

static const SchedulerOptions usual = {.parallel = 8, .queue = 64, .block = 512, .gap = 0.150};

static void forget_gaps(Fake *f) {
    for (ptrdiff_t i = 0; i < arrlen(f->tasks); i++) f->tasks[i]->worst_gap = 0;
}

// Texts decode, and a prompt of 2,000 tokens arrives: no gap of theirs is longer than 0.15 s, or, where rows are
// slow, than half as long again as with 8 tokens of it, which is at most a gap and a half, unless those 8 alone take
// longer; and it is read at nearly the speed that this leaves. Also where it is there from the beginning, so that
// passes without prompts were never measured.
static void gaps_stay_short(void) {
    static const double slower[] = {0, 0.01, 0.026}; // seven rows and 8 tokens take 0.03, 0.12 and 0.27 s
    for (size_t round = 0; round < 2 * sizeof slower / sizeof *slower; round++) {
        double more = slower[round / 2];
        bool cold = round % 2;
        int n_before = cold ? 0 : 30, n_after = cold ? 15 : 0; // passes that the prompt is not in, and first ones of it
        Fake f = {.now = 1, .slower = more};
        Stepper stepper = fake_stepper(&f);
        Scheduler *s = scheduler_open(&usual, &stepper);
        for (int i = 0; i < 7; i++) submit(s, &f, 20, 400);
        for (int i = 0; i < n_before; i++) scheduler_pass(s);
        FakeTask *late = submit(s, &f, 2000, 10);
        double before = f.now, rows = FIXED + 7 * (ROW + more), token = TOKEN + more / 4, fewest = rows + 8 * token,
               pass = fmax(0.8 * usual.gap, fmax(fewest, 1.5 * fmin(fewest, usual.gap)));
        for (int i = 0; i < n_after; i++) scheduler_pass(s);
        forget_gaps(&f);
        while (scheduler_pass(s)) continue;
        for (int i = 0; i < 7; i++) {
            CHECK(f.tasks[i]->over, "text %d is not over", i);
            CHECK(f.tasks[i]->worst_gap <= pass * 1.25, "text %d: a gap of %.3f s", i, f.tasks[i]->worst_gap);
        }
        double ideal = 2000 / ((pass - rows) / token) * pass;
        CHECK(late->first - before < 1.3 * ideal, "the prompt took %.2f s, expected about %.2f", late->first - before,
              ideal);
        scheduler_close(s);
        forget(&f);
    }
}

// Eight texts at once, whose prompts take 1 s together: while more of them wait than decode, passes are longer than a
// gap, so that they take few (nine of a gap each would be needed), and none is longer than four.
static void bursts_are_read_in_few_passes(void) {
    Fake f = {.now = 1};
    Stepper stepper = fake_stepper(&f);
    Scheduler *s = scheduler_open(&usual, &stepper);
    submit(s, &f, 64, 400);
    for (int i = 0; i < 20; i++) scheduler_pass(s);
    for (int i = 0; i < 7; i++) submit(s, &f, 64, 100);
    int passes = 0;
    while (!f.tasks[7]->first && ++passes < 100) scheduler_pass(s);
    CHECK(passes <= 6, "%d passes", passes);
    CHECK(f.tasks[0]->worst_gap > usual.gap && f.tasks[0]->worst_gap <= 4 * usual.gap, "a gap of %.3f s",
          f.tasks[0]->worst_gap);
    scheduler_close(s);
    forget(&f);
}

// One pass that took a hundred times as long as it should does not make the passes of its size be avoided for ever.
static void hiccups_are_forgotten(void) {
    Fake f = {.now = 1};
    Stepper stepper = fake_stepper(&f);
    Scheduler *s = scheduler_open(&usual, &stepper);
    for (int i = 0; i < 30; i++) {
        submit(s, &f, 280, 1);
        f.hiccup = i == 5 ? 30 : 0;
        while (scheduler_pass(s)) continue;
    }
    double before = f.now;
    submit(s, &f, 280, 1);
    while (scheduler_pass(s)) continue;
    CHECK(f.now - before < 1.1 * (FIXED + 280 * TOKEN), "%.3f s", f.now - before);
    scheduler_close(s);
    forget(&f);
}

// One long prompt under a stream of short ones that would fill every pass: ageing lets it through.
static void long_prompts_are_not_starved(void) {
    Fake f = {.now = 1};
    Stepper stepper = fake_stepper(&f);
    Scheduler *s = scheduler_open(&usual, &stepper);
    FakeTask *big = submit(s, &f, 3000, 2);
    for (int i = 0; i < 3000 && !big->over; i++) {
        while (scheduler_state(s).running + scheduler_state(s).waiting < 4) submit(s, &f, 300, 1);
        scheduler_pass(s);
    }
    CHECK(big->over && big->first - big->arrived < 30, "after %.1f s", f.now - big->arrived);
    scheduler_close(s);
    forget(&f);
}

static void short_prompts_go_first(void) {
    Fake f = {.now = 1};
    Stepper stepper = fake_stepper(&f);
    Scheduler *s = scheduler_open(&usual, &stepper);
    FakeTask *big = submit(s, &f, 4000, 1);
    scheduler_pass(s);
    FakeTask *small = submit(s, &f, 30, 1);
    scheduler_pass(s);
    CHECK(small->over && !big->over, "a prompt of 30 tokens waits for one of 4000");
    scheduler_close(s);
    forget(&f);
}

static int fake_piece(void *context, const Task *t) {
    (void)context;
    int left = t->n_tokens - t->n_done, border = 48 - t->n_done % 48;
    return left < border ? left : border;
}

static void fake_step_pieces(void *context, Part *parts, int n) {
    for (int i = 0; i < n; i++) {
        int piece = fake_piece(NULL, parts[i].task);
        CHECK(parts[i].n == piece, "a part of %d tokens behind %d, expected %d", parts[i].n, parts[i].task->n_done,
              piece);
    }
    fake_step(context, parts, n);
}

// Where the one who computes names the pieces, no budget and no shortage of memory cuts them.
static void pieces_are_whole(void) {
    for (int i = 0; i < 2; i++) {
        Fake f = {.now = 1, .limit = i ? 700 * BYTES : 0};
        Stepper stepper = fake_stepper(&f);
        stepper.piece = fake_piece;
        stepper.step = fake_step_pieces;
        SchedulerOptions o = usual;
        o.kv_bytes = f.limit;
        Scheduler *s = scheduler_open(&o, &stepper);
        for (int k = 0; k < 6; k++) submit(s, &f, 150 + 31 * k, 40);
        int passes = 0;
        while (scheduler_pass(s) && ++passes < 100000) continue;
        for (int k = 0; k < 6; k++) CHECK(f.tasks[k]->over && !f.tasks[k]->overflowed, "text %d is not complete", k);
        scheduler_close(s);
        forget(&f);
    }
}

static void queue_has_a_limit(void) {
    Fake f = {.now = 1};
    Stepper stepper = fake_stepper(&f);
    SchedulerOptions o = usual;
    o.parallel = 2;
    o.queue = 3;
    Scheduler *s = scheduler_open(&o, &stepper);
    int accepted = 0;
    for (int i = 0; i < 9; i++) accepted += scheduler_submit(s, &add(&f, 10, 5)->task);
    CHECK(accepted == 3, "before a pass: %d of 9 tasks accepted, expected 3", accepted);
    scheduler_pass(s); // two begin
    for (int i = 0; i < 9; i++) accepted += scheduler_submit(s, &add(&f, 10, 5)->task);
    CHECK(accepted == 5, "after a pass: %d accepted, expected 5", accepted);
    while (scheduler_pass(s)) continue;
    int over = 0;
    for (ptrdiff_t i = 0; i < arrlen(f.tasks); i++) over += f.tasks[i]->over;
    CHECK(over == 5, "%d over", over);
    scheduler_close(s);
    forget(&f);
}

// Memory for about one and a half texts: each is completed, the oldest first, and none is over the limit (fake_step
// checks that). One that has no room even alone ends.
static void memory_is_kept(void) {
    Fake f = {.now = 1, .limit = 1500 * BYTES};
    Stepper stepper = fake_stepper(&f);
    SchedulerOptions o = usual;
    o.kv_bytes = f.limit;
    Scheduler *s = scheduler_open(&o, &stepper);
    for (int i = 0; i < 6; i++) submit(s, &f, 200, 800);
    FakeTask *too_long = submit(s, &f, 100, 2000);
    int passes = 0;
    while (scheduler_pass(s) && ++passes < 100000) continue;
    int parked = 0;
    for (int i = 0; i < 6; i++) {
        CHECK(f.tasks[i]->over && !f.tasks[i]->overflowed, "text %d is not complete", i);
        if (i) CHECK(f.tasks[i]->last >= f.tasks[i - 1]->last, "text %d is complete before an older one", i);
        parked += f.tasks[i]->n_parked;
    }
    CHECK(too_long->overflowed, "a text beyond the memory goes on");
    CHECK(parked > 0 && parked < 40, "parked %d times", parked);
    CHECK(f.most_held > f.limit * 9 / 10, "%llu bytes held at most", (unsigned long long)f.most_held);
    scheduler_close(s);
    forget(&f);
}

static void blocked_tasks_are_not_computed(void) {
    Fake f = {.now = 1};
    Stepper stepper = fake_stepper(&f);
    Scheduler *s = scheduler_open(&usual, &stepper);
    FakeTask *a = submit(s, &f, 10, 50), *b = submit(s, &f, 10, 50);
    scheduler_pass(s);
    a->task.blocked = true;
    while (scheduler_pass(s)) continue;
    CHECK(b->over && a->task.n_tokens == 11, "the blocked text has %d tokens", a->task.n_tokens);
    a->task.blocked = false;
    while (scheduler_pass(s)) continue;
    CHECK(a->over, "the text does not go on");
    scheduler_close(s);
    forget(&f);
}

// Arrivals, cancels and blocks at random under a memory limit: fake_step checks every pass, all that is not cancelled
// is completed.
static void random_loads(void) {
    for (int round = 0; round < 20; round++) {
        Fake f = {.now = 1, .limit = round % 2 ? 3000 * BYTES : 0};
        Stepper stepper = fake_stepper(&f);
        SchedulerOptions o = usual;
        o.kv_bytes = f.limit;
        o.parallel = 1 + (int)(test_u32() % 12);
        Scheduler *s = scheduler_open(&o, &stepper);
        int cancelled = 0;
        for (int i = 0; i < 1500; i++) {
            if (test_u32() % 8 == 0 && scheduler_state(s).waiting < 60)
                submit(s, &f, 1 + (int)(test_u32() % (test_u32() % 16 ? 100 : 1500)), 1 + (int)(test_u32() % 60));
            FakeTask *t = arrlen(f.tasks) ? f.tasks[arrlen(f.tasks) - 1 - test_u32() % 12 % arrlen(f.tasks)] : NULL;
            if (t && !t->over && test_u32() % 32 == 0) {
                scheduler_cancel(s, &t->task);
                t->open = false;
                t->over = ++cancelled;
            }
            if (t) t->task.blocked = test_u32() % 4 == 0;
            scheduler_pass(s);
        }
        for (ptrdiff_t i = 0; i < arrlen(f.tasks); i++) f.tasks[i]->task.blocked = false;
        for (int i = 0; i < 100000 && scheduler_pass(s); i++) continue;
        for (ptrdiff_t i = 0; i < arrlen(f.tasks); i++) {
            CHECK(f.tasks[i]->over && !f.tasks[i]->overflowed, "round %d: task %td of %td is not complete", round, i,
                  arrlen(f.tasks));
        }
        CHECK(cancelled > 5 && f.n_passes > 500, "round %d: %d cancelled, %d passes", round, cancelled, f.n_passes);
        CHECK(scheduler_state(s).running == 0 && scheduler_state(s).waiting == 0, "round %d: some are left", round);
        scheduler_close(s);
        forget(&f);
    }
}

int main(void) {
    RUN(gaps_stay_short);
    RUN(bursts_are_read_in_few_passes);
    RUN(hiccups_are_forgotten);
    RUN(long_prompts_are_not_starved);
    RUN(short_prompts_go_first);
    RUN(pieces_are_whole);
    RUN(queue_has_a_limit);
    RUN(memory_is_kept);
    RUN(blocked_tasks_are_not_computed);
    RUN(random_loads);
    return test_report();
}
