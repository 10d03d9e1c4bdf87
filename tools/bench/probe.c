// probe: see probe.h.
#include "probe.h"

#include "cli.h"
#include "kernels.h"
#include "threads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, CHUNKS = 384, FIRST_CHUNKS = 16, AHEAD = 512 };

static const double PASS_SECONDS = 0.03; // all chunks at 13 GB/s

typedef struct {
    uint64_t *data;
    uint64_t sums[CHUNKS];
} Reading;

static void fill_chunk(void *context, int item, int worker) {
    (void)worker;
    memset((char *)((Reading *)context)->data + (size_t)item * CHUNK, item + 1, CHUNK);
}

static void read_chunk(void *context, int item, int worker) {
    (void)worker;
    Reading *r = context;
    enum { N = CHUNK / sizeof(uint64_t) };
    const uint64_t *v = r->data + (size_t)item * N;
    uint64_t sum[8] = {0};
    for (int i = 0; i < (int)N; i += 8) { // a cache line
        __builtin_prefetch(v + i + AHEAD);
        for (int j = 0; j < 8; j++) sum[j] += v[i + j];
    }
    for (int j = 0; j < 8; j++) r->sums[item] += sum[j];
}

// The chunks of one pass: all, or fewer where an emulator or a sanitizer makes reading slow.
static int chunks_of_pass(ThreadPool *pool, Reading *r) {
    threads_for(pool, FIRST_CHUNKS, fill_chunk, r);
    double start = seconds();
    threads_for(pool, FIRST_CHUNKS, read_chunk, r);
    double n = fmin(CHUNKS, FIRST_CHUNKS * PASS_SECONDS / (seconds() - start));
    return n > 1 ? (int)n : 1;
}

static double measure_read(ThreadPool *pool, CpuLevel level) {
    (void)level;
    static Reading r;
    double best = 0;
    r.data = malloc((size_t)CHUNK * CHUNKS);
    if (!r.data) return 0;
    int n = chunks_of_pass(pool, &r);
    threads_for(pool, n, fill_chunk, &r);
    for (int pass = 0; pass < PROBE_PASSES; pass++) {
        double start = seconds();
        threads_for(pool, n, read_chunk, &r);
        best = fmax(best, (double)CHUNK * n / (seconds() - start) * 1e-9);
    }
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) sum += r.sums[i];
    return sum ? best : 0; // using the sum keeps the compiler from removing the reads
}

// A panel of 16 KiB, 12 KiB of rows and 3 KiB of results fit in L1; in words of 16 bits twice the rows. The numbers of
// rows are multiples of every gemm's step.
enum { GEMM_K = 128, GEMM_ROWS = 24, WORD_ROWS = 2 * GEMM_ROWS, GEMM_TIMES = 16, ITEMS_PER_THREAD = 8 };
enum { FLOATS = GEMM_K * MAX_PANEL + GEMM_ROWS * GEMM_K + WORD_ROWS * MAX_PANEL };

static const double GEMM_SECONDS = 0.2; // new threads may share a core for 50 ms

typedef struct {
    const Kernels *kernels;
    float *memory; // [threads][FLOATS]
} Multiplying;

static void multiply(void *context, int item, int worker) {
    (void)item;
    const Multiplying *m = context;
    float *panel = m->memory + (size_t)worker * FLOATS, *x = panel + GEMM_K * MAX_PANEL, *y = x + GEMM_ROWS * GEMM_K;
    const Kernels *k = m->kernels;
    int lanes = k->panel;
    PackedMatrix w = {.data = panel, .row_stride = lanes};
    const uint16_t *x16 = (const uint16_t *)(const void *)x;
    float scale[WORD_ROWS] = {0};
    const IntPanel ints = {.q = panel, .scale = scale};
    const IntRows int_rows = {.q = x16, .ld = GEMM_K, .parts = 1, .scale = scale};
    for (int i = 0; i < GEMM_TIMES; i++) {
        if (k->bf16) k->bf16->gemm(y, lanes, &w, x16, GEMM_K, WORD_ROWS, GEMM_K, lanes, false);
        else if (k->int16) k->int16->gemm(y, lanes, &ints, &int_rows, WORD_ROWS, GEMM_K, lanes, false);
        else k->gemm_f32(y, lanes, &w, x, GEMM_K, GEMM_ROWS, GEMM_K, lanes, false);
    }
}

static double measure_gemm(ThreadPool *pool, CpuLevel level) {
    Multiplying m = {.kernels = kernels_for(level)};
    int n_threads = threads_count(pool), n_items = n_threads * ITEMS_PER_THREAD;
    void *memory;
    if (!m.kernels || posix_memalign(&memory, 64, sizeof(float) * FLOATS * (size_t)n_threads)) return 0;
    m.memory = memory;
    for (int i = 0; i < FLOATS * n_threads; i++) m.memory[i] = (float)(i % 7); // also valid as pairs of bfloat16
    int rows = m.kernels->bf16 || m.kernels->int16 ? WORD_ROWS : GEMM_ROWS;
    double flops = 2.0 * GEMM_K * rows * m.kernels->panel * GEMM_TIMES * n_items, best = 0, begin = seconds();
    while (best == 0 || seconds() - begin < GEMM_SECONDS) {
        double start = seconds();
        threads_for(pool, n_items, multiply, &m);
        best = fmax(best, flops / (seconds() - start) * 1e-9);
    }
    return best;
}

static double in_child(int n_threads, CpuLevel level, double (*measure)(ThreadPool *, CpuLevel)) {
    int fd[2];
    double result = 0;
    if (pipe(fd)) return 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        char err[256];
        ThreadPool *pool = threads_start(n_threads, err, sizeof err);
        if (pool) result = measure(pool, level);
        _exit(write(fd[1], &result, sizeof result) != sizeof result);
    }
    close(fd[1]);
    if (child < 0 || read(fd[0], &result, sizeof result) != sizeof result) result = 0;
    close(fd[0]);
    if (child > 0) waitpid(child, NULL, 0);
    return result;
}

double probe_read(int n_threads) {
    return in_child(n_threads, LEVEL_SCALAR, measure_read);
}

double probe_gemm(int n_threads, CpuLevel level) {
    return in_child(n_threads, level, measure_gemm);
}
