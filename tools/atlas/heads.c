// heads: who shares keys and values, and which way the rows look.
//
// Owns the rows of multi-head, grouped, single-head and latent keys and values, and of self- and cross-attention. All
// are attention() over a cache of the heads' own shape. The latent form keeps one vector for all heads and is computed
// in its absorbed form, a single key head that is its own value.
#include "soft.h"

#include <math.h>
#include <stdlib.h>

// ---- latent: c = W_down x, k_h = W_k,h c, v_h = W_v,h c with x the row of all heads' keys, without the part of the
// key that RoPE turns. q . (W_k c) = (W_k^T q) . c, so that c is both the key and the value of attention(), whose cache
// stores it twice.

typedef struct {
    Soft soft;     // one KV head of width rank
    float *down;   // [rank][n_heads * head_dim]
    float *absorb; // [n_heads][rank][head_dim], the W_k^T
    float *up;     // [n_heads][head_dim][rank], the W_v
} Latent;

static void latent_open(Operator *op) {
    const Shape *s = &op->shape;
    int64_t width = query_width(s), n = width * s->rank;
    Latent *l = op->own = operator_own(op, sizeof *l);
    l->down = operator_normals(op, n, 1 / sqrtf((float)width));
    l->absorb = operator_normals(op, n, 1 / sqrtf((float)s->rank));
    l->up = operator_normals(op, n, 1 / sqrtf((float)s->rank));
    soft_open_as(&l->soft, op, s->n_heads, &(KvShape){1, s->rank, s->rank, s->type, 0, 0});
}

static void latent_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Latent *l = op->own;
    int n = rows->n_keys, width = s->n_heads * s->head_dim;
    float *c = floats_need((int64_t)n * s->rank * (1 + 2 * s->n_heads));
    float *q = c + (int64_t)n * s->rank, *o = q + (int64_t)n * s->n_heads * s->rank;
    map_heads(op->compute, l->down, 1, s->rank, width, rows->k, c, n);
    map_heads(op->compute, l->absorb, s->n_heads, s->rank, s->head_dim, rows->q, q, n);
    Rows latent = {.n_q = n, .n_keys = n, .k = c, .v = c, .out = o};
    soft_step(op, &l->soft, q, &latent);
    map_heads(op->compute, l->up, s->n_heads, s->head_dim, s->rank, o, rows->out, n);
    op->flops += 6.0 * n * width * s->rank;
    free(c);
}

#define SHARED .family = "heads", .open = soft_plain_open, .step = soft_plain_step

const Mechanism heads_rows[] = {
    {"mha", "multi-head attention: each head has keys and values of its own",
     "Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2", "o_h = softmax(Q_h K_h^T / sqrt(d)) V_h\n", "O(n^2 d)",
     "O(n d)", "2 n d", "quality without a budget", SHARED, .approximates = true,
     .published = "28.4 BLEU, WMT14 en-de (arXiv:1706.03762, table 2)"},
    {"gqa", "grouped queries: heads of a group share keys and values",
     "Ainslie et al. 2023, arXiv:2305.13245, section 2.2",
     "o_h = softmax(Q_h K_g^T / sqrt(d)) V_g,   g = h / (heads in a group)\n", "O(n^2 d)", "O(n d)",
     "2 n d / (heads in a group)", "chat and long prompts; the default of open models", SHARED, .kv_heads = 2,
     .published = "T5-XXL with 8 groups: 47.1 of MHA's 47.2, 0.28 s a sample of 1.51 s (arXiv:2305.13245, table 1)"},
    {"mqa", "multi-query: one head of keys and values for all", "Shazeer 2019, arXiv:1911.02150, section 3",
     "o_h = softmax(Q_h K^T / sqrt(d)) V\n", "O(n^2 d)", "O(n d)", "2 n d / heads", "many streams at once", SHARED,
     .kv_heads = 1, .published = "T5-XXL: 46.6 of MHA's 47.2, 0.24 s a sample of 1.51 s (arXiv:2305.13245, table 1)"},
    {"mla", "latent keys and values: one narrow vector a token for all heads",
     "DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.2, equations 9 to 11",
     "c = W_down x,   o_h = W_v,h sum_j softmax((W_k,h^T q_h) . c_j / sqrt(d)) c_j\n", "O(n^2 r)", "O(n r)",
     "n r / heads", "long context at full quality", .family = "heads", .opaque = true, .open = latent_open,
     .step = latent_step,
     .published = "cache 93.3 % smaller, generation 5.76 times as fast (arXiv:2405.04434, abstract)"},
    {"causal", "self-attention that sees the past alone", "Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3",
     "o_t = sum_{j <= t} softmax_j(q_t . k_j / sqrt(d)) v_j\n", "O(n^2 d), half of it", "O(n d)", "2 n d", "generation",
     SHARED, .approximates = true, .same_as = "mha"},
    {"bidirectional", "self-attention that sees the whole text", "Devlin et al. 2018, arXiv:1810.04805, section 3",
     "o_t = sum_j softmax_j(q_t . k_j / sqrt(d)) v_j\n", "O(n^2 d)", "-", "2 n d", "encoders, pictures", SHARED,
     .time = TIME_WHOLE, .published = "GLUE 80.5 (arXiv:1810.04805, abstract)"},
    {"cross", "queries of one text over keys and values of another",
     "Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3", "o_t = sum_j softmax_j(q_t . k'_j / sqrt(d)) v'_j\n",
     "O(n m d)", "O(m d)", "2 m d", "translation, captions, speech", SHARED, .time = TIME_CROSS},
    {0}};
