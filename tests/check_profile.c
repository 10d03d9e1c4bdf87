// The profile: what counts as whose, the wait at the end of regions, and what ops say of their work.
#include "cpu.h"
#include "ops.h"
#include "test.h"

#include <stdatomic.h>
#include <time.h>

static void test_inner_operations_count_as_outer(void) {
    Profile p = {0};
    profile_begin(&p, PROFILE_LOGITS);
    profile_begin(&p, PROFILE_NORM);
    profile_end(&p, 1, 10);
    profile_end(&p, 2, 20);
    profile_begin(&p, PROFILE_NORM);
    profile_end(&p, 4, 40);
    const ProfileRow *logits = &p.rows[PROFILE_LOGITS], *norm = &p.rows[PROFILE_NORM];
    CHECK(logits->calls == 1 && logits->flops == 3 && logits->bytes == 30, "%g %g", logits->flops, logits->bytes);
    CHECK(norm->calls == 1 && norm->flops == 4 && norm->bytes == 40, "%g %g", norm->flops, norm->bytes);
    CHECK(logits->seconds > 0 && norm->seconds > 0 && p.depth == 0, "%g %g", logits->seconds, norm->seconds);
    profile_begin(NULL, PROFILE_NORM);
    profile_end(NULL, 1, 1);
}

static atomic_int helped;

// The caller's item ends when the other one has begun, which then takes 20 ms.
static void wait_for_the_other(void *context, int item, int worker) {
    (void)context;
    (void)item;
    if (worker > 0) atomic_store(&helped, 1);
    if (worker > 0) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    while (!atomic_load(&helped)) nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void test_waiting(void) {
    char err[256];
    Profile p = {0};
    if (cpu_count() < 2) { // then no worker is woken
        test_was_skipped = 1;
        return;
    }
    ThreadPool *pool = threads_start(2, err, sizeof err);
    NEED(pool, "%s", err);
    threads_set_hook(pool, profile_region, &p);
    profile_begin(&p, PROFILE_GATE);
    threads_for(pool, 2, wait_for_the_other, NULL);
    profile_end(&p, 0, 0);
    const ProfileRow *r = &p.rows[PROFILE_GATE];
    CHECK(r->waiting > 0.01 && r->waiting <= r->inside && r->inside <= r->seconds, "waiting %g, inside %g of %g",
          r->waiting, r->inside, r->seconds);
    threads_for_if(false, pool, 2, wait_for_the_other, NULL);
    CHECK(p.rows[PROFILE_OTHER].inside == 0, "the caller alone is in no region");
    threads_for(pool, 2, wait_for_the_other, NULL);
    CHECK(p.rows[PROFILE_OTHER].inside > 0, "a region of no operation");
    threads_set_hook(pool, NULL, NULL);
    threads_for(pool, 2, wait_for_the_other, NULL);
    CHECK(r->calls == 1, "found %llu calls", (unsigned long long)r->calls);
    threads_stop(pool);
}

// A group of matrices of one type, and of two, with few tokens and with many.
static void test_linear_by_type(void) {
    enum { ROWS = 8, COLS = 32, MANY = 40 };
    static float w[ROWS * COLS], x[MANY * COLS], y[2][MANY * ROWS];
    static uint16_t half[ROWS * COLS];
    char err[256], name[32];
    Tensor f32 = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {ROWS, COLS}, .data = w};
    Tensor f16 = {.dtype = DTYPE_F16, .n_dims = 2, .shape = {ROWS, COLS}, .data = half};
    Compute c;
    NEED(!compute_open(&c, 1, err, sizeof err), "%s", err);
    Profile p = {0};
    compute_profile(&c, &p);
    const struct {
        const Tensor *second;
        int n, op;
        const char *name;
    } cases[] = {{&f32, 1, PROFILE_MATVEC + DTYPE_F32, "matvec F32"},
                 {&f16, 1, PROFILE_MATVEC + N_DTYPES, "matvec mixed"},
                 {&f32, MANY, PROFILE_GEMM + DTYPE_F32, "gemm F32"},
                 {&f16, MANY, PROFILE_GEMM + N_DTYPES, "gemm mixed"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Linear list[] = {{.w = &f32, .y = y[0]}, {.w = cases[i].second, .y = y[1]}};
        ops_linear(&c, list, 2, x, cases[i].n);
        const ProfileRow *r = &p.rows[cases[i].op];
        double bytes = (double)(tensor_bytes(&f32) + tensor_bytes(cases[i].second));
        CHECK(r->calls == 1 && r->flops == 2.0 * 2 * ROWS * COLS * cases[i].n && r->bytes == bytes,
              "%s: %llu calls, %g flops, %g bytes", cases[i].name, (unsigned long long)r->calls, r->flops, r->bytes);
        CHECK(!strcmp(profile_name(cases[i].op, name, sizeof name), cases[i].name), "%s: %s", cases[i].name, name);
    }
    compute_close(&c);
}

// A Compute times its operations and the regions of its pool from the moment it has a profile until it has none.
static void test_compute_has_a_profile(void) {
    enum { N = 64, DIM = 512 }; // enough for a region
    static float x[N * DIM], y[N * DIM], ones[DIM];
    char err[256];
    Profile p = {0}, other = {0};
    Compute c;
    NEED(!compute_open(&c, 2, err, sizeof err), "%s", err);
    CHECK(!c.profile, "there is one at the start");
    const ProfileRow *r = &p.rows[PROFILE_NORM];
    const Norm norm = {.weight = ones};
    ops_norm(&c, y, x, &norm, N, DIM, 1e-5f);
    compute_profile(&c, &p);
    for (int i = 0; i < 3; i++) ops_norm(&c, y, x, &norm, N, DIM, 1e-5f);
    CHECK(r->calls == 3 && r->inside > 0 && r->inside <= r->seconds, "%llu calls, inside %g of %g",
          (unsigned long long)r->calls, r->inside, r->seconds);
    compute_profile(&c, &other);
    ops_norm(&c, y, x, &norm, N, DIM, 1e-5f);
    CHECK(r->calls == 3 && other.rows[PROFILE_NORM].calls == 1, "another profile takes over");
    compute_profile(&c, NULL);
    const Profile before = other;
    ops_norm(&c, y, x, &norm, N, DIM, 1e-5f);
    CHECK(!c.profile && !memcmp(&before, &other, sizeof other), "nothing is timed, and something was");
    compute_close(&c);
}

int main(void) {
    RUN(test_inner_operations_count_as_outer);
    RUN(test_waiting);
    RUN(test_linear_by_type);
    RUN(test_compute_has_a_profile);
    return test_report();
}
