// ops: see ops.h.
#include "ops.h"

#include "file.h"
#include "quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    GEMM_K = 512,   // columns unpacked at a time: the panel stays in L2, a column tile of x in L1
    UNPACK_K = 256, // columns unpacked at a time on the way to bfloat16: they stay in L1
    BF16_K = 2048,  // columns multiplied at a time in bfloat16: mostly all, so that y is written once
    PANEL_FLOATS = BF16_K * MAX_PANEL / 2,
    WORKER_FLOATS = PANEL_FLOATS + UNPACK_K * MAX_PANEL,
    UNPACKED = 4096,          // values of a block format that one token's dots unpack at a time: they stay in L1
    MATVEC_CHUNK = 128 << 10, // bytes of weights in a work item
    SMALL_BYTES = 160 << 10,  // a region that reads less is not worth a hand-off
    SMALL_FLOATS = 16 << 10,  // the same for element-wise work
    ALIGNMENT = 64,
};

int compute_open(Compute *c, int n_threads, char *err, size_t errlen) {
    *c = (Compute){.pool = threads_start(n_threads, err, errlen), .kernels = kernels()};
    if (!c->pool) return -1;
    void *panels;
    size_t bytes = sizeof(float) * WORKER_FLOATS * (size_t)threads_count(c->pool);
    if (posix_memalign(&panels, ALIGNMENT, bytes)) {
        compute_close(c);
        return fail(err, errlen, "out of memory: %zu bytes for %d threads; try a smaller -t", bytes, n_threads);
    }
    c->panels = panels;
    return 0;
}

static int reserve_rounded(Compute *c, int64_t cols, int64_t n, char *err, size_t errlen) {
    int64_t values = cols * ((n + BF16_ROWS - 1) / BF16_ROWS * BF16_ROWS);
    if (!c->kernels->bf16 || values <= c->most_rounded) return 0;
    size_t bytes = sizeof *c->rounded * (size_t)values;
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, bytes)) {
        return fail(err, errlen, "out of memory: %zu bytes of activations as bfloat16", bytes);
    }
    memset(memory, 0, bytes); // rows behind the last token are read
    free(c->rounded);
    c->rounded = memory;
    c->most_rounded = values;
    return 0;
}

int compute_reserve(Compute *c, int cols, int n, char *err, size_t errlen) {
    if (reserve_rounded(c, cols, n, err, errlen)) return -1;
    if (cols <= c->most_cols || !c->kernels->quantize) return 0;
    size_t width = ((size_t)cols + BLOCK_MAX - 1) / BLOCK_MAX * BLOCK_MAX;
    size_t each = 2 * width + 2 * sizeof(float) * width / 16;
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, each * MATVEC_TOKENS)) {
        return fail(err, errlen, "out of memory: %zu bytes for quantized activations", each * MATVEC_TOKENS);
    }
    free(c->quantized[0].high);
    c->most_cols = cols;
    for (int t = 0; t < MATVEC_TOKENS; t++) {
        char *at = (char *)memory + (size_t)t * each;
        c->quantized[t] = (Activations){.high = (int8_t *)at, .low = (int8_t *)at + width};
        c->quantized[t].scale = (float *)(void *)(at + 2 * width);
        c->quantized[t].sum = c->quantized[t].scale + width / 16;
    }
    return 0;
}

void compute_close(Compute *c) {
    threads_stop(c->pool);
    free(c->panels);
    free(c->quantized[0].high);
    free(c->rounded);
    memset(c, 0, sizeof *c);
}

// ---- activations

static size_t whole_lines(size_t n_floats) {
    size_t line = ALIGNMENT / sizeof(float);
    return (n_floats + line - 1) / line * line;
}

int buffers_reserve(float **memory, int *room, int n, const Buffer *list, size_t count, const char *what, char *err,
                    size_t errlen) {
    if (n <= *room) return 0;
    size_t rows = (size_t)n, n_floats = 0;
    for (size_t i = 0; i < count; i++) n_floats += whole_lines(list[i].width * rows);
    void *more;
    if (posix_memalign(&more, ALIGNMENT, sizeof(float) * n_floats)) {
        return fail(err, errlen, "out of memory: %zu bytes of activations for a block of %d %s",
                    sizeof(float) * n_floats, n, what);
    }
    free(*memory);
    *memory = more;
    *room = n;
    float *p = more;
    for (size_t i = 0; i < count; i++) {
        *list[i].slot = p;
        p += whole_lines(list[i].width * rows);
    }
    return 0;
}

// ---- linear

enum { MAX_LINEARS = 3, MAX_CHUNK_ROWS = 1024 };

typedef struct {
    const Compute *c;
    const Linear *list;
    const float *x;
    int n;
    int rows_per_item[MAX_LINEARS];
    int first_item[MAX_LINEARS + 1];
} LinearJob;

// Which matrix an item belongs to; its rows start at *row0 and are *n_rows.
static const Linear *linear_of(const LinearJob *job, int item, int *row0, int *n_rows) {
    int i = 0;
    while (item >= job->first_item[i + 1]) i++;
    int rows = (int)job->list[i].w->shape[0], n = job->first_item[i + 1] - job->first_item[i];
    int chunk = threads_in_stretches(item - job->first_item[i], n, threads_count(job->c->pool));
    *row0 = chunk * job->rows_per_item[i];
    *n_rows = rows - *row0 < job->rows_per_item[i] ? rows - *row0 : job->rows_per_item[i];
    return &job->list[i];
}

_Static_assert(GEMM_K % BLOCK_MAX == 0 && UNPACKED % BLOCK_MAX == 0, "both cut rows between blocks");

// Values [row][col..] of a block format.
static void unpack_blocks(const Kernels *k, float *y, const Tensor *w, int64_t row, int64_t col, int64_t n) {
    const DTypeInfo *info = dtype_info(w->dtype);
    int64_t block = (row * w->shape[1] + col) / info->block;
    const uint8_t *blocks = (const uint8_t *)w->data + block * info->block_bytes;
    if (k->blocks && k->blocks[w->dtype].unpack) k->blocks[w->dtype].unpack(y, blocks, (int)n);
    else if (info->unpack) info->unpack(y, blocks, n / info->block);
    else unpack_mxfp4_split(y, blocks, (const uint8_t *)w->scales + block, n / info->block);
}

// A few rows, or a part of a long one, are unpacked and then multiplied. Where a row is cut depends on its length
// alone.
static void matvec_blocks(const Kernels *k, float *y, const Tensor *w, int row0, int n_rows, const float *x,
                          float *unpacked) {
    int cols = (int)w->shape[1], step = cols < UNPACKED ? UNPACKED / cols : 1;
    for (int i = 0, count; i < n_rows; i += count) {
        count = n_rows - i < step ? n_rows - i : step;
        y[i] = 0;
        for (int j = 0; j < cols; j += UNPACKED) {
            int n = cols - j < UNPACKED ? cols - j : UNPACKED;
            float sum;
            unpack_blocks(k, unpacked, w, row0 + i, j, (int64_t)count * n);
            k->matvec_f32(cols > UNPACKED ? &sum : y + i, unpacked, n, x + j, count, n);
            if (cols > UNPACKED) y[i] += sum;
        }
    }
}

// Has the rung a kernel for rows of this type with a quantized vector, and the vector room?
static bool is_fast(const Compute *c, const Tensor *w) {
    const BlockKernels *blocks = c->kernels->blocks;
    return blocks && blocks[w->dtype].matvec && w->shape[1] <= c->most_cols;
}

static void matvec(const Kernels *k, float *y, const Tensor *w, int row0, int n_rows, const float *x, float *unpacked) {
    int cols = (int)w->shape[1];
    int64_t first = (int64_t)row0 * cols;
    switch (w->dtype) {
    case DTYPE_F16: k->matvec_f16(y, (const uint16_t *)w->data + first, cols, x, n_rows, cols); break;
    case DTYPE_BF16: k->matvec_bf16(y, (const uint16_t *)w->data + first, cols, x, n_rows, cols); break;
    case DTYPE_I8G: k->matvec_i8g(y, w->data, w->scales, w->group, row0, x, n_rows, cols); break;
    case DTYPE_F32: k->matvec_f32(y, (const float *)w->data + first, cols, x, n_rows, cols); break;
    default: matvec_blocks(k, y, w, row0, n_rows, x, unpacked);
    }
}

static float *worker_panels(const Compute *c, int worker) {
    return c->panels + (size_t)worker * WORKER_FLOATS;
}

static void matvec_item(void *context, int item, int worker) {
    const LinearJob *job = context;
    int row0, n_rows;
    const Linear *l = linear_of(job, item, &row0, &n_rows);
    int64_t rows = l->w->shape[0], cols = l->w->shape[1];
    const Kernels *k = job->c->kernels;
    bool fast = is_fast(job->c, l->w);
    const char *w = (const char *)l->w->data + (uint64_t)row0 * (tensor_bytes(l->w) / (uint64_t)rows);
    for (int t = 0; t < job->n; t++) {
        float sums[MAX_CHUNK_ROWS], *y = l->y + t * rows + row0, *out = l->add ? sums : y;
        if (fast) k->blocks[l->w->dtype].matvec(out, w, &job->c->quantized[t], n_rows, (int)cols);
        else matvec(k, out, l->w, row0, n_rows, job->x + t * cols, worker_panels(job->c, worker));
        for (int i = 0; l->bias && i < n_rows; i++) out[i] += l->bias[row0 + i];
        for (int i = 0; l->add && i < n_rows; i++) y[i] += sums[i];
        if (l->act) k->activate(y, n_rows, l->act);
    }
}

// ---- many tokens: panels

// Columns k0.. of n_rows rows that are not fp32, UNPACK_K apart.
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

// Is the product of n tokens with w made in bfloat16?
static bool is_bf16(const Compute *c, const Tensor *w, int n) {
    return c->kernels->bf16 && w->dtype != DTYPE_F32 && w->shape[1] % BF16_STEP == 0 &&
           n * w->shape[1] <= c->most_rounded;
}

// Columns k0.. of n_rows rows, as a panel. In bfloat16 two values of a row make a word of it, so that it is packed as
// words.
static void make_panel(const Kernels *k, bool bf16, float *panel, const Tensor *w, int row0, int n_rows, int k0,
                       int kn) {
    int word = bf16 ? 2 : 1;
    int64_t cols = w->shape[1];
    if (w->dtype == (bf16 ? DTYPE_BF16 : DTYPE_F32)) {
        const char *first = (const char *)w->data + (row0 * cols + k0) * (int64_t)sizeof(float) / word;
        if (!bf16 || (uintptr_t)first % sizeof(float) == 0) {
            k->pack(panel, (const float *)(const void *)first, cols / word, n_rows, kn / word);
            return;
        }
    }
    float *rows = panel + PANEL_FLOATS;
    for (int j = 0, n; j < kn; j += n) {
        n = kn - j < UNPACK_K ? kn - j : UNPACK_K;
        unpack_rows(k, rows, w, row0, n_rows, k0 + j, n);
        if (bf16) k->bf16->round((uint16_t *)(void *)rows, rows, UNPACK_K * n_rows); // in place: half as long
        k->pack(panel + j / word * k->panel, rows, UNPACK_K / word, n_rows, n / word);
    }
}

// Rows row0.. of w times x; `add` to what y holds.
static void multiply_rows(const LinearJob *job, const Linear *l, int row0, int n_rows, bool add, float *panel) {
    const Kernels *k = job->c->kernels;
    bool bf16 = is_bf16(job->c, l->w, job->n);
    int rows = (int)l->w->shape[0], cols = (int)l->w->shape[1], step = bf16 ? BF16_K : GEMM_K;
    float *y = l->y + row0;
    for (int k0 = 0; k0 < cols; k0 += step, add = true) {
        int kn = cols - k0 < step ? cols - k0 : step;
        make_panel(k, bf16, panel, l->w, row0, n_rows, k0, kn);
        Panels w = {.words = panel, .ld = k->panel};
        if (bf16) k->bf16->gemm(y, rows, &w, job->c->rounded + k0, cols, job->n, kn, n_rows, add);
        else k->gemm_f32(y, rows, &w, job->x + k0, cols, job->n, kn, n_rows, add);
    }
}

static void gemm_item(void *context, int item, int worker) {
    const LinearJob *job = context;
    int row0, n_rows;
    const Linear *l = linear_of(job, item, &row0, &n_rows);
    int rows = (int)l->w->shape[0];
    for (int t = 0; l->bias && t < job->n; t++) { // the sums start from the bias
        float *y = l->y + (int64_t)t * rows + row0;
        for (int i = 0; i < n_rows; i++) y[i] = l->bias[row0 + i] + (l->add ? y[i] : 0);
    }
    multiply_rows(job, l, row0, n_rows, l->add || l->bias, worker_panels(job->c, worker));
    for (int t = 0; l->act && t < job->n; t++) {
        job->c->kernels->activate(l->y + (int64_t)t * rows + row0, n_rows, l->act);
    }
}

enum { ROUND_CHUNK = 8192 };

static void round_item(void *context, int item, int worker) {
    (void)worker;
    const LinearJob *job = context;
    int64_t first = (int64_t)item * ROUND_CHUNK, left = job->n * job->list[0].w->shape[1] - first;
    job->c->kernels->bf16->round(job->c->rounded + first, job->x + first, left < ROUND_CHUNK ? left : ROUND_CHUNK);
}

// The tokens up to which rows are read where they lie; a block format without a kernel is better unpacked to a panel.
static int most_by_rows(const Compute *c, const Tensor *w) {
    return dtype_info(w->dtype)->block > 1 && !is_fast(c, w) ? 1 : MATVEC_TOKENS;
}

// Rows of an item: at most about MATVEC_CHUNK, and as many items for each thread. How rows are cut changes no sum.
static int matvec_rows(const Tensor *w, int n_threads) {
    int64_t bytes = (int64_t)tensor_bytes(w), turn = (int64_t)MATVEC_CHUNK * n_threads;
    int64_t n_items = (bytes + turn - 1) / turn * n_threads, rows = (w->shape[0] + n_items - 1) / n_items;
    rows = (rows + 3) / 4 * 4;
    if (rows > MAX_CHUNK_ROWS) rows = MAX_CHUNK_ROWS;
    while (w->shape[0] / rows > MAX_ITEMS / MAX_LINEARS) rows *= 2;
    return (int)rows;
}

void ops_linear(const Compute *c, const Linear *list, int count, const float *x, int n) {
    LinearJob job = {.c = c, .list = list, .x = x, .n = n};
    int limit = MATVEC_TOKENS;
    bool fast = false;
    int type = 0;
    for (int i = 0; i < count; i++) {
        int most = most_by_rows(c, list[i].w);
        fast |= is_fast(c, list[i].w);
        limit = most < limit ? most : limit;
        type = i && type != (int)list[i].w->dtype ? N_DTYPES : (int)list[i].w->dtype;
    }
    bool few = n <= limit, rounded = false;
    for (int i = 0; i < count && !few; i++) rounded |= is_bf16(c, list[i].w, n);
    profile_begin(threads_profile(c->pool), (few ? PROFILE_MATVEC : PROFILE_GEMM) + type);
    for (int t = 0; fast && few && t < n; t++) {
        int64_t cols = list[0].w->shape[1];
        c->kernels->quantize(&c->quantized[t], x + t * cols, (int)cols);
    }
    int64_t n_x = n * list[0].w->shape[1];
    if (rounded) threads_for_if(n_x >= SMALL_FLOATS, c->pool, (int)((n_x - 1) / ROUND_CHUNK) + 1, round_item, &job);
    uint64_t bytes = 0;
    double values = 0;
    for (int i = 0; i < count; i++) {
        const Tensor *w = list[i].w;
        uint64_t all = tensor_bytes(w);
        job.rows_per_item[i] = few ? matvec_rows(w, threads_count(c->pool)) : c->kernels->panel;
        job.first_item[i + 1] = job.first_item[i] + ((int)w->shape[0] - 1) / job.rows_per_item[i] + 1;
        bytes += all;
        values += (double)tensor_count(w);
    }
    bool small = bytes * (uint64_t)n < SMALL_BYTES;
    threads_for_if(!small, c->pool, job.first_item[count], few ? matvec_item : gemm_item, &job);
    profile_end(threads_profile(c->pool), 2 * values * n, (double)bytes);
}

// ---- rows

typedef struct {
    const Compute *c;
    float *y;
    const float *x;
    const Tensor *w;
    const int32_t *tokens;
    const float *weight, *bias;
    int n, dim, first, step;
    float eps, limit;
    float *up;
    Activation activation;
} RowJob;

enum { ROWS_PER_ITEM = 8 };

// bytes: read and written for each value
static void for_rows(const Compute *c, RowJob *job, ThreadTask task, int op, double bytes) {
    job->c = c;
    profile_begin(threads_profile(c->pool), op);
    bool small = (int64_t)job->n * job->dim < SMALL_FLOATS;
    threads_for_if(!small, c->pool, (job->n + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM, task, job);
    profile_end(threads_profile(c->pool), 0, bytes * job->n * job->dim);
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
        const Kernels *k = job->c->kernels;
        const uint16_t *half = (const uint16_t *)job->w->data + first;
        switch (job->w->dtype) {
        case DTYPE_F16: k->f32_from_f16(y, job->dim, half, job->dim, 1, job->dim); break;
        case DTYPE_BF16: k->f32_from_bf16(y, job->dim, half, job->dim, 1, job->dim); break;
        case DTYPE_I8G: k->unpack_i8g(y, job->w->data, job->w->scales, job->w->group, first, job->dim); break;
        case DTYPE_F32: memcpy(y, (const float *)job->w->data + first, sizeof(float) * (size_t)job->dim); break;
        default: unpack_blocks(k, y, job->w, job->tokens[t], 0, job->dim);
        }
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
        const float *row = job->x + ((int64_t)job->first + (int64_t)t * job->step) * job->dim;
        float *y = job->y + (int64_t)t * job->dim;
        for (int d = 0; d < job->dim; d++) y[d] += row[d];
    }
}

void ops_positions(const Compute *c, float *x, const float *table, int first, int step, int n, int dim) {
    RowJob job = {.y = x, .x = table, .first = first, .step = step, .n = n, .dim = dim};
    for_rows(c, &job, positions_item, PROFILE_EMBED, 12);
}

static void norm_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    const Kernels *k = job->c->kernels;
    for (int t = item * ROWS_PER_ITEM; t < row_end(job, item); t++) {
        int64_t at = (int64_t)t * job->dim;
        if (job->bias) k->layernorm(job->y + at, job->x + at, job->weight, job->bias, job->dim, job->eps);
        else k->rmsnorm(job->y + at, job->x + at, job->weight, job->dim, job->eps);
    }
}

void ops_norm(const Compute *c, float *y, const float *x, const Norm *norm, int n, int dim, float eps) {
    RowJob job = {.y = y, .x = x, .weight = norm->weight, .bias = norm->bias, .n = n, .dim = dim, .eps = eps};
    for_rows(c, &job, norm_item, PROFILE_NORM, 8);
}

// The values of an item's rows, as one run.
static int item_run(const RowJob *job, int item, int64_t *at) {
    int t = item * ROWS_PER_ITEM;
    *at = (int64_t)t * job->dim;
    return (row_end(job, item) - t) * job->dim;
}

static void add_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_run(job, item, &at);
    for (int i = 0; i < n; i++) job->y[at + i] += job->x[at + i];
}

void ops_add(const Compute *c, float *y, const float *x, int n, int dim) {
    RowJob job = {.y = y, .x = x, .n = n, .dim = dim};
    for_rows(c, &job, add_item, PROFILE_ADD, 12);
}

static void softcap_item(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int64_t at;
    int n = item_run(job, item, &at);
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
    int n = item_run(job, item, &at);
    float *gate = job->y + at, *up = job->up + at, limit = job->limit;
    for (int i = 0; limit > 0 && i < n; i++) {
        gate[i] = gate[i] < limit ? gate[i] : limit;
        up[i] = 1 + (up[i] < -limit ? -limit : up[i] < limit ? up[i] : limit);
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
