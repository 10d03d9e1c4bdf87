// gguf_types: see gguf_types.h.
#include "gguf_types.h"

#include "kernels.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

// ---- mixes

// The layers of a rule.
typedef enum {
    NOWHERE,
    EVERYWHERE,
    FIRST_2,
    FIRST_4,
    FIRST_16TH,
    FIRST_8TH,
    MORE_BITS,    // the first and the last eighth, and every third between
    MANY_QUERIES, // every layer of a model with four heads of queries or more to a head of keys
} Where;

typedef struct {
    Where where;
    DType type;
} Rule;

enum { MAX_RULES = 2 };

// The first rule that holds says the type, else it is `base`. The output matrix becomes Q6_K, unless base is Q8_0.
// values: of attention, fused projections too; down: the last matrix of a feed-forward network or of its experts; out:
// the output of attention.
typedef struct MixRules {
    const char *name, *alias;
    DType base;
    uint32_t file_type;
    Rule values[MAX_RULES], down[MAX_RULES], out, embedding; // embedding: of one that is not the output too
    bool eight_out;                                          // with eight experts, `out` is Q5_K
} MixRules;

static const MixRules mixes[] = {
    {.name = "Q8_0", .base = DTYPE_Q8_0, .file_type = 7},
    {.name = "Q4_0", .base = DTYPE_Q4_0, .file_type = 2},
    {.name = "Q4_1", .base = DTYPE_Q4_1, .file_type = 3},
    {.name = "Q5_0", .base = DTYPE_Q5_0, .file_type = 8},
    {.name = "Q5_1", .base = DTYPE_Q5_1, .file_type = 9},
    {"IQ4_NL", NULL, DTYPE_IQ4_NL, 25, .values = {{MANY_QUERIES, DTYPE_Q5_K}}, .down = {{FIRST_8TH, DTYPE_Q5_K}},
     .eight_out = true},
    {"IQ4_XS", NULL, DTYPE_IQ4_XS, 30, .values = {{MANY_QUERIES, DTYPE_Q5_K}}, .down = {{FIRST_8TH, DTYPE_Q5_K}},
     .eight_out = true},
    {.name = "TQ1_0", .base = DTYPE_TQ1_0, .file_type = 36, .embedding = {EVERYWHERE, DTYPE_Q4_K}},
    {.name = "TQ2_0", .base = DTYPE_TQ2_0, .file_type = 37, .embedding = {EVERYWHERE, DTYPE_Q4_K}},
    {"Q2_K", NULL, DTYPE_Q2_K, 10, .values = {{MANY_QUERIES, DTYPE_Q4_K}, {EVERYWHERE, DTYPE_Q3_K}},
     .down = {{EVERYWHERE, DTYPE_Q3_K}}, .out = {EVERYWHERE, DTYPE_Q3_K}, .eight_out = true},
    {.name = "Q3_K_S", .base = DTYPE_Q3_K, .file_type = 11, .eight_out = true},
    {"Q3_K_M", "Q3_K", DTYPE_Q3_K, 12, .values = {{FIRST_2, DTYPE_Q5_K}, {EVERYWHERE, DTYPE_Q4_K}},
     .down = {{FIRST_16TH, DTYPE_Q5_K}, {EVERYWHERE, DTYPE_Q4_K}}, .out = {EVERYWHERE, DTYPE_Q4_K}, .eight_out = true},
    {"Q3_K_L", NULL, DTYPE_Q3_K, 13, .values = {{EVERYWHERE, DTYPE_Q5_K}}, .down = {{EVERYWHERE, DTYPE_Q5_K}},
     .out = {EVERYWHERE, DTYPE_Q5_K}},
    {"Q4_K_S", NULL, DTYPE_Q4_K, 14, .values = {{FIRST_4, DTYPE_Q5_K}}, .down = {{FIRST_8TH, DTYPE_Q5_K}},
     .eight_out = true},
    {"Q4_K_M", "Q4_K", DTYPE_Q4_K, 15, .values = {{MORE_BITS, DTYPE_Q6_K}}, .down = {{MORE_BITS, DTYPE_Q6_K}},
     .eight_out = true},
    {.name = "Q5_K_S", .base = DTYPE_Q5_K, .file_type = 16},
    {"Q5_K_M", "Q5_K", DTYPE_Q5_K, 17, .values = {{MORE_BITS, DTYPE_Q6_K}}, .down = {{MORE_BITS, DTYPE_Q6_K}}},
    {.name = "Q6_K", .base = DTYPE_Q6_K, .file_type = 18},
    {.name = "F32", .base = DTYPE_F32, .file_type = 0},
    {.name = "F16", .base = DTYPE_F16, .file_type = 1},
    {.name = "BF16", .base = DTYPE_BF16, .file_type = 32},
};

enum { N_MIXES = sizeof mixes / sizeof *mixes, MANY = 4, EIGHT = 8, LAYERS_OF_70B = 80 };

GgufMix gguf_mix_named(const char *name, bool pure) {
    for (int i = 0; i < N_MIXES; i++) {
        bool alias = mixes[i].alias && !strcasecmp(name, mixes[i].alias);
        if (alias || !strcasecmp(name, mixes[i].name)) return (GgufMix){.rules = &mixes[i], .pure = pure};
    }
    return (GgufMix){0};
}

const char *gguf_mix_name(GgufMix mix) {
    return mix.rules->name;
}

uint32_t gguf_file_type(GgufMix mix) {
    return mix.rules->file_type;
}

static bool holds(Where where, const MixModel *m, int layer) {
    int n = m->n_layers;
    switch (where) {
    case EVERYWHERE: return true;
    case FIRST_2: return layer < 2;
    case FIRST_4: return layer < 4;
    case FIRST_16TH: return layer < n / 16;
    case FIRST_8TH: return layer < n / 8;
    case MORE_BITS: return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
    case MANY_QUERIES: return m->n_queries >= MANY;
    default: return false;
    }
}

static DType by_rules(const Rule *rules, int n, DType base, const MixModel *m, int layer) {
    for (int i = 0; i < n; i++) {
        if (holds(rules[i].where, m, layer)) return rules[i].type;
    }
    return base;
}

static DType type_of_values(const MixRules *mix, const MixModel *m, int layer) {
    DType type = by_rules(mix->values, MAX_RULES, mix->base, m, layer);
    bool small = m->n_layers == LAYERS_OF_70B && m->n_queries > 1; // beside the other matrices of these models
    if (m->n_experts == EIGHT) return DTYPE_Q8_0;
    return small && (type == DTYPE_Q3_K || type == DTYPE_Q4_K) ? DTYPE_Q5_K : type;
}

static bool divides(DType type, int64_t cols) {
    return cols % dtype_info(type)->block == 0;
}

static DType type_of_output(const MixRules *mix, int64_t cols) {
    return mix->base == DTYPE_Q8_0 || !divides(mix->base, cols) ? DTYPE_Q8_0 : DTYPE_Q6_K;
}

// What the mix says of a matrix, of rows of any size.
static DType type_in_mix(const MixRules *mix, const MixModel *m, const MixMatrix *x) {
    const char *part = x->part;
    if (dtype_info(mix->base)->block == 1) return mix->base;
    if (!strcmp(part, m->tied ? "token_embd" : "output")) return type_of_output(mix, x->cols);
    if (!strcmp(part, "token_embd")) return by_rules(&mix->embedding, 1, mix->base, m, x->layer);
    if (!strcmp(part, "attn_v") || !strcmp(part, "attn_qkv")) return type_of_values(mix, m, x->layer);
    if (!strcmp(part, "attn_k")) return m->n_experts == EIGHT ? DTYPE_Q8_0 : mix->base;
    if (!strncmp(part, "ffn_down", 8)) return by_rules(mix->down, MAX_RULES, mix->base, m, x->layer);
    if (strcmp(part, "attn_output") != 0) return mix->base;
    if (m->n_experts == EIGHT) return mix->eight_out ? DTYPE_Q5_K : mix->base;
    return by_rules(&mix->out, 1, mix->base, m, x->layer);
}

// A type of blocks of 32 for rows that blocks of 256 do not divide, then F16.
static DType fallback(DType type, int64_t cols) {
    static const struct {
        DType type, small;
    } list[] = {{DTYPE_Q2_K, DTYPE_Q4_0},  {DTYPE_Q3_K, DTYPE_Q4_0}, {DTYPE_Q4_K, DTYPE_Q5_0},
                {DTYPE_Q5_K, DTYPE_Q5_1},  {DTYPE_Q6_K, DTYPE_Q8_0}, {DTYPE_IQ4_XS, DTYPE_IQ4_NL},
                {DTYPE_TQ1_0, DTYPE_Q4_0}, {DTYPE_TQ2_0, DTYPE_Q4_0}};
    for (size_t i = 0; i < sizeof list / sizeof *list && !divides(type, cols); i++) {
        if (type == list[i].type) type = list[i].small;
    }
    return divides(type, cols) ? type : DTYPE_F16;
}

static DType type_wanted(GgufMix mix, const MixModel *m, const MixMatrix *x) {
    if (mix.output && !strcmp(x->part, "output")) return mix.output->base;
    if (mix.embedding && !strcmp(x->part, "token_embd")) return mix.embedding->base;
    return mix.pure ? mix.rules->base : type_in_mix(mix.rules, m, x);
}

DType gguf_mix_type(GgufMix mix, const MixModel *m, const MixMatrix *x, TypeCount *count) {
    bool mxfp4 = x->from == DTYPE_MXFP4 || x->from == DTYPE_MXFP4_SPLIT;
    DType base = mix.rules->base, wanted = type_wanted(mix, m, x);
    DType type = fallback(wanted, x->cols);
    if (mxfp4 && dtype_info(base)->block > 1) type = DTYPE_MXFP4;
    count->n_matrices++;
    count->n_other[type] += type != wanted;
    return type;
}

void gguf_type_note(const TypeCount *c, GgufMix mix) {
    int n = 0, n_mxfp4 = c->n_other[DTYPE_MXFP4];
    char list[200] = "";
    size_t at = 0;
    for (DType d = 0; d < N_DTYPES; d++) {
        if (!c->n_other[d] || d == DTYPE_MXFP4) continue;
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%d %s", n ? ", " : "", c->n_other[d], dtype_name(d));
        n += c->n_other[d];
    }
    if (n) {
        fprintf(stderr, "note: %s: blocks do not divide the rows of %d of %d matrices, which became: %s\n",
                mix.rules->name, n, c->n_matrices, list);
    }
    if (n_mxfp4) {
        fprintf(stderr, "note: %s: %d of %d matrices are MXFP4 already and were copied\n", mix.rules->name, n_mxfp4,
                c->n_matrices);
    }
}

// ---- rows

static const struct {
    DType dtype;
    void (*pack)(void *blocks, const float *x, int64_t n);
} packs[] = {{DTYPE_Q8_0, pack_q8_0},   {DTYPE_Q4_0, pack_q4_0},     {DTYPE_Q4_1, pack_q4_1},
             {DTYPE_Q5_0, pack_q5_0},   {DTYPE_Q5_1, pack_q5_1},     {DTYPE_Q2_K, pack_q2_k},
             {DTYPE_Q3_K, pack_q3_k},   {DTYPE_Q4_K, pack_q4_k},     {DTYPE_Q5_K, pack_q5_k},
             {DTYPE_Q6_K, pack_q6_k},   {DTYPE_IQ4_NL, pack_iq4_nl}, {DTYPE_IQ4_XS, pack_iq4_xs},
             {DTYPE_TQ1_0, pack_tq1_0}, {DTYPE_TQ2_0, pack_tq2_0}};

enum { N_PACKS = sizeof packs / sizeof *packs };

size_t dtype_row_bytes(DType d, int64_t cols) {
    return (size_t)(cols / dtype_info(d)->block * dtype_info(d)->block_bytes);
}

void values_pack(DType d, void *to, const float *x, int64_t n) {
    uint16_t *half = to;
    if (d == DTYPE_F32) memcpy(to, x, sizeof *x * (size_t)n);
    else if (d == DTYPE_F16) {
        for (int64_t i = 0; i < n; i++) half[i] = f16_from_f32(x[i]);
    } else if (d == DTYPE_BF16) {
        for (int64_t i = 0; i < n; i++) half[i] = bf16_from_f32(x[i]);
    } else {
        for (int i = 0; i < N_PACKS; i++) {
            if (packs[i].dtype == d) packs[i].pack(to, x, n / dtype_info(d)->block);
        }
    }
}

void values_unpack(DType d, float *x, const void *from, int64_t n) {
    const Kernels *k = kernels_for(LEVEL_SCALAR);
    if (d == DTYPE_F32) memcpy(x, from, sizeof *x * (size_t)n);
    else if (d == DTYPE_F16) k->f32_from_f16(x, n, from, n, 1, (int)n);
    else if (d == DTYPE_BF16) k->f32_from_bf16(x, n, from, n, 1, (int)n);
    else dtype_info(d)->unpack(x, from, n / dtype_info(d)->block);
}

void row_unpack(float *x, const Tensor *t, int64_t row) {
    int64_t cols = t->shape[t->n_dims - 1], n_blocks = cols / BLOCK;
    const uint8_t *data = t->data;
    if (t->dtype == DTYPE_I8G) {
        kernels()->unpack_i8g(x, t->data, t->scales, t->group, row * cols, (int)cols);
        return;
    }
    data += (size_t)row * dtype_row_bytes(t->dtype, cols);
    if (t->dtype == DTYPE_MXFP4_SPLIT) {
        unpack_mxfp4_split(x, data, (const uint8_t *)t->scales + row * n_blocks, n_blocks);
    } else {
        values_unpack(t->dtype, x, data, cols);
    }
}

void row_copy(void *to, const Tensor *t, int64_t row) {
    int64_t cols = t->shape[t->n_dims - 1], n_blocks = cols / BLOCK;
    size_t bytes = dtype_row_bytes(t->dtype, cols);
    const uint8_t *from = (const uint8_t *)t->data + (size_t)row * bytes;
    if (t->dtype == DTYPE_MXFP4_SPLIT) join_mxfp4(to, from, (const uint8_t *)t->scales + row * n_blocks, n_blocks);
    else memcpy(to, from, bytes);
}
