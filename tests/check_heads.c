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

// n values as the type stores them, and what they are.
static void *make_weights(DType dtype, int64_t n, double *exact) {
    float *x = need(sizeof *x * (size_t)n);
    for (int64_t i = 0; i < n; i++) x[i] = test_uniform();
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

typedef struct {
    const Shape *s;
    const float *x, *y;
    const double *w;
    HeadsLinear l;
    int n_in, n_out; // values of a head
    double most;     // error for each unit of the sum of absolute products
} Case;

// The largest error of a value, as a part of what it may be; values between heads must be what they were.
static double largest_error(const Case *c, int n) {
    double worst = 0;
    for (int64_t t = 0; t < n; t++) {
        for (int h = 0; h < c->s->heads; h++) {
            const float *x = c->x + t * c->l.x_ld + h * c->l.x_head, *y = c->y + t * c->l.y_ld + h * c->l.y_head;
            const double *w = c->w + (int64_t)(c->l.first + h * c->l.pitch) * c->s->cols;
            for (int r = 0; r < c->n_out; r++) {
                double sum = 0, all = 0;
                for (int i = 0; i < c->n_in; i++) {
                    double product = w[c->l.transposed ? i * c->s->cols + r : r * c->s->cols + i] * (double)x[i];
                    sum += product;
                    all += fabs(product);
                }
                worst = fmax(worst, fabs((double)y[r] - sum) / (c->most * all));
            }
            for (int r = c->n_out; r < c->l.y_head; r++) {
                if (y[r] != 5) worst = INFINITY;
            }
        }
    }
    return worst;
}

static void check_shape(const Compute computes[2], const Shape *s, DType dtype, bool reserved, bool transposed) {
    int pitch = s->between + s->rows, n_in = transposed ? s->rows : s->cols, n_out = transposed ? s->cols : s->rows;
    int64_t n_rows = (int64_t)s->heads * pitch, x_ld = (int64_t)s->heads * (n_in + s->x_room),
            y_ld = (int64_t)s->heads * (n_out + s->y_room);
    size_t y_bytes = sizeof(float) * (size_t)(y_ld * MOST_TOKENS);
    double *exact = need(sizeof *exact * (size_t)(n_rows * s->cols));
    void *stored = make_weights(dtype, n_rows * s->cols, exact);
    Tensor w = {.dtype = dtype, .n_dims = 2, .shape = {n_rows, s->cols}, .data = stored};
    float *x = need(sizeof *x * (size_t)(x_ld * MOST_TOKENS)), *y[] = {need(y_bytes), need(y_bytes)};
    for (int64_t i = 0; i < x_ld * MOST_TOKENS; i++) x[i] = test_uniform();
    Case c = {.s = s, .x = x, .y = y[0], .w = exact, .n_in = n_in, .n_out = n_out};
    c.most = (reserved && !transposed ? 0x1p-7 : 0) + n_in * (double)FLT_EPSILON;
    for (int i = 0; i < N_OF(counts); i++) {
        for (int which = 0; which < 2; which++) {
            for (int64_t j = 0; j < y_ld * MOST_TOKENS; j++) y[which][j] = 5;
            c.l = (HeadsLinear){.w = &w, .heads = s->heads, .first = s->between, .pitch = pitch, .n_rows = s->rows};
            c.l.transposed = transposed;
            c.l.x = x;
            c.l.x_ld = x_ld;
            c.l.x_head = n_in + s->x_room;
            c.l.y = y[which];
            c.l.y_ld = y_ld;
            c.l.y_head = n_out + s->y_room;
            ops_linear_heads(&computes[which], &c.l, counts[i]);
        }
        double error = largest_error(&c, counts[i]);
        const char *how = transposed ? "transposed" : "as they are";
        CHECK(error <= 1, "%d heads of %d x %d, %s, %s, %d tokens: %g of the largest error", s->heads, s->rows, s->cols,
              dtype_name(dtype), how, counts[i], error);
        CHECK(!memcmp(y[0], y[1], y_bytes), "%d heads of %d x %d, %s, %s, %d tokens: threads give other bits", s->heads,
              s->rows, s->cols, dtype_name(dtype), how, counts[i]);
    }
    free(stored);
    free(exact);
    free(x);
    for (int i = 0; i < 2; i++) free(y[i]);
}

// Without room for bfloat16 products sums are in fp32, with it they may be in bfloat16.
static void all_at_this_level(void) {
    Compute computes[2];
    char err[200] = "";
    NEED(!compute_open(&computes[0], 1, err, sizeof err) && !compute_open(&computes[1], 3, err, sizeof err), "%s", err);
    int step = emulated() ? 3 : 1;
    for (int reserved = 0; reserved < 2; reserved++) {
        for (int i = 0; i < N_OF(shapes); i++) {
            for (int d = i % step; d < N_OF(dtypes); d += step) {
                check_shape(computes, &shapes[i], dtypes[d], reserved, false);
                if (dtypes[d] != DTYPE_F32) check_shape(computes, &shapes[i], dtypes[d], reserved, true);
            }
        }
        for (int i = 0; i < 2 && !reserved; i++) {
            CHECK(!compute_reserve(&computes[i], 1 << 13, MOST_TOKENS, err, sizeof err), "%s", err);
        }
    }
    for (int i = 0; i < 2; i++) compute_close(&computes[i]);
}

int main(void) {
    RUN_AT_LEVELS(all_at_this_level);
    return test_report();
}
