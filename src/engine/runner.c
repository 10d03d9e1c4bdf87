// runner: see runner.h.
#include "runner.h"

#include "file.h"

#include <pthread.h>
#include <stdlib.h>

struct Runner {
    Runner *next;
    const Decoder *decoder;
    int n_threads; // as requested; the pool may have fewer
    int n_users;   // under the lock of all runners
    pthread_mutex_t lock;
    Compute compute;
    Workspace work;
    float *logits; // [LOGITS_BLOCK][vocab], from the first pass with a callback on
};

struct Runners {
    const Decoder *decoder;
    pthread_mutex_t lock;
    Runner *first;
    KvPool *pool;
    Prefixes *prefixes;
};

// ---- runners of an engine

Runners *runners_open(const Decoder *d, char *err, size_t errlen) {
    Runners *all = calloc(1, sizeof *all);
    if (all) {
        all->decoder = d;
        pthread_mutex_init(&all->lock, NULL);
        all->pool = kvpool_open(0);
        all->prefixes = all->pool ? prefixes_open(all->pool) : NULL;
        if (all->prefixes) return all;
    }
    runners_close(all);
    fail(err, errlen, "out of memory");
    return NULL;
}

void runners_close(Runners *all) {
    if (!all) return;
    prefixes_close(all->prefixes);
    kvpool_close(all->pool);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

KvPool *runners_pool(Runners *all) {
    return all->pool;
}

Prefixes *runners_prefixes(Runners *all) {
    return all->prefixes;
}

static void runner_close(Runner *r) {
    workspace_close(&r->work);
    compute_close(&r->compute);
    pthread_mutex_destroy(&r->lock);
    free(r->logits);
    free(r);
}

static Runner *runner_open(const Decoder *d, int n_threads, bool fast, char *err, size_t errlen) {
    Runner *r = calloc(1, sizeof *r);
    if (!r) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    r->decoder = d;
    r->n_threads = n_threads;
    pthread_mutex_init(&r->lock, NULL);
    r->work.compute = &r->compute;
    if (!compute_open(&r->compute, n_threads, err, errlen)) {
        r->compute.fast = fast;
        if (!workspace_reserve(&r->work, decoder_config(d), 1, err, errlen)) return r;
    }
    runner_close(r);
    return NULL;
}

Runner *runner_take(Runners *all, int n_threads, bool fast, char *err, size_t errlen) {
    pthread_mutex_lock(&all->lock);
    Runner *r = all->first;
    while (r && (r->n_threads != n_threads || r->compute.fast != fast)) r = r->next;
    if (!r && (r = runner_open(all->decoder, n_threads, fast, err, errlen))) {
        r->next = all->first;
        all->first = r;
    }
    if (r) r->n_users++;
    pthread_mutex_unlock(&all->lock);
    return r;
}

void runner_release(Runners *all, Runner *r) {
    if (!r) return;
    pthread_mutex_lock(&all->lock);
    if (--r->n_users == 0) {
        Runner **at = &all->first;
        while (*at != r) at = &(*at)->next;
        *at = r->next;
        runner_close(r);
    }
    pthread_mutex_unlock(&all->lock);
}

int runner_threads(const Runner *r) {
    return threads_count(r->compute.pool);
}

// ---- passes

static int reserve(Runner *r, const DecoderSegment *segments, int n, char *err, size_t errlen) {
    int n_rows = 0, n_wanted = 0;
    bool callbacks = false;
    for (int i = 0; i < n; i++) {
        n_rows += segments[i].n;
        n_wanted += segments[i].logits != NULL;
        callbacks |= segments[i].callback != NULL;
    }
    if ((callbacks || n_wanted > 1) && !r->logits) {
        size_t vocab = (size_t)decoder_config(r->decoder)->vocab_size;
        r->logits = malloc(sizeof *r->logits * LOGITS_BLOCK * vocab);
        if (!r->logits) return fail(err, errlen, "out of memory for the logits");
    }
    return workspace_reserve(&r->work, decoder_config(r->decoder), n_rows, err, errlen);
}

static void forward(Runner *r, const DecoderSegment *segments, int n) {
    if (n) decoder_forward(r->decoder, &r->work, segments, n, r->logits);
}

static void forward_exact(Runner *r, const DecoderSegment *segments, int n) {
    DecoderSegment few[MAX_SEGMENTS];
    int n_few = 0;
    for (int i = 0; i < n; i++) {
        if (segments[i].n <= EXACT_ROWS) few[n_few++] = segments[i];
        else forward(r, &segments[i], 1);
    }
    r->compute.exact = true;
    forward(r, few, n_few);
    r->compute.exact = false;
}

int runner_step(Runner *r, const DecoderSegment *segments, int n, PassOptions options, char *err, size_t errlen) {
    pthread_mutex_lock(&r->lock);
    int rc = reserve(r, segments, n, err, errlen);
    if (!rc) {
        compute_profile(&r->compute, options.profile);
        if (options.exact) forward_exact(r, segments, n);
        else forward(r, segments, n);
        for (int i = 0; i < n; i++) memory_advance(segments[i].memory, segments[i].n);
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}
