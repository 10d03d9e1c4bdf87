// worker: see worker.h.
#include "worker.h"

#include "choice.h"
#include "engine.h"
#include "file.h"

#include <pthread.h>
#include <stdlib.h>

#include <stb/stb_ds.h>

enum { EXACT_PIECE = 32 }; // prompt tokens

struct Worker {
    const Served *model;
    SessionOptions session;
    Scheduler *scheduler;
    Metrics *metrics;
    Mailbox *inbox, *outbox;
    Choice **choices;      // stb_ds array: all that are not complete
    Job **maps;            // stb_ds array: jobs with a map, oldest first
    StepSegment *segments; // stb_ds array: of the pass
    bool exact;
    uint64_t token_bytes; // of the KV cache, an upper estimate
    pthread_t thread;
    atomic_bool stops;
};

static void send(Worker *w, Output *e) {
    if (e) mailbox_put(w->outbox, &e->letter);
}

// The choice is complete, `e` says how.
static void end_choice(Worker *w, Choice *c, Output *e) {
    Job *job = c->job;
    e->over = ++job->n_ended == job->n_choices;
    for (ptrdiff_t i = 0; i < arrlen(w->choices); i++) {
        if (w->choices[i] != c) continue;
        arrdelswap(w->choices, i);
        break;
    }
    w->metrics->n_generated += (uint64_t)c->n_new;
    if (!job->cancelled) histogram_add(&w->metrics->whole, clock_seconds() - job->arrived);
    choice_close(c);
    send(w, e);
}

// ---- the scheduler's Stepper

static double step_now(void *context) {
    (void)context;
    return clock_seconds();
}

static void step_open(void *context, Task *t) {
    Worker *w = context;
    Choice *c = (Choice *)t;
    char err[256];
    if (c->session) return;                                                    // forked
    c->session = session_open(w->model->engine, &w->session, err, sizeof err); // step_run tells of a failure
    if (c->pool) {                                                             // every token's state is wanted
        t->n_done = 0;
        pool_reset(c->pool);
        if (c->session) session_visit_states(c->session, pool_add, c->pool);
    } else t->n_done = c->session ? session_keep(c->session, c->tokens, t->n_tokens) : 0;
    if (c->n_new) return; // it was parked
    c->n_cached = t->n_done;
    histogram_add(&w->metrics->queue, clock_seconds() - c->job->arrived);
    w->metrics->n_prompt += (uint64_t)c->n_prompt;
    w->metrics->n_cached += (uint64_t)c->n_cached;
}

static void step_park(void *context, Task *t) {
    (void)context;
    Choice *c = (Choice *)t;
    session_close(c->session);
    c->session = NULL;
    t->n_done = 0;
}

static uint64_t step_held(void *context) {
    Worker *w = context;
    PrefixInfo info = engine_prefixes(w->model->engine);
    uint64_t sum = info.kv_bytes > info.bytes ? info.kv_bytes - info.bytes : 0; // what later texts may find can go
    for (ptrdiff_t i = 0; i < arrlen(w->choices); i++)
        if (w->choices[i]->session) sum += session_info(w->choices[i]->session).state_bytes;
    return sum;
}

static uint64_t step_need(void *context, const Task *t, int n) {
    (void)t;
    return (uint64_t)n * ((Worker *)context)->token_bytes;
}

// Of an exact text: its prompt in pieces from the beginning, then, where it was parked, as few tokens as give the same
// bits one at a time.
static int step_piece(void *context, const Task *t) {
    (void)context;
    const Choice *c = (const Choice *)t;
    int left = t->n_tokens - t->n_done, border = (t->n_done / EXACT_PIECE + 1) * EXACT_PIECE;
    if (t->n_done >= c->n_prompt) return left < EXACT_ROWS ? left : EXACT_ROWS;
    return (border < c->n_prompt ? border : c->n_prompt) - t->n_done;
}

static void count_token(Worker *w, Choice *c) {
    double now = clock_seconds();
    histogram_add(c->last > 0 ? &w->metrics->gap : &w->metrics->first_token,
                  now - (c->last > 0 ? c->last : c->job->arrived));
    c->last = now;
}

// Returns whether the choice is complete.
static bool pick(Worker *w, Choice *c) {
    bool ended;
    Output *e = choice_pick(c, session_logits(c->session), &ended);
    count_token(w, c);
    if (ended) end_choice(w, c, e);
    else send(w, e);
    return ended;
}

// The other choices of a prompt begin where the first one has read it.
static void fork_choices(Worker *w, Choice *first) {
    for (ptrdiff_t i = arrlen(w->choices) - 1; i >= 0; i--) {
        Choice *c = w->choices[i];
        char err[256];
        if (c->leader != first) continue;
        c->leader = NULL;
        c->session = session_fork(first->session, err, sizeof err); // NULL: it reads the prompt for itself
        c->n_cached = c->session ? c->n_prompt : 0;
        c->task.n_done = c->n_cached;
        if (!c->session || !pick(w, c)) scheduler_submit(w->scheduler, &c->task);
    }
}

// Those that wait for a choice that ends before its first token go on by themselves.
static void drop_leader(Worker *w, const Choice *first) {
    for (ptrdiff_t i = 0; i < arrlen(w->choices); i++) {
        if (w->choices[i]->leader != first) continue;
        w->choices[i]->leader = NULL;
        scheduler_submit(w->scheduler, &w->choices[i]->task);
    }
}

static void end_part(Worker *w, Part *p, const StepSegment *g) {
    Choice *c = (Choice *)p->task;
    if (!c->session || g->err[0]) {
        ApiError error;
        api_fail(&error, 500, NULL, "%s", c->session ? g->err : "out of memory for a session");
        p->ended = true;
        drop_leader(w, c);
        end_choice(w, c, choice_end(c, &error));
    } else if (p->task->n_done + p->n == p->task->n_tokens && c->pool) {
        p->ended = true;
        end_choice(w, c, choice_embed(c));
    } else if (p->task->n_done + p->n == p->task->n_tokens) {
        if (!c->n_new) fork_choices(w, c);
        p->ended = pick(w, c);
    }
}

static void step_run(void *context, Part *parts, int n) {
    Worker *w = context;
    int n_segments = 0, k = 0;
    arrsetlen(w->segments, n);
    for (int i = 0; i < n; i++) {
        const Choice *c = (const Choice *)parts[i].task;
        int done = c->task.n_done;
        if (!c->session) continue;
        w->segments[n_segments++] = (StepSegment){.session = c->session,
                                                  .tokens = c->tokens + done,
                                                  .n = parts[i].n,
                                                  .logits = !c->pool && done + parts[i].n == c->task.n_tokens};
    }
    engine_step(w->model->engine, w->segments, n_segments, w->exact);
    for (int i = 0; i < n; i++) {
        bool computed = ((const Choice *)parts[i].task)->session;
        end_part(w, &parts[i], computed ? &w->segments[k] : NULL);
        k += computed;
    }
}

static void step_overflow(void *context, Task *t) {
    drop_leader(context, (Choice *)t);
    end_choice(context, (Choice *)t, choice_end((Choice *)t, NULL));
}

// ---- the thread

// A choice that cannot even begin.
static void refuse(Worker *w, Job *job, int index, const ApiError *error) {
    Output *e = output_new(job, index);
    output_fail(e, error);
    e->over = ++job->n_ended == job->n_choices;
    send(w, e);
}

static void begin(Worker *w, Job *job) {
    Choice *leader = NULL;
    int each = job->request.n_choices;
    if (job->map) {
        arrput(w->maps, job);
        return;
    }
    job->n_choices = (int)arrlen(job->request.prompts) * each;
    for (int i = 0, n = job->n_choices; i < n; i++) {
        ApiError error;
        Choice *c = choice_open(job, w->model, i, &error);
        if (!c) {
            refuse(w, job, i, &error);
            continue;
        }
        if (i % each == 0) leader = NULL;
        c->leader = leader;
        arrput(w->choices, c);
        if (leader) continue; // fork_choices submits it
        leader = c;
        scheduler_submit(w->scheduler, &c->task); // the server's limit is below the scheduler's
    }
}

// What the event thread has asked for since the last pass.
static void look_at_flags(Worker *w) {
    for (ptrdiff_t i = arrlen(w->choices) - 1; i >= 0; i--) {
        Choice *c = w->choices[i];
        c->task.blocked = c->job->blocked;
        if (!c->job->cancelled) continue;
        scheduler_cancel(w->scheduler, &c->task);
        end_choice(w, c, output_new(c->job, c->index));
    }
}

// The next step of the oldest map. Returns whether there was one.
static bool step_map(Worker *w) {
    Job *job = arrlen(w->maps) ? w->maps[0] : NULL;
    if (!job) return false;
    if (!job->cancelled && attention_map_step(job->map)) return true;
    ApiError error;
    Output *e = output_new(job, 0);
    e->over = true;
    e->body = job->cancelled ? NULL : attention_map_json(job->map, &error);
    if (!job->cancelled && !e->body) output_fail(e, &error);
    attention_map_close(job->map);
    arrdel(w->maps, 0);
    send(w, e);
    return true;
}

static void *work(void *context) {
    Worker *w = context;
    while (!w->stops) {
        for (Letter *l = mailbox_take(w->inbox), *next; l; l = next) {
            next = l->next;
            begin(w, (Job *)l);
        }
        look_at_flags(w);
        bool idle = !scheduler_pass(w->scheduler);
        idle &= !step_map(w);
        SchedulerState state = scheduler_state(w->scheduler);
        w->metrics->running = state.running;
        w->metrics->waiting = state.waiting;
        w->metrics->n_parked = (uint64_t)state.parked;
        w->metrics->kv_bytes = step_held(w);
        if (idle) mailbox_wait(w->inbox);
    }
    return NULL;
}

Worker *worker_open(const Served *model, const SessionOptions *session, const SchedulerOptions *scheduler, bool exact,
                    Metrics *metrics, Mailbox *outbox, char *err, size_t errlen) {
    Worker *w = calloc(1, sizeof *w);
    if (w) {
        EngineInfo info = engine_info(model->engine);
        *w = (Worker){.model = model, .session = *session, .exact = exact, .metrics = metrics, .outbox = outbox};
        w->token_bytes = (uint64_t)info.n_layers * (uint64_t)info.n_kv_heads * (uint64_t)info.head_dim * 2 *
                         (session->kv == KV_F32 ? 4 : 2);
        const Stepper stepper = {w,         step_now,      step_open,
                                 step_park, step_held,     step_need,
                                 step_run,  step_overflow, exact ? step_piece : NULL};
        w->scheduler = scheduler_open(scheduler, &stepper);
        w->inbox = mailbox_open();
        if (w->scheduler && w->inbox && !pthread_create(&w->thread, NULL, work, w)) return w;
        scheduler_close(w->scheduler);
        mailbox_close(w->inbox);
    }
    free(w);
    fail(err, errlen, "the engine's thread could not be started: out of memory");
    return NULL;
}

void worker_close(Worker *w) {
    if (!w) return;
    w->stops = true;
    worker_wake(w);
    pthread_join(w->thread, NULL);
    scheduler_close(w->scheduler);
    mailbox_close(w->inbox);
    arrfree(w->choices);
    for (ptrdiff_t i = 0; i < arrlen(w->maps); i++) attention_map_close(w->maps[i]->map);
    arrfree(w->maps);
    arrfree(w->segments);
    free(w);
}

void worker_give(Worker *w, Job *job) {
    mailbox_put(w->inbox, &job->letter);
}

void worker_wake(Worker *w) {
    mailbox_put(w->inbox, NULL);
}
