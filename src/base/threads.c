// threads: see threads.h.
//
// One 64-bit word holds the open region: generation (24 bits), number of items (20), next item (20). Taking an item is
// one fetch_add on it. The region stays open until the item is done, so the thread that took it may read the task and
// its context safely, even if it slept through the region that it meant to join.
#include "threads.h"

#include "cpu.h"
#include "file.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ITEM_BITS = 20,
    ITEM_MASK = (1 << ITEM_BITS) - 1,
    CACHE_LINE = 64,
    SPINS = 4000, // about 50-100 us: the gaps between regions of a decode step are shorter
};

typedef struct {
    ThreadPool *pool;
    pthread_t thread;
    int index;
} Worker;

struct ThreadPool {
    alignas(CACHE_LINE) _Atomic uint64_t region;    // generation | n_items | next item
    alignas(CACHE_LINE) _Atomic uint32_t n_undone;  // unfinished items of the open region; futex of the caller
    alignas(CACHE_LINE) _Atomic uint32_t n_regions; // opened so far; futex of the workers
    _Atomic int n_asleep;
    _Atomic int caller_asleep;
    _Atomic int stop;
    ThreadTask task;
    void *context;
    int n_threads, n_hot; // n_hot: workers that spin and are woken, at most cores - 1
    Worker *workers;
    RegionHook hook; // or NULL
    void *hook_context;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_items(ThreadPool *p, int worker) {
    for (;;) {
        uint64_t seen = atomic_load_explicit(&p->region, memory_order_acquire);
        if ((seen & ITEM_MASK) >= (seen >> ITEM_BITS & ITEM_MASK)) return; // nothing left: do not overshoot the counter
        uint64_t word = atomic_fetch_add_explicit(&p->region, 1, memory_order_acq_rel);
        uint64_t item = word & ITEM_MASK, n_items = word >> ITEM_BITS & ITEM_MASK;
        if (item >= n_items) return;
        p->task(p->context, (int)item, worker);
        if (atomic_fetch_sub(&p->n_undone, 1) == 1 && atomic_load(&p->caller_asleep)) futex_wake(&p->n_undone, 1);
    }
}

static void *worker_main(void *argument) {
    Worker *w = argument;
    ThreadPool *p = w->pool;
    int spins = w->index <= p->n_hot ? SPINS : 0;
    uint32_t n_seen = 0;
    while (!atomic_load_explicit(&p->stop, memory_order_acquire)) {
        for (int i = 0; i < spins && atomic_load_explicit(&p->n_regions, memory_order_acquire) == n_seen; i++)
            pause_briefly();
        if (atomic_load(&p->n_regions) == n_seen) {
            atomic_fetch_add(&p->n_asleep, 1);
            futex_wait(&p->n_regions, n_seen); // returns at once if a region was opened since
            atomic_fetch_sub(&p->n_asleep, 1);
        }
        n_seen = atomic_load(&p->n_regions);
        run_items(p, w->index);
    }
    return NULL;
}

static void wait_until_done(ThreadPool *p) {
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->n_undone, memory_order_acquire); i++) pause_briefly();
    uint32_t left;
    while ((left = atomic_load(&p->n_undone))) {
        atomic_store(&p->caller_asleep, 1);
        futex_wait(&p->n_undone, left);
        atomic_store(&p->caller_asleep, 0);
    }
}

static void call_hook(const ThreadPool *p, RegionMoment moment) {
    if (p->hook) p->hook(p->hook_context, moment);
}

static void run_region(ThreadPool *p, int n_items, ThreadTask task, void *context) {
    call_hook(p, REGION_OPENED);
    p->task = task;
    p->context = context;
    atomic_store_explicit(&p->n_undone, (uint32_t)n_items, memory_order_relaxed);
    uint64_t generation = (atomic_load_explicit(&p->region, memory_order_relaxed) >> 2 * ITEM_BITS) + 1;
    atomic_store(&p->region, generation << 2 * ITEM_BITS | (uint64_t)n_items << ITEM_BITS);
    atomic_fetch_add(&p->n_regions, 1);
    if (atomic_load(&p->n_asleep)) {
        int wanted = n_items - 1 < p->n_hot ? n_items - 1 : p->n_hot; // more than the cores could not run anyway
        futex_wake(&p->n_regions, wanted);
    }
    run_items(p, 0);
    call_hook(p, REGION_DRAINED);
    wait_until_done(p);
    call_hook(p, REGION_DONE);
}

// The first n_items % n_parts ranges are one item longer.
int threads_contiguous_index(int item, int n_items, int n_parts) {
    int range = item % n_parts, longer = n_items % n_parts;
    return range * (n_items / n_parts) + (range < longer ? range : longer) + item / n_parts;
}

int threads_part_of(int item, const int *starts, int n) {
    int part = (int)((int64_t)item * n / starts[n]);
    while (starts[part] > item) part--;
    while (starts[part + 1] <= item) part++;
    return part;
}

void threads_for_if(bool worth_it, ThreadPool *p, int n_items, ThreadTask task, void *context) {
    if (worth_it && p->n_threads > 1 && n_items > 1) {
        run_region(p, n_items, task, context);
    } else {
        for (int i = 0; i < n_items; i++) task(context, i, 0);
    }
}

void threads_for(ThreadPool *p, int n_items, ThreadTask task, void *context) {
    threads_for_if(true, p, n_items, task, context);
}

void threads_stop(ThreadPool *p) {
    if (!p) return;
    atomic_store(&p->stop, 1);
    atomic_fetch_add(&p->n_regions, 1);
    futex_wake(&p->n_regions, MAX_THREADS);
    for (int i = 1; i < p->n_threads; i++) pthread_join(p->workers[i].thread, NULL);
    free(p->workers);
    free(p);
}

// Start the worker's thread. Signals are for the program's own threads, where they end a wait for input; only faults,
// which belong to the thread that runs into them, reach a worker. Returns pthread_create's error.
static int start_without_signals(Worker *w) {
    sigset_t blocked, before;
    sigfillset(&blocked);
    const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

ThreadPool *threads_start(int n_threads, char *err, size_t errlen) {
    if (n_threads < 1) n_threads = 1;
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    ThreadPool *p = aligned_alloc(CACHE_LINE, sizeof *p);
    if (p) {
        memset(p, 0, sizeof *p);
        p->n_threads = 1;
        p->workers = calloc((size_t)n_threads, sizeof *p->workers);
    }
    if (!p || !p->workers) {
        free(p);
        fail(err, errlen, "threads: out of memory");
        return NULL;
    }
    int n_cores = cpu_count();
    p->n_hot = (n_threads < n_cores ? n_threads : n_cores) - 1;
    for (int i = 1; i < n_threads; i++, p->n_threads++) {
        p->workers[i] = (Worker){.pool = p, .index = i};
        int rc = start_without_signals(&p->workers[i]);
        if (rc) {
            fail(err, errlen, "threads: cannot start thread %d of %d: %s; try a smaller -t", i + 1, n_threads,
                 strerror(rc));
            threads_stop(p);
            return NULL;
        }
    }
    return p;
}

int threads_count(const ThreadPool *p) {
    return p->n_threads;
}

void threads_set_hook(ThreadPool *p, RegionHook hook, void *context) {
    p->hook = hook;
    p->hook_context = context;
}
