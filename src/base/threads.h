// threads: the thread pool.
//
// Owns the worker threads and how they wait: spin briefly, then futex. A parallel region is a number of items that the
// caller and the workers take from one counter. It ends when its items are done, not when every worker has arrived, so
// a descheduled worker delays nobody. What an item computes must not depend on the thread that runs it: then results
// are the same for any number of threads. Called by ops, attention and the tools.
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct ThreadPool ThreadPool;

// item: 0..n_items-1; worker: 0..n_threads-1, the index of the thread, e.g. for its scratch memory.
typedef void (*ThreadTask)(void *context, int item, int worker);

enum { MAX_THREADS = 256, MAX_ITEMS = (1 << 20) - MAX_THREADS - 1 };

// n_threads includes the caller: 1 starts no thread. The others block all signals but faults. NULL with a line in err
// when a thread cannot be started.
ThreadPool *threads_start(int n_threads, char *err, size_t errlen);
void threads_stop(ThreadPool *p); // accepts NULL
int threads_count(const ThreadPool *p);

// Called on the caller's thread around each region: when it opens, when no item is left for the caller, and when all
// items are done. NULL (the default): no hook.
typedef enum { REGION_OPENED, REGION_DRAINED, REGION_DONE } RegionMoment;
typedef void (*RegionHook)(void *context, RegionMoment moment);
void threads_set_hook(ThreadPool *p, RegionHook hook, void *context);

// Maps the item taken to the item to run, so that each of n_parts threads taking turns runs a contiguous range of the
// n_items. For items that continue reading memory where the previous item stopped.
int threads_contiguous_index(int item, int n_items, int n_parts);

// Of n parts whose items are numbered consecutively, the part of an item: starts[part] <= item < starts[part + 1].
// starts: [n + 1], from 0 to the number of items. Fast where the parts are of about the same size.
int threads_part_of(int item, const int *starts, int n);

// Run task(context, 0..n_items-1) and return when all are done. One caller at a time; not from inside a task.
void threads_for(ThreadPool *p, int n_items, ThreadTask task, void *context);
// The same, on the calling thread alone (worker 0) if not worth_it: a parallel region costs about a microsecond.
void threads_for_if(bool worth_it, ThreadPool *p, int n_items, ThreadTask task, void *context);
