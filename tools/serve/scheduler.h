// scheduler: decides which tokens the next pass computes.
//
// Owns the queue, the list of running tasks, and what passes were measured to cost. Refuses tasks beyond the queue's
// limit. Knows no text, no HTTP and no engine: who computes fills a Stepper (worker.c; a fake in check_scheduler.c).
//
// A pass takes the next token of every task that decodes, then as many prompt tokens as its time has room for, by what
// passes of its size took: the gap between two tokens of a text stays under `gap` while prompts always advance. Where
// more tasks wait for their first token than decode, a pass may take longer in proportion, up to four gaps; where the
// model is too slow for the gap, half as long again as with the fewest prompt tokens, within a gap and a half.
// Of several prompts the one goes first whose seconds left, less its seconds waited, are fewest. When memory is short
// the youngest task loses what was computed for it and waits again in front of the queue.
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int n_tokens;  // of the text so far; the owner adds what it picks
    int n_done;    // of these, computed
    bool blocked;  // its reader is behind: the owner keeps it from being computed
    double since;  // when it was submitted, in the Stepper's clock
    int64_t order; // tasks submitted before it
} Task;

typedef struct {
    Task *task;
    int n;      // of its tokens, from n_done on
    bool ended; // set by step: the task is over, and the scheduler forgets it
} Part;

// Who computes.
typedef struct {
    void *context;
    double (*now)(void *context);                          // seconds
    void (*open)(void *context, Task *t);                  // begin a timeline; sets n_done, tokens that are known
    void (*park)(void *context, Task *t);                  // drop the timeline; n_done becomes 0
    uint64_t (*held)(void *context);                       // bytes of all timelines
    uint64_t (*need)(void *context, const Task *t, int n); // bytes that n more tokens would add
    void (*step)(void *context, Part *parts, int n);       // compute them all as one pass
    void (*overflow)(void *context, Task *t);              // the task, alone, has no room to go on: it is over
    int (*piece)(void *context, const Task *t);            // tokens that must be computed next, at once; NULL: any
} Stepper;

typedef struct {
    int parallel;      // tasks that run at once
    int queue;         // tasks that may wait
    int block;         // most tokens of a pass
    double gap;        // seconds between two tokens of a text
    uint64_t kv_bytes; // most bytes of all timelines; 0: no limit
} SchedulerOptions;

typedef struct Scheduler Scheduler;

Scheduler *scheduler_open(const SchedulerOptions *o, const Stepper *stepper); // NULL: out of memory
void scheduler_close(Scheduler *s);                                           // accepts NULL; tasks are their owner's

bool scheduler_submit(Scheduler *s, Task *t); // false: the queue is full
void scheduler_cancel(Scheduler *s, Task *t); // between passes: the scheduler forgets it; its timeline is the owner's
int scheduler_pass(Scheduler *s);             // one pass; returns its parts, 0: nothing could be computed

typedef struct {
    int running, waiting;
    int64_t parked; // how often a task lost its timeline
    double token_s; // seconds a prompt token took lately; 0: not measured yet
} SchedulerState;
SchedulerState scheduler_state(const Scheduler *s);
