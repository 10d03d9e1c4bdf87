// compute: see compute.h.
#include "compute.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

int compute_open(Compute *c, int n_threads, char *err, size_t errlen) {
    *c = (Compute){.pool = threads_start(n_threads, err, errlen), .kernels = kernels()};
    if (!c->pool) return -1;
    if (!compute_reserve_scratch(c, COMPUTE_SCRATCH, 0, err, errlen)) return 0;
    compute_close(c);
    return -1;
}

void compute_close(Compute *c) {
    threads_stop(c->pool);
    free(c->scratch);
    free(c->words[0].words);
    free(c->rounded);
    memset(c, 0, sizeof *c);
}

void compute_profile(Compute *c, Profile *p) {
    c->profile = p;
    threads_set_hook(c->pool, p ? profile_region : NULL, p);
}

static size_t whole_lines(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

int compute_reserve_scratch(Compute *c, size_t worker_bytes, size_t shared_bytes, char *err, size_t errlen) {
    worker_bytes = whole_lines(worker_bytes);
    if (worker_bytes <= c->worker_bytes && shared_bytes <= c->shared_bytes) return 0;
    if (worker_bytes < c->worker_bytes) worker_bytes = c->worker_bytes;
    if (shared_bytes < c->shared_bytes) shared_bytes = c->shared_bytes;
    size_t n_threads = (size_t)threads_count(c->pool), bytes = worker_bytes * n_threads + shared_bytes;
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, bytes)) {
        return fail(err, errlen, "out of memory: %zu bytes for %zu threads; try a smaller -t", bytes, n_threads);
    }
    free(c->scratch);
    c->scratch = memory;
    c->worker_bytes = worker_bytes;
    c->shared_bytes = shared_bytes;
    return 0;
}

void *compute_scratch(const Compute *c, int worker) {
    return c->scratch + (size_t)worker * c->worker_bytes;
}

void *compute_shared(const Compute *c) {
    return c->scratch + (size_t)threads_count(c->pool) * c->worker_bytes;
}

size_t compute_scratch_bytes(const Compute *c) {
    return c->worker_bytes * (size_t)threads_count(c->pool) + c->shared_bytes;
}

static int reserve_rounded(Compute *c, int64_t cols, int64_t n, char *err, size_t errlen) {
    int64_t values = cols * ((n + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS);
    const Kernels *k = c->kernels;
    if (!(k->bf16 || k->int16 || (c->fast && k->int8)) || values <= c->max_rounded) return 0;
    size_t bytes = sizeof *c->rounded * (size_t)values; // those of integers have their scales behind them
    if (k->int16) bytes += sizeof(float) * (size_t)(values / INT_STEP);
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, bytes)) {
        return fail(err, errlen, "out of memory: %zu bytes of rounded activations", bytes);
    }
    memset(memory, 0, bytes); // the padding rows are read
    free(c->rounded);
    c->rounded = memory;
    c->max_rounded = values;
    return 0;
}

int compute_reserve(Compute *c, int cols, int n, char *err, size_t errlen) {
    if (reserve_rounded(c, cols, n, err, errlen)) return -1;
    if (cols <= c->max_cols || !c->kernels->quantize) return 0;
    size_t width = ((size_t)cols + BLOCK_MAX - 1) / BLOCK_MAX * BLOCK_MAX;
    size_t each = sizeof(int16_t) * width + 2 * sizeof(float) * width / 16;
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, each * MAX_SHARED)) {
        return fail(err, errlen, "out of memory: %zu bytes for quantized activations", each * MAX_SHARED);
    }
    free(c->words[0].words);
    c->max_cols = cols;
    for (int t = 0; t < MAX_SHARED; t++) {
        char *at = (char *)memory + (size_t)t * each;
        float *scale = (float *)(void *)(at + sizeof(int16_t) * width), *sum = scale + width / 16;
        c->words[t] = (Activations){.words = (int16_t *)(void *)at, .scale = scale, .sum = sum};
        c->bytes[t] = (Activations){.bytes = (int8_t *)at, .scale = scale, .sum = sum};
    }
    return 0;
}

int buffers_reserve(float **memory, int *room, int n, const Buffer *list, size_t count, const char *what, char *err,
                    size_t errlen) {
    if (n <= *room) return 0;
    size_t rows = (size_t)n, bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += whole_lines(sizeof(float) * list[i].width * rows);
    void *more;
    if (posix_memalign(&more, ALIGNMENT, bytes)) {
        return fail(err, errlen, "out of memory: %zu bytes of activations for a block of %d %s", bytes, n, what);
    }
    free(*memory);
    *memory = more;
    *room = n;
    char *at = more;
    for (size_t i = 0; i < count; i++) {
        *list[i].slot = (float *)(void *)at;
        at += whole_lines(sizeof(float) * list[i].width * rows);
    }
    return 0;
}

size_t scratch_floats(int64_t n) {
    return whole_lines(sizeof(float) * (size_t)n) / sizeof(float);
}
