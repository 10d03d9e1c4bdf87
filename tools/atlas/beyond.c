// beyond: the mixers that models use in place of attention or beside it.
//
// Owns the rows of Mamba-2, RWKV-7 and the short convolution, of hybrids, and of attention before a mixture of experts.
// All run on the engine's recurrences, its convolution and its experts. A hybrid gives a quarter of the heads to
// attention and the rest to another row of the atlas: the cache and the work of a stack in which every fourth layer
// attends. Refuses nothing. Draws: RWKV-7 W_a, then r_k; the convolution its taps; the experts their router, then gate,
// up and down of each.
#include "convolution.h"
#include "experts.h"
#include "recurrence.h"
#include "recurrence_channels.h"
#include "soft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAMBA_2, RWKV_7, SHORT_CONV };
enum { PIECE = 256, TAPS = 3, N_EXPERTS = 8, N_USED = 2 };

typedef struct {
    State *state;
    float *drawn;            // W_a [n_heads][head_dim][head_dim], then r_k [n_heads][head_dim]; or taps [TAPS][width]
    float *k, *v, *decay;    // [PIECE][width]; of MAMBA_2 decay is logarithms [PIECE][n_heads]
    float *remove, *add, *o; // [PIECE][width]; add of MAMBA_2: step sizes [PIECE][n_heads]
} Mixer;

typedef struct {
    const Operator *op;
    Rows rows; // of a piece
} Job;

static int mixer_open(Operator *op, char *err, size_t errlen) {
    const Shape *s = &op->shape;
    int kind = op->mechanism->variant, d = s->head_dim, width = s->n_heads * d;
    uint64_t seed = s->seed;
    int64_t drawn = kind == RWKV_7 ? (int64_t)width * (d + 1) : TAPS * width;
    Mixer *m = op->own = operator_own(op, sizeof *m);
    m->drawn = operator_normals(op, &seed, drawn, 1 / sqrtf((float)(kind == RWKV_7 ? d : TAPS)));
    float **const parts[] = {&m->k, &m->v, &m->decay, &m->remove, &m->add, &m->o};
    for (int i = 0; i < 6; i++) *parts[i] = operator_floats(op, PIECE * width);
    StateShape shape = {.n_heads = s->n_heads, .n_key_heads = s->n_heads, .k_dim = d, .v_dim = d};
    if (kind == MAMBA_2) shape.n_key_heads = 1;
    else if (kind == RWKV_7) shape.pairs = 2;
    else shape = (StateShape){.conv_width = TAPS, .conv_dim = width};
    if (!(m->state = state_open(&shape, 0, err, errlen))) return -1;
    if (kind == MAMBA_2) return recurrence_reserve(op->compute, d, d, err, errlen);
    return kind == RWKV_7 ? recurrence_channels_reserve(op->compute, &shape, err, errlen) : 0;
}

static double mixer_bytes(const Operator *op) {
    return (double)state_bytes(((const Mixer *)op->own)->state);
}

static void mixer_close(Operator *op) {
    state_close(((Mixer *)op->own)->state);
}

// ---- Mamba-2: heads share the first head's queries C and keys B, as most of its models do

static void mamba_prepare(void *context, int t, int worker) {
    (void)worker;
    const Job *job = context;
    const Shape *s = &job->op->shape;
    const Mixer *m = job->op->own;
    int d = s->head_dim, share = s->n_heads / s->n_kv_heads;
    for (int h = 0; h < s->n_heads; h++) {
        int64_t at = (int64_t)t * s->n_heads + h;
        const float *x = job->rows.v + ((int64_t)t * s->n_kv_heads + h / share) * d;
        float step = log1pf(expf(job->rows.gates[at * d] - 4)); // small where the gate is: 0.018 at 0
        m->decay[at] = -step * (float)(1 + h % 16);
        for (int c = 0; c < d; c++) m->v[at * d + c] = step * x[c];
    }
}

static void mamba_piece(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    const Mixer *m = op->own;
    int n = rows->n_keys, d = s->head_dim, share = s->n_heads / s->n_kv_heads;
    Job job = {op, *rows};
    threads_for(op->compute->pool, n, mamba_prepare, &job);
    Recurrence r = {.state = m->state,
                    .n = n,
                    .q = rows->q,
                    .k = rows->k,
                    .v = m->v,
                    .log_decay = m->decay,
                    .q_ld = (int64_t)s->n_heads * d,
                    .k_ld = (int64_t)s->n_kv_heads * d,
                    .out = rows->out};
    r.v_ld = r.q_ld;
    recurrence(op->compute, &r, 1);
    for (int64_t i = 0; i < (int64_t)n * s->n_heads; i++) { // y = S^T C + x
        const float *x = rows->v + (i / s->n_heads * s->n_kv_heads + i % s->n_heads / share) * d;
        for (int c = 0; c < d; c++) rows->out[i * d + c] += x[c];
    }
    op->flops += (double)n * s->n_heads * (4.0 * d * d + STATE_CHUNK * 2.0 * d + 3.0 * d);
}

// ---- RWKV-7

static void rwkv_prepare(void *context, int t, int worker) {
    (void)worker;
    const Job *job = context;
    const Shape *s = &job->op->shape;
    const Mixer *m = job->op->own;
    int d = s->head_dim, share = s->n_heads / s->n_kv_heads;
    for (int h = 0; h < s->n_heads; h++) {
        int64_t at = ((int64_t)t * s->n_heads + h) * d, kv = ((int64_t)t * s->n_kv_heads + h / share) * d;
        const float *k = job->rows.k + kv, *gate = job->rows.gates + at;
        float square = 0;
        for (int c = 0; c < d; c++) square += k[c] * k[c];
        for (int c = 0; c < d; c++) {
            float a = sigmoidf(m->add[at + c]); // the products with W_a before
            m->decay[at + c] = expf(-0.6065306597f * sigmoidf(gate[c]));
            m->remove[at + c] = k[c] / fmaxf(sqrtf(square), 1e-12f);
            m->add[at + c] = a * m->remove[at + c];
            m->k[at + c] = a * k[c];
            m->v[at + c] = job->rows.v[kv + c];
        }
    }
}

// out += (sum_c q k r_k) v
static void rwkv_finish(void *context, int t, int worker) {
    (void)worker;
    const Job *job = context;
    const Shape *s = &job->op->shape;
    const Mixer *m = job->op->own;
    int d = s->head_dim;
    const float *bonus = m->drawn + (int64_t)s->n_heads * d * d;
    for (int h = 0; h < s->n_heads; h++) {
        int64_t at = ((int64_t)t * s->n_heads + h) * d;
        float sum = 0;
        for (int c = 0; c < d; c++) sum += job->rows.q[at + c] * m->k[at + c] * bonus[h * d + c];
        for (int c = 0; c < d; c++) job->rows.out[at + c] += sum * m->v[at + c];
    }
}

static void rwkv_piece(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    const Mixer *m = op->own;
    int n = rows->n_keys, d = s->head_dim;
    int64_t ld = (int64_t)s->n_heads * d;
    Job job = {op, *rows};
    map_heads(op->compute, m->drawn, s->n_heads, d, d, rows->gates, s->n_heads, m->add, n);
    threads_for(op->compute->pool, n, rwkv_prepare, &job);
    ChannelRecurrence r = {.state = m->state,
                           .n = n,
                           .q = rows->q,
                           .k = m->k,
                           .v = m->v,
                           .decay = m->decay,
                           .q_ld = ld,
                           .k_ld = ld,
                           .v_ld = ld,
                           .decay_ld = ld,
                           .remove = m->remove,
                           .add = m->add,
                           .out = rows->out};
    recurrence_channels(op->compute, &r, 1);
    threads_for(op->compute->pool, n, rwkv_finish, &job);
    op->flops += (double)n * s->n_heads * (10.0 * d * d + STATE_CHUNK * 8.0 * d + 16.0 * d);
}

// ---- the short convolution

static void conv_piece(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    const Mixer *m = op->own;
    int n = rows->n_keys, d = s->head_dim, share = s->n_heads / s->n_kv_heads;
    int64_t width = (int64_t)s->n_heads * d;
    for (int64_t i = 0; i < n * width; i++) {
        int64_t kv = (i / width * s->n_kv_heads + i % width / d / share) * d + i % d;
        m->v[i] = rows->k[kv] * rows->v[kv];
    }
    Convolution c = {.state = m->state, .n = n, .x = m->v, .ld = width, .taps = m->drawn, .y = m->o};
    convolution(op->compute, &c, 1);
    for (int64_t i = 0; i < n * width; i++) rows->out[i] = rows->q[i] * m->o[i];
    op->flops += (double)n * (double)width * (2 * TAPS + 2);
}

static void mixer_piece(Operator *op, const Rows *rows) {
    static void (*const pieces[])(Operator *, const Rows *) = {mamba_piece, rwkv_piece, conv_piece};
    pieces[op->mechanism->variant](op, rows);
    state_advance(((const Mixer *)op->own)->state, rows->n_keys);
}

static void mixer_step(Operator *op, const Rows *rows) {
    step_pieces(op, rows, PIECE, mixer_piece);
}

// ---- hybrids

static const char *const partners[] = {"mamba-2", "rwkv-7", "hyena", "short-conv", "gated-deltanet"};

typedef struct {
    Operator parts[2]; // attention over the first heads, the partner over the others
    int n_heads[2];    // 0: the part is not there
} Hybrid;

static int hybrid_open(Operator *op, char *err, size_t errlen) {
    const char *const names[] = {"mha", partners[op->mechanism->variant]};
    Hybrid *y = op->own = operator_own(op, sizeof *y);
    y->n_heads[0] = (op->shape.n_heads + 2) / 4;
    y->n_heads[1] = op->shape.n_heads - y->n_heads[0];
    for (int i = 0; i < 2; i++) {
        Shape shape = op->shape;
        shape.n_heads = shape.n_kv_heads = y->n_heads[i];
        if (!y->n_heads[i]) continue;
        if (operator_open(&y->parts[i], mechanism_find(names[i]), &shape, op->compute, err, errlen)) return -1;
    }
    return 0;
}

static void hybrid_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Hybrid *y = op->own;
    op->flops = 0;
    for (int i = 0, first = 0; i < 2; first += y->n_heads[i++]) {
        int count = y->n_heads[i], n = rows->n_keys;
        int64_t width = (int64_t)count * s->head_dim, all = (int64_t)n * width;
        if (!count) continue;
        float *x = floats_need(5 * all);
        Rows part = {n, n, x, x + all, x + 2 * all, x + 3 * all, x + 4 * all};
        take_heads(s, x, rows->q, s->n_heads, first, count, n);
        take_heads(s, x + all, rows->k, s->n_kv_heads, first, count, n);
        take_heads(s, x + 2 * all, rows->v, s->n_kv_heads, first, count, n);
        take_heads(s, x + 3 * all, rows->gates, s->n_heads, first, count, n);
        operator_step(&y->parts[i], &part);
        for (int64_t t = 0; t < n; t++) {
            memcpy(rows->out + (t * s->n_heads + first) * s->head_dim, part.out + t * width, sizeof *x * (size_t)width);
        }
        op->flops += y->parts[i].flops;
        free(x);
    }
}

static double hybrid_bytes(const Operator *op) {
    const Hybrid *y = op->own;
    double bytes = 0;
    for (int i = 0; i < 2; i++) bytes += y->n_heads[i] ? operator_bytes(&y->parts[i]) : 0;
    return bytes;
}

static void hybrid_close(Operator *op) {
    Hybrid *y = op->own;
    for (int i = 0; i < 2; i++) operator_close(&y->parts[i]);
}

// ---- a mixture of experts behind attention

typedef struct {
    Soft soft;
    Config config;
    Experts experts;
    FeedForward list[N_EXPERTS];
    ExpertBuffers buffers; // of PIECE rows
    int32_t picks[PIECE * N_USED];
} Mixture;

static Dense dense_of(float **at, int64_t rows, int64_t cols) {
    Dense dense = {.w = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {rows, cols}, .data = *at}};
    *at += rows * cols;
    return dense;
}

static int mixture_open(Operator *op, char *err, size_t errlen) {
    int width = op->shape.n_heads * op->shape.head_dim;
    int64_t square = (int64_t)width * width, rows = (int64_t)PIECE * width;
    uint64_t seed = op->shape.seed;
    Mixture *m = op->own = operator_own(op, sizeof *m);
    if (soft_open(&m->soft, op, 0, 0, err, errlen)) return -1;
    m->config = (Config){.dim = width, .hidden_dim = width, .n_experts = N_EXPERTS, .n_experts_used = N_USED};
    float *at = operator_normals(op, &seed, N_EXPERTS * (width + 3 * square), 1 / sqrtf((float)width));
    m->experts = (Experts){.list = m->list, .router = dense_of(&at, N_EXPERTS, width)};
    for (int i = 0; i < N_EXPERTS; i++) {
        m->list[i].gate = dense_of(&at, width, width);
        m->list[i].up = dense_of(&at, width, width);
        m->list[i].down = dense_of(&at, width, width);
    }
    m->buffers = (ExpertBuffers){.ffn = {operator_floats(op, rows), operator_floats(op, rows)}, .picks = m->picks};
    m->buffers.picked_x = operator_floats(op, rows);
    m->buffers.picked_y = operator_floats(op, rows);
    m->buffers.routes = operator_floats(op, PIECE * N_EXPERTS);
    m->buffers.weights = operator_floats(op, PIECE * N_USED);
    return 0;
}

static void mixture_step(Operator *op, const Rows *rows) {
    Mixture *m = op->own;
    int64_t width = m->config.dim;
    soft_step(op, &m->soft, rows->q, rows);
    float *x = floats_need(PIECE * width);
    for (int at = 0; at < rows->n_q; at += PIECE) {
        int n = rows->n_q - at < PIECE ? rows->n_q - at : PIECE;
        float *out = rows->out + at * width;
        memcpy(x, out, sizeof *x * (size_t)(n * width));
        experts_forward(op->compute, &m->config, &m->experts, &m->buffers, x, out, n, true);
    }
    op->flops += 2.0 * rows->n_q * (double)width * (N_EXPERTS + 3.0 * N_USED * (double)width);
    free(x);
}

#define MIXER(kind)                                                                                                    \
    .family = "beyond", .variant = (kind), .open = mixer_open, .step = mixer_step, .bytes = mixer_bytes,               \
    .close = mixer_close
#define HYBRID(partner)                                                                                                \
    .family = "beyond", .variant = (partner), .opaque = true, .open = hybrid_open, .step = hybrid_step,                \
    .bytes = hybrid_bytes, .close = hybrid_close

const Mechanism beyond_rows[] = {
    {MIXER(MAMBA_2), .name = "mamba-2", .title = "a state space with a decay and a step size for each token and head",
     .paper = "Dao and Gu 2024, arXiv:2405.21060, section 6, without the layer's convolution, gate and norm",
     .formula = "S_t = exp(s_t A_h) S_t-1 + s_t B_t x_t^T,   y_t = S_t^T C_t + x_t,   s_t = softplus(gate - 4)\n"
                "C, B, x: queries and keys of the first head, values\n",
     .prefill = "O(n d^2)", .decode = "O(d^2)", .memory = "d^2", .best_for = "long text; most layers of hybrids"},
    {MIXER(RWKV_7), .name = "rwkv-7", .title = "the delta rule with decays and strengths for each key channel",
     .paper = "Peng et al. 2025, arXiv:2503.14456, equations 16 and 17, without token shift, gate and norm",
     .formula = "S_t = diag(w_t) S_t-1 - (k^ a_t) (S_t-1^T k^)^T + (k_t a_t) v_t^T,   k^ = k_t / |k_t|\n"
                "o_t = S_t^T q_t + (sum q k a r) v_t,   w = exp(-0.607 sigmoid(gate)),   a = sigmoid(W_a gate)\n",
     .prefill = "O(n d^2)", .decode = "O(d^2)", .memory = "d^2", .best_for = "endless streams on little memory"},
    {MIXER(SHORT_CONV), .name = "short-conv", .opaque = true, .title = "a gated convolution over the last 3 rows",
     .paper = "LFM2 (Liquid AI 2025, arXiv:2511.23404); H3's shift, Fu et al. 2022, arXiv:2212.14052",
     .formula = "o_t = q_t * (sum_{i < 3} h_i * (k_t-i * v_t-i)),   * and h for each channel\n", .prefill = "O(n d)",
     .decode = "O(d)", .memory = "2 d", .best_for = "cheap layers between those that attend"},
    {HYBRID(0), .name = "hybrid-mamba-2", .title = "a quarter of the heads attends, the others are Mamba-2",
     .paper = "Waleffe et al. 2024, arXiv:2406.07887, section 4; heads in parallel as Falcon-H1, arXiv:2507.22448",
     .formula = "o_h = causal attention for a quarter of the heads, else mamba-2\n", .prefill = "O(n^2 d) / 4",
     .decode = "O(n d) / 4", .memory = "(2 n d + 3 d^2) / 4", .best_for = "recall at a quarter of the cache"},
    {HYBRID(1), .name = "hybrid-rwkv-7", .title = "a quarter of the heads attends, the others are RWKV-7",
     .paper = "ours, after arXiv:2406.07887 and arXiv:2503.14456",
     .formula = "o_h = causal attention for a quarter of the heads, else rwkv-7\n", .prefill = "O(n^2 d) / 4",
     .decode = "O(n d) / 4", .memory = "(2 n d + 3 d^2) / 4", .best_for = "recall at a quarter of the cache"},
    {HYBRID(2), .name = "hybrid-hyena", .title = "a quarter of the heads attends, the others are Hyena",
     .paper = "StripedHyena's mix, as in Poli et al. 2024, arXiv:2403.17844",
     .formula = "o_h = causal attention for a quarter of the heads, else hyena\n", .prefill = "O(n^2 d) / 4",
     .decode = "O(n d)", .memory = "(2 n d + 3 n d) / 4", .best_for = "long prompts with little generation"},
    {HYBRID(3), .name = "hybrid-short-conv",
     .title = "a quarter of the heads attends, the others are short convolutions",
     .paper = "LFM2, Liquid AI 2025, arXiv:2511.23404",
     .formula = "o_h = causal attention for a quarter of the heads, else short-conv\n", .prefill = "O(n^2 d) / 4",
     .decode = "O(n d) / 4", .memory = "2 n d / 4", .best_for = "fast small models on devices"},
    {HYBRID(4), .name = "hybrid-deltanet", .title = "a quarter of the heads attends, the others are gated delta nets",
     .paper = "Yang et al. 2024, arXiv:2412.06464, section 4; Qwen3-Next's layers",
     .formula = "o_h = causal attention for a quarter of the heads, else gated-deltanet\n", .prefill = "O(n^2 d) / 4",
     .decode = "O(n d) / 4", .memory = "(2 n d + 3 d^2) / 4", .best_for = "long context at near full quality"},
    {.family = "beyond",
     .name = "moe",
     .opaque = true,
     .open = mixture_open,
     .step = mixture_step,
     .title = "attention, then 2 of 8 expert networks for each row",
     .paper = "Jiang et al. 2024, arXiv:2401.04088, section 2.1; Fedus et al. 2021, arXiv:2101.03961",
     .formula = "o_t = a_t + sum of the 2 best experts e: softmax(W_r a_t)_e W2_e (silu(W1_e a_t) * W3_e a_t),   "
                "a = causal attention\n",
     .prefill = "O(n^2 d + n D^2), D = heads d",
     .decode = "O(n d + D^2)",
     .memory = "2 n d",
     .best_for = "many parameters at the cost of few"},
    {0}};
