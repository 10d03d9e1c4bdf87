// ops: see ops.h.
#include "ops.h"

#include <math.h>
#include <string.h>

enum {
    // Where panels win over shared rows, measured: with blocks (panels of bfloat16 and of integers: see their kernels),
    // with 16-bit and with fp32 rows.
    SHARED_BLOCKS = 36,
    SHARED_HALVES = 10,
    SHARED_FLOATS = 7,
    GEMM_K = 512,   // columns of a panel: it stays in L2, the same columns of x in L1
    UNPACK_K = 256, // columns unpacked at a time before rounding to bfloat16: they stay in L1
    BF16_K = 2048,  // columns of a bfloat16 panel: mostly all, so that y is written once
    PANEL_FLOATS = BF16_K * MAX_PANEL / 2,
    WIDE = 4,                // bfloat16 panels of an item: x is read from memory once for all of them,
    WIDE_ITEMS = 4,          // where each thread gets so many such items
    WIDE_VALUES = 512 << 10, // and x has so many values: it leaves L2
    WORKER_FLOATS = WIDE * PANEL_FLOATS + UNPACK_K * MAX_PANEL,
    SUMMED_ROWS = 64,         // of a transposed matrix, unpacked at a time
    UNPACKED = 4096,          // values that matvec_blocks unpacks at a time: they stay in L1
    MATVEC_CHUNK = 128 << 10, // bytes of weights in a work item
    SMALL_VALUES = 40 << 10,  // products with fewer weights run on one thread: they take 1 to 2 microseconds
    SMALL_FLOATS = 16 << 10,  // the same for element-wise operations
};

_Static_assert(sizeof(float) * WORKER_FLOATS <= COMPUTE_SCRATCH, "a panel fits the minimum scratch memory");

// ---- linear

// Rows of an item, and of those that several tokens meet at a time.
enum { MAX_CHUNK_ROWS = 1024, SUM_ROWS = 64 };

typedef struct {
    const Compute *c;
    const Linear *list;
    const float *x;
    int n;
    const Activations *quantized; // where rows are read as they are stored
    const IntKernels *ints;       // of panels; NULL: they are fp32 or bfloat16
    int rows_per_item[MAX_LINEARS];
    int first_item[MAX_LINEARS + 1];
} LinearJob;

// The matrix of an item; the item's rows are *row0..*row0+*n_rows-1.
static const Linear *linear_of(const LinearJob *job, int item, int *row0, int *n_rows) {
    int i = 0;
    while (item >= job->first_item[i + 1]) i++;
    int rows = (int)job->list[i].w->shape[0], n = job->first_item[i + 1] - job->first_item[i];
    int chunk = threads_contiguous_index(item - job->first_item[i], n, threads_count(job->c->pool));
    *row0 = chunk * job->rows_per_item[i];
    *n_rows = rows - *row0 < job->rows_per_item[i] ? rows - *row0 : job->rows_per_item[i];
    return &job->list[i];
}

_Static_assert(GEMM_K % BLOCK_MAX == 0 && UNPACKED % BLOCK_MAX == 0, "rows are split between blocks");

// The block of a format at [row][col], counted from the first.
static int64_t block_index(const Tensor *w, int64_t row, int64_t col) {
    return (row * w->shape[1] + col) / dtype_info(w->dtype)->block;
}

// n values of a block format from [row][col] on.
static void unpack_blocks(const Kernels *k, float *y, const Tensor *w, int64_t row, int64_t col, int64_t n) {
    const DTypeInfo *info = dtype_info(w->dtype);
    int64_t block = block_index(w, row, col);
    const uint8_t *blocks = (const uint8_t *)w->data + block * info->block_bytes;
    if (k->blocks && k->blocks[w->dtype].unpack) k->blocks[w->dtype].unpack(y, blocks, (int)n);
    else if (info->unpack) info->unpack(y, blocks, n / info->block);
    else unpack_mxfp4_split(y, blocks, (const uint8_t *)w->scales + block, n / info->block);
}

// n vectors as stored, and where their products go: y[t * ldy + i].
typedef struct {
    const float *x;
    int64_t ldx;
    float *y;
    int64_t ldy;
    int n;
} Vectors;

// A few rows, or a part of a long one, are unpacked and then multiplied. Where a row is split depends on its length
// alone.
static void matvec_blocks(const Kernels *k, const Vectors *v, const Tensor *w, int row0, int n_rows, float *unpacked) {
    int cols = (int)w->shape[1], step = cols < UNPACKED ? UNPACKED / cols : 1;
    for (int i = 0, count; i < n_rows; i += count) {
        count = n_rows - i < step ? n_rows - i : step;
        for (int j = 0; j < cols; j += UNPACKED) {
            int n = cols - j < UNPACKED ? cols - j : UNPACKED;
            float sums[MAX_SHARED];
            unpack_blocks(k, unpacked, w, row0 + i, j, (int64_t)count * n);
            if (!j) {
                k->matvec_f32(v->y + i, v->ldy, unpacked, n, v->x, v->ldx, v->n, count, n);
                continue;
            }
            k->matvec_f32(sums, 1, unpacked, n, v->x + j, v->ldx, v->n, 1, n);
            for (int t = 0; t < v->n; t++) v->y[t * v->ldy + i] += sums[t];
        }
    }
}

// Has this level a kernel for stored rows of this type, and does the quantized input fit?
static bool has_matvec(const Compute *c, const Tensor *w) {
    const BlockKernels *blocks = c->kernels->blocks;
    return blocks && blocks[w->dtype].matvec && w->shape[1] <= c->max_cols;
}

// Up to MAX_SHARED vectors.
static void matvec(const Kernels *k, const Vectors *v, const Tensor *w, int row0, int n_rows, float *unpacked) {
    int cols = (int)w->shape[1];
    const char *at = (const char *)w->data + (int64_t)row0 * cols * (w->dtype == DTYPE_F32 ? 4 : 2);
    const void *rows = at;
    switch (w->dtype) {
    case DTYPE_F16: k->matvec_f16(v->y, v->ldy, rows, cols, v->x, v->ldx, v->n, n_rows, cols); break;
    case DTYPE_BF16: k->matvec_bf16(v->y, v->ldy, rows, cols, v->x, v->ldx, v->n, n_rows, cols); break;
    case DTYPE_F32: k->matvec_f32(v->y, v->ldy, rows, cols, v->x, v->ldx, v->n, n_rows, cols); break;
    case DTYPE_I8G:
        k->matvec_i8g(v->y, v->ldy, w->data, w->scales, w->group, row0, v->x, v->ldx, v->n, n_rows, cols);
        break;
    default: matvec_blocks(k, v, w, row0, n_rows, unpacked);
    }
}

static void add_to(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] += x[i];
}

static void matvec_item(void *context, int item, int worker) {
    const LinearJob *job = context;
    int row0, n_rows, n = job->n;
    const Linear *l = linear_of(job, item, &row0, &n_rows);
    int64_t rows = l->w->shape[0], cols = l->w->shape[1];
    const Kernels *k = job->c->kernels;
    bool quantized = has_matvec(job->c, l->w);
    int64_t row_bytes = (int64_t)(tensor_bytes(l->w) / (uint64_t)rows);
    for (int i = 0, count, step = n > 1 ? SUM_ROWS : MAX_CHUNK_ROWS; i < n_rows; i += count) {
        count = n_rows - i < step ? n_rows - i : step;
        float sums[MAX_SHARED * SUM_ROWS], *y = l->y + row0 + i;
        Vectors v = {job->x, cols, l->add ? sums : y, l->add ? count : rows, n};
        const char *w = (const char *)l->w->data + (row0 + i) * row_bytes;
        if (quantized) k->blocks[l->w->dtype].matvec(v.y, v.ldy, w, job->quantized, n, count, (int)cols);
        else matvec(k, &v, l->w, row0 + i, count, compute_scratch(job->c, worker));
        for (int t = 0; t < n; t++, y += rows) {
            float *out = v.y + t * v.ldy;
            if (l->bias) add_to(out, l->bias + row0 + i, count);
            if (l->add) add_to(y, out, count);
            if (l->act) k->activate(y, count, l->act);
        }
    }
}

// ---- many tokens: panels

// Columns k0..k0+kn-1 of rows that are not fp32; the unpacked rows are UNPACK_K apart.
static void unpack_rows(const Kernels *k, float *rows, const Tensor *w, int row0, int n_rows, int k0, int kn) {
    int64_t cols = w->shape[1], first = row0 * cols + k0;
    const uint16_t *half = (const uint16_t *)w->data + first;
    switch (w->dtype) {
    case DTYPE_F16: k->f32_from_f16(rows, UNPACK_K, half, cols, n_rows, kn); break;
    case DTYPE_BF16: k->f32_from_bf16(rows, UNPACK_K, half, cols, n_rows, kn); break;
    case DTYPE_I8G:
        for (int i = 0; i < n_rows; i++)
            k->unpack_i8g(rows + i * UNPACK_K, w->data, w->scales, w->group, first + i * cols, kn);
        break;
    default:
        for (int i = 0; i < n_rows; i++) unpack_blocks(k, rows + i * UNPACK_K, w, row0 + i, k0, kn);
    }
}

// Has Compute.rounded room for n rows, padded?
static bool fits_rounded(const Compute *c, const Tensor *w, int n) {
    return (n + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS * w->shape[1] <= c->max_rounded;
}

static bool uses_bf16(const Compute *c, const Tensor *w, int n) {
    return c->kernels->bf16 && w->dtype != DTYPE_F32 && w->shape[1] % BF16_STEP == 0 && fits_rounded(c, w, n);
}

// Columns k0..k0+kn-1 of n_rows rows, as a panel. In bfloat16, two values of a row are packed as one word.
static void make_panel(const Kernels *k, bool bf16, float *panel, float *rows, const Tensor *w, int row0, int n_rows,
                       int k0, int kn) {
    int word = bf16 ? 2 : 1;
    int64_t cols = w->shape[1];
    if (w->dtype == (bf16 ? DTYPE_BF16 : DTYPE_F32)) {
        const char *first = (const char *)w->data + (row0 * cols + k0) * (int64_t)sizeof(float) / word;
        if (!bf16 || (uintptr_t)first % sizeof(float) == 0) {
            k->pack(panel, (const float *)(const void *)first, cols / word, n_rows, kn / word);
            return;
        }
    }
    for (int j = 0, n; j < kn; j += n) {
        n = kn - j < UNPACK_K ? kn - j : UNPACK_K;
        unpack_rows(k, rows, w, row0, n_rows, k0 + j, n);
        if (bf16) k->bf16->round((uint16_t *)(void *)rows, rows, UNPACK_K * n_rows); // in place: half as long
        k->pack(panel + j / word * k->panel, rows, UNPACK_K / word, n_rows, n / word);
    }
}

static bool takes_ints(const Compute *c, const IntKernels *ints, const Tensor *w, int n) {
    if (!ints || w->dtype == DTYPE_F32 || w->shape[1] % INT_STEP || !fits_rounded(c, w, n)) return false;
    if (ints == c->kernels->int16) return true;
    bool narrow = w->dtype == DTYPE_I8G || dtype_info(w->dtype)->block > 1;
    return c->fast && (ints->packs ? ints->packs[w->dtype] != NULL : narrow);
}

// The products of integers that all of the matrices may have, the fastest ones: of weights of 8 bits and of 6 and fewer
// where the Compute is fast, else in int16. NULL: none.
static const IntKernels *ints_of(const Compute *c, const Linear *list, int count, int n) {
    const IntKernels *kinds[] = {c->kernels->int8, c->kernels->int6, c->kernels->int16};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bool all = true;
        for (int j = 0; j < count; j++) all &= takes_ints(c, kinds[i], list[j].w, n);
        if (all) return kinds[i];
    }
    return NULL;
}

static int n_parts(const IntKernels *ints, int64_t cols) {
    return (int)((cols + ints->part - 1) / ints->part);
}

// The input as integers: [n][cols], padded to a multiple of BF16_ROWS rows, then the scales [n][parts], and the sums of
// each BLOCK where the kernels want them.
static float *int_scales(const LinearJob *job, int64_t cols) {
    int64_t values = (job->n + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS * cols;
    return (float *)(void *)((char *)job->c->rounded + values * job->ints->bytes);
}

static float *int_sums(const LinearJob *job, int64_t cols) {
    return int_scales(job, cols) + (int64_t)job->n * n_parts(job->ints, cols);
}

static void *ints_at(void *q, const IntKernels *ints, int64_t i) {
    return (char *)q + i * ints->bytes;
}

typedef struct {
    int16_t panel[INT_COLUMNS * MAX_PANEL];
    float scale[INT_COLUMNS / INT_STEP * MAX_PANEL], minimum[INT_COLUMNS / BLOCK * MAX_PANEL];
    int16_t rows[INT_COLUMNS * MAX_PANEL]; // of a part
    float row[INT_COLUMNS];
} IntScratch;

_Static_assert(sizeof(IntScratch) <= COMPUTE_SCRATCH, "a panel fits the minimum scratch memory");

// n values from [row][col] on, to q; returns their scale.
static float round_weights(const LinearJob *job, void *q, const Tensor *w, int row, int col, int n, float *unpacked) {
    const Kernels *k = job->c->kernels;
    float top = job->ints->w_top;
    if (job->ints == (k->int8 ? k->int8 : k->int16) && k->blocks && k->blocks[w->dtype].round) {
        const char *at = (const char *)w->data + block_index(w, row, col) * dtype_info(w->dtype)->block_bytes;
        return k->blocks[w->dtype].round(q, at, n, top);
    }
    unpack_rows(k, unpacked, w, row, 1, col, n);
    return job->ints->round(q, unpacked, n, top);
}

// Columns k0..k0+kn-1 of n_rows rows, as a panel of integers.
static void make_int_panel(const LinearJob *job, IntPanel *to, IntScratch *s, const Tensor *w, int row0, int n_rows,
                           int k0, int kn) {
    const IntKernels *ints = job->ints;
    if (ints->packs) {
        const DTypeInfo *info = dtype_info(w->dtype);
        const char *blocks = (const char *)w->data + block_index(w, row0, k0) * info->block_bytes;
        ints->packs[w->dtype](to, blocks, w->shape[1] / info->block * info->block_bytes, n_rows, kn);
        return;
    }
    int width = job->c->kernels->panel, word = 4 / ints->bytes;
    for (int p = 0, n; p * ints->part < kn; p++) {
        int col = p * ints->part;
        n = kn - col < ints->part ? kn - col : ints->part;
        for (int i = 0; i < n_rows; i++) {
            void *q = ints_at(s->rows, ints, i * ints->part);
            s->scale[p * width + i] = round_weights(job, q, w, row0 + i, k0 + col, n, s->row);
        }
        float *panel = ints_at(s->panel, ints, col * width);
        job->c->kernels->pack(panel, (const float *)(void *)s->rows, ints->part / word, n_rows, n / word);
    }
}

// As multiply_rows, of integers.
static void multiply_rows_ints(const LinearJob *job, const Linear *l, int row0, int n_rows, bool add, IntScratch *s) {
    const IntKernels *ints = job->ints;
    int rows = (int)l->w->shape[0], cols = (int)l->w->shape[1];
    const float *scales = int_scales(job, cols), *sums = int_sums(job, cols);
    IntPanel w = {.q = s->panel, .scale = s->scale, .minimum = s->minimum};
    memset(s->scale, 0, sizeof s->scale);
    for (int k0 = 0; k0 < cols; k0 += INT_COLUMNS) {
        int kn = cols - k0 < INT_COLUMNS ? cols - k0 : INT_COLUMNS;
        make_int_panel(job, &w, s, l->w, row0, n_rows, k0, kn);
        IntRows x = {ints_at(job->c->rounded, ints, k0), cols, n_parts(ints, cols), scales + k0 / ints->part};
        ints->gemm(l->y + row0, rows, &w, &x, job->n, kn, n_rows, add);
        add = true;
        if (!w.has_minima) continue;
        PackedMatrix minima = {.data = w.minimum, .row_stride = job->c->kernels->panel};
        job->c->kernels->gemm_f32(l->y + row0, rows, &minima, sums + k0 / BLOCK, cols / BLOCK, job->n, kn / BLOCK,
                                  n_rows, true);
    }
}

// x times n_rows rows of w from row0; `add` to what y holds.
static void multiply_rows(const LinearJob *job, const Linear *l, int row0, int n_rows, bool add, float *panel) {
    const Kernels *k = job->c->kernels;
    bool bf16 = uses_bf16(job->c, l->w, job->n);
    int rows = (int)l->w->shape[0], cols = (int)l->w->shape[1], step = bf16 ? BF16_K : GEMM_K;
    float *y = l->y + row0, *unpacked = panel + WIDE * PANEL_FLOATS;
    for (int k0 = 0; k0 < cols; k0 += step) {
        int kn = cols - k0 < step ? cols - k0 : step;
        for (int i = 0; i < n_rows; i += k->panel) {
            int n = n_rows - i < k->panel ? n_rows - i : k->panel;
            make_panel(k, bf16, panel + i / k->panel * PANEL_FLOATS, unpacked, l->w, row0 + i, n, k0, kn);
        }
        PackedMatrix w = {.data = panel, .row_stride = k->panel, .panel_stride = PANEL_FLOATS};
        if (bf16) k->bf16->gemm(y, rows, &w, job->c->rounded + k0, cols, job->n, kn, n_rows, add);
        else k->gemm_f32(y, rows, &w, job->x + k0, cols, job->n, kn, n_rows, add);
        add = true;
    }
}

static void gemm_item(void *context, int item, int worker) {
    const LinearJob *job = context;
    int row0, n_rows;
    const Linear *l = linear_of(job, item, &row0, &n_rows);
    int64_t rows = l->w->shape[0];
    float *y = l->y + row0;
    if (l->bias) { // the sums start from the bias
        for (int t = 0; t < job->n; t++) {
            float *y_t = y + t * rows;
            for (int i = 0; i < n_rows; i++) y_t[i] = l->bias[row0 + i] + (l->add ? y_t[i] : 0);
        }
    }
    bool add = l->add || l->bias;
    if (job->ints) multiply_rows_ints(job, l, row0, n_rows, add, compute_scratch(job->c, worker));
    else multiply_rows(job, l, row0, n_rows, add, compute_scratch(job->c, worker));
    if (!l->act) return;
    for (int t = 0; t < job->n; t++) job->c->kernels->activate(y + t * rows, n_rows, l->act);
}

enum { ROUND_CHUNK = 8192, ROUND_ROWS = 8 };

static void round_item(void *context, int item, int worker) {
    (void)worker;
    const LinearJob *job = context;
    int64_t first = (int64_t)item * ROUND_CHUNK, left = job->n * job->list[0].w->shape[1] - first;
    job->c->kernels->bf16->round(job->c->rounded + first, job->x + first, left < ROUND_CHUNK ? left : ROUND_CHUNK);
}

static void ints_item(void *context, int item, int worker) {
    (void)worker;
    const LinearJob *job = context;
    const IntKernels *ints = job->ints;
    int cols = (int)job->list[0].w->shape[1], parts = n_parts(ints, cols), first = item * ROUND_ROWS;
    float *scales = int_scales(job, cols), *sums = int_sums(job, cols);
    for (int t = first; t < job->n && t < first + ROUND_ROWS; t++) {
        for (int p = 0; p < parts; p++) {
            int64_t at = (int64_t)t * cols + p * ints->part;
            int n = cols - p * ints->part < ints->part ? cols - p * ints->part : ints->part;
            scales[t * parts + p] = ints->round(ints_at(job->c->rounded, ints, at), job->x + at, n, ints->x_top);
        }
        if (ints->sums) ints->sums(sums + (int64_t)t * cols / BLOCK, job->x + (int64_t)t * cols, cols);
    }
}

// A block format without a kernel is better unpacked to panels.
int ops_shared(const Compute *c, const Tensor *w) {
    if (w->dtype == DTYPE_F32) return SHARED_FLOATS;
    if (dtype_info(w->dtype)->block <= 1) return SHARED_HALVES;
    if (!has_matvec(c, w)) return 1;
    const Kernels *k = c->kernels;
    if (c->fast && k->int8) return k->int8->shared;
    if (c->fast && k->int6 && k->int6->packs[w->dtype]) return k->int6->shared;
    if (k->int16) return k->int16->shared;
    return k->bf16 ? k->bf16->shared : SHARED_BLOCKS;
}

static void quantize_item(void *context, int item, int worker) {
    (void)worker;
    const LinearJob *job = context;
    int64_t cols = job->list[0].w->shape[1];
    job->c->kernels->quantize(&job->quantized[item], job->x + item * cols, (int)cols);
}

// Rows of an item: at most about MATVEC_CHUNK bytes, and equally many items for each thread. Changes no sum.
static int matvec_rows(const Tensor *w, int n_threads) {
    int64_t bytes = (int64_t)tensor_bytes(w), round = (int64_t)MATVEC_CHUNK * n_threads;
    int64_t n_items = (bytes + round - 1) / round * n_threads, rows = (w->shape[0] + n_items - 1) / n_items;
    rows = (rows + 3) / 4 * 4;
    if (rows > MAX_CHUNK_ROWS) rows = MAX_CHUNK_ROWS;
    while (w->shape[0] / rows > MAX_ITEMS / MAX_LINEARS) rows *= 2;
    return (int)rows;
}

static void linear_rows(const Compute *c, const Linear *list, int count, const float *x, int n) {
    LinearJob job = {.c = c, .list = list, .x = x, .n = n};
    int limit = MAX_SHARED, type = 0;
    bool quantized = false, rounded = false, int8 = c->fast;
    job.ints = ints_of(c, list, count, n);
    for (int i = 0; i < count; i++) {
        int most = ops_shared(c, list[i].w);
        quantized |= has_matvec(c, list[i].w);
        int8 &= !has_matvec(c, list[i].w) || c->kernels->takes_bytes(list[i].w->dtype);
        rounded |= uses_bf16(c, list[i].w, n);
        limit = most < limit ? most : limit;
        type = i && type != (int)list[i].w->dtype ? N_DTYPES : (int)list[i].w->dtype;
    }
    bool few = c->exact || n <= limit;
    job.quantized = int8 ? c->bytes : c->words;
    profile_begin(c->profile, (few ? PROFILE_MATVEC : PROFILE_GEMM) + type);
    int64_t cols = list[0].w->shape[1], n_x = n * cols;
    if (few && quantized) threads_for_if(n > 1 && n_x >= SMALL_FLOATS, c->pool, n, quantize_item, &job);
    if (!few && job.ints) threads_for_if(n_x >= SMALL_FLOATS, c->pool, (n - 1) / ROUND_ROWS + 1, ints_item, &job);
    else if (!few && rounded)
        threads_for_if(n_x >= SMALL_FLOATS, c->pool, (int)((n_x - 1) / ROUND_CHUNK) + 1, round_item, &job);
    uint64_t bytes = 0;
    double values = 0;
    int n_threads = threads_count(c->pool);
    for (int i = 0; i < count; i++) {
        const Tensor *w = list[i].w;
        bool wide = !job.ints && uses_bf16(c, w, n) && n_x >= WIDE_VALUES &&
                    w->shape[0] >= WIDE * WIDE_ITEMS * MAX_PANEL * n_threads;
        job.rows_per_item[i] = few ? matvec_rows(w, n_threads) : wide ? WIDE * MAX_PANEL : c->kernels->panel;
        job.first_item[i + 1] = job.first_item[i] + ((int)w->shape[0] - 1) / job.rows_per_item[i] + 1;
        bytes += tensor_bytes(w);
        values += (double)tensor_count(w);
    }
    bool small = values * n < SMALL_VALUES;
    threads_for_if(!small, c->pool, job.first_item[count], few ? matvec_item : gemm_item, &job);
    profile_end(c->profile, 2 * values * n, (double)bytes);
}

void ops_linear(const Compute *c, const Linear *list, int count, const float *x, int n) {
    for (int t = 0, rows = c->exact ? MAX_SHARED : n; t < n; t += rows) {
        Linear part[MAX_LINEARS];
        for (int i = 0; i < count; i++) {
            part[i] = list[i];
            part[i].y += t * list[i].w->shape[0];
        }
        linear_rows(c, part, count, x + t * list[0].w->shape[1], n - t < rows ? n - t : rows);
    }
}

// ---- a matrix for each head

typedef struct {
    const Compute *c;
    const HeadsLinear *l;
    int n, panels; // tokens; items of a head
    bool few, bf16;
} HeadsJob;

static void heads_matvec(const HeadsJob *job, int head, int worker) {
    const HeadsLinear *l = job->l;
    for (int t = 0; t < job->n; t += MAX_SHARED) {
        Vectors v = {l->x + t * l->x_ld + head * l->x_head, l->x_ld, l->y + t * l->y_ld + head * l->y_head, l->y_ld,
                     job->n - t < MAX_SHARED ? job->n - t : MAX_SHARED};
        matvec(job->c->kernels, &v, l->w, l->first + head * l->pitch, l->n_rows, compute_scratch(job->c, worker));
    }
}

static void heads_gemm(const HeadsJob *job, int head, int row0, int n_rows, int worker) {
    const HeadsLinear *l = job->l;
    const Kernels *k = job->c->kernels;
    float *panel = compute_scratch(job->c, worker), *y = l->y + head * l->y_head + row0;
    int cols = (int)l->w->shape[1], step = job->bf16 ? BF16_K : GEMM_K;
    for (int k0 = 0, kn; k0 < cols; k0 += kn) {
        kn = cols - k0 < step ? cols - k0 : step;
        int64_t at = head * l->x_head + k0;
        make_panel(k, job->bf16, panel, panel + PANEL_FLOATS, l->w, l->first + head * l->pitch + row0, n_rows, k0, kn);
        PackedMatrix w = {.data = panel, .row_stride = k->panel};
        if (job->bf16)
            k->bf16->gemm(y, (int)l->y_ld, &w, job->c->rounded + at, (int)l->x_ld, job->n, kn, n_rows, k0 > 0);
        else k->gemm_f32(y, (int)l->y_ld, &w, l->x + at, (int)l->x_ld, job->n, kn, n_rows, k0 > 0);
    }
}

// Columns from col0 on: the sum of the matrix's rows, each times a value of x.
static void heads_transposed(const HeadsJob *job, int head, int col0, int worker) {
    const HeadsLinear *l = job->l;
    const Kernels *k = job->c->kernels;
    int left = (int)l->w->shape[1] - col0, n_cols = left < UNPACK_K ? left : UNPACK_K;
    float *rows = compute_scratch(job->c, worker), *y = l->y + head * l->y_head + col0;
    PackedMatrix w = {.data = rows, .row_stride = UNPACK_K, .panel_stride = MAX_PANEL};
    for (int row = 0, n; row < l->n_rows; row += n) {
        n = l->n_rows - row < SUMMED_ROWS ? l->n_rows - row : SUMMED_ROWS;
        unpack_rows(k, rows, l->w, l->first + head * l->pitch + row, n, col0, n_cols);
        k->gemm_f32(y, l->y_ld, &w, l->x + head * l->x_head + row, l->x_ld, job->n, n, n_cols, row > 0);
    }
}

static void heads_item(void *context, int item, int worker) {
    const HeadsJob *job = context;
    if (job->l->transposed) {
        heads_transposed(job, item / job->panels, item % job->panels * UNPACK_K, worker);
        return;
    }
    int head = item / job->panels, row0 = item % job->panels * job->c->kernels->panel, left = job->l->n_rows - row0;
    if (job->few) heads_matvec(job, head, worker);
    else heads_gemm(job, head, row0, left < job->c->kernels->panel ? left : job->c->kernels->panel, worker);
}

void ops_linear_heads(const Compute *c, const HeadsLinear *l, int n) {
    HeadsJob job = {.c = c, .l = l, .n = n, .panels = 1};
    int64_t cols = l->w->shape[1], values = n * l->x_ld;
    job.few = c->exact || n <= (dtype_info(l->w->dtype)->block > 1 ? 1 : ops_shared(c, l->w));
    job.bf16 = !job.few && !l->transposed && uses_bf16(c, l->w, n) && values <= c->max_rounded;
    if (l->transposed) job.panels = (int)((cols + UNPACK_K - 1) / UNPACK_K);
    else if (!job.few) job.panels = (l->n_rows + c->kernels->panel - 1) / c->kernels->panel;
    profile_begin(c->profile, (job.few ? PROFILE_MATVEC : PROFILE_GEMM) + (int)l->w->dtype);
    if (job.bf16) c->kernels->bf16->round(c->rounded, l->x, values);
    double rows = (double)l->heads * l->n_rows, bytes = (double)tensor_bytes(l->w) / (double)l->w->shape[0] * rows;
    bool small = rows * (double)cols * n < SMALL_VALUES;
    threads_for_if(!small, c->pool, l->heads * job.panels, heads_item, &job);
    profile_end(c->profile, 2 * rows * (double)cols * n, bytes);
}

// ---- operations on rows

typedef struct { // each operation sets the fields that it needs
    const Compute *c;
    float *y;
    const float *x;
    const Tensor *w;
    const int32_t *tokens; // or positions
    const float *weight, *bias;
    int n, dim, n_heads;
    float eps, limit;
    float *up;
    Activation activation;
} RowJob;

enum { ROWS_PER_ITEM = 8 };

// bytes: read and written for each value
static void for_rows(const Compute *c, RowJob *job, ThreadTask task, int op, double bytes) {
    job->c = c;
    profile_begin(c->profile, op);
    bool small = (int64_t)job->n * job->dim < SMALL_FLOATS;
    threads_for_if(!small, c->pool, (job->n + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM, task, job);
    profile_end(c->profile, 0, bytes * job->n * job->dim);
}

static int row_end(const RowJob *job, int item) {
    int end = (item + 1) * ROWS_PER_ITEM;
    return end < job->n ? end : job->n;
}

static void embed_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    for (int t = item * ROWS_PER_ITEM; t < row_end(job, item); t++) {
        int64_t first = (int64_t)job->tokens[t] * job->dim;
        float *y = job->y + (int64_t)t * job->dim;
        if (job->w->dtype == DTYPE_F32) memcpy(y, (const float *)job->w->data + first, sizeof *y * (size_t)job->dim);
        else unpack_rows(job->c->kernels, y, job->w, job->tokens[t], 1, 0, job->dim);
    }
}

void ops_embed(const Compute *c, float *y, const Tensor *table, const int32_t *tokens, int n) {
    RowJob job = {.y = y, .w = table, .tokens = tokens, .n = n, .dim = (int)table->shape[1]};
    for_rows(c, &job, embed_item, PROFILE_EMBED, 4 + (double)tensor_bytes(table) / (double)tensor_count(table));
}

static void positions_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    for (int t = item * ROWS_PER_ITEM; t < row_end(job, item); t++) {
        const float *row = job->x + (int64_t)job->tokens[t] * job->dim;
        float *y = job->y + (int64_t)t * job->dim;
        for (int d = 0; d < job->dim; d++) y[d] += row[d];
    }
}

void ops_positions(const Compute *c, float *x, const float *table, const int32_t *positions, int n, int dim) {
    RowJob job = {.y = x, .x = table, .tokens = positions, .n = n, .dim = dim};
    for_rows(c, &job, positions_item, PROFILE_EMBED, 12);
}

static void norm_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    const Kernels *k = job->c->kernels;
    for (int t = item * ROWS_PER_ITEM; t < row_end(job, item); t++) {
        int64_t at = (int64_t)t * job->dim;
        const float *weight = job->weight + (int64_t)(t % job->n_heads) * job->dim;
        if (job->bias) k->layernorm(job->y + at, job->x + at, weight, job->bias, job->dim, job->eps);
        else k->rmsnorm(job->y + at, job->x + at, weight, job->dim, job->eps);
    }
}

void ops_norm(const Compute *c, float *y, const float *x, const Norm *norm, int n, int dim, float eps) {
    RowJob job = {.y = y, .x = x, .weight = norm->weight, .bias = norm->bias, .n = n, .dim = dim, .eps = eps};
    job.n_heads = norm->n_heads ? norm->n_heads : 1;
    for_rows(c, &job, norm_item, PROFILE_NORM, 8);
}

// The first value of an item's rows, and their number.
static int item_values(const RowJob *job, int item, int64_t *at) {
    int t = item * ROWS_PER_ITEM;
    *at = (int64_t)t * job->dim;
    return (row_end(job, item) - t) * job->dim;
}

static void add_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_values(job, item, &at);
    add_to(job->y + at, job->x + at, n);
}

void ops_add(const Compute *c, float *y, const float *x, int n, int dim) {
    RowJob job = {.y = y, .x = x, .n = n, .dim = dim};
    for_rows(c, &job, add_item, PROFILE_ADD, 12);
}

static void add_scaled_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_values(job, item, &at);
    for (int i = 0; i < n; i++) job->y[at + i] += job->limit * job->x[at + i];
}

void ops_add_scaled(const Compute *c, float *y, const float *x, int n, int dim, float scale) {
    RowJob job = {.y = y, .x = x, .n = n, .dim = dim, .limit = scale};
    for_rows(c, &job, add_scaled_item, PROFILE_ADD, 12);
}

static void xielu_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_values(job, item, &at);
    float *y = job->y + at, above = job->weight[0], below = job->weight[1], linear = job->weight[2];
    for (int i = 0; i < n; i++) {
        float x = y[i], least = x < job->weight[3] ? x : job->weight[3];
        y[i] = linear * x + (x > 0 ? above * x * x : below * (expm1f(least) - x));
    }
}

void ops_xielu(const Compute *c, float *x, int n, int dim, const float numbers[4]) {
    RowJob job = {.y = x, .n = n, .dim = dim, .weight = numbers};
    for_rows(c, &job, xielu_item, PROFILE_GATE, 8);
}

static void clamp_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_values(job, item, &at);
    float *y = job->y + at, limit = job->limit;
    for (int i = 0; i < n; i++) {
        float low = y[i] < limit ? y[i] : limit;
        y[i] = low > -limit ? low : -limit;
    }
}

static void scale_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_values(job, item, &at);
    for (float *x = job->y + at; n > 0; n--) *x++ *= job->limit;
}

void ops_scale(const Compute *c, float *x, int n, int dim, float by) {
    RowJob job = {.y = x, .n = n, .dim = dim, .limit = by};
    for_rows(c, &job, scale_item, PROFILE_ADD, 8);
}

void ops_clamp(const Compute *c, float *x, int n, int dim, float limit) {
    RowJob job = {.y = x, .n = n, .dim = dim, .limit = limit};
    for_rows(c, &job, clamp_item, PROFILE_ADD, 8);
}

static void softcap_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_values(job, item, &at);
    job->c->kernels->softcap(job->y + at, n, 1 / job->limit, job->limit);
}

void ops_softcap(const Compute *c, float *x, int n, int dim, float cap) {
    RowJob job = {.y = x, .n = n, .dim = dim, .limit = cap};
    for_rows(c, &job, softcap_item, PROFILE_LOGITS, 8);
}

static void gate_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    const Kernels *k = job->c->kernels;
    int64_t at;
    int n = item_values(job, item, &at);
    float *gate = job->y + at, *up = job->up + at, limit = job->limit;
    if (limit > 0) {
        for (int i = 0; i < n; i++) {
            gate[i] = gate[i] < limit ? gate[i] : limit;
            float low = up[i] < limit ? up[i] : limit;
            up[i] = 1 + (up[i] < -limit ? -limit : low);
        }
    }
    if (job->activation == ACT_SILU) {
        k->swiglu(gate, up, n);
        return;
    }
    k->activate(gate, n, job->activation);
    for (int i = 0; i < n; i++) gate[i] *= up[i];
}

void ops_gate(const Compute *c, float *gate, float *up, int n, int hidden_dim, Activation a, float clamp) {
    RowJob job = {.y = gate, .up = up, .n = n, .dim = hidden_dim, .activation = a, .limit = clamp};
    for_rows(c, &job, gate_item, PROFILE_GATE, 12);
}

float sigmoidf(float x) {
    return 1 / (1 + expf(-x));
}
