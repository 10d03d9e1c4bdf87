// check_kernels: every kernel of every rung that this machine runs, against sums in double.
//
// Data is biased to what breaks kernels: -128, zero, denormal and huge scales, odd sizes, strides. Every operand
// ends at a page that may not be touched, so one element read or written too far is a fault (said with its
// parameters), and gaps between rows hold NaN. What is one multiplication or a copy must be exact; sums are bounded
// by c * eps * sum |a_i b_i|; norms and activations by what their text here says, and what they were off by is
// printed. At the end a table of speeds, printed, never asserted.
#include "reference.h"
#include "tiles.h"
#include "weights.h"

#include <float.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

// ---- operands that end at a forbidden page

enum { CANARY_BYTES = 256, CANARY = 0xA5, FENCE_BYTES = 1 << 20 };

typedef struct {
    uint8_t *end; // first byte of the forbidden page
} Fence;

static Fence fences[6];
static const Kernels *K; // under test
static char doing[300];  // its parameters
static int n_cases;

#define DOING(...)                                                                                                     \
    do {                                                                                                               \
        int n_ = snprintf(doing, sizeof doing, "%s ", K->name);                                                        \
        snprintf(doing + n_, sizeof doing - (size_t)n_, __VA_ARGS__);                                                  \
        n_cases++;                                                                                                     \
    } while (0)

static void on_fault(int signal) {
    static const char says[] = "\nout of bounds (a signal) in: ";
    (void)signal;
    ssize_t n = write(2, says, sizeof says - 1) + write(2, doing, strlen(doing)) + write(2, "\n", 1);
    _exit(n < 0 ? 2 : 1);
}

static void fences_open(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < N_OF(fences); i++) {
        uint8_t *p = mmap(NULL, FENCE_BYTES + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + FENCE_BYTES, page, PROT_NONE)) {
            perror("mmap");
            exit(1);
        }
        fences[i].end = p + FENCE_BYTES;
    }
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
}

static void *fence_put(int i, int64_t bytes) {
    uint8_t *p = fences[i].end - bytes;
    if (bytes > FENCE_BYTES - CANARY_BYTES) exit(3);
    memset(p - CANARY_BYTES, CANARY, CANARY_BYTES);
    return p;
}

static float *fence_floats(int i, int64_t n) {
    return fence_put(i, n * (int64_t)sizeof(float));
}

static bool canary_kept(int i, int64_t bytes) {
    for (const uint8_t *p = fences[i].end - bytes - CANARY_BYTES, *end = p + CANARY_BYTES; p < end; p++) {
        if (*p != CANARY) return false;
    }
    return true;
}

static bool floats_kept(int i, int64_t n) {
    return canary_kept(i, n * (int64_t)sizeof(float));
}

static const uint32_t gap_bits = 0x7fc0beefu; // a NaN: nothing may read it, nothing may overwrite it

static void fill_gap(float *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) memcpy(p + i, &gap_bits, sizeof gap_bits);
}

static bool is_gap(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits == gap_bits;
}

// ---- data

enum { PLAIN, WIDE, EXTREME, N_KINDS };

static float any_float(int kind) {
    static const float extremes[] = {0, -0.0f, 1, -1, 127, -128, 1e-40f, -1e-40f, 1e-38f, 1e15f, -1e15f, 3e-20f};
    if (kind == EXTREME && pick(3)) return extremes[pick(N_OF(extremes))];
    return kind == WIDE ? ldexpf(test_uniform(), pick(40) - 20) : test_uniform();
}

static void fill_floats(float *p, int64_t n, int kind) {
    for (int64_t i = 0; i < n; i++) p[i] = any_float(kind);
}

static void fill_i8(int8_t *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = (int8_t)(pick(3) ? pick(256) - 128 : pick(2) ? -128 : 127 * pick(2));
}

// What a sum of k products may be off by. The last term: a product that underflows, in any order of evaluation.
static double bound(double sum_abs, double sum_x, int k) {
    return (4 + 2 * sqrt(k)) * (double)FLT_EPSILON / 2 * sum_abs + (double)FLT_MIN * (sum_x + k);
}

static bool near(float found, double expected, double tolerance) {
    return fabs((double)found - expected) <= tolerance; // false for NaN
}

static const int sizes_k[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,  15,  16,  17,  18,  19,
                              20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33,  34,  35,  36,  37,  38,
                              39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,  53,  54,  55,  56,  57,
                              58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 127, 128, 129, 257, 1000};
static const int sizes_gemm_k[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 70, 129, 300};

static int step_k(void) { // through sizes_k
    return quick() ? 4 : 1;
}

// ---- matvec_f32

static void matvec_f32_case(int n_rows, int k, int64_t ldw, int kind) {
    DOING("matvec_f32 n_rows %d k %d ldw %d data %d", n_rows, k, (int)ldw, kind);
    float *w = fence_floats(0, (n_rows - 1) * ldw + k), *x = fence_floats(1, k), *y = fence_floats(2, n_rows);
    fill_gap(w, (n_rows - 1) * ldw + k);
    for (int i = 0; i < n_rows; i++) fill_floats(w + i * ldw, k, kind);
    fill_floats(x, k, kind);
    fill_gap(y, n_rows);
    K->matvec_f32(y, w, ldw, x, n_rows, k);
    CHECK(floats_kept(2, n_rows), "%s: wrote before y", doing);
    for (int i = 0; i < n_rows; i++) {
        double sum = 0, sum_abs = 0, sum_x = 0;
        for (int j = 0; j < k; j++) {
            double product = (double)w[i * ldw + j] * (double)x[j];
            sum += product;
            sum_abs += fabs(product);
            sum_x += fabs((double)x[j]);
        }
        CHECK(near(y[i], sum, bound(sum_abs, sum_x, k)), "%s: y[%d] = %.9g, expected %.9g", doing, i, y[i], sum);
    }
    float *one = fence_floats(3, n_rows);
    for (int i = 0; i < n_rows; i++) K->matvec_f32(one + i, w + i * ldw, ldw, x, 1, k);
    CHECK(!memcmp(one, y, sizeof(float) * (size_t)n_rows), "%s: rows one at a time differ", doing);
    int cut = pick(n_rows + 1);
    K->matvec_f32(one, w, ldw, x, cut, k);
    K->matvec_f32(one + cut, w + cut * ldw, ldw, x, n_rows - cut, k);
    CHECK(!memcmp(one, y, sizeof(float) * (size_t)n_rows), "%s: split at row %d differs", doing, cut);
}

static void matvec_f32(void) {
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 33};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int b = 0; b < N_OF(rows); b++) {
            for (int kind = 0; kind < N_KINDS; kind++) {
                matvec_f32_case(rows[b], sizes_k[a], sizes_k[a] + (pick(2) ? 0 : 3), kind);
            }
        }
    }
}

// ---- matvec_f16, matvec_bf16, and the values of 16 bits

// From the definition: 1 sign, 5 exponent (bias 15) and 10 fraction bits, or 1, 8 (bias 127) and 7.
static double half_value(uint16_t bits, bool is_f16) {
    int n_fraction = is_f16 ? 10 : 7, bias = is_f16 ? 15 : 127, last = is_f16 ? 31 : 255;
    int fraction = bits & ((1 << n_fraction) - 1), exponent = bits >> n_fraction & last;
    double size = exponent == last ? (fraction ? NAN : INFINITY)
                  : exponent       ? ldexp(fraction + (1 << n_fraction), exponent - bias - n_fraction)
                                   : ldexp(fraction, 1 - bias - n_fraction);
    return bits >> 15 ? -size : size;
}

static const uint16_t half_gap[] = {0x7fa5, 0x7e5a}; // NaN as bf16, and as f16

static uint16_t any_half(int kind, bool is_f16) {
    // zeros, ones, the least and the largest denormal, the least normal; f16: +-65504; bf16: +-1e15 and -128
    static const uint16_t extremes[][13] = {
        {0x0000, 0x8000, 0x3f80, 0xbf80, 0x0001, 0x8001, 0x007f, 0x807f, 0x0080, 0x8080, 0x5863, 0xd863, 0xc300},
        {0x0000, 0x8000, 0x3c00, 0xbc00, 0x0001, 0x8001, 0x03ff, 0x83ff, 0x0400, 0x8400, 0x7bff, 0xfbff, 0xd800}};
    if (kind == EXTREME && pick(3)) return extremes[is_f16][pick(13)];
    // WIDE: f16 of every finite size, bf16 from 2^-20 to 2^20; else from 2^-8 to 1
    int wide = kind == WIDE,
        least = is_f16 ? wide ? 0 : 7
                : wide ? 107
                       : 119,
        sizes = is_f16 ? wide ? 31 : 8
                : wide ? 40
                       : 8;
    int n_fraction = is_f16 ? 10 : 7;
    return (uint16_t)((least + pick(sizes)) << n_fraction | pick(1 << n_fraction) | pick(2) << 15);
}

typedef void (*MatvecHalf)(float *y, const uint16_t *w, int64_t ldw, const float *x, int n_rows, int k);

static void matvec_half_case(bool is_f16, int n_rows, int k, int64_t ldw, int kind) {
    DOING("matvec_%s n_rows %d k %d ldw %d data %d", is_f16 ? "f16" : "bf16", n_rows, k, (int)ldw, kind);
    MatvecHalf run = is_f16 ? K->matvec_f16 : K->matvec_bf16;
    int64_t n = (n_rows - 1) * ldw + k;
    uint16_t *w = fence_put(0, n * (int64_t)sizeof *w);
    float *x = fence_floats(1, k), *y = fence_floats(2, n_rows), *one = fence_floats(3, n_rows);
    for (int64_t i = 0; i < n; i++) w[i] = i % ldw < k ? any_half(kind, is_f16) : half_gap[is_f16];
    fill_floats(x, k, kind);
    fill_gap(y, n_rows);
    run(y, w, ldw, x, n_rows, k);
    CHECK(floats_kept(2, n_rows), "%s: wrote before y", doing);
    for (int i = 0; i < n_rows; i++) {
        double sum = 0, sum_abs = 0, sum_x = 0;
        for (int j = 0; j < k; j++) {
            double product = half_value(w[i * ldw + j], is_f16) * (double)x[j];
            sum += product;
            sum_abs += fabs(product);
            sum_x += fabs((double)x[j]);
        }
        CHECK(near(y[i], sum, bound(sum_abs, sum_x, k)), "%s: y[%d] = %.9g, expected %.9g", doing, i, y[i], sum);
    }
    for (int i = 0; i < n_rows; i++) run(one + i, w + i * ldw, ldw, x, 1, k);
    CHECK(!memcmp(one, y, sizeof(float) * (size_t)n_rows), "%s: rows one at a time differ", doing);
    int cut = pick(n_rows + 1);
    run(one, w, ldw, x, cut, k);
    run(one + cut, w + cut * ldw, ldw, x, n_rows - cut, k);
    CHECK(!memcmp(one, y, sizeof(float) * (size_t)n_rows), "%s: split at row %d differs", doing, cut);
}

static void matvec_half(bool is_f16) {
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 33};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int b = 0; b < N_OF(rows); b++) {
            for (int kind = 0; kind < N_KINDS; kind++) {
                matvec_half_case(is_f16, rows[b], sizes_k[a], sizes_k[a] + (pick(2) ? 0 : 3), kind);
            }
        }
    }
}

static void matvec_f16(void) {
    matvec_half(true);
}

static void matvec_bf16(void) {
    matvec_half(false);
}

// ---- dots of rows of the KV cache

typedef enum { ROWS_F32, ROWS_BF16, ROWS_I8 } RowType;

static const char *const row_types[] = {"f32", "bf16", "i8"};
static const int dots_bytes[] = {4, 2, 1};

// w(i, j) at w[j / DOTS_STEP * step + i * ldw + j % DOTS_STEP]
typedef struct {
    RowType type;
    void *w;
    const float *x;
    int64_t ldy, ldw, step, ldx;
    int n_rows, n_x, k;
    ptrdiff_t ahead; // wherever it points, it is not read
} Dots;

static void dots_run(const Dots *d, float *y, int64_t ldy, int row0, int n_rows, int x0, int n_x) {
    const void *w = (const char *)d->w + row0 * d->ldw * dots_bytes[d->type];
    const float *x = d->x + x0 * d->ldx;
    switch (d->type) {
    case ROWS_F32: K->dots_f32(y, ldy, w, d->ldw, d->step, x, d->ldx, n_rows, n_x, d->k, d->ahead); break;
    case ROWS_BF16: K->dots_bf16(y, ldy, w, d->ldw, d->step, x, d->ldx, n_rows, n_x, d->k, d->ahead); break;
    case ROWS_I8: K->dots_i8(y, ldy, w, d->ldw, d->step, x, d->ldx, n_rows, n_x, d->k, d->ahead); break;
    }
}

static int64_t dots_at(const Dots *d, int i, int j) {
    return j / DOTS_STEP * d->step + i * d->ldw + j % DOTS_STEP;
}

static double dots_value(const Dots *d, int i, int j) {
    int64_t at = dots_at(d, i, j);
    if (d->type == ROWS_F32) return (double)((const float *)d->w)[at];
    return d->type == ROWS_BF16 ? half_value(((const uint16_t *)d->w)[at], false) : ((const int8_t *)d->w)[at];
}

// Between the rows NaN; int8 has none, there is anything.
static void dots_fill(const Dots *d, int64_t n, int kind) {
    if (d->type == ROWS_I8) fill_i8(d->w, n);
    if (d->type == ROWS_F32) fill_gap(d->w, n);
    for (int64_t at = 0; d->type == ROWS_BF16 && at < n; at++) ((uint16_t *)d->w)[at] = half_gap[0];
    for (int i = 0; d->type != ROWS_I8 && i < d->n_rows; i++) {
        for (int j = 0; j < d->k; j++) {
            if (d->type == ROWS_F32) ((float *)d->w)[dots_at(d, i, j)] = any_float(kind);
            else ((uint16_t *)d->w)[dots_at(d, i, j)] = any_half(kind, false);
        }
    }
}

static void dots_check(const Dots *d, const float *y) {
    for (int r = 0; r < d->n_x; r++) {
        for (int i = 0; i < d->n_rows; i++) {
            double sum = 0, sum_abs = 0, sum_x = 0;
            for (int j = 0; j < d->k; j++) {
                double x = (double)d->x[r * d->ldx + j], product = dots_value(d, i, j) * x;
                sum += product;
                sum_abs += fabs(product);
                sum_x += fabs(x);
            }
            float found = y[r * d->ldy + i];
            CHECK(near(found, sum, bound(sum_abs, sum_x, d->k)), "%s: y[%d][%d] = %.9g, expected %.9g", doing, r, i,
                  found, sum);
        }
        for (int64_t i = d->n_rows; r + 1 < d->n_x && i < d->ldy; i++) {
            CHECK(is_gap(y[r * d->ldy + i]), "%s: wrote y[%d][%d], beyond its rows", doing, r, (int)i);
        }
    }
}

// One by one, and split in four.
static void dots_regroup(const Dots *d, const float *y, int64_t n_y) {
    float *again = fence_floats(3, n_y);
    fill_gap(again, n_y);
    for (int r = 0; r < d->n_x; r++) {
        for (int i = 0; i < d->n_rows; i++) dots_run(d, again + r * d->ldy + i, 1, i, 1, r, 1);
    }
    CHECK(!memcmp(again, y, sizeof *y * (size_t)n_y), "%s: one at a time differ", doing);
    fill_gap(again, n_y);
    int row = pick(d->n_rows + 1), x = pick(d->n_x + 1);
    for (int part = 0; part < 4; part++) {
        int row0 = part % 2 * row, rows = part % 2 ? d->n_rows - row : row, x0 = part / 2 * x;
        int n_x = part / 2 ? d->n_x - x : x;
        if (rows && n_x) dots_run(d, again + x0 * d->ldy + row0, d->ldy, row0, rows, x0, n_x);
    }
    CHECK(!memcmp(again, y, sizeof *y * (size_t)n_y), "%s: split at row %d and vector %d differ", doing, row, x);
}

// Rows as K has them, or in groups as V has: then `rows` are stored of which n_rows are asked for.
static void dots_case(RowType type, bool groups_of_v, int n_rows, int n_x, int k, int kind) {
    int rows = n_rows + pick(3), n_groups = (k - 1) / DOTS_STEP;
    Dots d = {.type = type, .n_rows = n_rows, .n_x = n_x, .k = k, .ldy = n_rows + pick(2) * 5, .ldx = k + pick(2) * 3};
    d.ahead = pick(3) * (1 << 20);
    d.ldw = groups_of_v ? DOTS_STEP : k + pick(2) * 3;
    d.step = groups_of_v ? DOTS_STEP * rows : DOTS_STEP;
    DOING("dots_%s n_rows %d n_x %d k %d ldw %d step %d ldy %d ldx %d data %d", row_types[type], n_rows, n_x, k,
          (int)d.ldw, (int)d.step, (int)d.ldy, (int)d.ldx, kind);
    int64_t n_w = dots_at(&d, n_rows - 1, k - 1) + 1, n_xs = (n_x - 1) * d.ldx + k, n_y = (n_x - 1) * d.ldy + n_rows;
    int64_t before_last = n_groups ? dots_at(&d, n_rows - 1, n_groups * DOTS_STEP - 1) + 1 : 0;
    if (before_last > n_w) n_w = before_last;
    float *x = fence_floats(1, n_xs), *y = fence_floats(2, n_y);
    d.w = fence_put(0, n_w * dots_bytes[type]);
    d.x = x;
    dots_fill(&d, n_w, kind);
    fill_gap(x, n_xs);
    for (int r = 0; r < n_x; r++) fill_floats(x + r * d.ldx, k, kind);
    fill_gap(y, n_y);
    dots_run(&d, y, d.ldy, 0, n_rows, 0, n_x);
    CHECK(floats_kept(2, n_y), "%s: wrote before y", doing);
    dots_check(&d, y);
    dots_regroup(&d, y, n_y);
}

static void dots_of(RowType type) {
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 33, 70};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int n_x = 1; n_x <= 9; n_x++) {
            for (int v = 0; v < 2; v++) dots_case(type, v, rows[pick(N_OF(rows))], n_x, sizes_k[a], pick(N_KINDS));
        }
    }
    for (int i = 0; i < N_OF(rows); i++) {
        for (int kind = 0; kind < N_KINDS; kind++) dots_case(type, i % 2, rows[i], 1 + pick(9), 130, kind);
    }
}

static void dots_f32(void) {
    dots_of(ROWS_F32);
}

static void dots_bf16(void) {
    dots_of(ROWS_BF16);
}

static void dots_i8(void) {
    dots_of(ROWS_I8);
}

// ---- matvec_i8g, unpack_i8g

static const int groups[] = {1, 3, 8, 16, 32, 64, 96};

// An int8 matrix of n values and its scales in fences 0 and 1. The last group may be incomplete: then the values
// end where the file would.
static void put_i8g(int64_t n, int group, int kind, int8_t **q, float **scales) {
    int64_t n_scales = (n + group - 1) / group;
    *q = fence_put(0, n);
    *scales = fence_floats(1, n_scales);
    fill_i8(*q, n);
    fill_floats(*scales, n_scales, kind);
}

static void matvec_i8g_case(int n_rows, int k, int group, int64_t row0, int kind) {
    DOING("matvec_i8g n_rows %d k %d group %d row0 %d data %d", n_rows, k, group, (int)row0, kind);
    int8_t *q;
    float *scales, *x = fence_floats(2, k), *y = fence_floats(3, n_rows);
    put_i8g((row0 + n_rows) * k, group, kind, &q, &scales);
    fill_floats(x, k, kind);
    fill_gap(y, n_rows);
    K->matvec_i8g(y, q, scales, group, row0, x, n_rows, k);
    CHECK(floats_kept(3, n_rows), "%s: wrote before y", doing);
    for (int i = 0; i < n_rows; i++) {
        double sum = 0, sum_abs = 0, sum_x = 0;
        for (int j = 0; j < k; j++) {
            int64_t at = (row0 + i) * k + j;
            double product = (double)q[at] * (double)scales[at / group] * (double)x[j];
            sum += product;
            sum_abs += fabs(product);
            sum_x += fabs((double)x[j]);
        }
        CHECK(near(y[i], sum, bound(sum_abs, sum_x, k)), "%s: y[%d] = %.9g, expected %.9g", doing, i, y[i], sum);
    }
    float *one = fence_floats(4, n_rows);
    for (int i = 0; i < n_rows; i++) K->matvec_i8g(one + i, q, scales, group, row0 + i, x, 1, k);
    CHECK(!memcmp(one, y, sizeof(float) * (size_t)n_rows), "%s: rows one at a time differ", doing);
    int cut = pick(n_rows + 1);
    K->matvec_i8g(one, q, scales, group, row0, x, cut, k);
    K->matvec_i8g(one + cut, q, scales, group, row0 + cut, x, n_rows - cut, k);
    CHECK(!memcmp(one, y, sizeof(float) * (size_t)n_rows), "%s: split at row %d differs", doing, cut);
}

static void matvec_i8g(void) {
    static const int offsets[] = {0, 1, 5};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int g = 0; g < N_OF(groups); g++) {
            for (int n_rows = 1; n_rows <= 9; n_rows++) {
                matvec_i8g_case(n_rows, sizes_k[a], groups[g], offsets[pick(3)], pick(N_KINDS));
            }
        }
    }
    for (int g = 0; g < N_OF(groups); g++) matvec_i8g_case(33, 96 * 4, groups[g], 7, PLAIN); // whole groups, many rows
}

static void unpack_i8g_case(int64_t first, int n, int group, int kind) {
    DOING("unpack_i8g first %d n %d group %d data %d", (int)first, n, group, kind);
    int8_t *q;
    float *scales, *y = fence_floats(2, n);
    put_i8g(first + n, group, kind, &q, &scales);
    fill_gap(y, n);
    K->unpack_i8g(y, q, scales, group, first, n);
    CHECK(floats_kept(2, n), "%s: wrote before y", doing);
    for (int i = 0; i < n; i++) {
        float expected = (float)q[first + i] * scales[(first + i) / group];
        CHECK(y[i] == expected, "%s: y[%d] = %.9g, expected exactly %.9g", doing, i, y[i], expected);
    }
}

static void unpack_i8g(void) {
    static const int firsts[] = {0, 1, 7, 16, 64, 96, 1001};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int g = 0; g < N_OF(groups); g++) {
            for (int f = 0; f < N_OF(firsts); f++) unpack_i8g_case(firsts[f], sizes_k[a], groups[g], pick(N_KINDS));
        }
    }
}

// ---- quantized rows

// Where a block has its scales of half precision; -1: none. value: of the first scale.
static const struct {
    DType dtype;
    int d_at, m_at;
} block_formats[] = {{DTYPE_Q4_0, 0, -1}, {DTYPE_Q4_1, 0, 2},    {DTYPE_Q5_0, 0, -1},   {DTYPE_Q5_1, 0, 2},
                     {DTYPE_Q8_0, 0, -1}, {DTYPE_Q2_K, 80, 82},  {DTYPE_Q3_K, 108, -1}, {DTYPE_Q4_K, 0, 2},
                     {DTYPE_Q5_K, 0, 2},  {DTYPE_Q6_K, 208, -1}, {DTYPE_MXFP4, -1, -1}};

// Random blocks; some of scale zero, some of a denormal one.
static void fill_blocks(uint8_t *w, int64_t n_blocks, int format) {
    const DTypeInfo *info = dtype_info(block_formats[format].dtype);
    for (int64_t b = 0; b < n_blocks; b++, w += info->block_bytes) {
        for (int i = 0; i < info->block_bytes; i++) w[i] = pick(6) ? (uint8_t)test_u32() : (uint8_t)(pick(2) * 255);
        uint16_t d = f16_from_f32(test_uniform() * (pick(9) ? 1.0f : 6e-8f)), m = f16_from_f32(test_uniform());
        if (block_formats[format].d_at >= 0) memcpy(w + block_formats[format].d_at, &d, sizeof d);
        if (block_formats[format].m_at >= 0) memcpy(w + block_formats[format].m_at, &m, sizeof m);
        if (info->block_bytes == 17) w[0] = (uint8_t)(pick(20) ? 120 + pick(9) : pick(2)); // MXFP4's exponent
    }
}

// What quantize makes of x: every value within half a step of the largest of its 32, the sums, zeros behind.
static void check_quantized(const Activations *a, const float *x, int k) {
    for (int i = 0; i < k; i++) {
        double top = 0, step = (double)a->scale[i / 16], got = step * (255 * a->high[i] + a->low[i]);
        for (int j = i / 32 * 32; j < i / 32 * 32 + 32; j++) top = fmax(top, fabs((double)x[j]));
        CHECK(fabs(step - top / 32512) <= 1e-6 * top + 1e-44, "%s: step %g of %g", doing, step, top);
        CHECK(fabs(got - (double)x[i]) <= 0.51 * step + 2e-44 || top < 1e-33, "%s: x[%d] = %g became %g", doing, i,
              (double)x[i], got);
    }
    for (int g = 0; g < (k + 255) / 256 * 16; g++) {
        long sum = 0;
        for (int i = 16 * g; i < 16 * g + 16; i++) sum += 255 * a->high[i] + a->low[i];
        double want = (double)a->scale[g] * (double)sum;
        CHECK(fabs((double)a->sum[g] - want) <= 1e-6 * fabs(want), "%s: sum %d is %g, expected %g", doing, g,
              (double)a->sum[g], want);
        CHECK(g < k / 16 || (!sum && a->scale[g] == 0), "%s: group %d is not zero", doing, g);
    }
}

static void matvec_blocks_case(int format, int n_rows, int k, int kind) {
    const DTypeInfo *info = dtype_info(block_formats[format].dtype);
    DOING("matvec %s n_rows %d k %d data %d", info->name, n_rows, k, kind);
    int64_t row_bytes = k / info->block * info->block_bytes, padded = (k + 255) / 256 * 256;
    uint8_t *w = fence_put(0, n_rows * row_bytes);
    float *x = fence_floats(1, k), *y = fence_floats(2, n_rows), *one = fence_floats(3, n_rows), *v = need_floats(k);
    Activations a = {.high = fence_put(4, padded), .low = need((size_t)padded)};
    a.scale = fence_floats(5, padded / 16), a.sum = need_floats(padded / 16);
    fill_blocks(w, n_rows * (k / info->block), format);
    fill_floats(x, k, kind);
    K->quantize(&a, x, k);
    check_quantized(&a, x, k);
    const BlockKernels *kernels_of = &K->blocks[block_formats[format].dtype];
    kernels_of->matvec(y, w, &a, n_rows, k);
    for (int r = 0; r < n_rows; r++) {
        double sum = 0, most = 0;
        info->unpack(v, w + r * row_bytes, k / info->block);
        for (int j = 0; j < k; j++) {
            double xj = (double)a.scale[j / 16] * (255 * a.high[j] + a.low[j]), top = 0;
            for (int i = j / 32 * 32; i < j / 32 * 32 + 32; i++) top = fmax(top, fabs((double)v[i]));
            sum += (double)v[j] * xj;
            most += 8 * top * fabs(xj); // products are of values less their zero
        }
        CHECK(near(y[r], sum, 64 * (double)FLT_EPSILON * most + 1e-30), "%s: y[%d] = %.9g, expected %.9g", doing, r,
              (double)y[r], sum);
    }
    for (int r = 0; r < n_rows; r++) kernels_of->matvec(one + r, w + r * row_bytes, &a, 1, k);
    CHECK(!memcmp(one, y, sizeof *y * (size_t)n_rows), "%s: rows one at a time differ", doing);
    free(v);
    free(a.low);
    free(a.sum);
}

static void unpack_blocks_case(int format, int k) {
    const DTypeInfo *info = dtype_info(block_formats[format].dtype);
    DOING("unpack %s k %d", info->name, k);
    uint8_t *w = fence_put(0, k / info->block * info->block_bytes);
    float *y = fence_floats(1, k), *want = need_floats(k);
    fill_blocks(w, k / info->block, format);
    info->unpack(want, w, k / info->block);
    K->blocks[block_formats[format].dtype].unpack(y, w, k);
    for (int i = 0; i < k; i++) {
        CHECK(y[i] == want[i], "%s: value %d is %.9g, expected exactly %.9g", doing, i, (double)y[i], (double)want[i]);
    }
    free(want);
}

static void matvec_blocks(void) {
    static const int sizes[] = {32, 64, 96, 224, 256, 288, 512, 1056, 2048};
    for (int f = 0; K->blocks && f < N_OF(block_formats); f++) {
        for (int i = 0; i < N_OF(sizes); i++) {
            if (sizes[i] % dtype_info(block_formats[f].dtype)->block) continue;
            for (int n_rows = 1; n_rows < 6; n_rows += 2) matvec_blocks_case(f, n_rows, sizes[i], pick(N_KINDS));
            unpack_blocks_case(f, sizes[i]);
        }
    }
}

// ---- pack, gemm

static void pack_case(int n_rows, int k, int64_t ldw) {
    DOING("pack n_rows %d k %d ldw %d", n_rows, k, (int)ldw);
    int64_t n = (int64_t)k * K->panel;
    float *w = fence_floats(0, (n_rows - 1) * ldw + k), *panel = fence_floats(1, n);
    fill_gap(w, (n_rows - 1) * ldw + k);
    for (int i = 0; i < n_rows; i++) fill_floats(w + i * ldw, k, EXTREME);
    fill_gap(panel, n);
    K->pack(panel, w, ldw, n_rows, k);
    CHECK(floats_kept(1, n), "%s: wrote before the panel", doing);
    for (int j = 0; j < k; j++) {
        for (int i = 0; i < K->panel; i++) {
            float expected = i < n_rows ? w[i * ldw + j] : 0;
            CHECK(!memcmp(&panel[j * K->panel + i], &expected, sizeof expected), "%s: panel[%d][%d] = %.9g, not %.9g",
                  doing, j, i, panel[j * K->panel + i], expected);
        }
    }
}

static void pack(void) {
    for (int a = 0; a < N_OF(sizes_k); a += 2 * step_k()) {
        for (int n_rows = 1; n_rows <= K->panel; n_rows++) pack_case(n_rows, sizes_k[a], sizes_k[a] + pick(3));
    }
}

typedef struct {
    int64_t ldy, ldx;
    const float *panel, *x;
    int n, k, lanes;
    bool add;
} Gemm;

static void gemm_check(const Gemm *g, const float *y, const float *before) {
    for (int j = 0; j < g->n; j++) {
        for (int i = 0; i < g->lanes; i++) {
            double sum = g->add ? (double)before[j * g->ldy + i] : 0, sum_abs = fabs(sum), sum_x = 0;
            for (int c = 0; c < g->k; c++) {
                double x = (double)g->x[j * g->ldx + c], product = x * (double)g->panel[c * K->panel + i];
                sum += product;
                sum_abs += fabs(product);
                sum_x += fabs(x);
            }
            float found = y[j * g->ldy + i];
            CHECK(near(found, sum, bound(sum_abs, sum_x, g->k)), "%s: y[%d][%d] = %.9g, expected %.9g", doing, j, i,
                  found, sum);
        }
        for (int64_t i = g->lanes; j + 1 < g->n && i < g->ldy; i++) {
            CHECK(is_gap(y[j * g->ldy + i]), "%s: wrote y[%d][%d], beyond its lanes", doing, j, (int)i);
        }
    }
}

// The same in other groupings: a column at a time, split in two, and in a panel of all lanes.
static void gemm_regroup(const Gemm *g, const float *y, const float *before, int64_t n_y) {
    size_t bytes = sizeof(float) * (size_t)n_y;
    float *again = fence_floats(4, n_y);
    memcpy(again, before, bytes);
    for (int j = 0; j < g->n; j++) {
        K->gemm(again + j * g->ldy, g->ldy, g->panel, g->x + j * g->ldx, g->ldx, 1, g->k, g->lanes, g->add);
    }
    CHECK(!memcmp(again, y, bytes), "%s: columns one at a time differ", doing);
    memcpy(again, before, bytes);
    int cut = pick(g->n + 1);
    K->gemm(again, g->ldy, g->panel, g->x, g->ldx, cut, g->k, g->lanes, g->add);
    K->gemm(again + cut * g->ldy, g->ldy, g->panel, g->x + cut * g->ldx, g->ldx, g->n - cut, g->k, g->lanes, g->add);
    CHECK(!memcmp(again, y, bytes), "%s: split at column %d differs", doing, cut);

    int64_t ld = K->panel + 1, n_full = (g->n - 1) * ld + K->panel;
    float *full = fence_floats(5, n_full);
    for (int64_t i = 0; i < n_full; i++) full[i] = 0;
    for (int j = 0; j < g->n; j++) memcpy(full + j * ld, before + j * g->ldy, sizeof(float) * (size_t)g->lanes);
    K->gemm(full, ld, g->panel, g->x, g->ldx, g->n, g->k, K->panel, g->add);
    for (int j = 0; j < g->n; j++) {
        CHECK(!memcmp(full + j * ld, y + j * g->ldy, sizeof(float) * (size_t)g->lanes),
              "%s: column %d of a full panel differs", doing, j);
    }
}

static void gemm_case(int n, int k, int lanes, bool add, int kind) {
    int64_t ldy = lanes + (pick(2) ? 0 : 5), ldx = k + (pick(2) ? 0 : 3);
    int64_t n_x = (n - 1) * ldx + k, n_y = (n - 1) * ldy + lanes;
    DOING("gemm n %d k %d lanes %d ldy %d ldx %d add %d data %d", n, k, lanes, (int)ldy, (int)ldx, add, kind);
    float *panel = fence_floats(0, (int64_t)k * K->panel), *x = fence_floats(1, n_x);
    float *y = fence_floats(2, n_y), *before = fence_floats(3, n_y);
    for (int c = 0; c < k; c++) { // what lies in the lanes beyond must not matter
        fill_floats(panel + c * K->panel, lanes, kind);
        fill_gap(panel + c * K->panel + lanes, K->panel - lanes);
    }
    fill_gap(x, n_x);
    fill_gap(before, n_y); // without `add`, what y holds must not matter
    for (int j = 0; j < n; j++) {
        fill_floats(x + j * ldx, k, kind);
        if (add) fill_floats(before + j * ldy, lanes, kind);
    }
    memcpy(y, before, sizeof(float) * (size_t)n_y);
    K->gemm(y, ldy, panel, x, ldx, n, k, lanes, add);
    CHECK(floats_kept(2, n_y), "%s: wrote before y", doing);
    Gemm g = {ldy, ldx, panel, x, n, k, lanes, add};
    gemm_check(&g, y, before);
    gemm_regroup(&g, y, before, n_y);
}

static void gemm(void) {
    static const int columns[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 25, 29};
    static const int lanes[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 23, 31, 32};
    for (int a = 0; a < N_OF(sizes_gemm_k); a += quick() ? 3 : 1) {
        for (int b = 0; b < N_OF(columns); b += quick() ? 2 : 1) {
            for (int c = 0; c < N_OF(lanes) && lanes[c] <= K->panel; c++) {
                gemm_case(columns[b], sizes_gemm_k[a], lanes[c], pick(2), pick(N_KINDS));
            }
            for (int kind = 0; kind < N_KINDS; kind++) {
                gemm_case(columns[b], sizes_gemm_k[a], K->panel, pick(2), kind);
            }
        }
    }
}

// ---- products of bfloat16

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

// To nearest, ties to even. VCVTNEPS2BF16 takes a denormal number for zero, which is nothing to a sum of products, and
// leaves a NaN one.
static bool is_rounded(uint16_t found, float x) {
    if (isnan(x)) return isnan(half_value(found, false));
    if (fabsf(x) < FLT_MIN) return (found & 0x7fff) == 0 && found >> 15 == (signbit(x) != 0);
    return found == bf16_from_f32(x);
}

static void bf16_round_case(const float *values, int n) {
    DOING("bf16 round n %d from %.9g", n, values[0]);
    float *x = fence_floats(0, n);
    uint16_t *y = fence_put(1, n * (int64_t)sizeof *y);
    memcpy(x, values, sizeof *x * (size_t)n);
    K->bf16->round(y, x, n);
    CHECK(canary_kept(1, n * (int64_t)sizeof *y), "%s: wrote before y", doing);
    for (int i = 0; i < n; i++) {
        CHECK(is_rounded(y[i], x[i]), "%s: y[%d] of %.9g is %04x, expected %04x", doing, i, x[i], (unsigned)y[i],
              (unsigned)bf16_from_f32(x[i]));
    }
    uint16_t *in_place = (uint16_t *)(void *)x;
    K->bf16->round(in_place, x, n);
    CHECK(!memcmp(in_place, y, sizeof *y * (size_t)n), "%s: in place differs", doing);
}

static void bf16_round(void) {
    enum { ROOM = 8192 };
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff}; // a tie is 0x8000
    float *values = need_floats(ROOM);
    for (int a = 0; a < N_OF(sizes_k); a++) {
        fill_floats(values, sizes_k[a], pick(N_KINDS));
        bf16_round_case(values, sizes_k[a]);
    }
    for (uint32_t first = 0; first < 65536; first += ROOM) { // all sizes, infinities and NaN
        for (int i = 0; i < N_OF(low); i++) {
            for (uint32_t at = 0; at < ROOM; at++) values[at] = float_of((first + at) << 16 | low[i]);
            bf16_round_case(values, ROOM);
        }
    }
    for (int i = 0; i < ROOM; i++) values[i] = float_of(test_u32());
    bf16_round_case(values, ROOM);
    free(values);
}

typedef struct {
    int64_t ldy, ldx, step;
    const uint16_t *panel, *x;
    int n, k, lanes;
    bool add;
} GemmBf16;

static int64_t bf16_at(const GemmBf16 *g, int j, int k) {
    return j * g->ldx + k / BF16_STEP * g->step + k % BF16_STEP;
}

static void bf16_gemm_check(const GemmBf16 *g, const float *y, const float *before) {
    int P = K->panel;
    for (int j = 0; j < g->n; j++) {
        for (int i = 0; i < g->lanes; i++) {
            double sum = g->add ? (double)before[j * g->ldy + i] : 0, sum_abs = fabs(sum), both = 1;
            for (int k = 0; k < g->k; k++) {
                double x = half_value(g->x[bf16_at(g, j, k)], false);
                double p = half_value(g->panel[(k / 2 * P + i) * 2 + k % 2], false);
                sum += x * p;
                sum_abs += fabs(x * p);
                both += fabs(x) + fabs(p); // a denormal operand counts as zero
            }
            float found = y[j * g->ldy + i];
            CHECK(near(found, sum, bound(sum_abs, both, g->k)), "%s: y[%d][%d] = %.9g, expected %.9g", doing, j, i,
                  found, sum);
        }
        for (int64_t i = g->lanes; j + 1 < g->n && i < g->ldy; i++) {
            CHECK(is_gap(y[j * g->ldy + i]), "%s: wrote y[%d][%d], beyond its lanes", doing, j, (int)i);
        }
    }
}

static void bf16_gemm_run(const GemmBf16 *g, const uint16_t *x, float *y, int first, int n) {
    K->bf16->gemm(y + first * g->ldy, g->ldy, g->panel, x + first * g->ldx, g->ldx, g->step, n, g->k, g->lanes, g->add);
}

// A row at a time, split in two, and in all lanes. Wherever the rows begin, BF16_ROWS of them may be read.
static void bf16_gemm_regroup(const GemmBf16 *g, const float *y, const float *before, int64_t n_x, int64_t n_y) {
    size_t bytes = sizeof *y * (size_t)n_y;
    int64_t room = n_x + BF16_ROWS * g->ldx;
    uint16_t *x = need(sizeof *x * (size_t)room);
    for (int64_t i = 0; i < room; i++) x[i] = i < n_x ? g->x[i] : half_gap[0];
    float *again = fence_floats(4, n_y);
    memcpy(again, before, bytes);
    for (int j = 0; j < g->n; j++) bf16_gemm_run(g, x, again, j, 1);
    CHECK(!memcmp(again, y, bytes), "%s: rows one at a time differ", doing);
    memcpy(again, before, bytes);
    int cut = pick(g->n + 1);
    if (cut) bf16_gemm_run(g, x, again, 0, cut);
    if (cut < g->n) bf16_gemm_run(g, x, again, cut, g->n - cut);
    CHECK(!memcmp(again, y, bytes), "%s: split at row %d differs", doing, cut);

    int64_t ld = K->panel + 1, n_full = (g->n - 1) * ld + K->panel;
    float *full = fence_floats(5, n_full);
    memset(full, 0, sizeof *full * (size_t)n_full);
    for (int j = 0; j < g->n; j++) memcpy(full + j * ld, before + j * g->ldy, sizeof *y * (size_t)g->lanes);
    K->bf16->gemm(full, ld, g->panel, g->x, g->ldx, g->step, g->n, g->k, K->panel, g->add);
    for (int j = 0; j < g->n; j++) {
        CHECK(!memcmp(full + j * ld, y + j * g->ldy, sizeof *y * (size_t)g->lanes), "%s: row %d of all lanes differs",
              doing, j);
    }
    free(x);
}

// Rows of x as K has them, or in groups as V has. Rows up to a multiple of BF16_ROWS are there and no numbers.
static void bf16_gemm_case(bool groups_of_v, int n, int k, int lanes, bool add, int kind) {
    int P = K->panel, padded = (n + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS;
    GemmBf16 g = {.n = n, .k = k, .lanes = lanes, .add = add, .ldy = lanes + pick(2) * 5};
    g.ldx = groups_of_v ? BF16_STEP : k + pick(3);
    g.step = groups_of_v ? BF16_STEP * (padded + pick(3)) : BF16_STEP;
    DOING("bf16 gemm n %d k %d lanes %d ldy %d ldx %d step %d add %d data %d", n, k, lanes, (int)g.ldy, (int)g.ldx,
          (int)g.step, add, kind);
    int64_t n_x = bf16_at(&g, padded - 1, k - 1) + 1, n_y = (n - 1) * g.ldy + lanes;
    uint16_t *panel = fence_put(0, (int64_t)k * P * (int64_t)sizeof *panel);
    uint16_t *x = fence_put(1, n_x * (int64_t)sizeof *x);
    float *y = fence_floats(2, n_y), *before = fence_floats(3, n_y);
    for (int64_t i = 0; i < (int64_t)k * P; i++) panel[i] = i / 2 % P < lanes ? any_half(kind, false) : half_gap[0];
    for (int64_t i = 0; i < n_x; i++) x[i] = half_gap[0];
    fill_gap(before, n_y);
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < k; i++) x[bf16_at(&g, j, i)] = any_half(kind, false);
        if (add) fill_floats(before + j * g.ldy, lanes, kind);
    }
    g.panel = panel;
    g.x = x;
    memcpy(y, before, sizeof *y * (size_t)n_y);
    bf16_gemm_run(&g, x, y, 0, n);
    CHECK(floats_kept(2, n_y), "%s: wrote before y", doing);
    bf16_gemm_check(&g, y, before);
    bf16_gemm_regroup(&g, y, before, n_x, n_y);
}

static void bf16_gemm(void) {
    static const int rows[] = {1, 2, 3, 5, 7, 11, 12, 13, 15, 16, 17, 23, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70};
    static const int sizes[] = {32, 64, 96, 128, 224, 512};
    for (int a = 0; a < N_OF(sizes); a += quick() ? 2 : 1) {
        for (int b = 0; b < N_OF(rows); b += quick() ? 2 : 1) {
            for (int v = 0; v < 2; v++) {
                bf16_gemm_case(v, rows[b], sizes[a], 1 + pick(K->panel), pick(2), pick(N_KINDS));
                bf16_gemm_case(v, rows[b], sizes[a], K->panel, v ^ b % 2, pick(N_KINDS));
            }
        }
    }
    for (int lanes = 1; lanes <= K->panel; lanes++) {
        for (int kind = 0; kind < N_KINDS; kind++) bf16_gemm_case(lanes % 2, 1 + pick(70), 64, lanes, kind % 2, kind);
    }
}

// The tile kernel over tile operations in C; in a thread of its own, which has to lay out its tiles itself.
static void *tiles_thread(void *unused) {
    bf16_gemm_case(false, 37, 96, K->panel, true, PLAIN);
    return unused;
}

static void tiles_in_c(void) {
    pthread_t thread;
    bf16_gemm();
    if (!pthread_create(&thread, NULL, tiles_thread, NULL)) pthread_join(thread, NULL);
    CHECK(!*tiles_fault(), "%s", tiles_fault());
}

static void run_tiles(void) {
    if (!has_bf16(cpu_best_rung()) || !tiles_fault) {
        printf("tile operations in C: skipped, this machine has no AVX512-BF16\n");
        return;
    }
    static Kernels table;
    table = *kernels_for(cpu_best_rung());
    table.name = "tiles in C";
    table.bf16 = &bf16_tiles_in_c;
    K = &table;
    n_cases = 0;
    printf("%s\n", K->name);
    RUN(tiles_in_c);
    printf("  %d cases\n", n_cases);
}

// ---- online softmax

// Scores of one query: what attention produces and what it masks.
static float any_score(int kind, int masked_of_8) {
    if (pick(8) < masked_of_8) return SCORE_MASKED;
    return kind == EXTREME ? test_uniform() * 1e4f : kind == WIDE ? test_uniform() * 150 : test_uniform() * 8;
}

// 2^d of a float difference d <= 0: d is rounded to float first (relative to its size), and what is below the
// smallest normal number may fade to 0.
static double exp2_bound(double d) {
    return exp2(d) * (1e-6 + 1.2e-7 * fabs(d)) + 2 * (double)FLT_MIN;
}

// One query of one tile, in double: m and l before, n scores, what they became.
static void softmax_check(const float *before, const float *after, int n, int stride, float m0, float l0, float m,
                          float l, float alpha, int lane) {
    float top = m0;
    for (int j = 0; j < n; j++) top = before[j * stride] > top ? before[j * stride] : top;
    CHECK(m == top, "%s lane %d: m = %.9g, expected %.9g", doing, lane, m, top);
    double sum = 0;
    for (int j = 0; j < n; j++) {
        double d = (double)before[j * stride] - (double)top, p = exp2(d);
        float found = after[j * stride];
        sum += p;
        CHECK(near(found, p, exp2_bound(d)), "%s lane %d: P[%d] = %.9g, expected %.9g", doing, lane, j, found, p);
        CHECK(before[j * stride] != SCORE_MASKED || found == 0, "%s lane %d: masked P[%d] = %.9g, expected exactly 0",
              doing, lane, j, found);
    }
    double d = (double)m0 - (double)top, expected = (double)l0 * exp2(d) + sum;
    CHECK(near(alpha, exp2(d), exp2_bound(d)), "%s lane %d: alpha = %.9g, expected %.9g", doing, lane, alpha, exp2(d));
    CHECK(m0 != top || alpha == 1, "%s lane %d: m stayed, but alpha = %.9g", doing, lane, alpha);
    CHECK(near(l, expected, 2e-5 * expected + 2 * (double)FLT_MIN * n), "%s lane %d: l = %.9g, expected %.9g", doing,
          lane, l, expected);
    if (sum <= 0) CHECK(l == l0, "%s lane %d: nothing visible, but l went from %.9g to %.9g", doing, lane, l0, l);
}

static float start_m(int which) { // nothing seen yet, a learned sink, a running maximum
    return which == 0 ? SCORE_START : which == 1 ? test_uniform() * 3 : test_uniform() * 200;
}

static void softmax_lanes_case(int n_keys, int kind, int masked_of_8) {
    DOING("softmax_lanes n_keys %d data %d masked %d/8", n_keys, kind, masked_of_8);
    int P = K->panel;
    int64_t n = (int64_t)n_keys * P;
    float *s = fence_floats(0, n), *m = fence_floats(1, P), *l = fence_floats(2, P), *alpha = fence_floats(3, P);
    float *before = fence_floats(4, n), m0[MAX_PANEL], l0[MAX_PANEL];
    for (int i = 0; i < P; i++) {
        int which = pick(3);
        m[i] = start_m(which);
        l[i] = which == 0 ? 0 : which == 1 ? 1 : 1 + 50 * fabsf(test_uniform());
    }
    fill_gap(alpha, P);
    for (int tile = 0; tile < 3; tile++) { // the state goes on from tile to tile
        for (int64_t i = 0; i < n; i++) s[i] = any_score(kind, i % P == 1 ? 8 : masked_of_8);
        memcpy(before, s, sizeof(float) * (size_t)n);
        memcpy(m0, m, sizeof(float) * (size_t)P);
        memcpy(l0, l, sizeof(float) * (size_t)P);
        bool rescale = K->softmax_lanes(s, n_keys, m, l, alpha), expected = false;
        for (int i = 0; i < P; i++) {
            softmax_check(before + i, s + i, n_keys, P, m0[i], l0[i], m[i], l[i], alpha[i], i);
            expected |= alpha[i] != 1;
        }
        CHECK(rescale == expected, "%s: returned %d, some alpha is %s1", doing, rescale, expected ? "not " : "");
        bool kept = floats_kept(0, n) && floats_kept(1, P) && floats_kept(2, P) && floats_kept(3, P);
        CHECK(kept, "%s: wrote before an operand", doing);
    }
}

// In bfloat16: one lane of the panel, of `padded` keys.
static void bf16_softmax_check(const float *before, const uint16_t *panel, int n, int padded, float m0, float l0,
                               float m, float l, float alpha, int lane) {
    const double part = 1e-4 + 1.0 / 256; // the polynomial, rounding to 8 bits (half of it) and slack
    float top = m0;
    for (int j = 0; j < n; j++) top = fmaxf(top, before[j * MAX_PANEL + lane]);
    float expected_m = top > m0 + SOFTMAX_MARGIN ? top : m0;
    CHECK(m == expected_m, "%s lane %d: m = %.9g, expected %.9g", doing, lane, m, expected_m);
    double sum = 0;
    for (int j = 0; j < padded; j++) {
        double found = half_value(panel[(j / 2 * MAX_PANEL + lane) * 2 + j % 2], false);
        double p = j < n ? exp2((double)before[j * MAX_PANEL + lane] - (double)m) : 0;
        sum += p;
        CHECK(fabs(found - p) <= part * p + 2 * (double)FLT_MIN, "%s lane %d: P[%d] = %.9g, expected %.9g", doing, lane,
              j, found, p);
        bool nothing = j >= n || before[j * MAX_PANEL + lane] == SCORE_MASKED;
        CHECK(!nothing || found == 0, "%s lane %d: masked P[%d] = %.9g, expected exactly 0", doing, lane, j, found);
    }
    double factor = exp2((double)m0 - (double)m), expected = (double)l0 * factor + sum;
    CHECK(fabs((double)alpha - factor) <= 1e-4 * factor + 2 * (double)FLT_MIN,
          "%s lane %d: alpha = %.9g, expected %.9g", doing, lane, alpha, factor);
    CHECK(m0 != m || alpha == 1, "%s lane %d: m stayed, but alpha = %.9g", doing, lane, alpha);
    CHECK(fabs((double)l - expected) <= 1e-4 * expected + 2 * (double)FLT_MIN * n,
          "%s lane %d: l = %.9g, expected %.9g", doing, lane, l, expected);
    if (sum <= 0) CHECK(l == l0, "%s lane %d: nothing visible, but l went from %.9g to %.9g", doing, lane, l0, l);
}

static void bf16_softmax_case(int n_keys, int kind, int masked_of_8) {
    DOING("bf16 softmax_lanes n_keys %d data %d masked %d/8", n_keys, kind, masked_of_8);
    int P = K->panel, padded = (n_keys + BF16_STEP - 1) / BF16_STEP * BF16_STEP;
    int64_t n = (int64_t)n_keys * P, bytes = (int64_t)padded * P * (int64_t)sizeof(uint16_t);
    float *s = fence_floats(0, n), *m = fence_floats(1, P), *l = fence_floats(2, P), *alpha = fence_floats(3, P);
    uint16_t *panel = fence_put(4, bytes);
    float m0[MAX_PANEL], l0[MAX_PANEL];
    for (int i = 0; i < P; i++) {
        int which = pick(3);
        m[i] = start_m(which);
        l[i] = which == 0 ? 0 : which == 1 ? 1 : 1 + 50 * fabsf(test_uniform());
    }
    for (int tile = 0; tile < 3; tile++) {
        for (int64_t i = 0; i < n; i++) s[i] = any_score(kind, i % P == 1 ? 8 : masked_of_8);
        memset(panel, 0xff, (size_t)bytes);
        fill_gap(alpha, P);
        memcpy(m0, m, sizeof(float) * (size_t)P);
        memcpy(l0, l, sizeof(float) * (size_t)P);
        bool rescale = K->bf16->softmax_lanes(panel, s, n_keys, m, l, alpha), expected = false;
        for (int i = 0; i < P; i++) {
            bf16_softmax_check(s, panel, n_keys, padded, m0[i], l0[i], m[i], l[i], alpha[i], i);
            expected |= alpha[i] != 1;
        }
        CHECK(rescale == expected, "%s: returned %d, some alpha is %s1", doing, rescale, expected ? "not " : "");
        bool kept = floats_kept(1, P) && floats_kept(2, P) && floats_kept(3, P) && canary_kept(4, bytes);
        CHECK(kept, "%s: wrote before an operand", doing);
    }
}

static void bf16_softmax(void) {
    static const int masked[] = {0, 3, 8};
    for (int a = 0; a < N_OF(sizes_k) && sizes_k[a] <= 130; a += step_k()) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            for (int c = 0; c < N_OF(masked); c++) bf16_softmax_case(sizes_k[a], kind, masked[c]);
        }
    }
}

static void softmax_row_case(int n_keys, int kind, int masked_of_8) {
    DOING("softmax_row n_keys %d data %d masked %d/8", n_keys, kind, masked_of_8);
    float *s = fence_floats(0, n_keys), *before = fence_floats(1, n_keys);
    int which = pick(3);
    float m = start_m(which), l = which ? 1.5f : 0;
    for (int tile = 0; tile < 3; tile++) {
        for (int i = 0; i < n_keys; i++) s[i] = any_score(kind, masked_of_8);
        memcpy(before, s, sizeof(float) * (size_t)n_keys);
        float m0 = m, l0 = l, alpha = K->softmax_row(s, n_keys, &m, &l);
        softmax_check(before, s, n_keys, 1, m0, l0, m, l, alpha, 0);
        CHECK(floats_kept(0, n_keys), "%s: wrote before s", doing);
    }
}

static void softmax(void) {
    static const int masked[] = {0, 3, 8};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        if ((int64_t)sizes_k[a] * K->panel * 4 > FENCE_BYTES / 2) continue;
        for (int kind = 0; kind < N_KINDS; kind++) {
            for (int c = 0; c < N_OF(masked); c++) {
                if (sizes_k[a] <= 300) softmax_lanes_case(sizes_k[a], kind, masked[c]);
                softmax_row_case(sizes_k[a], kind, masked[c]);
            }
        }
    }
}

// ---- f16, bf16, norms, activations

// Bits equal, or both NaN: a vector instruction may make a signalling NaN quiet.
static bool same_value(float found, double expected) {
    float e = (float)expected;
    return isnan(e) ? isnan(found) : !memcmp(&found, &e, sizeof e);
}

static void unpack_half_case(bool is_f16, int n_rows, int n, int64_t ldx, int64_t ldy, int first_bits) {
    DOING("f32_from_%s n_rows %d n %d ldx %d ldy %d", is_f16 ? "f16" : "bf16", n_rows, n, (int)ldx, (int)ldy);
    int64_t n_x = (n_rows - 1) * ldx + n, n_y = (n_rows - 1) * ldy + n;
    uint16_t *x = fence_put(0, n_x * (int64_t)sizeof *x);
    float *y = fence_floats(1, n_y);
    for (int64_t i = 0; i < n_x; i++) x[i] = (uint16_t)(first_bits < 0 ? (int)test_u32() : first_bits + (int)i);
    fill_gap(y, n_y);
    if (is_f16) K->f32_from_f16(y, ldy, x, ldx, n_rows, n);
    else K->f32_from_bf16(y, ldy, x, ldx, n_rows, n);
    CHECK(floats_kept(1, n_y), "%s: wrote before y", doing);
    for (int i = 0; i < n_rows; i++) {
        for (int j = 0; j < n; j++) {
            uint16_t bits = x[i * ldx + j];
            float found = y[i * ldy + j];
            CHECK(same_value(found, half_value(bits, is_f16)), "%s: y[%d][%d] of %04x is %.9g, expected exactly %.9g",
                  doing, i, j, (unsigned)bits, found, half_value(bits, is_f16));
            uint32_t kept;
            memcpy(&kept, &found, sizeof kept);
            CHECK(is_f16 || kept == (uint32_t)bits << 16, "%s: y[%d][%d] is %08x, expected %04x0000", doing, i, j, kept,
                  (unsigned)bits);
        }
        for (int64_t j = n; i + 1 < n_rows && j < ldy; j++) {
            CHECK(is_gap(y[i * ldy + j]), "%s: wrote y[%d][%d], beyond its row", doing, i, (int)j);
        }
    }
}

static void unpack_half(bool is_f16) {
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        int n = sizes_k[a];
        for (int n_rows = 1; n_rows <= 5; n_rows++) {
            unpack_half_case(is_f16, n_rows, n, n, n, -1);
            unpack_half_case(is_f16, n_rows, n, n + 1 + pick(7), n + 1 + pick(7), -1);
        }
    }
    for (int bits = 0; bits < 65536; bits += 4096) unpack_half_case(is_f16, 1, 4096, 4096, 4096, bits); // all there are
}

static void rows_from_f16(void) {
    unpack_half(true);
}

static void rows_from_bf16(void) {
    unpack_half(false);
}

static void rmsnorm_case(int n, int kind, float eps) {
    DOING("rmsnorm n %d data %d eps %g", n, kind, (double)eps);
    float *x = fence_floats(0, n), *weight = fence_floats(1, n), *y = fence_floats(2, n);
    fill_floats(x, n, kind);
    if (kind == N_KINDS) memset(x, 0, sizeof(float) * (size_t)n);
    fill_floats(weight, n, PLAIN);
    fill_gap(y, n);
    K->rmsnorm(y, x, weight, n, eps);
    CHECK(floats_kept(2, n), "%s: wrote before y", doing);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    double scale = 1 / sqrt(sum / n + (double)eps);
    for (int i = 0; i < n; i++) {
        double expected = (double)x[i] * scale * (double)weight[i];
        CHECK(near(y[i], expected, (5e-7 + 6e-8 * sqrt(n)) * fabs(expected) + (double)FLT_MIN),
              "%s: y[%d] = %.9g, expected %.9g", doing, i, y[i], expected);
    }
}

static void rmsnorm(void) {
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int kind = 0; kind <= N_KINDS; kind++) rmsnorm_case(sizes_k[a], kind, pick(2) ? 1e-5f : 1e-6f);
    }
}

// Rows that break a layer norm: MEAN, 1000 + [-1, 1); CONSTANT, one value and variance 0; SPREAD, 1000 + [-1, 1) /
// 1000, 16 steps of a float.
enum { MEAN = N_KINDS, SPREAD, CONSTANT, N_NORM_KINDS };

static const char *const norm_kinds[] = {"plain",   "wide", "extreme", "mean 1000", "mean 1000, deviation 6e-4",
                                         "constant"};
static struct {
    double error, part; // |y - expected| at most, over |weight| in the first; its part of the bound
} norm_worst[N_NORM_KINDS];

static void fill_row(float *x, int n, int kind) {
    float constant = pick(4) ? test_uniform() * 100 : pick(2) ? 1e4f : 0.1f;
    for (int i = 0; i < n; i++) {
        x[i] = kind == CONSTANT ? constant
               : kind == SPREAD ? 1000 + test_uniform() * 1e-3f
               : kind == MEAN   ? 1000 + test_uniform()
                                : any_float(kind);
    }
}

// What the bound on a row's y is made of. The mean of n floats, in whatever order they are added, is off by at most
// `shift` = (n + 1) u mean|x|, u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 4.2). Around a mean
// off by s the variance is v + s^2, never less, so with r = sqrt(v + eps) and d = x - mean:
//   |(d - s) / sqrt(v + s^2 + eps) - d / r| <= |s| / r + |d| / r * min(1, s^2 / (2 r^2))
// and besides there is the rounding of the sum of squares (sqrt n), of the root and of four more operations.
typedef struct {
    double mean, r, shift, rounding;
} NormRow;

static NormRow norm_row(const float *x, int n, double eps) {
    NormRow row = {.rounding = 5e-7 + 6e-8 * sqrt(n)};
    double sum_abs = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        row.mean += (double)x[i] / n;
        sum_abs += fabs((double)x[i]);
    }
    for (int i = 0; i < n; i++) squares += ((double)x[i] - row.mean) * ((double)x[i] - row.mean);
    row.r = sqrt(squares / n + eps);
    row.shift = (n + 1) * (double)FLT_EPSILON / 2 * (sum_abs / n) + (double)FLT_MIN;
    return row;
}

static void layernorm_case(int n, int kind, float eps) {
    DOING("layernorm n %d data %s eps %g", n, norm_kinds[kind], (double)eps);
    float *x = fence_floats(0, n), *weight = fence_floats(1, n), *bias = fence_floats(2, n), *y = fence_floats(3, n);
    float *in_place = fence_floats(4, n);
    fill_row(x, n, kind);
    fill_floats(weight, n, PLAIN);
    fill_floats(bias, n, pick(2) ? PLAIN : EXTREME);
    fill_gap(y, n);
    memcpy(in_place, x, sizeof(float) * (size_t)n);
    K->layernorm(y, x, weight, bias, n, eps);
    CHECK(floats_kept(3, n), "%s: wrote before y", doing);
    NormRow row = norm_row(x, n, (double)eps);
    for (int i = 0; i < n; i++) {
        double d = ((double)x[i] - row.mean) / row.r, w = fabs((double)weight[i]), s = row.shift / row.r;
        double expected = d * (double)weight[i] + (double)bias[i];
        double moved = s + fabs(d) * fmin(1, s * s / 2), rounded = (fabs(d) + s) * row.rounding;
        double tolerance = w * (moved + rounded) + 1.2e-7 * fabs((double)bias[i]) + (double)FLT_MIN;
        double error = fabs((double)y[i] - expected);
        CHECK(near(y[i], expected, tolerance), "%s: y[%d] = %.9g, expected %.9g +- %.2g", doing, i, y[i], expected,
              tolerance);
        if (w > 0.1 && fabs((double)bias[i]) <= 1) norm_worst[kind].error = fmax(norm_worst[kind].error, error / w);
        norm_worst[kind].part = fmax(norm_worst[kind].part, error / tolerance);
    }
    K->layernorm(in_place, in_place, weight, bias, n, eps);
    CHECK(floats_kept(4, n), "%s: wrote before x", doing);
    CHECK(!memcmp(in_place, y, sizeof(float) * (size_t)n), "%s: y = x differs", doing);
}

static void layernorm(void) {
    memset(norm_worst, 0, sizeof norm_worst);
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int kind = 0; kind < N_NORM_KINDS; kind++) {
            layernorm_case(sizes_k[a], kind, 1e-5f);
            layernorm_case(sizes_k[a], kind, 1e-12f);
        }
    }
    for (int kind = 0; kind < N_NORM_KINDS; kind++) {
        printf("    %-26s off by %.1e |weight| at most, %.2f of the bound\n", norm_kinds[kind], norm_worst[kind].error,
               norm_worst[kind].part);
    }
}

// x from -100 to 100 densely and at random, zeros, tiny and huge.
static const char *const activation_names[N_ACTIVATIONS] = {"none", "gelu", "gelu_tanh", "quick_gelu", "relu", "silu"};

// By the formula in double; *size is the argument of its exponential, which float rounds relative to its size.
static double activation_value(double x, Activation a, double *size) {
    double cubic = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    *size = a == ACT_GELU ? x * x / 2 : a == ACT_GELU_TANH ? 2 * cubic : a == ACT_QUICK_GELU ? 1.702 * x : x;
    if (a == ACT_NONE || a == ACT_RELU) return *size = 0, a == ACT_NONE || x > 0 ? x : 0;
    if (a == ACT_GELU) return x * erfc(-x / sqrt(2)) / 2; // 1 + erf without its cancellation
    return x / (1 + exp(-*size));                         // (1 + tanh u) / 2 = 1 / (1 + exp(-2 u))
}

// The worst errors for 1e-30 <= |y| and |x| <= 100: itself; over |y|, and where; over the tolerance.
static struct { double absolute, relative, relative_at, part; } activate_worst[N_ACTIVATIONS];

static void activate_check(float x, float y, Activation a) {
    double size, expected = activation_value((double)x, a, &size), error = fabs((double)y - expected);
    // Relative: a few roundings, and the exponential's argument, off by two roundings, or of a polynomial in x by five.
    // Absolute: where the exponential passes 2^126.
    bool exact = a == ACT_NONE || a == ACT_RELU;
    double per_size = a == ACT_GELU || a == ACT_GELU_TANH ? 3e-7 : 1.2e-7;
    double relative = exact ? 0 : 5e-7 + per_size * fmin(fabs(size), 100);
    double tolerance = relative * fabs(expected) + (exact ? 0 : fabs((double)x) * 2 * (double)FLT_MIN + 1.5e-45);
    CHECK(near(y, expected, tolerance), "%s: of %.9g = %.9g, expected %.9g +- %.2g", doing, x, y, expected, tolerance);
    if (exact || fabsf(x) > 100 || fabs(expected) < 1e-30) return;
    activate_worst[a].absolute = fmax(activate_worst[a].absolute, error);
    activate_worst[a].part = fmax(activate_worst[a].part, error / tolerance);
    if (error / fabs(expected) > activate_worst[a].relative) {
        activate_worst[a].relative = error / fabs(expected);
        activate_worst[a].relative_at = (double)x;
    }
}

static void activate_case(Activation a, const float *values, int n) {
    DOING("activate %s n %d from %.9g", activation_names[a], n, values[0]);
    float *x = fence_floats(0, n), *one = fence_floats(1, n);
    memcpy(x, values, sizeof(float) * (size_t)n);
    memcpy(one, values, sizeof(float) * (size_t)n);
    K->activate(x, n, a);
    CHECK(floats_kept(0, n), "%s: wrote before x", doing);
    for (int i = 0; i < n; i++) activate_check(values[i], x[i], a);
    for (int i = 0; i < n; i++) K->activate(one + i, 1, a);
    CHECK(!memcmp(one, x, sizeof(float) * (size_t)n), "%s: values one at a time differ", doing);
}

static void activate_ends(Activation a) {
    static const float tiny[] = {0,      -0.0f,   1e-45f, -1e-45f, 1e-40f, -1e-40f,
                                 1e-38f, -1e-38f, 1e-30f, -1e-30f, 1e-8f,  -1e-8f};
    static const float huge[] = {101, 1e3f, 1e4f, 1e10f, 1e19f, 2e19f, 1e30f, 1e35f, 3e38f, FLT_MAX};
    activate_case(a, tiny, N_OF(tiny));
    DOING("activate %s of huge values", activation_names[a]);
    for (int i = 0; i < N_OF(huge); i++) {
        float x[2] = {huge[i], -huge[i]}; // gives x, and 0 of either sign
        K->activate(x, 2, a);
        CHECK(x[0] == huge[i], "%s: of %.9g = %.9g, expected the same", doing, huge[i], x[0]);
        float expected = a == ACT_NONE ? -huge[i] : 0;
        CHECK(fabsf(x[1] - expected) < 1e-30f, "%s: of %.9g = %.9g, expected %g", doing, -huge[i], x[1], expected);
    }
}

static void activate(void) {
    enum { ROOM = 8192 };
    float *values = need_floats(ROOM);
    int per_unit = quick() ? 32 : 512, n_all = 200 * per_unit + 1;
    memset(activate_worst, 0, sizeof activate_worst);
    for (Activation a = 0; a < N_ACTIVATIONS; a++) {
        for (int begin = 0; begin < n_all; begin += ROOM) {
            int n = n_all - begin < ROOM ? n_all - begin : ROOM;
            for (int i = 0; i < n; i++) values[i] = (float)((begin + i) / (double)per_unit - 100);
            activate_case(a, values, n);
        }
        for (int i = 0; i < ROOM; i++) values[i] = test_uniform() * (i % 4 ? 10 : 100);
        activate_case(a, values, ROOM);
        for (int i = 0; i < ROOM; i++) values[i] = ldexpf(test_uniform(), -pick(140));
        activate_case(a, values, ROOM);
        for (int k = 0; k < N_OF(sizes_k); k += step_k()) { // every tail
            fill_floats(values, sizes_k[k], WIDE);
            activate_case(a, values, sizes_k[k]);
        }
        activate_ends(a);
        if (a == ACT_NONE || a == ACT_RELU) continue;
        printf("    %-26s off by %.1e at most, relative %.1e (at %.4g), %.2f of the bound\n", activation_names[a],
               activate_worst[a].absolute, activate_worst[a].relative, activate_worst[a].relative_at,
               activate_worst[a].part);
    }
    free(values);
}

static void swiglu_case(int n, float reach) {
    DOING("swiglu n %d |x| up to %g", n, (double)reach);
    float *gate = fence_floats(0, n), *up = fence_floats(1, n), *before = fence_floats(2, n), *one = fence_floats(3, n);
    for (int i = 0; i < n; i++) {
        before[i] = pick(8) ? test_uniform() * reach : pick(2) ? reach * (float)(1 - 2 * pick(2)) : 0;
        up[i] = test_uniform() * 10;
    }
    memcpy(gate, before, sizeof(float) * (size_t)n);
    memcpy(one, before, sizeof(float) * (size_t)n);
    K->swiglu(gate, up, n);
    CHECK(floats_kept(0, n), "%s: wrote before gate", doing);
    for (int i = 0; i < n; i++) {
        double g = (double)before[i], expected = g / (1 + exp(-g)) * (double)up[i];
        double tolerance = (1e-6 + 2e-7 * fabs(g)) * fabs(expected) + 1e-30;
        CHECK(near(gate[i], expected, tolerance), "%s: silu(%.9g) * %.9g = %.9g, expected %.9g", doing, g, up[i],
              gate[i], expected);
    }
    for (int i = 0; i < n; i++) K->swiglu(one + i, up + i, 1);
    CHECK(!memcmp(one, gate, sizeof(float) * (size_t)n), "%s: values one at a time differ", doing);
}

static void swiglu(void) {
    static const float reaches[] = {1e-3f, 1, 10, 100, 1e4f, 1e30f};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int r = 0; r < N_OF(reaches); r++) swiglu_case(sizes_k[a], reaches[r]);
    }
}

// out tanh(in x): within a few roundings of out, also where x is huge or infinite.
static void softcap_check(float x, float y, float in, float out) {
    double expected = (double)out * tanh((double)in * (double)x), tolerance = 4e-7 * fabs((double)out) + 1e-44;
    CHECK(near(y, expected, tolerance), "%s: of %.9g = %.9g, expected %.9g +- %.2g", doing, x, y, expected, tolerance);
}

static void softcap_case(int n, float reach, float in, float out) {
    static const float ends[] = {0, -0.0f, 1e-45f, -1e-40f, 1e30f, -1e30f, FLT_MAX, -FLT_MAX, INFINITY, -INFINITY};
    DOING("softcap n %d |x| up to %g, %g tanh(%g x)", n, (double)reach, (double)out, (double)in);
    float *x = fence_floats(0, n), *before = fence_floats(1, n), *one = fence_floats(2, n);
    for (int i = 0; i < n; i++) before[i] = pick(6) ? test_uniform() * reach : ends[pick(N_OF(ends))];
    memcpy(x, before, sizeof(float) * (size_t)n);
    memcpy(one, before, sizeof(float) * (size_t)n);
    K->softcap(x, n, in, out);
    CHECK(floats_kept(0, n), "%s: wrote before x", doing);
    for (int i = 0; i < n; i++) softcap_check(before[i], x[i], in, out);
    for (int i = 0; i < n; i++) K->softcap(one + i, 1, in, out);
    CHECK(!memcmp(one, x, sizeof(float) * (size_t)n), "%s: values one at a time differ", doing);
}

static void softcap(void) {
    static const float reaches[] = {1e-6f, 1e-2f, 1, 10, 100, 1e6f};
    static const float caps[][2] = {{1, 1}, {1 / 30.0f, 30}, {1, 50 * 1.4426950f}, {1e-3f, 1e3f}, {100, 1e-2f}};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int r = 0; r < N_OF(reaches); r++) {
            for (int c = 0; c < N_OF(caps); c++) softcap_case(sizes_k[a], reaches[r], caps[c][0], caps[c][1]);
        }
    }
}

// ---- the table of speeds

enum { TIME_K = 1024, TIME_ROWS = 256, TIME_COLS = 48, TIME_KEYS = 256, TIME_X = 4 };

static struct {
    float w[TIME_ROWS * TIME_K], panel[TIME_K * MAX_PANEL], x[TIME_COLS * TIME_K], y[TIME_ROWS * TIME_K];
    float scales[TIME_ROWS * TIME_K / 32], s[TIME_KEYS * MAX_PANEL], m[MAX_PANEL], l[MAX_PANEL], alpha[MAX_PANEL];
    int8_t q[TIME_ROWS * TIME_K];
    uint16_t half[TIME_ROWS * TIME_K];
    int8_t high[TIME_K], low[TIME_K];
    float step[TIME_K / 16], sum[TIME_K / 16];
} * T;

static void time_matvec_f32(void) {
    K->matvec_f32(T->y, T->w, TIME_K, T->x, TIME_ROWS, TIME_K);
}
static void time_matvec_f16(void) {
    K->matvec_f16(T->y, T->half, TIME_K, T->x, TIME_ROWS, TIME_K);
}
static void time_matvec_bf16(void) {
    K->matvec_bf16(T->y, T->half, TIME_K, T->x, TIME_ROWS, TIME_K);
}
static void time_matvec_i8g(void) {
    K->matvec_i8g(T->y, T->q, T->scales, 32, 0, T->x, TIME_ROWS, TIME_K);
}
// T->half as blocks: all that may be a scale is nearly 2. With the vector's quantization; scalar unpacks.
static void time_matvec_blocks(DType f) {
    const DTypeInfo *info = dtype_info(f);
    Activations a = {T->high, T->low, T->step, T->sum};
    if (K->blocks) {
        K->quantize(&a, T->x, TIME_K);
        K->blocks[f].matvec(T->s, T->half, &a, TIME_ROWS, TIME_K);
    } else {
        info->unpack(T->y, T->half, TIME_ROWS * TIME_K / info->block);
        K->matvec_f32(T->s, T->y, TIME_K, T->x, TIME_ROWS, TIME_K);
    }
}
static void time_matvec_q8_0(void) {
    time_matvec_blocks(DTYPE_Q8_0);
}
static void time_matvec_q4_0(void) {
    time_matvec_blocks(DTYPE_Q4_0);
}
static void time_matvec_q4_k(void) {
    time_matvec_blocks(DTYPE_Q4_K);
}
static void time_matvec_q6_k(void) {
    time_matvec_blocks(DTYPE_Q6_K);
}
static void time_dots_f32(void) {
    K->dots_f32(T->y, TIME_ROWS, T->w, TIME_K, DOTS_STEP, T->x, TIME_K, TIME_ROWS, TIME_X, TIME_K, 0);
}
static void time_dots_bf16(void) {
    K->dots_bf16(T->y, TIME_ROWS, T->half, TIME_K, DOTS_STEP, T->x, TIME_K, TIME_ROWS, TIME_X, TIME_K, 0);
}
static void time_dots_i8(void) {
    K->dots_i8(T->y, TIME_ROWS, T->q, TIME_K, DOTS_STEP, T->x, TIME_K, TIME_ROWS, TIME_X, TIME_K, 0);
}
static void time_unpack_i8g(void) {
    K->unpack_i8g(T->y, T->q, T->scales, 32, 0, TIME_ROWS * TIME_K);
}
static void time_pack(void) {
    K->pack(T->panel, T->w, TIME_K, K->panel, TIME_K);
}
static void time_gemm(void) {
    K->gemm(T->y, K->panel, T->panel, T->x, TIME_K, TIME_COLS, TIME_K, K->panel, false);
}
static void time_bf16_round(void) {
    K->bf16->round((uint16_t *)(void *)T->y, T->w, TIME_ROWS * TIME_K);
}
static void time_bf16_softmax(void) {
    float m[MAX_PANEL] = {0}, l[MAX_PANEL] = {0}, alpha[MAX_PANEL];
    K->bf16->softmax_lanes((uint16_t *)(void *)T->panel, T->s, TIME_KEYS, m, l, alpha);
}
static void time_bf16_gemm(void) {
    K->bf16->gemm(T->y, K->panel, T->half, T->half + TIME_K * MAX_PANEL, TIME_K, BF16_STEP, TIME_COLS, TIME_K, K->panel,
                  false);
}
static void time_softmax_lanes(void) {
    K->softmax_lanes(T->s, TIME_KEYS, T->m, T->l, T->alpha);
}
static void time_softmax_row(void) {
    K->softmax_row(T->s, TIME_KEYS, T->m, T->l);
}
static void time_f16(void) {
    K->f32_from_f16(T->y, TIME_K, T->half, TIME_K, TIME_ROWS, TIME_K);
}
static void time_bf16(void) {
    K->f32_from_bf16(T->y, TIME_K, T->half, TIME_K, TIME_ROWS, TIME_K);
}
static void time_rmsnorm(void) {
    K->rmsnorm(T->y, T->x, T->w, TIME_K, 1e-5f);
}
static void time_layernorm(void) {
    K->layernorm(T->y, T->x, T->w, T->w + TIME_K, TIME_K, 1e-5f);
}
static void time_activation(Activation a) { // again and again of the same values
    memcpy(T->y, T->x, sizeof(float) * TIME_K);
    K->activate(T->y, TIME_K, a);
}
static void time_gelu(void) {
    time_activation(ACT_GELU);
}
static void time_gelu_tanh(void) {
    time_activation(ACT_GELU_TANH);
}
static void time_quick_gelu(void) {
    time_activation(ACT_QUICK_GELU);
}
static void time_relu(void) {
    time_activation(ACT_RELU);
}
static void time_silu(void) {
    time_activation(ACT_SILU);
}
static void time_swiglu(void) {
    K->swiglu(T->y, T->w, TIME_K);
}

static const struct {
    const char *name, *unit;
    void (*run)(void);
    double work, work_per_lane; // of one call, in the unit
    bool bf16;                  // of the rungs with Bf16Kernels
} timed[] = {
    {"matvec_f32, 1 MiB", "GB/s", time_matvec_f32, 4e-9 * TIME_ROWS *TIME_K, 0, false},
    {"matvec_f16, 512 KiB", "GB/s", time_matvec_f16, 2e-9 * TIME_ROWS *TIME_K, 0, false},
    {"matvec_bf16, 512 KiB", "GB/s", time_matvec_bf16, 2e-9 * TIME_ROWS *TIME_K, 0, false},
    {"matvec_i8g, 288 KiB", "GB/s", time_matvec_i8g, 1.125e-9 * TIME_ROWS *TIME_K, 0, false},
    {"quantize, matvec Q8_0", "Gvalue/s", time_matvec_q8_0, 1e-9 * TIME_ROWS *TIME_K, 0, false},
    {"quantize, matvec Q4_0", "Gvalue/s", time_matvec_q4_0, 1e-9 * TIME_ROWS *TIME_K, 0, false},
    {"quantize, matvec Q4_K", "Gvalue/s", time_matvec_q4_k, 1e-9 * TIME_ROWS *TIME_K, 0, false},
    {"quantize, matvec Q6_K", "Gvalue/s", time_matvec_q6_k, 1e-9 * TIME_ROWS *TIME_K, 0, false},
    {"dots_f32, 4 of 1 MiB", "GFLOP/s", time_dots_f32, 2e-9 * TIME_X *TIME_ROWS *TIME_K, 0, false},
    {"dots_bf16", "GFLOP/s", time_dots_bf16, 2e-9 * TIME_X *TIME_ROWS *TIME_K, 0, false},
    {"dots_i8", "GFLOP/s", time_dots_i8, 2e-9 * TIME_X *TIME_ROWS *TIME_K, 0, false},
    {"unpack_i8g", "Gvalue/s", time_unpack_i8g, 1e-9 * TIME_ROWS *TIME_K, 0, false},
    {"pack", "Gvalue/s", time_pack, 0, 1e-9 * TIME_K, false},
    {"gemm, k 1024, n 48", "GFLOP/s", time_gemm, 0, 2e-9 * TIME_K *TIME_COLS, false},
    {"bf16 gemm, the same", "GFLOP/s", time_bf16_gemm, 0, 2e-9 * TIME_K *TIME_COLS, true},
    {"bf16 round", "Gvalue/s", time_bf16_round, 1e-9 * TIME_ROWS *TIME_K, 0, true},
    {"bf16 softmax_lanes", "Gvalue/s", time_bf16_softmax, 0, 1e-9 * TIME_KEYS, true},
    {"softmax_lanes", "Gvalue/s", time_softmax_lanes, 0, 1e-9 * TIME_KEYS, false},
    {"softmax_row", "Gvalue/s", time_softmax_row, 1e-9 * TIME_KEYS, 0, false},
    {"f32_from_f16", "Gvalue/s", time_f16, 1e-9 * TIME_ROWS *TIME_K, 0, false},
    {"f32_from_bf16", "Gvalue/s", time_bf16, 1e-9 * TIME_ROWS *TIME_K, 0, false},
    {"rmsnorm", "Gvalue/s", time_rmsnorm, 1e-9 * TIME_K, 0, false},
    {"layernorm", "Gvalue/s", time_layernorm, 1e-9 * TIME_K, 0, false},
    {"copy, gelu", "Gvalue/s", time_gelu, 1e-9 * TIME_K, 0, false},
    {"copy, gelu_tanh", "Gvalue/s", time_gelu_tanh, 1e-9 * TIME_K, 0, false},
    {"copy, quick_gelu", "Gvalue/s", time_quick_gelu, 1e-9 * TIME_K, 0, false},
    {"copy, relu", "Gvalue/s", time_relu, 1e-9 * TIME_K, 0, false},
    {"copy, silu", "Gvalue/s", time_silu, 1e-9 * TIME_K, 0, false},
    {"swiglu", "Gvalue/s", time_swiglu, 1e-9 * TIME_K, 0, false},
};

// Best of a few runs of about a millisecond: the machine is shared.
static double time_one(void (*run)(void)) {
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        int n = 0;
        double begin = seconds(), took;
        do {
            run();
            n++;
        } while ((took = seconds() - begin) < 1e-3);
        if (took / n < best) best = took / n;
    }
    return best;
}

static void print_speeds(const Kernels *const *tables, int n_tables) {
    T = need(sizeof *T);
    memset(T, 0, sizeof *T);
    for (int i = 0; i < TIME_ROWS * TIME_K; i++) {
        T->w[i] = test_uniform();
        T->q[i] = (int8_t)test_u32();
        T->half[i] = (uint16_t)(0x3f00 + pick(256));
    }
    for (int i = 0; i < TIME_COLS * TIME_K; i++) T->x[i] = test_uniform();
    printf("  %-22s", "one thread, in cache");
    for (int r = 0; r < n_tables; r++) printf("%11s", tables[r]->name);
    printf("\n");
    for (int i = 0; i < N_OF(timed); i++) {
        printf("  %-22s", timed[i].name);
        for (int r = 0; r < n_tables; r++) {
            K = tables[r];
            if (timed[i].bf16 && !K->bf16) {
                printf("%11s", "-");
                continue;
            }
            double work = timed[i].work + timed[i].work_per_lane * K->panel;
            printf("%11.3g", work / time_one(timed[i].run));
        }
        printf("  %s\n", timed[i].unit);
    }
    free(T);
}

// ---- all

static void tables_are_complete(void) {
    CHECK(K->name && *K->name, "a table without a name");
    CHECK(K->panel >= 1 && K->panel <= MAX_PANEL, "%s: panel %d", K->name, K->panel);
    CHECK(K->matvec_f32 && K->matvec_f16 && K->matvec_bf16 && K->matvec_i8g && K->unpack_i8g && K->pack && K->gemm &&
              K->softmax_lanes && K->softmax_row && K->f32_from_f16 && K->f32_from_bf16 && K->rmsnorm && K->layernorm &&
              K->activate && K->softcap && K->swiglu && K->dots_f32 && K->dots_bf16 && K->dots_i8,
          "%s: a kernel is missing", K->name);
    CHECK(!K->bf16 || (K->panel == MAX_PANEL && K->bf16->round && K->bf16->softmax_lanes && K->bf16->gemm),
          "%s: a kernel of bfloat16 is missing", K->name);
}

int main(void) {
    const Kernels *tables[N_RUNGS];
    int n_tables = 0;
    fences_open();
    for (int r = 0; r <= (int)cpu_best_rung(); r++) {
        if (kernels_for((CpuRung)r)) tables[n_tables++] = kernels_for((CpuRung)r);
    }
    for (int r = 0; r < n_tables; r++) {
        K = tables[r];
        printf("%s, panels of %d\n", K->name, K->panel);
        n_cases = 0;
        RUN(tables_are_complete);
        if (test_bad) return test_report(); // the rest would call NULL
        RUN(matvec_f32);
        RUN(matvec_f16);
        RUN(matvec_bf16);
        RUN(dots_f32);
        RUN(dots_bf16);
        RUN(dots_i8);
        RUN(matvec_i8g);
        RUN(unpack_i8g);
        RUN(matvec_blocks);
        RUN(pack);
        RUN(gemm);
        if (K->bf16) RUN(bf16_round);
        if (K->bf16) RUN(bf16_softmax);
        if (K->bf16) RUN(bf16_gemm);
        RUN(softmax);
        RUN(rows_from_f16);
        RUN(rows_from_bf16);
        RUN(rmsnorm);
        RUN(layernorm);
        RUN(activate);
        RUN(softcap);
        RUN(swiglu);
        printf("  %d cases\n", n_cases);
    }
    run_tiles();
    if (!quick()) print_speeds(tables, n_tables);
    return test_report();
}
