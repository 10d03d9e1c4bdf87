// test.h: the whole test framework. A test file has functions, a main that RUNs them, and ends in `return
// test_report()`.
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int test_n_passed, test_n_failed, test_n_skipped, test_bad, test_was_skipped;

__attribute__((format(printf, 3, 4), unused)) static void test_fail(const char *file, int line, const char *fmt, ...) {
    if (++test_bad > 20) return; // enough to see what is wrong
    fprintf(stderr, "%s:%d: ", file, line);
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

// CHECK(condition, "message %d", value): keeps going, the running test fails.
#define CHECK(cond, ...)                                                                                               \
    do {                                                                                                               \
        if (!(cond)) test_fail(__FILE__, __LINE__, __VA_ARGS__);                                                       \
    } while (0)

// NEED(condition, "message %d", value): the same, and the test ends there.
#define NEED(cond, ...)                                                                                                \
    do {                                                                                                               \
        bool needed_ = (cond);                                                                                         \
        CHECK(needed_, __VA_ARGS__);                                                                                   \
        if (!needed_) return;                                                                                          \
    } while (0)

#define RUN_AS(name, call)                                                                                             \
    do {                                                                                                               \
        test_bad = test_was_skipped = 0;                                                                               \
        call;                                                                                                          \
        if (test_bad) test_n_failed++;                                                                                 \
        else if (test_was_skipped) test_n_skipped++;                                                                   \
        else test_n_passed++;                                                                                          \
        printf("  %s %s\n", test_bad ? "FAIL" : test_was_skipped ? "skip" : "ok  ", name);                             \
        fflush(stdout);                                                                                                \
    } while (0)
#define RUN(function) RUN_AS(#function, function())

// Real models and text that tests may read; SKIP_WITHOUT ends the test where the file is missing.
#define SHARED_DATA "../shared/data/"
#define SKIP_WITHOUT(path)                                                                                             \
    do {                                                                                                               \
        struct stat st_;                                                                                               \
        if (stat(path, &st_)) {                                                                                        \
            printf("  (no %s here)\n", path);                                                                          \
            test_was_skipped = 1;                                                                                      \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

// A small deterministic generator (xorshift64*).
static uint64_t test_rng = 0x9E3779B97F4A7C15u;
__attribute__((unused)) static uint32_t test_u32(void) {
    test_rng ^= test_rng >> 12;
    test_rng ^= test_rng << 25;
    test_rng ^= test_rng >> 27;
    return (uint32_t)(test_rng * 0x2545F4914F6CDD1Du >> 32);
}
__attribute__((unused)) static float test_uniform(void) { // [-1, 1)
    return (float)((double)test_u32() / 2147483648.0 - 1.0);
}

__attribute__((unused)) static int test_report(void) {
    printf("%d passed, %d failed, %d skipped\n", test_n_passed, test_n_failed, test_n_skipped);
    return test_n_failed ? 1 : 0;
}
