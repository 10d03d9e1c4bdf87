// check_heads: ops_linear_heads, a matrix for each head, against sums in double: types of weights, few tokens and many,
// matrices one behind the other or with rows of others between, as they are and transposed, inputs and outputs with
// room between heads; at every level, the same bits for any number of threads, nothing written elsewhere.
#include "reference.h"

#include "ops.h"
#include "quant.h"

#include <float.h>
#include <string.h>

enum { MOST_TOKENS = 40 };

typedef struct {
    int heads, rows, cols, between, x_room, y_room; // between: rows of others before each matrix; room behind each head
} Shape;

static const Shape shapes[] = {{1, 1, 32, 0, 0, 0},
                               {3, 40, 32, 0, 0, 8},
                               {4, 20, 96, 10, 7, 0},
                               {8, 64, 512, 128, 0, 64},
                               {2, 130, 1056, 3, 64, 1}};
static const DType dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0};
static const int counts[] = {1, 2, 7, 8, 9, MOST_TOKENS};

static float *random_floats(int64_t n) {
    float *x = need_floats(n);
    for (int64_t i = 0; i < n; i++) x[i] = test_uniform();
    return x;
}

// n values as the type stores them, and what they are.
static void *make_weights(DType dtype, int64_t n, double *exact) {
    float *x = random_floats(n);
    uint16_t *half = need(sizeof *half * (size_t)n);
    for (int64_t i = 0; i < n; i++) half[i] = dtype == DTYPE_F16 ? f16_from_f32(x[i]) : bf16_from_f32(x[i]);
    void *stored = dtype == DTYPE_F32 ? (void *)x : half;
    if (dtype == DTYPE_Q8_0) {
        stored = need((size_t)n * 2);
        pack_q8_0(stored, x, n / BLOCK);
        unpack_q8_0(x, stored, n / BLOCK);
    }
    for (int64_t i = 0; i < n; i++) {
        float value = dtype == DTYPE_F16 ? f32_from_f16(half[i]) : dtype == DTYPE_BF16 ? f32_from_bf16(half[i]) : x[i];
        exact[i] = (double)value;
    }
    if (stored != half) free(half);
    if (stored != x) free(x);
    return stored;
}

// A product: its inputs, and what comes out for as many tokens as there are at most. Every level has the same ones.
typedef struct {
    const Shape *s;
    DType dtype;
    bool reserved, transposed;
    int pitch, n_in, n_out; // rows from a matrix to the next; values of a head
    void *stored;           // weights
    float *x;
    double *sums, *sizes; // [MOST_TOKENS][heads][n_out]: of products, and of their absolute values
    double most;          // error for each unit of the sum of absolute products
} Case;

static Case cases[2 * N_OF(shapes) * 2 * N_OF(dtypes)];
static int n_cases;

static int x_ld(const Case *c) {
    return c->s->heads * (c->n_in + c->s->x_room);
}

static int y_ld(const Case *c) {
    return c->s->heads * (c->n_out + c->s->y_room);
}

static void expect_head(const Case *c, const double *weights, int t, int h) {
    const float *x = c->x + (int64_t)t * x_ld(c) + h * (c->n_in + c->s->x_room);
    const double *w = weights + (int64_t)(c->s->between + h * c->pitch) * c->s->cols;
    int64_t at = ((int64_t)t * c->s->heads + h) * c->n_out;
    int step = c->transposed ? c->s->cols : 1;
    for (int r = 0; r < c->n_out; r++) {
        const double *row = w + (c->transposed ? r : r * c->s->cols);
        double sum = 0, size = 0;
        for (int i = 0; i < c->n_in; i++) {
            double product = row[i * step] * (double)x[i];
            sum += product;
            size += fabs(product);
        }
        c->sums[at + r] = sum;
        c->sizes[at + r] = size;
    }
}

static void make_case(const Shape *s, DType dtype, bool reserved, bool transposed) {
    Case *c = &cases[n_cases++];
    *c = (Case){.s = s, .dtype = dtype, .reserved = reserved, .transposed = transposed, .pitch = s->between + s->rows};
    c->n_in = transposed ? s->rows : s->cols;
    c->n_out = transposed ? s->cols : s->rows;
    c->most = (reserved && !transposed ? 0x1p-7 : 0) + c->n_in * (double)FLT_EPSILON;
    int64_t n = (int64_t)s->heads * c->pitch * s->cols, n_x = (int64_t)x_ld(c) * MOST_TOKENS;
    size_t n_y = (size_t)(s->heads * c->n_out) * MOST_TOKENS;
    double *exact = need(sizeof *exact * (size_t)n);
    c->stored = make_weights(dtype, n, exact);
    c->x = random_floats(n_x);
    c->sums = need(sizeof *c->sums * n_y);
    c->sizes = need(sizeof *c->sizes * n_y);
    for (int t = 0; t < MOST_TOKENS; t++) {
        for (int h = 0; h < s->heads; h++) expect_head(c, exact, t, h);
    }
    free(exact);
}

static void make_cases(void) {
    int step = emulated() ? 3 : 1;
    for (int reserved = 0; reserved < 2; reserved++) {
        for (int i = 0; i < N_OF(shapes); i++) {
            for (int d = i % step; d < N_OF(dtypes); d += step) {
                make_case(&shapes[i], dtypes[d], reserved, false);
                if (dtypes[d] != DTYPE_F32) make_case(&shapes[i], dtypes[d], reserved, true);
            }
        }
    }
}

static void free_cases(void) {
    for (int i = 0; i < n_cases; i++) {
        free(cases[i].stored);
        free(cases[i].x);
        free(cases[i].sums);
        free(cases[i].sizes);
    }
}

// The largest error of a value, as a part of what it may be; values between heads must be what they were.
static double largest_error(const Case *c, const float *y, int n) {
    const double *sum = c->sums, *size = c->sizes;
    double worst = 0;
    for (int i = 0; i < n * c->s->heads; i++, y += c->n_out + c->s->y_room) {
        for (int r = 0; r < c->n_out; r++) {
            double error = fabs((double)y[r] - *sum++), most = c->most * *size++;
            double part = error == 0 ? 0 : error / most;                       // all products may be zero
            worst = part <= worst ? worst : part < INFINITY ? part : INFINITY; // NaN too
        }
        for (int r = c->n_out; r < c->n_out + c->s->y_room; r++) {
            if (y[r] != 5) worst = INFINITY;
        }
    }
    return worst;
}

static void check_case(const Compute computes[2], const Case *c) {
    const Shape *s = c->s;
    size_t n_y = (size_t)y_ld(c) * MOST_TOKENS;
    Tensor w = {.dtype = c->dtype, .n_dims = 2, .shape = {s->heads * c->pitch, s->cols}, .data = c->stored};
    HeadsLinear l = {.w = &w, .heads = s->heads, .first = s->between, .pitch = c->pitch, .n_rows = s->rows};
    l.transposed = c->transposed;
    l.x = c->x;
    l.x_ld = x_ld(c);
    l.x_head = c->n_in + s->x_room;
    l.y_ld = y_ld(c);
    l.y_head = c->n_out + s->y_room;
    float *y[] = {need(sizeof(float) * n_y), need(sizeof(float) * n_y)};
    for (int i = 0; i < N_OF(counts); i++) {
        for (int which = 0; which < 2; which++) {
            for (size_t j = 0; j < n_y; j++) y[which][j] = 5;
            l.y = y[which];
            ops_linear_heads(&computes[which], &l, counts[i]);
        }
        double error = largest_error(c, y[0], counts[i]);
        const char *how = c->transposed ? "transposed" : "as they are";
        CHECK(error <= 1, "%d heads of %d x %d, %s, %s, %d tokens: %g of the largest error", s->heads, s->rows, s->cols,
              dtype_name(c->dtype), how, counts[i], error);
        CHECK(!memcmp(y[0], y[1], sizeof(float) * n_y),
              "%d heads of %d x %d, %s, %s, %d tokens: threads give other bits", s->heads, s->rows, s->cols,
              dtype_name(c->dtype), how, counts[i]);
    }
    for (int i = 0; i < 2; i++) free(y[i]);
}

// Without room for bfloat16 products sums are in fp32, with it they may be in bfloat16.
static void all_at_this_level(void) {
    Compute computes[2];
    char err[200] = "";
    NEED(!compute_open(&computes[0], 1, err, sizeof err) && !compute_open(&computes[1], 3, err, sizeof err), "%s", err);
    for (int reserved = 0; reserved < 2; reserved++) {
        for (int i = 0; i < n_cases; i++) {
            if (cases[i].reserved == reserved) check_case(computes, &cases[i]);
        }
        for (int i = 0; i < 2 && !reserved; i++) {
            CHECK(!compute_reserve(&computes[i], 1 << 13, MOST_TOKENS, err, sizeof err), "%s", err);
        }
    }
    for (int i = 0; i < 2; i++) compute_close(&computes[i]);
}

int main(void) {
    make_cases();
    RUN_AT_LEVELS(all_at_this_level);
    free_cases();
    return test_report();
}
