// reference.h: what the numeric tests share. Instruction-set levels as child processes, bfloat16 from its definition,
// error measures.
//
// The instruction-set level of a process is chosen once, from TESSERA_CPU. So a test that depends on it runs its body
// in a forked child for every level of the machine; the parent must not have asked cpu.h anything before. TESSERA_CPU
// set from outside leaves only that level. TESSERA_TEST_QUICK=1 shrinks the products (sanitizers), RUNNER still more
// (emulators).
#pragma once
#include "test.h"

#include "kernels.h"

#include <math.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0 // 1: address space limits would hit the sanitizer itself
#endif

#define UNUSED __attribute__((unused))
#define N_OF(array) ((int)(sizeof(array) / sizeof *(array)))

UNUSED static bool quick(void) {
    const char *value = getenv("TESSERA_TEST_QUICK");
    return value && *value && strcmp(value, "0") != 0;
}

UNUSED static bool emulated(void) {
    const char *runner = getenv("RUNNER");
    return runner && *runner;
}

// A size or a step of a test: as it is, with TESSERA_TEST_QUICK, and that under an emulator or a sanitizer.
UNUSED static int by_speed(int whole, int quickly, int slowly) {
    return emulated() || (SANITIZED && quick()) ? slowly : quick() ? quickly : whole;
}

UNUSED static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

UNUSED static void *need(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (p) return p;
    fprintf(stderr, "out of memory in a test\n");
    exit(1);
}

UNUSED static float *need_floats(int64_t n) {
    return need((size_t)n * sizeof(float));
}

UNUSED static int pick(int n) { // 0..n-1
    return (int)(test_u32() % (uint32_t)n);
}

// ---- numbers

// The bfloat16 nearest to f, as float; ties go to the even one. Straight from the definition, finite f only.
UNUSED static float bf16_nearest(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t toward_zero = bits & 0xffff0000u, away = toward_zero + 0x10000u;
    float a, b;
    memcpy(&a, &toward_zero, sizeof a);
    memcpy(&b, &away, sizeof b);
    double to_a = fabs((double)f - (double)a), to_b = fabs((double)b - (double)f);
    if (to_a != to_b) return to_a < to_b ? a : b;
    return toward_zero & 0x10000u ? b : a;
}

// x[n] as KV_Q8 stores it: n whole numbers of -127..127 and what they are multiples of.
UNUSED static void q8_nearest(float *x, int n) {
    float most = 0;
    for (int i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
    float scale = most / 127, inverse = most > 0 ? 1 / scale : 0;
    for (int i = 0; i < n; i++) x[i] = (float)lrintf(x[i] * inverse) * scale;
}

// sum (a - b)^2 / sum b^2
UNUSED static double nmse(const float *a, const double *b, int n) {
    double error = 0, power = 0;
    for (int i = 0; i < n; i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        power += b[i] * b[i];
    }
    if (!(error < INFINITY)) return INFINITY; // NaN too
    return power > 0 ? error / power : error > 0 ? INFINITY : 0;
}

UNUSED static double nmse_f32(const float *a, const float *b, int n) {
    double error = 0, power = 0;
    for (int i = 0; i < n; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        power += (double)b[i] * (double)b[i];
    }
    if (!(error < INFINITY)) return INFINITY;
    return power > 0 ? error / power : error > 0 ? INFINITY : 0;
}

// An error message as the contracts promise it: something, one line.
UNUSED static bool one_line(const char *err) {
    return err[0] && !strchr(err, '\n');
}

// ---- child processes

enum { CHILD_CANNOT = 77 }; // what a child exits with where the machine does not allow the test

// Run body in a child; its exit status, or 128 + the signal that ended it.
UNUSED static int in_child(void (*body)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return 1;
    if (!pid) {
        test_bad = 0;
        body();
        fflush(NULL);
        exit(test_bad != 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Leaves this process, a child, so many bytes more than it has. Exits with CHILD_CANNOT where that is not enforced.
UNUSED static void limit_memory(size_t more) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld", &pages) != 1) exit(CHILD_CANNOT);
    fclose(f);
    rlim_t bytes = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (rlim_t)more;
    if (setrlimit(RLIMIT_AS, &(struct rlimit){bytes, bytes})) exit(CHILD_CANNOT);
    void *volatile probe = malloc(more + (64u << 20));
    if (probe) exit(CHILD_CANNOT); // an emulator that ignores the limit
}

// A body that limits its memory, in a child; skipped where that cannot be.
UNUSED static void in_little_memory(void (*body)(void)) {
    int status = SANITIZED ? CHILD_CANNOT : in_child(body); // sanitizers map terabytes
    if (status == CHILD_CANNOT) test_was_skipped = 1;
    else CHECK(status == 0, "^ status %d", status);
}

static void (*level_body)(void);
static CpuLevel level_wanted;
static bool rounding_left_out; // by without_rounding

UNUSED static void level_child(void) {
    setenv("TESSERA_CPU", cpu_level_name(level_wanted), 1);
    CHECK(cpu_level() == level_wanted, "TESSERA_CPU=%s gives %s", cpu_level_name(level_wanted),
          cpu_level_name(cpu_level()));
    CHECK(kernels() == kernels_for(level_wanted), "level %s: kernels() is another table", cpu_level_name(level_wanted));
    level_body();
}

UNUSED static void best_level_child(void) {
    exit((int)cpu_best_level());
}

// Are inputs of products of many tokens rounded, to bfloat16 or to integers?
UNUSED static bool rounds_products(CpuLevel r) {
    return kernels_for(r) && (kernels_for(r)->bf16 || kernels_for(r)->int16);
}

// The highest level up to r that does not round them.
UNUSED static CpuLevel below_rounding(CpuLevel r) {
    while (r > LEVEL_SCALAR && (!kernels_for(r) || rounds_products(r))) r = (CpuLevel)(r - 1);
    return r;
}

// For checks of arithmetic that is not rounded: where the machine's highest level rounds the inputs of products, this
// process and its children use the one below those, unless TESSERA_CPU says otherwise. First in main().
UNUSED static void without_rounding(void) {
    const char *set = getenv("TESSERA_CPU");
    CpuLevel best = (CpuLevel)in_child(best_level_child);
    rounding_left_out = !(set && *set); // lower levels may round where the highest does not
    if (rounding_left_out && rounds_products(best)) setenv("TESSERA_CPU", cpu_level_name(below_rounding(best)), 1);
}

// Run body in a child at every level of this machine; with TESSERA_TEST_BEST_LEVEL set, at the highest alone.
UNUSED static void at_every_level(void (*body)(void)) {
    int best = in_child(best_level_child);
    if (rounding_left_out) best = (int)below_rounding((CpuLevel)best);
    const char *only = getenv("TESSERA_CPU");
    level_body = body;
    for (int r = 0; r <= best && r < N_LEVELS; r++) {
        level_wanted = (CpuLevel)r;
        if (rounding_left_out && rounds_products(level_wanted)) continue;
        if (!kernels_for(level_wanted) || (r < best && getenv("TESSERA_TEST_BEST_LEVEL"))) continue;
        if (!rounding_left_out && only && *only && strcmp(only, cpu_level_name(level_wanted)) != 0) continue;
        int status = in_child(level_child);
        CHECK(status == 0, "^ at level %s (status %d)", cpu_level_name(level_wanted), status);
    }
}
#define RUN_AT_LEVELS(body) RUN_AS(#body, at_every_level(body))
