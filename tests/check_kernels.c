// check_kernels: every kernel of every instruction-set level that this machine runs, against sums in double.
//
// Data is biased to what breaks kernels: -128, zero, denormal and huge scales, odd sizes, strides. Every operand
// ends at a page that may not be touched, so one element read or written too far is a fault (said with its
// parameters), and gaps between rows hold NaN. What is one multiplication or a copy must be exact; sums are bounded
// by c * eps * sum |a_i b_i|; norms and activations by what their text here says, and what they were off by is
// printed.
#include "block_formats.h"
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
    uint8_t *end; // first byte of the forbidden pages
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
    for (int i = 0; i < N_OF(fences); i++) { // as much is forbidden as lies before it, for what is fetched ahead
        uint8_t *p = mmap(NULL, 2 * FENCE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + FENCE_BYTES, FENCE_BYTES, PROT_NONE)) {
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

static int step_k(void) { // through sizes_k
    return quick() ? 4 : 1;
}

// ---- the values of 16 bits

// From the definition: 1 sign, 5 exponent (bias 15) and 10 fraction bits, or 1, 8 (bias 127) and 7.
static double half_defined(uint16_t bits, bool is_f16) {
    int n_fraction = is_f16 ? 10 : 7, bias = is_f16 ? 15 : 127, last = is_f16 ? 31 : 255;
    int fraction = bits & ((1 << n_fraction) - 1), exponent = bits >> n_fraction & last;
    double size = exponent == last ? (fraction ? NAN : INFINITY)
                  : exponent       ? ldexp(fraction + (1 << n_fraction), exponent - bias - n_fraction)
                                   : ldexp(fraction, 1 - bias - n_fraction);
    return bits >> 15 ? -size : size;
}

static double half_values[2][65536]; // bf16, f16

static void half_values_fill(void) {
    for (int bits = 0; bits < 65536; bits++) {
        half_values[0][bits] = half_defined((uint16_t)bits, false);
        half_values[1][bits] = half_defined((uint16_t)bits, true);
    }
}

static double half_value(uint16_t bits, bool is_f16) {
    return half_values[is_f16][bits];
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

// ---- matvec_f32, matvec_f16, matvec_bf16, matvec_i8g

typedef enum { MATVEC_F32, MATVEC_F16, MATVEC_BF16, MATVEC_I8G } MatvecType;

static const char *const matvec_names[] = {"f32", "f16", "bf16", "i8g"};

typedef struct {
    MatvecType type;
    int n_rows, k, group; // group, row0, scales: of int8
    int64_t ldw, row0, ldx, ldy;
    const void *w;
    const float *scales, *x;
} Matvec;

// `count` vectors from t on, times n rows from `first` on.
static void matvec_run(const Matvec *m, float *y, int t, int count, int first, int n) {
    int64_t at = first * m->ldw, ldx = m->ldx, ldy = m->ldy;
    const uint16_t *half = m->w;
    const float *x = m->x + t * ldx;
    if (m->type == MATVEC_F32) K->matvec_f32(y, ldy, (const float *)m->w + at, m->ldw, x, ldx, count, n, m->k);
    if (m->type == MATVEC_F16) K->matvec_f16(y, ldy, half + at, m->ldw, x, ldx, count, n, m->k);
    if (m->type == MATVEC_BF16) K->matvec_bf16(y, ldy, half + at, m->ldw, x, ldx, count, n, m->k);
    if (m->type == MATVEC_I8G)
        K->matvec_i8g(y, ldy, m->w, m->scales, m->group, m->row0 + first, x, ldx, count, n, m->k);
}

static double matvec_w(const Matvec *m, int row, int col) {
    int64_t at = row * m->ldw + col, of_all = m->row0 * m->k + at;
    if (m->type == MATVEC_F32) return (double)((const float *)m->w)[at];
    if (m->type != MATVEC_I8G) return half_value(((const uint16_t *)m->w)[at], m->type == MATVEC_F16);
    return (double)((const int8_t *)m->w)[of_all] * (double)m->scales[of_all / m->group];
}

// Numbers of vectors that meet rows together: one, around the tiles of every level, the most.
static const int shared_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 13, MAX_SHARED};

static int any_shared(void) {
    return pick(2) ? shared_counts[pick(N_OF(shared_counts))] : 1 + pick(9);
}

// Several vectors at once, the first of them x, give each the bits that it gets alone: those of x are y.
static void matvec_shared(Matvec m, const float *x, const float *y, int kind) {
    int count = any_shared();
    m.ldx = m.k + pick(3);
    m.ldy = m.n_rows + pick(3);
    int64_t n_x = (count - 1) * m.ldx + m.k, n_y = (count - 1) * m.ldy + m.n_rows;
    float *many = fence_floats(5, n_x), *all = need_floats(n_y), *one = need_floats(m.n_rows);
    fill_floats(many, n_x, kind);
    memcpy(many, x, sizeof *x * (size_t)m.k);
    fill_gap(all, n_y);
    m.x = many;
    matvec_run(&m, all, 0, count, 0, m.n_rows);
    CHECK(!memcmp(all, y, sizeof *y * (size_t)m.n_rows), "%s: %d vectors change the first", doing, count);
    for (int t = 0; t < count; t++) {
        matvec_run(&m, one, t, 1, 0, m.n_rows);
        float *of_all = all + t * m.ldy;
        CHECK(!memcmp(of_all, one, sizeof *one * (size_t)m.n_rows), "%s: vector %d of %d differs", doing, t, count);
        for (int64_t i = m.n_rows; t < count - 1 && i < m.ldy; i++) CHECK(is_gap(of_all[i]), "%s: wrote a gap", doing);
    }
    free(all);
    free(one);
}

// All rows at once against double, then one at a time and cut in two, which change no bit. w lies in fences 0 and 1.
static void matvec_check(Matvec m, int kind) {
    size_t bytes = sizeof(float) * (size_t)m.n_rows;
    float *x = fence_floats(2, m.k), *y = fence_floats(3, m.n_rows), *again = fence_floats(4, m.n_rows);
    DOING("matvec_%s n_rows %d k %d ldw %d group %d row0 %d data %d", matvec_names[m.type], m.n_rows, m.k, (int)m.ldw,
          m.group, (int)m.row0, kind);
    fill_floats(x, m.k, kind);
    fill_gap(y, m.n_rows);
    m.x = x;
    matvec_run(&m, y, 0, 1, 0, m.n_rows);
    CHECK(floats_kept(3, m.n_rows), "%s: wrote before y", doing);
    double sum_x = 0;
    for (int j = 0; j < m.k; j++) sum_x += fabs((double)x[j]);
    for (int i = 0; i < m.n_rows; i++) {
        double sum = 0, sum_abs = 0;
        for (int j = 0; j < m.k; j++) {
            double product = matvec_w(&m, i, j) * (double)x[j];
            sum += product;
            sum_abs += fabs(product);
        }
        CHECK(near(y[i], sum, bound(sum_abs, sum_x, m.k)), "%s: y[%d] = %.9g, expected %.9g", doing, i, y[i], sum);
    }
    for (int i = 0; i < m.n_rows; i++) matvec_run(&m, again + i, 0, 1, i, 1);
    CHECK(!memcmp(again, y, bytes), "%s: rows one at a time differ", doing);
    int cut = pick(m.n_rows + 1);
    matvec_run(&m, again, 0, 1, 0, cut);
    matvec_run(&m, again + cut, 0, 1, cut, m.n_rows - cut);
    CHECK(!memcmp(again, y, bytes), "%s: split at row %d differs", doing, cut);
    matvec_shared(m, x, y, kind);
}

// Between the rows NaN.
static void matvec_of_floats(MatvecType type, int n_rows, int k, int kind) {
    Matvec m = {.type = type, .n_rows = n_rows, .k = k, .ldw = k + (pick(2) ? 0 : 3)};
    int64_t n = (n_rows - 1) * m.ldw + k;
    void *w = fence_put(0, n * (type == MATVEC_F32 ? 4 : 2));
    if (type == MATVEC_F32) fill_gap(w, n);
    for (int64_t i = 0; i < n; i++) {
        bool gap = i % m.ldw >= k;
        if (type != MATVEC_F32)
            ((uint16_t *)w)[i] = gap ? half_gap[type == MATVEC_F16] : any_half(kind, type == MATVEC_F16);
        else if (!gap) ((float *)w)[i] = any_float(kind);
    }
    m.w = w;
    matvec_check(m, kind);
}

static void matvec_of(MatvecType type) {
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 33};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int b = 0; b < N_OF(rows); b++) {
            for (int kind = 0; kind < N_KINDS; kind++) matvec_of_floats(type, rows[b], sizes_k[a], kind);
        }
    }
}

static void matvec_f32(void) {
    matvec_of(MATVEC_F32);
}

static void matvec_f16(void) {
    matvec_of(MATVEC_F16);
}

static void matvec_bf16(void) {
    matvec_of(MATVEC_BF16);
}

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
    int8_t *q;
    float *scales;
    put_i8g((row0 + n_rows) * k, group, kind, &q, &scales);
    matvec_check((Matvec){MATVEC_I8G, n_rows, k, group, k, row0, 0, 0, q, scales, NULL}, kind);
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

// Random blocks; some of scale zero, some of a denormal one.
static void fill_blocks(uint8_t *w, int64_t n_blocks, int format) {
    const DTypeInfo *info = dtype_info(formats[format].dtype);
    for (int64_t b = 0; b < n_blocks; b++, w += info->block_bytes) {
        for (int i = 0; i < info->block_bytes; i++) w[i] = pick(6) ? (uint8_t)test_u32() : (uint8_t)(pick(2) * 255);
        put_scales(w, format, test_uniform() * (pick(9) ? 1.0f : 6e-8f), test_uniform());
        if (info->block_bytes == 17) w[0] = (uint8_t)(pick(20) ? 120 + pick(9) : pick(2)); // MXFP4's exponent
    }
}

enum { MOST_K = 2048 }; // values of a row

// Value i of a quantized vector, without its scale (the order: kernels.h).
static int quantized_value(const Activations *a, int i) {
    int span = K->span, first = i / span * span, half = i % 32 / 16, block = i % span / 32;
    if (a->bytes) return a->bytes[first + half * (span / 2) + block * 16 + i % 16];
    return a->words[first + (half * 2 + i % 2) * (span / 4) + block * 8 + i % 16 / 2];
}

// The place of its scale and of the sum of its 16.
static int group_place(int i) {
    int span = K->span, n = i % 32 / 16 * (256 / span) + i % 256 / span;
    return i / 256 * 16 + n / 4 * (span / 8) + i % span / 32 * 4 + n % 4;
}

// The largest size of each 32.
static void tops_of_32(double *top, const float *x, int k) {
    for (int i = 0; i < k; i++) {
        double size = fabs((double)x[i]), before = i % 32 ? top[i / 32] : 0;
        top[i / 32] = size > before ? size : before;
    }
}

// What quantize makes of x: every value within half a step of the largest of its 32, the sums, zeros behind.
static void check_quantized(const Activations *a, const float *x, int k) {
    double tops[MOST_K / 32];
    tops_of_32(tops, x, k);
    for (int i = 0; i < k; i++) {
        double top = tops[i / 32], step = (double)a->scale[group_place(i)], got = step * quantized_value(a, i);
        CHECK(fabs(step - top / (a->bytes ? 127 : 32512)) <= 1e-6 * top + 1e-44, "%s: step %g of %g", doing, step, top);
        CHECK(fabs(got - (double)x[i]) <= 0.51 * step + 2e-44 || top < 1e-33, "%s: x[%d] = %g became %g", doing, i,
              (double)x[i], got);
    }
    for (int g = 0; g < (k + 255) / 256 * 16; g++) {
        long sum = 0;
        for (int i = 16 * g; i < 16 * g + 16; i++) sum += quantized_value(a, i);
        double scale = (double)a->scale[group_place(16 * g)], want = scale * (double)sum;
        double got = (double)a->sum[group_place(16 * g)];
        CHECK(fabs(got - want) <= 1e-6 * fabs(want), "%s: sum %d is %g, expected %g", doing, g, got, want);
        CHECK(g < k / 16 || (!sum && scale == 0), "%s: group %d is not zero", doing, g);
    }
}

static Activations need_activations(bool bytes, int64_t padded) {
    Activations a = {.scale = need_floats(padded / 16), .sum = need_floats(padded / 16)};
    if (bytes) a.bytes = need((size_t)padded);
    else a.words = need(sizeof *a.words * (size_t)padded);
    return a;
}

// Several vectors, the first of them a, give each the bits that it gets alone.
static void matvec_blocks_shared(int format, const uint8_t *w, const Activations *a, const float *y, int n_rows, int k,
                                 int kind) {
    const BlockKernels *kernels_of = &K->blocks[formats[format].dtype];
    int count = any_shared(), ldy = n_rows + pick(3);
    int64_t padded = (k + 255) / 256 * 256, n_y = (count - 1) * ldy + n_rows;
    Activations many[MAX_SHARED] = {*a};
    float *x = need_floats(k), *all = need_floats(n_y), *one = need_floats(n_rows);
    for (int t = 1; t < count; t++) {
        many[t] = need_activations(a->bytes, padded);
        fill_floats(x, k, kind);
        K->quantize(&many[t], x, k);
    }
    fill_gap(all, n_y);
    kernels_of->matvec(all, ldy, w, many, count, n_rows, k);
    CHECK(!memcmp(all, y, sizeof *y * (size_t)n_rows), "%s: %d vectors change the first", doing, count);
    for (int t = 1; t < count; t++) {
        float *of_all = all + t * ldy;
        kernels_of->matvec(one, 0, w, &many[t], 1, n_rows, k);
        CHECK(!memcmp(of_all, one, sizeof *one * (size_t)n_rows), "%s: vector %d of %d differs", doing, t, count);
        for (int i = n_rows; t < count - 1 && i < ldy; i++) CHECK(is_gap(of_all[i]), "%s: wrote a gap", doing);
        free(many[t].words);
        free(many[t].bytes);
        free(many[t].scale);
        free(many[t].sum);
    }
    free(x);
    free(all);
    free(one);
}

// Each y against the products of a row's values with the quantized ones.
static void matvec_blocks_check(int format, const uint8_t *w, const Activations *a, const float *y, int n_rows, int k) {
    const DTypeInfo *info = dtype_info(formats[format].dtype);
    int64_t row_bytes = k / info->block * info->block_bytes;
    double x[MOST_K], x_abs[MOST_K / 32] = {0}, tops[MOST_K / 32];
    float v[MOST_K];
    for (int j = 0; j < k; j++) {
        x[j] = (double)a->scale[group_place(j)] * quantized_value(a, j);
        x_abs[j / 32] += fabs(x[j]);
    }
    for (int r = 0; r < n_rows; r++) {
        double sum = 0, most = 0;
        info->unpack(v, w + r * row_bytes, k / info->block);
        tops_of_32(tops, v, k);
        for (int j = 0; j < k; j++) sum += (double)v[j] * x[j];
        for (int b = 0; b < k / 32; b++) most += 8 * tops[b] * x_abs[b]; // products are of values less their zero
        CHECK(near(y[r], sum, 64 * (double)FLT_EPSILON * most + 1e-30), "%s: y[%d] = %.9g, expected %.9g", doing, r,
              (double)y[r], sum);
    }
}

static void matvec_blocks_case(int format, int n_rows, int k, int kind, bool bytes) {
    const DTypeInfo *info = dtype_info(formats[format].dtype);
    DOING("matvec %s n_rows %d k %d data %d %s", info->name, n_rows, k, kind, bytes ? "bytes" : "words");
    int64_t row_bytes = k / info->block * info->block_bytes, padded = (k + 255) / 256 * 256;
    uint8_t *w = fence_put(0, n_rows * row_bytes);
    float *x = fence_floats(1, k), *y = fence_floats(2, n_rows), *one = fence_floats(3, n_rows);
    Activations a = {.scale = fence_floats(5, padded / 16), .sum = need_floats(padded / 16)};
    if (bytes) a.bytes = fence_put(4, padded);
    else a.words = fence_put(4, 2 * padded);
    fill_blocks(w, n_rows * (k / info->block), format);
    fill_floats(x, k, kind);
    K->quantize(&a, x, k);
    check_quantized(&a, x, k);
    const BlockKernels *kernels_of = &K->blocks[formats[format].dtype];
    kernels_of->matvec(y, 0, w, &a, 1, n_rows, k);
    matvec_blocks_check(format, w, &a, y, n_rows, k);
    for (int r = 0; r < n_rows; r++) kernels_of->matvec(one + r, 0, w + r * row_bytes, &a, 1, 1, k);
    CHECK(!memcmp(one, y, sizeof *y * (size_t)n_rows), "%s: rows one at a time differ", doing);
    matvec_blocks_shared(format, w, &a, y, n_rows, k, kind);
    free(a.sum);
}

static void unpack_blocks_case(int format, int k) {
    const DTypeInfo *info = dtype_info(formats[format].dtype);
    DOING("unpack %s k %d", info->name, k);
    uint8_t *w = fence_put(0, k / info->block * info->block_bytes);
    float *y = fence_floats(1, k), *want = need_floats(k);
    fill_blocks(w, k / info->block, format);
    info->unpack(want, w, k / info->block);
    K->blocks[formats[format].dtype].unpack(y, w, k);
    for (int i = 0; i < k; i++) {
        CHECK(y[i] == want[i], "%s: value %d is %.9g, expected exactly %.9g", doing, i, (double)y[i], (double)want[i]);
    }
    free(want);
}

static const IntKernels *ints; // that are checked

static int int_at(const void *q, int64_t i) {
    return ints->bytes == 1 ? ((const int8_t *)q)[i] : ((const int16_t *)q)[i];
}

// To integers with one scale, which need not be the smallest that reaches all values.
static void round_blocks_case(int format, int k) {
    const DTypeInfo *info = dtype_info(formats[format].dtype);
    ints = K->int8 ? K->int8 : K->int16;
    DOING("round %s k %d to int%d", info->name, k, 8 * ints->bytes);
    uint8_t *w = fence_put(0, k / info->block * info->block_bytes);
    void *q = fence_put(1, k * ints->bytes);
    float *want = need_floats(k), limit = ints->w_top;
    fill_blocks(w, k / info->block, format);
    info->unpack(want, w, k / info->block);
    double top = 0, step = (double)K->blocks[formats[format].dtype].round(q, w, k, limit);
    for (int i = 0; i < k; i++) top = fmax(top, fabs((double)want[i]));
    CHECK((double)limit * step >= 0.999999 * top || top < 1e-30, "%s: a step of %g does not reach %g", doing, step,
          top);
    for (int i = 0; i < k; i++) {
        CHECK(fabs(step * int_at(q, i) - (double)want[i]) <= (0.5 + 7e-7 * (double)limit) * step + 1e-30,
              "%s: value %d is %g, with a step of %g %d", doing, i, (double)want[i], step, int_at(q, i));
    }
    free(want);
    if (formats[format].dtype != DTYPE_Q8_0) return;
    const uint16_t not_finite = 0x7c00;
    memcpy(w + (k / 32 - 1) * 34, &not_finite, sizeof not_finite);
    CHECK(isnan(K->blocks[DTYPE_Q8_0].round(q, w, k, limit)), "%s: an infinite scale", doing);
}

static void matvec_blocks(void) {
    static const int sizes[] = {32, 64, 96, 224, 256, 288, 512, 1056, MOST_K};
    for (int f = N_FLOAT_FORMATS; K->blocks && f < N_FORMATS; f++) {
        for (int i = 0; i < N_OF(sizes); i++) {
            if (sizes[i] % dtype_info(formats[f].dtype)->block) continue;
            for (int n_rows = 1; n_rows < 20; n_rows += 1 + n_rows / 2) {
                matvec_blocks_case(f, n_rows, sizes[i], pick(N_KINDS), false);
                if (K->takes_bytes(formats[f].dtype)) matvec_blocks_case(f, n_rows, sizes[i], pick(N_KINDS), true);
            }
            unpack_blocks_case(f, sizes[i]);
            if ((K->int8 || K->int16) && K->blocks[formats[f].dtype].round) round_blocks_case(f, sizes[i]);
        }
    }
}

// ---- pack

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

// ---- gemm

typedef enum { GEMM_F32, GEMM_BF16, GEMM_I8, GEMM_PAIRS } GemmType; // the last: of Bf16Kernels

static const char *const gemm_names[] = {"gemm_f32", "gemm_bf16", "gemm_i8", "bf16 gemm"};
static const int word_values[] = {1, 2, 4, 2};

typedef struct {
    GemmType type;
    PackedMatrix w;
    const void *x; // fp32; of GEMM_PAIRS bfloat16
    int64_t ldy, ldx;
    int n, k, lanes;
    bool add;
} Gemm;

static int up_to(int n, int multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

static void gemm_run(const Gemm *g, float *y, int64_t ldy, int first, int n, int lanes) {
    const GemmKernel kernels_of[] = {K->gemm_f32, K->gemm_bf16, K->gemm_i8};
    int64_t at = first * g->ldx;
    y += first * ldy;
    if (g->type == GEMM_PAIRS) {
        K->bf16->gemm(y, ldy, &g->w, (const uint16_t *)g->x + at, g->ldx, n, g->k, lanes, g->add);
    } else {
        kernels_of[g->type](y, ldy, &g->w, (const float *)g->x + at, g->ldx, n, g->k, lanes, g->add);
    }
}

// Where value k of lane i is.
static int64_t gemm_at(const Gemm *g, int k, int i) {
    int each = word_values[g->type];
    return (i / MAX_PANEL * g->w.panel_stride + k / each * g->w.row_stride + i % MAX_PANEL) * each + k % each;
}

// Panels side by side or one behind the other, with gaps or without. What prefetch_offset points to is never read.
static void gemm_layout(Gemm *g) {
    int whole = (g->lanes - 1) / MAX_PANEL, most = whole ? MAX_PANEL : g->lanes, gap = pick(2) * pick(40);
    if (pick(2)) {
        g->w.panel_stride = MAX_PANEL + pick(2) * pick(9);
        g->w.row_stride = whole * g->w.panel_stride + g->lanes - whole * MAX_PANEL + gap;
    } else {
        g->w.row_stride = most + gap;
        g->w.panel_stride = g->w.row_stride * (g->k / word_values[g->type]) + pick(2) * pick(9);
    }
    g->w.prefetch_offset = pick(2) * FENCE_BYTES;
}

// As far as the last panel of every group and row goes.
static int64_t gemm_words(const Gemm *g) {
    int64_t rows = (g->k / word_values[g->type] - 1) * g->w.row_stride, most = 0;
    for (int i = 0; i < g->lanes; i += K->panel) {
        int64_t end = i / MAX_PANEL * g->w.panel_stride + i % MAX_PANEL + rows + K->panel;
        most = end > most ? end : most;
    }
    return most;
}

// Between the lanes NaN; int8 has none, there is anything.
static void gemm_fill(const Gemm *g, void *words, int64_t n, int kind) {
    float *f32 = words;
    uint16_t *bf16 = words;
    if (g->type == GEMM_F32) fill_gap(f32, n);
    else if (g->type == GEMM_I8) fill_i8(words, 4 * n);
    for (int64_t i = 0; i < 2 * n && word_values[g->type] == 2; i++) bf16[i] = half_gap[0];
    for (int i = 0; i < g->lanes && g->type != GEMM_I8; i++) {
        for (int k = 0; k < g->k; k++) {
            if (g->type == GEMM_F32) f32[gemm_at(g, k, i)] = any_float(kind);
            else bf16[gemm_at(g, k, i)] = any_half(kind, false);
        }
    }
}

static void gemm_fill_x(const Gemm *g, void *x, int64_t n, int kind) {
    float *f32 = x;
    uint16_t *bf16 = x;
    if (g->type != GEMM_PAIRS) fill_gap(f32, n);
    for (int64_t i = 0; i < n && g->type == GEMM_PAIRS; i++) bf16[i] = half_gap[0];
    for (int j = 0; j < g->n; j++) {
        for (int k = 0; k < g->k; k++) {
            if (g->type != GEMM_PAIRS) f32[j * g->ldx + k] = any_float(kind);
            else bf16[j * g->ldx + k] = any_half(kind, false);
        }
    }
}

static double gemm_w(const Gemm *g, int k, int i) {
    int64_t at = gemm_at(g, k, i);
    if (g->type == GEMM_F32) return (double)((const float *)g->w.data)[at];
    return g->type == GEMM_I8 ? ((const int8_t *)g->w.data)[at] : half_value(((const uint16_t *)g->w.data)[at], false);
}

enum { PART = 256 }; // values of a row of x that have one step

// Row i of w, and the sum of the sizes of each part.
static void gemm_w_row(const Gemm *g, int i, double *w, double *size) {
    for (int k = 0; k < g->k; k++) {
        w[k] = gemm_w(g, k, i);
        size[k / PART] = (k % PART ? size[k / PART] : 0) + fabs(w[k]);
    }
}

// A row of x, and what each value of a part may be off by: over int8 half a step of the largest, with a little for the
// rounding of the step; scalar takes x as it is. Below 1e-34 there are no steps, as one over their size is infinite.
static void gemm_x(const Gemm *g, int j, double *x, double *off) {
    bool exact = g->type != GEMM_I8 || K->gemm_i8 == kernels_scalar.gemm_i8;
    for (int k = 0; k < g->k; k++) {
        int64_t at = j * g->ldx + k;
        x[k] =
            g->type == GEMM_PAIRS ? half_value(((const uint16_t *)g->x)[at], false) : (double)((const float *)g->x)[at];
    }
    for (int from = 0; from < g->k; from += PART) {
        int to = from + PART < g->k ? from + PART : g->k;
        double top = 0;
        for (int k = from; k < to && !exact; k++) top = fmax(top, fabs(x[k]));
        off[from / PART] = exact ? 0 : top < 1e-34 ? 2.1 * top : 0.51 * top / (255 * 127 + 127);
    }
}

// A row of x and what it may be off by, of w and its sizes.
typedef struct {
    const double *x, *off, *w, *size;
    double x_size; // the sum of the sizes of x
} GemmRows;

static void gemm_check_one(const GemmRows *rows, int n, float found, double before, int row, int lane) {
    double sum = before, sum_abs = fabs(sum), both = rows->x_size, lost = 0;
    for (int k = 0; k < n; k++) {
        double product = rows->x[k] * rows->w[k];
        sum += product;
        sum_abs += fabs(product);
    }
    for (int p = 0; p * PART < n; p++) {
        both += rows->size[p]; // a denormal operand counts as zero in products of pairs
        lost += rows->off[p] * rows->size[p];
    }
    CHECK(near(found, sum, lost + bound(sum_abs + lost, both, n)), "%s: y[%d][%d] = %.9g, expected %.9g", doing, row,
          lane, found, sum);
}

static void gemm_check(const Gemm *g, const float *y, const float *before) {
    int parts = (g->k + PART - 1) / PART;
    size_t row = sizeof(double) * (size_t)g->k, part = sizeof(double) * (size_t)parts;
    double *w = need(row * (size_t)g->lanes), *size = need(part * (size_t)g->lanes), *x = need(row), *off = need(part);
    for (int i = 0; i < g->lanes; i++) gemm_w_row(g, i, w + i * g->k, size + i * parts);
    for (int j = 0; j < g->n; j++) {
        double x_size = 0;
        gemm_x(g, j, x, off);
        for (int k = 0; k < g->k; k++) x_size += fabs(x[k]);
        for (int i = 0; i < g->lanes; i++) {
            GemmRows rows = {x, off, w + i * g->k, size + i * parts, x_size};
            double was = g->add ? (double)before[j * g->ldy + i] : 0;
            gemm_check_one(&rows, g->k, y[j * g->ldy + i], was, j, i);
        }
        for (int64_t i = g->lanes; j + 1 < g->n && i < g->ldy; i++) {
            CHECK(is_gap(y[j * g->ldy + i]), "%s: wrote y[%d][%d], beyond its lanes", doing, j, (int)i);
        }
    }
    free(w);
    free(size);
    free(x);
    free(off);
}

// A row at a time, split in two, and with all lanes of the last panel. Wherever rows of bfloat16 begin, BF16_ROWS of
// them may be read.
static void gemm_regroup(Gemm g, const float *y, const float *before, int64_t n_x, int64_t n_y) {
    size_t bytes = sizeof *y * (size_t)n_y;
    float *again = fence_floats(4, n_y);
    uint16_t *room = NULL;
    if (g.type == GEMM_PAIRS) {
        int64_t n_room = n_x + BF16_ROWS * g.ldx;
        room = need(sizeof *room * (size_t)n_room);
        for (int64_t i = 0; i < n_room; i++) room[i] = i < n_x ? ((const uint16_t *)g.x)[i] : half_gap[0];
        g.x = room;
    }
    memcpy(again, before, bytes);
    for (int j = 0; j < g.n; j++) gemm_run(&g, again, g.ldy, j, 1, g.lanes);
    CHECK(!memcmp(again, y, bytes), "%s: rows one at a time differ", doing);
    memcpy(again, before, bytes);
    int cut = pick(g.n + 1);
    gemm_run(&g, again, g.ldy, 0, cut, g.lanes);
    gemm_run(&g, again, g.ldy, cut, g.n - cut, g.lanes);
    CHECK(!memcmp(again, y, bytes), "%s: split at row %d differs", doing, cut);

    int all = up_to(g.lanes, K->panel);
    int64_t ld = all + 1, n_full = (g.n - 1) * ld + all;
    float *full = fence_floats(5, n_full);
    memset(full, 0, sizeof *full * (size_t)n_full);
    for (int j = 0; j < g.n; j++) memcpy(full + j * ld, before + j * g.ldy, sizeof *y * (size_t)g.lanes);
    gemm_run(&g, full, ld, 0, g.n, all);
    for (int j = 0; j < g.n; j++) {
        CHECK(!memcmp(full + j * ld, y + j * g.ldy, sizeof *y * (size_t)g.lanes), "%s: row %d of all lanes differs",
              doing, j);
    }
    free(room);
}

// Rows of bfloat16 up to a multiple of BF16_ROWS are there and no numbers.
static void gemm_case(GemmType type, int n, int k, int lanes, bool add, int kind) {
    bool pairs = type == GEMM_PAIRS;
    Gemm g = {.type = type, .n = n, .k = k, .lanes = lanes, .add = add};
    gemm_layout(&g);
    g.ldy = lanes + pick(2) * 5;
    g.ldx = k + pick(2) * 3;
    DOING("%s n %d k %d columns %d row_stride %d panel_stride %d prefetch_offset %d ldy %d ldx %d add %d data %d",
          gemm_names[type], n, k, lanes, (int)g.w.row_stride, (int)g.w.panel_stride, (int)g.w.prefetch_offset,
          (int)g.ldy, (int)g.ldx, add, kind);
    int64_t n_words = gemm_words(&g), n_x = ((pairs ? up_to(n, BF16_ROWS) : n) - 1) * g.ldx + k;
    int64_t n_y = (n - 1) * g.ldy + lanes;
    void *words = fence_put(0, 4 * n_words), *x = fence_put(1, n_x * (pairs ? 2 : 4));
    float *y = fence_floats(2, n_y), *before = fence_floats(3, n_y);
    gemm_fill(&g, words, n_words, kind);
    gemm_fill_x(&g, x, n_x, kind);
    g.w.data = words;
    g.x = x;
    fill_gap(before, n_y); // without `add`, what y holds must not matter
    for (int j = 0; add && j < n; j++) fill_floats(before + j * g.ldy, lanes, kind);
    memcpy(y, before, sizeof *y * (size_t)n_y);
    gemm_run(&g, y, g.ldy, 0, n, lanes);
    CHECK(floats_kept(2, n_y), "%s: wrote before y", doing);
    gemm_check(&g, y, before);
    gemm_regroup(g, y, before, n_x, n_y);
}

static void gemm_of(GemmType type) {
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 25, 29};
    static const int words[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 70, 129, 300};
    int each = word_values[type];
    for (int a = 0; a < N_OF(words); a += quick() ? 3 : 1) {
        for (int b = 0; b < N_OF(rows); b += quick() ? 2 : 1) {
            for (int i = 0; i < 4; i++) {
                int lanes = i ? 1 + pick(70) : K->panel * (1 + pick(2));
                gemm_case(type, rows[b], words[a] * each, lanes, pick(2), pick(N_KINDS));
            }
        }
    }
    for (int lanes = 1; lanes <= 70; lanes++) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            gemm_case(type, 1 + pick(29), (1 + pick(80)) * each, lanes, (lanes + kind) % 2, kind);
        }
    }
}

static void gemm_f32(void) {
    gemm_of(GEMM_F32);
}

static void gemm_bf16(void) {
    gemm_of(GEMM_BF16);
}

// One value of a row is no number: nothing of that row is one, and the others are as they were.
static void gemm_i8_not_finite(int n, int k, int lanes, float value) {
    Gemm g = {.type = GEMM_I8, .n = n, .k = k, .lanes = lanes, .add = pick(2), .ldy = lanes, .ldx = k};
    int64_t n_y = n * lanes;
    int bad = pick(n), at = pick(k);
    gemm_layout(&g);
    DOING("gemm_i8 n %d k %d lanes %d add %d, x[%d][%d] = %g", n, k, lanes, g.add, bad, at, (double)value);
    void *words = fence_put(0, 4 * gemm_words(&g));
    float *x = fence_floats(1, n * k), *y = fence_floats(2, n_y), *finite = fence_floats(3, n_y);
    fill_i8(words, 4 * gemm_words(&g));
    fill_floats(x, n * k, pick(N_KINDS));
    fill_floats(y, n_y, PLAIN);
    memcpy(finite, y, sizeof *y * (size_t)n_y);
    g.w.data = words;
    g.x = x;
    gemm_run(&g, finite, lanes, 0, n, lanes);
    x[bad * k + at] = value;
    gemm_run(&g, y, lanes, 0, n, lanes);
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < lanes; i++) {
            float found = y[j * lanes + i], before = finite[j * lanes + i];
            CHECK(isfinite(before), "%s: y[%d][%d] = %.9g of finite x", doing, j, i, before);
            CHECK(j == bad ? !isfinite(found) : found == before, "%s: y[%d][%d] = %.9g, without it %.9g", doing, j, i,
                  found, before);
        }
    }
}

static void gemm_i8(void) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    gemm_of(GEMM_I8);
    for (int i = 0; i < 300; i++) gemm_i8_not_finite(1 + pick(9), 4 * (1 + pick(150)), 1 + pick(70), values[i % 3]);
}

static void bf16_gemm(void) {
    static const int rows[] = {1, 2, 3, 5, 7, 11, 12, 13, 15, 16, 17, 23, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70};
    static const int sizes[] = {32, 64, 96, 128, 224, 512};
    for (int a = 0; a < N_OF(sizes); a += quick() ? 2 : 1) {
        for (int b = 0; b < N_OF(rows); b += quick() ? 2 : 1) {
            for (int i = 0; i < 4; i++) {
                int lanes = i ? 1 + pick(70) : K->panel * (1 + pick(2));
                gemm_case(GEMM_PAIRS, rows[b], sizes[a], lanes, (i ^ b) % 2, pick(N_KINDS));
            }
        }
    }
    for (int lanes = 1; lanes <= 70; lanes++) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            gemm_case(GEMM_PAIRS, 1 + pick(70), 64, lanes, (lanes + kind) % 2, kind);
        }
    }
}

// Results that do not fit into a cache have the bits of those that do.
static void bf16_gemm_far(void) {
    enum { N = 290, DEEP = 96, COLUMNS = 3 * MAX_PANEL, FAR = 8192 };
    int64_t padded = up_to(N, BF16_ROWS);
    float *near = need_floats(N * COLUMNS), *far, *values = need_floats(padded * DEEP);
    uint16_t *x = malloc(sizeof *x * (size_t)padded * DEEP), *panels = malloc(sizeof *x * COLUMNS * DEEP);
    void *memory;
    if (posix_memalign(&memory, 64, sizeof *far * N * FAR)) abort();
    far = memory;
    fill_floats(values, padded * DEEP, PLAIN);
    K->bf16->round(x, values, padded * DEEP);
    K->bf16->round(panels, values, COLUMNS * DEEP);
    PackedMatrix w = {.data = panels, .row_stride = MAX_PANEL, .panel_stride = DEEP / 2 * MAX_PANEL};
    for (int add = 0; add < 2; add++) {
        K->bf16->gemm(near, COLUMNS, &w, x, DEEP, N, DEEP, COLUMNS, add);
        K->bf16->gemm(far, FAR, &w, x, DEEP, N, DEEP, COLUMNS, add);
        for (int j = 0; j < N; j++) {
            CHECK(!memcmp(near + j * COLUMNS, far + j * FAR, sizeof *near * COLUMNS), "row %d, add %d", j, add);
        }
    }
    free(near);
    free(far);
    free(values);
    free(x);
    free(panels);
    n_cases++;
}

// ---- conversions to bfloat16

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

// To nearest, ties to even. VCVTNEPS2BF16 takes a denormal number for zero, which is nothing to a sum of products; it
// leaves a NaN one, as others do.
static bool is_rounded(uint16_t found, float x) {
    if (isnan(x)) return isnan(half_value(found, false));
    bool zero = (found & 0x7fff) == 0 && found >> 15 == (signbit(x) != 0);
    return found == bf16_from_f32(x) || (fabsf(x) < FLT_MIN && zero);
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

// Every number of 8 bits is one of bfloat16.
static void bf16_from_i8_case(int64_t ld, int n_rows) {
    DOING("bf16 from_i8 ld %d n_rows %d", (int)ld, n_rows);
    int64_t n = 4 * ld * n_rows, y_bytes = 2 * n;
    int8_t *x = fence_put(0, n);
    uint16_t *y = fence_put(1, y_bytes);
    int first = pick(256);
    for (int64_t i = 0; i < n; i++) x[i] = (int8_t)(pick(2) ? first + i : pick(256));
    for (int64_t i = 0; i < n; i++) y[i] = 0xffff;
    K->bf16->from_i8(y, x, ld, n_rows);
    CHECK(canary_kept(1, y_bytes), "%s: wrote before y", doing);
    for (int64_t i = 0; i < n; i++) {
        int64_t word = i / 4, row = word / ld * 2 + i % 4 / 2, at = (row * ld + word % ld) * 2 + i % 2;
        CHECK(y[at] == bf16_from_f32(x[i]), "%s: byte %d of word %d of row %d, %d, became %04x", doing, (int)(i % 4),
              (int)(word % ld), (int)(word / ld), x[i], (unsigned)y[at]);
    }
}

static void bf16_from_i8(void) {
    for (int ld = 1; ld <= 70; ld++) {
        for (int n_rows = 1; n_rows <= 4; n_rows++) bf16_from_i8_case(ld, n_rows);
    }
    bf16_from_i8_case(32, 64);
    bf16_from_i8_case(128, 32);
    bf16_from_i8_case(257, 9);
}

// ---- products of integers: int8 or int16

static void put_int(void *q, int64_t i, int value) {
    if (ints->bytes == 1) ((int8_t *)q)[i] = (int8_t)value;
    else ((int16_t *)q)[i] = (int16_t)value;
}

static void int_round_case(int n, int kind, float limit) {
    DOING("int%d round n %d data %d to %g", 8 * ints->bytes, n, kind, (double)limit);
    float *x = need_floats(n), top = 0;
    void *q = malloc((size_t)(n * ints->bytes));
    fill_floats(x, n, kind);
    for (int i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
    float scale = ints->round(q, x, n, limit);
    CHECK(top < 1e-30f ? scale == 0 : fabsf(scale - top / limit) <= 1e-6f * top / limit, "%s: scale %g of %g", doing,
          (double)scale, (double)top);
    for (int i = 0; i < n && scale > 0; i++) {
        double steps = (double)x[i] / (double)scale;
        CHECK(fabs(steps - int_at(q, i)) <= 0.5 + 7e-7 * (double)limit, "%s: %g steps became %d", doing, steps,
              int_at(q, i));
        CHECK(abs(int_at(q, i)) <= (int)limit, "%s: %d", doing, int_at(q, i));
    }
    x[pick(n)] = NAN;
    CHECK(isnan(ints->round(q, x, n, limit)), "%s: a NaN is lost", doing);
    free(x);
    free(q);
    n_cases++;
}

static void int_round(void) {
    static const int sizes[] = {16, 64, 192, 576, INT_COLUMNS};
    for (int a = 0; a < N_OF(sizes); a++) {
        for (int kind = 0; kind < N_KINDS; kind++) int_round_case(sizes[a], kind, kind % 2 ? ints->x_top : ints->w_top);
    }
}

// Any integer, most often the largest: `sign` 0, or the sign of all.
static int any_int(float limit, int sign) {
    int top = (int)limit;
    if (sign) return sign * top;
    return pick(3) ? (pick(2) ? top : -top) : pick(2 * top + 1) - top;
}

// Against sums in 64 bits. extreme: a part's sums are the largest that there are.
static void int_gemm_case(int n, int k, int n_cols, bool add, bool extreme) {
    DOING("int%d gemm n %d k %d n_cols %d add %d extreme %d", 8 * ints->bytes, n, k, n_cols, add, extreme);
    int padded = (n + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS, ldy = n_cols + 5, width = K->panel,
        word = 4 / ints->bytes;
    int n_parts = (k + ints->part - 1) / ints->part, parts = n_parts + 1;
    void *x = calloc((size_t)padded * (size_t)k, (size_t)ints->bytes), *q = malloc((size_t)(k * width * ints->bytes));
    float *y = need_floats((int64_t)n * ldy), *before = need_floats((int64_t)n * ldy);
    float *x_scale = need_floats(n * parts), *w_scale = need_floats(n_parts * width);
    for (int i = 0; i < n * k; i++) put_int(x, i, any_int(ints->x_top, extreme ? 1 - 2 * (i / k % 2) : 0));
    for (int i = 0; i < k * width; i++) put_int(q, i, any_int(ints->w_top, extreme ? 1 - 2 * (i / word % 2) : 0));
    fill_floats(x_scale, n * parts, PLAIN);
    fill_floats(w_scale, n_parts * width, PLAIN);
    fill_floats(before, n * ldy, PLAIN);
    memcpy(y, before, sizeof *y * (size_t)n * (size_t)ldy);
    const IntPanel w = {.q = q, .scale = w_scale};
    const IntRows rows = {x, k, parts, x_scale};
    ints->gemm(y, ldy, &w, &rows, n, k, n_cols, add);
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < ldy; i++) {
            double was = (double)before[j * ldy + i], want = i < n_cols && !add ? 0 : was, size = fabs(want);
            int of_parts = i < n_cols ? n_parts : 0;
            for (int p = 0; p < of_parts; p++) {
                int64_t sum = 0;
                int end = (p + 1) * ints->part < k ? (p + 1) * ints->part : k;
                for (int c = p * ints->part; c < end; c++) {
                    sum += int_at(x, j * k + c) * int_at(q, (int64_t)c / word * word * width + word * i + c % word);
                }
                double product = (double)sum * (double)x_scale[j * parts + p] * (double)w_scale[p * width + i];
                want += product;
                size += fabs(product);
            }
            double error = fabs((double)y[j * ldy + i] - want);
            CHECK(error <= (i < n_cols ? 1e-6 * size : 0), "%s: row %d column %d: %g, expected %g", doing, j, i,
                  (double)y[j * ldy + i], want);
        }
    }
    free(x);
    free(q);
    free(y);
    free(before);
    free(x_scale);
    free(w_scale);
    n_cases++;
}

static void int_gemm(void) {
    static const int rows[] = {1, 3, 4, 15, 16, 17, 31, 32, 33, 50}, columns[] = {1, 15, 16, 17, 31, 32};
    static const int sizes[] = {64, 192, 576, 1088, INT_COLUMNS};
    for (int a = 0; a < N_OF(rows); a++) {
        for (int b = 0; b < N_OF(columns); b++) {
            if (columns[b] <= K->panel) int_gemm_case(rows[a], sizes[(a + b) % 5], columns[b], (a + b) % 2, false);
        }
    }
    int_gemm_case(300, 576, K->panel, false, false);
    int_gemm_case(7, INT_COLUMNS, K->panel, false, true);
}

// Blocks of a format as a panel, times rows of x that are integers times a power of two, so that only the multiples of
// the panel's scales are rounded. extreme: of weights and of x all are the largest ones.
static void pack_ints_case(int format, int n, int k, int n_cols, bool extreme) {
    const DTypeInfo *info = dtype_info(formats[format].dtype);
    DOING("%s in a panel of int6, n %d k %d n_cols %d extreme %d", info->name, n, k, n_cols, extreme);
    int padded = (n + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS, parts = (k + 255) / 256, width = K->panel,
        sums = k / BLOCK;
    int64_t row_bytes = k / info->block * info->block_bytes, n_words = (int64_t)k * width * 3 / 2;
    uint8_t *w = fence_put(0, n_cols * row_bytes), *q = fence_put(1, (int64_t)padded * k);
    IntPanel panel = {.q = fence_put(2, n_words), .scale = need_floats(parts * width)};
    panel.minimum = need_floats(sums * width);
    float *x = need_floats(n * k), *x_scale = need_floats(n * parts), *sum = need_floats(n * sums), *v = need_floats(k);
    float *y = need_floats(n * n_cols);
    fill_blocks(w, n_cols * (k / info->block), format);
    if (extreme && info->block_bytes != 17) {
        int top = pick(2) * 255;
        memset(w, top, (size_t)(n_cols * row_bytes));
        for (int64_t b = 0; b < n_cols * (k / info->block); b++) put_scales(w + b * info->block_bytes, format, 1, 1);
    }
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < k; i++) x[j * k + i] = (float)(extreme ? (j % 2 ? 127 : -127) : pick(255) - 127) / 64;
        for (int p = 0; p < parts; p++) {
            int at = j * k + p * 256, count = k - p * 256 < 256 ? k - p * 256 : 256;
            x[at + pick(count)] = (j % 2 ? 127.0f : -127.0f) / 64;
            x_scale[j * parts + p] = ints->round(q + at, x + at, count, ints->x_top);
        }
        ints->sums(sum + j * sums, x + j * k, k);
    }
    ints->packs[formats[format].dtype](&panel, w, row_bytes, n_cols, k);
    const IntRows rows = {q, k, parts, x_scale};
    ints->gemm(y, n_cols, &panel, &rows, n, k, n_cols, false);
    PackedMatrix minima = {.data = panel.minimum, .row_stride = width};
    if (panel.has_minima) K->gemm_f32(y, n_cols, &minima, sum, sums, n, sums, n_cols, true);
    for (int i = 0; i < n_cols; i++) {
        info->unpack(v, w + i * row_bytes, k / info->block);
        for (int j = 0; j < n; j++) {
            double want = 0, most = 0;
            for (int c = 0; c < k; c++) {
                double xc = (double)x[j * k + c], step = (double)panel.scale[c / 256 * width + i];
                want += (double)v[c] * xc;
                most += fabs(xc) * (0.5 * 32 * step + 1e-6 * (fabs((double)v[c]) + 4096 * 32 * step));
            }
            CHECK(near(y[j * n_cols + i], want, most + 1e-30), "%s: row %d column %d: %.9g, expected %.9g to %.1g",
                  doing, j, i, (double)y[j * n_cols + i], want, most);
        }
    }
    free(panel.scale);
    free(panel.minimum);
    free(x);
    free(x_scale);
    free(sum);
    free(v);
    free(y);
    n_cases++;
}

static void products_of_packed_ints(void) {
    static const int sizes[] = {64, 192, 256, 576, INT_COLUMNS}, rows[] = {1, 2, 5, 6, 7, 12, 17};
    int n_formats = 0;
    ints = K->int6;
    for (int f = N_FLOAT_FORMATS; f < N_FORMATS; f++) {
        if (!ints->packs[formats[f].dtype]) continue;
        n_formats++;
        for (int i = 0; i < N_OF(sizes); i++) {
            if (sizes[i] % dtype_info(formats[f].dtype)->block) continue;
            for (int r = 0; r < N_OF(rows); r++) {
                pack_ints_case(f, rows[r], sizes[i], r % 2 ? K->panel : 1 + pick(K->panel), false);
            }
            pack_ints_case(f, 8, sizes[i], K->panel, true);
        }
    }
    CHECK(n_formats == 11, "%d formats have panels of int6", n_formats);
    float x[64] = {[40] = NAN};
    uint8_t q[64];
    CHECK(isnan(ints->round(q, x, 64, ints->x_top)), "int6 round: a NaN is lost");
}

static void products_of_ints(void) {
    const IntKernels *both[] = {K->int8, K->int16};
    for (int i = 0; i < N_OF(both); i++) {
        ints = both[i];
        if (!ints) continue;
        CHECK((double)ints->x_top * (double)ints->w_top * ints->part <= INT32_MAX, "%s: sums of %d bytes overflow",
              K->name, ints->bytes);
        int_round();
        int_gemm();
    }
    if (K->int6) products_of_packed_ints();
}

// The tile kernel over tile operations in C; in a thread of its own, which has to lay out its tiles itself.
static void *tiles_thread(void *unused) {
    gemm_case(GEMM_PAIRS, 37, 96, K->panel, true, PLAIN);
    return unused;
}

static void tiles_in_c(void) {
    pthread_t thread;
    bf16_gemm();
    products_of_ints();
    if (!pthread_create(&thread, NULL, tiles_thread, NULL)) pthread_join(thread, NULL);
    CHECK(!*tiles_fault(), "%s", tiles_fault());
}

static void run_tiles(void) {
    if (!kernels_for(cpu_best_level())->bf16 || !tiles_fault) {
        printf("tile operations in C: skipped, this machine has no AVX512-BF16\n");
        return;
    }
    static Kernels table;
    table = *kernels_for(cpu_best_level());
    table.name = "tiles in C";
    table.bf16 = &bf16_tiles_in_c;
    table.int8 = &int8_tiles_in_c;
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
static void softmax_check(const float *before, const float *after, int n, float m0, float l0, float m, float l,
                          float alpha) {
    float top = m0;
    for (int j = 0; j < n; j++) top = before[j] > top ? before[j] : top;
    CHECK(m == top, "%s: m = %.9g, expected %.9g", doing, m, top);
    double sum = 0;
    for (int j = 0; j < n; j++) {
        double d = (double)before[j] - (double)top, p = exp2(d);
        float found = after[j];
        sum += p;
        CHECK(near(found, p, exp2_bound(d)), "%s: P[%d] = %.9g, expected %.9g", doing, j, found, p);
        CHECK(before[j] != SCORE_MASKED || found == 0, "%s: masked P[%d] = %.9g, expected exactly 0", doing, j, found);
    }
    double d = (double)m0 - (double)top, expected = (double)l0 * exp2(d) + sum;
    CHECK(near(alpha, exp2(d), exp2_bound(d)), "%s: alpha = %.9g, expected %.9g", doing, alpha, exp2(d));
    CHECK(m0 != top || alpha == 1, "%s: m stayed, but alpha = %.9g", doing, alpha);
    CHECK(near(l, expected, 2e-5 * expected + 2 * (double)FLT_MIN * n), "%s: l = %.9g, expected %.9g", doing, l,
          expected);
    if (sum <= 0) CHECK(l == l0, "%s: nothing visible, but l went from %.9g to %.9g", doing, l0, l);
}

static float start_m(int which) { // nothing seen yet, a learned sink, a running maximum
    return which == 0 ? SCORE_START : which == 1 ? test_uniform() * 3 : test_uniform() * 200;
}

// In bfloat16: p of n keys times the scales, zeros up to `padded`; l is of what is not scaled.
static void bf16_softmax_check(const float *s, const float *scales, const uint16_t *p, int n, int padded, float m0,
                               float l0, float m, float l, float alpha) {
    const double part = 1e-4 + 1.0 / 256; // the polynomial, rounding to 8 bits and slack
    float top = m0;
    for (int j = 0; j < n; j++) top = fmaxf(top, s[j]);
    float expected_m = top > m0 + SOFTMAX_MARGIN ? top : m0;
    CHECK(m == expected_m, "%s: m = %.9g, expected %.9g", doing, m, expected_m);
    double sum = 0;
    for (int j = 0; j < padded; j++) {
        double power = j < n ? exp2((double)s[j] - (double)m) : 0, by = j < n && scales ? (double)scales[j] : 1;
        double found = half_value(p[j], false), expected = power * by;
        sum += power;
        CHECK(fabs(found - expected) <= part * fabs(expected) + 2 * (double)FLT_MIN * (1 + fabs(by)),
              "%s: P[%d] = %.9g, expected %.9g", doing, j, found, expected);
        CHECK(found == 0 || (j < n && s[j] != SCORE_MASKED), "%s: masked P[%d] = %.9g, expected exactly 0", doing, j,
              found);
    }
    double factor = exp2((double)m0 - (double)m), expected = (double)l0 * factor + sum;
    CHECK(fabs((double)alpha - factor) <= 1e-4 * factor + 2 * (double)FLT_MIN, "%s: alpha = %.9g, expected %.9g", doing,
          alpha, factor);
    CHECK(m0 != m || alpha == 1, "%s: m stayed, but alpha = %.9g", doing, alpha);
    CHECK(fabs((double)l - expected) <= 1e-4 * expected + 2 * (double)FLT_MIN * n, "%s: l = %.9g, expected %.9g", doing,
          l, expected);
    if (sum <= 0) CHECK(l == l0, "%s: nothing visible, but l went from %.9g to %.9g", doing, l0, l);
}

static void bf16_softmax_case(int n_keys, int kind, int masked_of_8, bool scaled) {
    DOING("bf16 softmax_row n_keys %d data %d masked %d/8 scaled %d", n_keys, kind, masked_of_8, scaled);
    int padded = up_to(n_keys, BF16_STEP), which = pick(3);
    int64_t bytes = padded * (int64_t)sizeof(uint16_t);
    float *s = fence_floats(0, n_keys), *scales = scaled ? fence_floats(1, n_keys) : NULL;
    float *m = fence_floats(2, 1), *l = fence_floats(3, 1);
    uint16_t *p = fence_put(4, bytes);
    *m = start_m(which);
    *l = which == 0 ? 0 : which == 1 ? 1 : 1 + 50 * fabsf(test_uniform());
    for (int tile = 0; tile < 3; tile++) {
        for (int i = 0; i < n_keys; i++) s[i] = any_score(kind, masked_of_8);
        if (scaled) fill_floats(scales, n_keys, kind);
        memset(p, 0xff, (size_t)bytes);
        float m0 = *m, l0 = *l, alpha = K->bf16->softmax_row(p, s, n_keys, scales, m, l);
        bf16_softmax_check(s, scales, p, n_keys, padded, m0, l0, *m, *l, alpha);
        CHECK(canary_kept(4, bytes) && floats_kept(2, 1) && floats_kept(3, 1), "%s: wrote before an operand", doing);
    }
}

static void bf16_softmax(void) {
    static const int masked[] = {0, 3, 8};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            for (int c = 0; c < N_OF(masked); c++) {
                for (int scaled = 0; scaled < 2; scaled++) bf16_softmax_case(sizes_k[a], kind, masked[c], scaled);
            }
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
        softmax_check(before, s, n_keys, m0, l0, m, l, alpha);
        CHECK(floats_kept(0, n_keys), "%s: wrote before s", doing);
    }
}

static void softmax(void) {
    static const int masked[] = {0, 3, 8};
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            for (int c = 0; c < N_OF(masked); c++) softmax_row_case(sizes_k[a], kind, masked[c]);
        }
    }
}

// ---- scale

static void scale_case(int n, int kind) {
    DOING("scale n %d data %d", n, kind);
    float *x = fence_floats(0, n), *by = fence_floats(1, n), *before = fence_floats(2, n);
    fill_floats(before, n, kind);
    fill_floats(by, n, kind);
    memcpy(x, before, sizeof *x * (size_t)n);
    K->scale(x, by, n);
    CHECK(floats_kept(0, n), "%s: wrote before x", doing);
    for (int i = 0; i < n; i++) {
        float expected = before[i] * by[i];
        CHECK(!memcmp(&x[i], &expected, sizeof expected), "%s: x[%d] = %.9g, expected exactly %.9g", doing, i, x[i],
              expected);
    }
}

static void scale(void) {
    for (int a = 0; a < N_OF(sizes_k); a += step_k()) {
        for (int kind = 0; kind < N_KINDS; kind++) scale_case(sizes_k[a], kind);
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
static const char *const activation_names[N_ACTIVATIONS] = {"none", "gelu", "gelu_tanh",    "quick_gelu",
                                                            "relu", "silu", "relu_squared", "softplus"};

// By the formula in double; *size is the argument of its exponential, which float rounds relative to its size.
static double activation_value(double x, Activation a, double *size) {
    double cubic = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    *size = a == ACT_GELU ? x * x / 2 : a == ACT_GELU_TANH ? 2 * cubic : a == ACT_QUICK_GELU ? 1.702 * x : x;
    if (a == ACT_NONE || a == ACT_RELU) return *size = 0, a == ACT_NONE || x > 0 ? x : 0;
    if (a == ACT_RELU_SQUARED) return *size = 0, x > 0 ? (double)((float)x * (float)x) : 0; // one rounding
    if (a == ACT_SOFTPLUS) return fmax(x, 0) + log1p(exp(-fabs(x)));
    if (a == ACT_GELU) return x * erfc(-x / sqrt(2)) / 2; // 1 + erf without its cancellation
    return x / (1 + exp(-*size));                         // (1 + tanh u) / 2 = 1 / (1 + exp(-2 u))
}

// The worst errors for 1e-30 <= |y| and |x| <= 100: itself; over |y|, and where; over the tolerance.
static struct { double absolute, relative, relative_at, part; } activate_worst[N_ACTIVATIONS];

static bool is_exact(Activation a) {
    return a == ACT_NONE || a == ACT_RELU || a == ACT_RELU_SQUARED;
}

static void activate_check(float x, float y, Activation a) {
    double size, expected = activation_value((double)x, a, &size), error = fabs((double)y - expected);
    // Relative: a few roundings, and the exponential's argument, off by two roundings, or of a polynomial in x by five.
    // Absolute: where the exponential passes 2^126.
    bool exact = is_exact(a);
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
        float same = a == ACT_RELU_SQUARED ? huge[i] * huge[i] : huge[i];
        CHECK(x[0] == same, "%s: of %.9g = %.9g, expected %.9g", doing, huge[i], x[0], same);
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
        if (is_exact(a)) continue;
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

static void scan_row_case(int n, int k, int gap) {
    DOING("scan_row n %d, k %d, ld n + %d", n, k, gap);
    int ld = n + gap, size = (k - 1) * ld + n;
    float *y = fence_floats(0, n), *h = fence_floats(1, size), *a = fence_floats(2, size);
    float *rows = fence_floats(3, 2 * n), *bq = fence_floats(4, 2 * k), *before = fence_floats(5, size), *step = rows,
          *u = rows + n;
    for (int i = 0; i < size; i++) {
        before[i] = i % ld < n ? test_uniform() : NAN;
        a[i] = i % ld < n ? (pick(9) ? -8 * (1 + test_uniform()) : -1e30f) : NAN;
    }
    for (int i = 0; i < n; i++) {
        step[i] = pick(9) ? 1 + test_uniform() : 0;
        u[i] = test_uniform();
    }
    for (int i = 0; i < 2 * k; i++) bq[i] = test_uniform();
    memcpy(h, before, sizeof(float) * (size_t)size);
    K->scan_row(y, h, a, ld, step, u, bq, bq + k, n, k);
    CHECK(floats_kept(0, n) && floats_kept(1, size), "%s: wrote before y or h", doing);
    for (int c = 0; c < n; c++) {
        double sum = 0;
        for (int i = 0; i < k; i++) {
            double want = exp((double)step[c] * (double)a[i * ld + c]) * (double)before[i * ld + c] +
                          (double)u[c] * (double)bq[i];
            CHECK(near(h[i * ld + c], want, 1e-6), "%s: state %d of channel %d = %.9g, expected %.9g", doing, i, c,
                  h[i * ld + c], want);
            sum += want * (double)bq[k + i];
        }
        CHECK(near(y[c], sum, 1e-6 * k), "%s: channel %d = %.9g, expected %.9g", doing, c, y[c], sum);
    }
    for (int c = 0; c < n; c++) { // alone
        float one, *column = before + c;
        K->scan_row(&one, column, a + c, ld, step + c, u + c, bq, bq + k, 1, k);
        bool same = !memcmp(&one, &y[c], sizeof one);
        for (int i = 0; i < k; i++) same &= !memcmp(&column[i * ld], &h[i * ld + c], sizeof one);
        CHECK(same, "%s: channel %d alone differs", doing, c);
    }
}

static void scan_row(void) {
    static const int channels[] = {1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65}, states[] = {1, 2, 16, 19};
    for (int a = 0; a < N_OF(channels); a++) {
        for (int b = 0; b < N_OF(states); b++) scan_row_case(channels[a], states[b], 5 * (a % 2));
    }
}

// ---- all

static void tables_are_complete(void) {
    CHECK(K->name && *K->name, "a table without a name");
    CHECK(K->panel >= 1 && MAX_PANEL % K->panel == 0, "%s: panel %d", K->name, K->panel);
    CHECK(K->matvec_f32 && K->matvec_f16 && K->matvec_bf16 && K->matvec_i8g && K->unpack_i8g && K->pack &&
              K->gemm_f32 && K->gemm_bf16 && K->gemm_i8 && K->softmax_row && K->scale && K->f32_from_f16 &&
              K->f32_from_bf16 && K->rmsnorm && K->layernorm && K->activate && K->softcap && K->swiglu && K->scan_row,
          "%s: a kernel is missing", K->name);
    CHECK(!K->bf16 || (K->bf16->round && K->bf16->from_i8 && K->bf16->softmax_row && K->bf16->gemm),
          "%s: a kernel of bfloat16 is missing", K->name);
    CHECK(!K->int8 || (K->int8->round && K->int8->gemm), "%s: a kernel of int8 is missing", K->name);
    CHECK(!K->int6 || (K->int6->round && K->int6->gemm && K->int6->packs && K->int6->sums),
          "%s: a kernel of int6 is missing", K->name);
    CHECK(!K->int16 || (K->int16->round && K->int16->gemm), "%s: a kernel of int16 is missing", K->name);
}

int main(void) {
    const Kernels *tables[N_LEVELS];
    int n_tables = 0;
    fences_open();
    half_values_fill();
    for (int r = 0; r <= (int)cpu_best_level(); r++) {
        if (kernels_for((CpuLevel)r)) tables[n_tables++] = kernels_for((CpuLevel)r);
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
        RUN(matvec_i8g);
        RUN(unpack_i8g);
        RUN(matvec_blocks);
        RUN(pack);
        RUN(gemm_f32);
        RUN(gemm_bf16);
        RUN(gemm_i8);
        if (K->bf16) RUN(bf16_round);
        if (K->bf16) RUN(bf16_from_i8);
        if (K->bf16) RUN(bf16_softmax);
        if (K->bf16) RUN(bf16_gemm);
        if (K->bf16) RUN(bf16_gemm_far);
        RUN(products_of_ints);
        RUN(softmax);
        RUN(scale);
        RUN(rows_from_f16);
        RUN(rows_from_bf16);
        RUN(rmsnorm);
        RUN(layernorm);
        RUN(activate);
        RUN(softcap);
        RUN(swiglu);
        RUN(scan_row);
        printf("  %d cases\n", n_cases);
    }
    run_tiles();
    return test_report();
}
