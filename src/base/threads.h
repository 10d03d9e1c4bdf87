// threads: the pool.
//
// Owns the worker threads and the hand-off: spin briefly, then futex. A region is a number of items that the caller and
// the workers draw from one counter; it ends when its items are done, not when every worker has come by, so a worker
// that the system has put aside delays nobody. What an item computes must not depend on who draws it: then results are
// the same for any number of threads.
#pragma once
#include "profile.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct ThreadPool ThreadPool;

// item: 0..n_items-1; worker: 0..n_threads-1, for scratch memory of one's own.
typedef void (*ThreadTask)(void *context, int item, int worker);

enum { MAX_THREADS = 256, MAX_ITEMS = (1 << 20) - MAX_THREADS - 1 };

// n_threads counts the caller: 1 starts no thread. NULL with a line in err when a thread cannot be started.
ThreadPool *threads_start(int n_threads, char *err, size_t errlen);
void threads_stop(ThreadPool *p); // accepts NULL
int threads_count(const ThreadPool *p);

// Time the pool's regions, and what is done with them, into a profile; NULL, as at the start: nothing is timed.
void threads_set_profile(ThreadPool *p, Profile *profile);
Profile *threads_profile(const ThreadPool *p);

// The items in an order in which those that one thread draws, of n_parts that take turns, follow one another: n_parts
// stretches of n_items. For items that read on in memory where the one before stopped.
int threads_in_stretches(int item, int n_items, int n_parts);

// Run task(context, 0..n_items-1) and return when all are done. One caller at a time; not from inside a task.
void threads_for(ThreadPool *p, int n_items, ThreadTask task, void *context);
// The same on the calling thread alone, as worker 0, when the work is too small for a hand-off (about a microsecond).
void threads_for_if(bool worth_it, ThreadPool *p, int n_items, ThreadTask task, void *context);
