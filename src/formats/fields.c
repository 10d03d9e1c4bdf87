// fields: see fields.h. Sources: github.com/ggml-org/llama.cpp, gguf-py/gguf/constants.py;
// huggingface.co/docs/transformers, "model_doc".
#include "fields.h"

#include <limits.h>
#include <string.h>

static int copy(Field to[MAX_FIELDS], const Field *from, size_t n) {
    memcpy(to, from, n * sizeof *from);
    return (int)n;
}

int fields_of_shape(Config *c, const Family *f, Field list[MAX_FIELDS]) {
    const Field all[] = {
        {"embedding_length", {"hidden_size", "n_embd", "n_embed", "d_model"}, &c->dim, 1, FIELD_REQUIRED},
        {"block_count", {"num_hidden_layers", "n_layer", "n_layers"}, &c->n_layers, 1, FIELD_REQUIRED},
        {"context_length",
         {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"},
         &c->max_seq_len,
         1,
         f->default_context ? f->default_context : FIELD_REQUIRED},
        {"expert_count", {"num_local_experts", "num_experts", "n_routed_experts"}, &c->n_experts, 0, 0},
        {"attention.head_count", {"num_attention_heads", "n_head", "n_heads"}, &c->kinds[0].n_heads, 1, FIELD_REQUIRED},
    };
    return copy(list, all, sizeof all / sizeof *all - f->no_attention);
}

int fields_of_heads(Config *c, Field list[MAX_FIELDS]) {
    LayerKind *k = &c->kinds[0];
    const Field all[] = {
        {"attention.head_count_kv", {"num_key_value_heads"}, &k->n_kv_heads, 1, k->n_heads},
        {"attention.key_length", {"head_dim", "attention_head_dim"}, &k->k_dim, 1, 0},
    };
    return copy(list, all, sizeof all / sizeof *all);
}

int fields_of_latent(Config *c, Field list[MAX_FIELDS]) {
    LayerKind *k = &c->kinds[0];
    const Field all[] = {
        {"attention.q_lora_rank", {"q_lora_rank"}, &k->latent.q_rank, 1, 0},
        {"attention.kv_lora_rank", {"kv_lora_rank"}, &k->v_dim, 1, FIELD_REQUIRED},
        {"rope.dimension_count", {"qk_rope_head_dim"}, &k->rope.rotary_dim, 2, FIELD_REQUIRED},
    };
    return copy(list, all, sizeof all / sizeof *all);
}

void latent_set_cache(LayerKind *k) {
    double width = (double)k->v_dim + k->rope.rotary_dim;
    k->n_kv_heads = 1;
    k->k_dim = width < INT_MAX ? (int)width : INT_MAX; // refused by config_check
}

void router_set_shared(Config *c, int n) {
    double width = (double)n * config_expert_dim(c);
    c->shared_dim = width < INT_MAX ? (int)width : INT_MAX; // the same
}

void router_set_dense(LayerRules *rules, int n) {
    for (int i = 0; i < n && i < MAX_LAYERS; i++) layers_add(&rules->dense, i);
}

int fields_of_feed_forward(Config *c, const Family *f, Field list[MAX_FIELDS]) {
    int usual = c->dim <= INT_MAX / 4 ? f->default_hidden * c->dim : 0;
    const Field all[] = {
        {"feed_forward_length",
         {"intermediate_size", "n_inner", "ffn_hidden_size", "block_ff_dim"},
         &c->hidden_dim,
         1,
         usual > 0 || f->hidden_step || c->n_experts ? usual : FIELD_REQUIRED},
        {"expert_used_count", {"num_experts_per_tok", "experts_per_token"}, &c->n_experts_used, 1, FIELD_REQUIRED},
        {"expert_shared_feed_forward_length",
         {"shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"},
         &c->shared_dim,
         0,
         0},
        {"expert_feed_forward_length", {"moe_intermediate_size"}, &c->expert_dim, 1, 0},
    };
    return copy(list, all, c->n_experts ? sizeof all / sizeof *all : 1);
}

int fields_of_state(StateShape *state, MixerKind mixer, Field list[MAX_FIELDS]) {
    const Field delta[] = {
        {"ssm.conv_kernel", {"linear_conv_kernel_dim"}, &state->conv_width, 1, FIELD_REQUIRED},
        {"ssm.state_size", {"linear_key_head_dim"}, &state->k_dim, 1, FIELD_REQUIRED},
        {"ssm.group_count", {"linear_num_key_heads"}, &state->n_key_heads, 1, FIELD_REQUIRED},
        {"ssm.time_step_rank", {"linear_num_value_heads"}, &state->n_heads, 1, FIELD_REQUIRED},
    };
    const Field ssm[] = {
        {"ssm.conv_kernel", {"mamba_d_conv", "conv_kernel"}, &state->conv_width, 1, FIELD_REQUIRED},
        {"ssm.state_size", {"mamba_d_state", "ssm_state_size", "state_size"}, &state->k_dim, 1, FIELD_REQUIRED},
        {"ssm.group_count", {"mamba_n_groups", "n_groups"}, &state->n_key_heads, 1, FIELD_REQUIRED},
        {"ssm.time_step_rank", {"mamba_n_heads", "mamba_num_heads", "num_heads"}, &state->n_heads, 1, FIELD_REQUIRED},
    };
    const Field mamba[] = {
        {"ssm.conv_kernel", {"mamba_d_conv", "conv_kernel"}, &state->conv_width, 1, FIELD_REQUIRED},
        {"ssm.state_size", {"mamba_d_state", "state_size"}, &state->k_dim, 1, FIELD_REQUIRED},
    };
    const Field rwkv[] = {{"wkv.head_size", {"head_dim", "head_size"}, &state->k_dim, 1, FIELD_REQUIRED}};
    const Field conv[] = {{"shortconv.l_cache", {"conv_L_cache"}, &state->conv_width, 1, FIELD_REQUIRED}};
    if (mixer == MIX_SSM || mixer == MIX_SSM_ATTENTION) return copy(list, ssm, sizeof ssm / sizeof *ssm);
    if (mixer == MIX_MAMBA) return copy(list, mamba, sizeof mamba / sizeof *mamba);
    if (mixer == MIX_RWKV6 || mixer == MIX_RWKV7) return copy(list, rwkv, 1);
    if (mixer == MIX_CONV) return copy(list, conv, 1);
    return mixer == MIX_DELTA ? copy(list, delta, sizeof delta / sizeof *delta) : 0;
}

void state_set_channels(StateShape *s, MixerKind mixer, int dim) {
    double values = (double)s->n_heads * s->v_dim, keys = (double)s->n_key_heads * s->k_dim, n = 0;
    if (mixer != MIX_RWKV7) n = 2 * keys + values;
    if (mixer == MIX_MAMBA) n = values;
    if (mixer == MIX_CONV) n = dim;
    s->conv_dim = n < INT_MAX ? (int)n : INT_MAX; // refused by config_check
}

void state_set_shifts(StateShape *s, MixerKind mixer, int dim) {
    s->n_key_heads = s->n_heads;
    s->conv_width = 2;                                   // of the time mixing, and behind it the channel mixing
    s->conv_dim = dim < INT_MAX / 2 ? 2 * dim : INT_MAX; // refused by config_check
    s->pairs = mixer == MIX_RWKV7 ? 2 : 1;
}

bool state_set_heads(StateShape *s, MixerKind mixer, int dim) {
    if (dim % s->k_dim) return false;
    s->n_heads = dim / s->k_dim;
    s->v_dim = s->k_dim;
    state_set_shifts(s, mixer, dim);
    return true;
}

bool field_by_layer(const Field *f, const Config *c) {
    const LayerKind *k = &c->kinds[0];
    return f->value == &k->n_heads || f->value == &k->n_kv_heads || f->value == &c->hidden_dim;
}

LayerSet *field_zeros(const Field *f, const Config *c, const Family *family, LayerRules *rules) {
    if (family->zeros_by_layer && f->value == &c->kinds[0].n_kv_heads) return &rules->recurrent;
    return family->one_sublayer && f->value == &c->hidden_dim ? &rules->bare : NULL;
}

void field_take_zeros(int *numbers, int n, LayerSet *without) {
    int first = 0;
    while (first < n && !numbers[first]) first++;
    for (int i = 0; i < n; i++) {
        if (numbers[i]) continue;
        layers_add(without, i);
        numbers[i] = first < n ? numbers[first] : 1;
    }
}

int field_set_layers(const Field *f, const Config *c, const int *numbers, LayerRules *rules) {
    const LayerKind *k = &c->kinds[0];
    int *layers = f->value == &k->n_heads ? rules->n_heads : f->value == &k->n_kv_heads ? rules->n_kv_heads : NULL;
    *f->value = numbers[0];
    for (int i = 0; i < c->n_layers; i++) {
        if (layers) layers[i] = numbers[i];
        else if (numbers[i] != numbers[0]) return i;
    }
    return -1;
}

bool fields_default_width(Config *c) {
    LayerKind *k = &c->kinds[0];
    if (!k->k_dim && k->n_heads > 0 && c->dim % k->n_heads == 0) k->k_dim = c->dim / k->n_heads;
    k->v_dim = k->k_dim;
    return k->k_dim > 0;
}
