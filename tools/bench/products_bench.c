// products_bench: see products_bench.h.
#include "products_bench.h"

#include "cli.h"
#include "gguf_types.h"
#include "ops.h"
#include "report.h"
#include "samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIFFERENT_ROWS = 16, MOST_COUNTS = 64 };

typedef struct {
    DType type;
    int rows, cols;
    Compute *compute;
    Tensor w;
    float *x, *y;
    int n_counts, counts[MOST_COUNTS];
    double seconds[2][MOST_COUNTS][MAX_REPEATS]; // as chosen, exact
} Products;

// 1 to 8, then in steps of about a quarter, and what lies beyond a whole tile of vectors.
static void choose_counts(Products *p, int most) {
    p->n_counts = 0;
    for (int n = 1; n <= most && p->n_counts < MOST_COUNTS; n += n < 8 ? 1 : n / 4) p->counts[p->n_counts++] = n;
    if (p->counts[p->n_counts - 1] < most) p->counts[p->n_counts++] = most;
}

static void *random_matrix(const Products *p) {
    size_t row_bytes = dtype_row_bytes(p->type, p->cols);
    char *w = measure_alloc(row_bytes * (size_t)p->rows);
    float *row = measure_alloc(sizeof *row * (size_t)p->cols);
    for (int i = 0; i < p->rows; i++) {
        for (int j = 0; i < DIFFERENT_ROWS && j < p->cols; j++) row[j] = (float)measure_random() / 0x1p31f - 1;
        char *to = w + (size_t)i * row_bytes;
        if (i < DIFFERENT_ROWS) values_pack(p->type, to, row, p->cols);
        else memcpy(to, to - DIFFERENT_ROWS * row_bytes, row_bytes);
    }
    free(row);
    return w;
}

// Medians; all counts and both ways in turn, so that noise affects all.
static void time_counts(Products *p, int repeats) {
    Linear l = {.w = &p->w, .y = p->y};
    for (int i = -1; i < repeats; i++) { // the first warms up
        for (int c = 0; c < p->n_counts; c++) {
            for (int exact = 0; exact < 2; exact++) {
                p->compute->exact = exact;
                double start = seconds();
                ops_linear(p->compute, &l, 1, p->x, p->counts[c]);
                if (i >= 0) p->seconds[exact][c][i] = seconds() - start;
            }
        }
    }
}

static void print_counts(Bench *b, Products *p) {
    double one = samples_median(p->seconds[0][0], b->o.repeats), bytes = (double)tensor_bytes(&p->w);
    for (int c = 0; c < p->n_counts; c++) {
        double chosen = c ? samples_median(p->seconds[0][c], b->o.repeats) : one;
        double exact = samples_median(p->seconds[1][c], b->o.repeats);
        double gflops = 2e-9 * p->rows * p->cols * p->counts[c] / chosen;
        report_row(b);
        if (b->o.format == OUT_MD) {
            printf("| %s | %dx%d | %d | %.3f | %.2f | %.3f | %.2f | %.1f | %.1f |\n", dtype_name(p->type), p->rows,
                   p->cols, p->counts[c], chosen * 1e3, chosen / one, exact * 1e3, exact / one, gflops,
                   bytes / chosen * 1e-9);
            fflush(stdout);
        } else if (b->o.format == OUT_CSV) {
            printf("%s,%d,%d,%d,%.6g,%.6g,%.6g,%.6g\n", dtype_name(p->type), p->rows, p->cols, p->counts[c],
                   chosen * 1e3, exact * 1e3, gflops, bytes / chosen * 1e-9);
        } else {
            printf("{\"type\": \"%s\", \"rows\": %d, \"cols\": %d, \"n\": %d, \"ms\": %.6g, \"exact_ms\": %.6g, "
                   "\"gflops\": %.6g, \"gb_per_s\": %.6g, \"n_threads\": %d, \"cpu_level\": \"%s\"}",
                   dtype_name(p->type), p->rows, p->cols, p->counts[c], chosen * 1e3, exact * 1e3, gflops,
                   bytes / chosen * 1e-9, b->n_threads, cpu_level_name(cpu_level()));
        }
    }
}

static void measure_products(Bench *b, Products *p) {
    int most = b->o.products;
    choose_counts(p, most);
    void *w = random_matrix(p);
    p->w = (Tensor){.dtype = p->type, .n_dims = 2, .shape = {p->rows, p->cols}, .data = w};
    p->x = measure_alloc(sizeof(float) * (size_t)p->cols * (size_t)most);
    p->y = measure_alloc(sizeof(float) * (size_t)p->rows * (size_t)most);
    for (int64_t i = 0; i < (int64_t)p->cols * most; i++) p->x[i] = (float)measure_random() / 0x1p31f - 1;
    time_counts(p, b->o.repeats);
    print_counts(b, p);
    free(w);
    free(p->x);
    free(p->y);
}

int products_bench_run(Bench *b) {
    static const DType types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_F16, DTYPE_BF16};
    static const int shapes[][2] = {{576, 1536}, {2048, 5632}, {32000, 2048}};
    static Products p;
    char err[512];
    Compute compute;
    if (compute_open(&compute, b->n_threads, err, sizeof err)) die(1, "%s", err);
    if (compute_reserve(&compute, 5632, b->o.products, err, sizeof err)) die(1, "%s", err);
    report_start(b, "type,rows,cols,n,ms,exact_ms,gflops,gb_per_s",
                 "| type | matrix | n | ms | of one | exact ms | of one | GFLOP/s | GB/s |\n"
                 "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    p.compute = &compute;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            p.type = types[t];
            p.rows = shapes[s][0];
            p.cols = shapes[s][1];
            if (p.cols % dtype_info(p.type)->block == 0) measure_products(b, &p);
        }
    }
    report_end(b);
    compute_close(&compute);
    return 0;
}
