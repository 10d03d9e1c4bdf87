// check_threads: every item once, what a region wrote is seen after it, and nothing hangs: many sizes, many
// threads, tiny regions, workers asleep, more threads than cores, start and stop.
#include "reference.h"

#include "threads.h"

#include <signal.h>
#include <stdatomic.h>

static const int counts[] = {1, 2, 3, 4, 5, 7, 8, 11, 16};

static ThreadPool *start(int n_threads) {
    char err[200] = "";
    ThreadPool *p = threads_start(n_threads, err, sizeof err);
    CHECK(p, "threads_start(%d): %s", n_threads, err);
    CHECK(!p || threads_count(p) == n_threads, "threads_start(%d) counts %d", n_threads, threads_count(p));
    return p;
}

// ---- every item once

typedef struct {
    uint8_t *drawn; // plain memory: an item belongs to one thread
    int *by_worker; // [n_threads]: a worker index belongs to one thread
    int n_items, n_threads, out_of_range;
} Draws;

static void draw(void *context, int item, int worker) {
    Draws *d = context;
    if (item < 0 || item >= d->n_items || worker < 0 || worker >= d->n_threads) {
        d->out_of_range = 1;
        return;
    }
    d->drawn[item]++;
    d->by_worker[worker]++;
}

static void check_region(ThreadPool *p, int n_items) {
    int n_threads = threads_count(p);
    Draws d = {.n_items = n_items, .n_threads = n_threads};
    d.drawn = need((size_t)n_items);
    d.by_worker = need(sizeof(int) * (size_t)n_threads);
    memset(d.drawn, 0, (size_t)n_items);
    memset(d.by_worker, 0, sizeof(int) * (size_t)n_threads);
    threads_for(p, n_items, draw, &d);
    int wrong = 0, total = 0;
    for (int i = 0; i < n_items; i++) wrong += d.drawn[i] != 1;
    for (int i = 0; i < n_threads; i++) total += d.by_worker[i];
    CHECK(!wrong, "%d threads, %d items: %d not run exactly once", n_threads, n_items, wrong);
    CHECK(total == n_items, "%d threads, %d items: workers count %d", n_threads, n_items, total);
    CHECK(!d.out_of_range, "%d threads, %d items: an item or a worker out of range", n_threads, n_items);
    free(d.drawn);
    free(d.by_worker);
}

static void every_item_once(void) {
    static const int sizes[] = {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 100, 1000, 4097, 50000};
    for (int c = 0; c < N_OF(counts); c++) {
        ThreadPool *p = start(counts[c]);
        if (!p) return;
        for (int round = 0; round < (quick() ? 1 : 4); round++) {
            for (int s = 0; s < N_OF(sizes) - quick(); s++) check_region(p, sizes[s]);
        }
        for (int n = 0; n < 40; n++) check_region(p, n);
        threads_stop(p);
    }
}

static void the_largest_region(void) {
    ThreadPool *p = start(3);
    if (!p) return;
    check_region(p, quick() ? MAX_ITEMS / 16 : MAX_ITEMS);
    check_region(p, 5);
    threads_stop(p);
}

// ---- thousands of tiny regions, each reading what the one before wrote

enum { CHAIN_WIDTH = 13 };

typedef struct {
    uint64_t from[CHAIN_WIDTH], to[CHAIN_WIDTH]; // plain memory
} Chain;

static void chain_step(void *context, int item, int worker) {
    (void)worker;
    Chain *c = context;
    c->to[item] = 3 * c->from[item] + c->from[(item + 5) % CHAIN_WIDTH] + (uint64_t)item;
}

static void copy_step(void *context, int item, int worker) {
    (void)worker;
    Chain *c = context;
    c->from[item] = c->to[item];
}

static void writes_are_seen(void) {
    int n_steps = quick() ? 300 : 3000;
    Chain expected = {0};
    for (int i = 0; i < n_steps; i++) {
        for (int item = 0; item < CHAIN_WIDTH; item++) chain_step(&expected, item, 0);
        for (int item = 0; item < CHAIN_WIDTH; item++) copy_step(&expected, item, 0);
    }
    for (int c = 0; c < N_OF(counts); c++) {
        ThreadPool *p = start(counts[c]);
        if (!p) return;
        Chain chain = {0};
        for (int i = 0; i < n_steps; i++) {
            threads_for(p, CHAIN_WIDTH, chain_step, &chain);
            threads_for(p, CHAIN_WIDTH, copy_step, &chain);
        }
        CHECK(!memcmp(&chain, &expected, sizeof chain), "%d threads: %d dependent regions went wrong", counts[c],
              2 * n_steps);
        threads_stop(p);
    }
}

// Regions of changing size and context on the caller's stack: a late worker must not touch a region that is over.
static void add_one(void *context, int item, int worker) {
    (void)worker;
    ((int *)context)[item]++;
}

static void contexts_end_with_their_region(void) {
    for (int c = 1; c < N_OF(counts); c += 2) {
        ThreadPool *p = start(counts[c]);
        if (!p) return;
        int wrong = 0;
        for (int i = 0; i < (quick() ? 500 : 5000); i++) {
            int n = 1 + i % 9, *items = need(sizeof(int) * (size_t)n); // exact: a sanitizer sees one item too many
            memset(items, 0, sizeof(int) * (size_t)n);
            threads_for(p, n, add_one, items);
            for (int k = 0; k < n; k++) wrong += items[k] != 1;
            free(items);
        }
        CHECK(!wrong, "%d threads: %d items wrong", counts[c], wrong);
        threads_stop(p);
    }
}

// ---- idle, start and stop, too many

static void asleep_then_work(void) {
    for (int c = 0; c < N_OF(counts); c += 2) {
        ThreadPool *p = start(counts[c]);
        if (!p) return;
        for (int i = 0; i < 6; i++) {
            usleep(i % 2 ? 200 : 15000); // around and beyond the time that workers spin
            check_region(p, 1 + 37 * i);
        }
        usleep(15000);
        threads_stop(p); // while all are asleep
    }
}

// Workers that take longer than the caller spins: it must be woken when the last item is done.
static void slow_when_not_the_caller(void *context, int item, int worker) {
    ((uint8_t *)context)[item]++;
    usleep(worker ? 3000 : 500);
}

static void caller_asleep(void) {
    for (int c = 1; c < N_OF(counts); c += 3) {
        ThreadPool *p = start(counts[c]);
        if (!p) return;
        uint8_t drawn[11] = {0};
        for (int i = 1; i <= 10; i++) {
            threads_for(p, N_OF(drawn), slow_when_not_the_caller, drawn);
            int wrong = 0;
            for (int item = 0; item < N_OF(drawn); item++) wrong += drawn[item] != i;
            CHECK(!wrong, "%d threads, slow items, round %d: %d not run once", counts[c], i, wrong);
        }
        threads_stop(p);
    }
}

// Sleeping workers are woken for a region and take part. On a loaded machine one may come late: once in 20 is
// enough.
static void note_worker(void *context, int item, int worker) {
    (void)item;
    if (worker) atomic_store((_Atomic int *)context, 1);
    usleep(2000);
}

static void workers_are_woken(void) {
    ThreadPool *p = start(2);
    if (!p) return;
    if (cpu_count() == 1) test_was_skipped = 1; // then the caller alone may do it all
    _Atomic int helped = 0;
    for (int i = 0; i < 20 && !helped && cpu_count() > 1; i++) {
        usleep(20000);
        threads_for(p, 10, note_worker, &helped);
    }
    CHECK(helped || cpu_count() == 1, "20 regions of 20 ms each: a worker that slept was never woken");
    threads_stop(p);
}

static void start_and_stop(void) {
    for (int i = 0; i < (quick() ? 30 : 200); i++) {
        ThreadPool *p = start(1 + i % 9);
        if (!p) return;
        if (i % 3) check_region(p, i % 5 * 11);
        threads_stop(p); // also without having worked
    }
    threads_stop(NULL);
    char err[100] = "";
    ThreadPool *p = threads_start(0, err, sizeof err);
    CHECK(!p || threads_count(p) == 1, "threads_start(0) counts %d", threads_count(p));
    threads_stop(p);
}

static void two_pools(void) { // one inside a task of the other is a caller of its own
    ThreadPool *a = start(3), *b = start(4);
    for (int i = 0; a && b && i < 200; i++) {
        check_region(a, 17);
        check_region(b, 9);
    }
    threads_stop(a);
    threads_stop(b);
}

static void many_threads_child(void) {
    limit_memory(256u << 20); // 255 stacks of 8 MiB do not fit
    char err[200] = "";
    ThreadPool *p = threads_start(MAX_THREADS, err, sizeof err);
    CHECK(!p, "255 threads started in 256 MiB");
    CHECK(p || one_line(err), "no line of text: \"%s\"", err);
    threads_stop(p);
    p = start(2); // what did start has been given back
    if (p) check_region(p, 100);
    threads_stop(p);
}

static void a_thread_that_cannot_start(void) {
    in_little_memory(many_threads_child);
}

// ---- signals

typedef struct {
    atomic_int wrong;   // signals blocked that should not be, or the other way round
    atomic_int workers; // items that were not the caller's
} Masks;

static void look_at_mask(void *context, int item, int worker) {
    Masks *m = context;
    (void)item;
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    const int asynchronous[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGCHLD, SIGUSR1};
    const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
    for (int i = 0; i < N_OF(asynchronous); i++)
        atomic_fetch_add(&m->wrong, sigismember(&now, asynchronous[i]) != (worker > 0));
    for (int i = 0; i < N_OF(faults); i++) atomic_fetch_add(&m->wrong, sigismember(&now, faults[i]));
    atomic_fetch_add(&m->workers, worker > 0);
}

static void signals_reach_the_caller(void) {
    ThreadPool *p = start(4);
    if (!p) return;
    Masks m = {0};
    double end = seconds() + 20;
    while (!m.workers && seconds() < end) threads_for(p, 1000, look_at_mask, &m);
    CHECK(m.workers, "no worker had an item");
    CHECK(!m.wrong, "%d signals blocked in the caller or not blocked in a worker", m.wrong);
    threads_stop(p);
}

int main(void) {
    alarm(300);                      // what hangs ends
    RUN(a_thread_that_cannot_start); // forks: before there are threads
    RUN(every_item_once);
    RUN(the_largest_region);
    RUN(writes_are_seen);
    RUN(contexts_end_with_their_region);
    RUN(asleep_then_work);
    RUN(caller_asleep);
    RUN(workers_are_woken);
    RUN(start_and_stop);
    RUN(two_pools);
    RUN(signals_reach_the_caller);
    return test_report();
}
