// unfused: see unfused.h.
#include "unfused.h"

#include <math.h>

static int unfused_rows(const Unfused *p, int block) {
    int left = p->n - block * p->kernels->panel;
    return left < p->kernels->panel ? left : p->kernels->panel;
}

static float *unfused_scores(const Unfused *p, int block) {
    return p->scores + (int64_t)block * p->kernels->panel * p->n;
}

static void unfused_qk(void *context, int block, int worker) {
    const Unfused *p = context;
    int panel = p->kernels->panel, hd = p->head_dim, rows = unfused_rows(p, block), n_kv_heads = p->n_heads / p->group;
    float *packed = p->panels + (int64_t)worker * 2 * hd * panel;
    const float *q = p->q + ((int64_t)block * panel * p->n_heads + p->head) * hd;
    p->kernels->pack(packed, q, (int64_t)p->n_heads * hd, rows, hd);
    PackedMatrix w = {.data = packed, .row_stride = panel};
    p->kernels->gemm_f32(unfused_scores(p, block), panel, &w, p->k + (int64_t)(p->head / p->group) * hd,
                         (int64_t)n_kv_heads * hd, p->n, hd, panel, false);
}

static void unfused_softmax(void *context, int block, int worker) {
    (void)worker;
    const Unfused *p = context;
    int panel = p->kernels->panel, n_keys = p->n;
    float *s = unfused_scores(p, block), scale = 1.0f / sqrtf((float)p->head_dim);
    float max[MAX_PANEL], sum[MAX_PANEL] = {0};
    for (int i = 0; i < panel; i++) max[i] = SCORE_MASKED;
    for (int j = 0; j < n_keys; j++) {
        int first = j - block * panel; // the queries that see key j
        int end = p->mask.window && j >= p->mask.n_sinks ? first + p->mask.window : panel;
        for (int i = 0; i < panel; i++) {
            if (i < first || i >= end) s[j * panel + i] = SCORE_MASKED;
            max[i] = s[j * panel + i] > max[i] ? s[j * panel + i] : max[i];
        }
    }
    for (int j = 0; j < n_keys; j++) {
        for (int i = 0; i < panel; i++) sum[i] += s[j * panel + i] = expf((s[j * panel + i] - max[i]) * scale);
    }
    for (int i = 0; i < panel; i++) sum[i] = 1 / sum[i];
    for (int j = 0; j < n_keys; j++) {
        for (int i = 0; i < panel; i++) s[j * panel + i] *= sum[i];
    }
}

static void unfused_pv(void *context, int block, int worker) {
    const Unfused *p = context;
    int panel = p->kernels->panel, hd = p->head_dim, rows = unfused_rows(p, block);
    float *o = p->panels + ((int64_t)worker * 2 + 1) * hd * panel; // [head_dim][PANEL]
    PackedMatrix w = {.data = unfused_scores(p, block), .row_stride = panel};
    p->kernels->gemm_f32(o, panel, &w, p->vt + (int64_t)(p->head / p->group) * hd * p->n, p->n, hd, p->n, panel, false);
    for (int i = 0; i < rows; i++) {
        float *row = p->out + ((int64_t)(block * panel + i) * p->n_heads + p->head) * hd;
        for (int d = 0; d < hd; d++) row[d] = o[d * panel + i];
    }
}

void unfused_run(ThreadPool *pool, Unfused *p) {
    int n_blocks = (p->n + p->kernels->panel - 1) / p->kernels->panel;
    for (p->head = 0; p->head < p->n_heads; p->head++) {
        threads_for(pool, n_blocks, unfused_qk, p);
        threads_for(pool, n_blocks, unfused_softmax, p);
        threads_for(pool, n_blocks, unfused_pv, p);
    }
}
