// families: see families.h. Sources: the papers named in config.h, the models' config.json and Hugging Face's
// documentation of each; GGUF's names from github.com/ggml-org/llama.cpp, gguf-py/gguf/constants.py.
#include "families.h"

#include <stdio.h>
#include <string.h>

// ---- names

static const PartName llama_names[] = {
    {"token_embd", "embed_tokens"},
    {"output_norm", "norm"},
    {"output", "/lm_head"},
    {"rope_factors_long", "/rope_factors_long"},
    {"rope_factors_short", "/rope_factors_short"},
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_qkv", "self_attn.qkv_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_sinks", "self_attn.sinks"},
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_a_norm", "self_attn.q_a_layernorm"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exp", "mlp.experts.#.gate_proj"},
    {"ffn_up_exp", "mlp.experts.#.up_proj"},
    {"ffn_down_exp", "mlp.experts.#.down_proj"},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj"},
    {"ffn_gate_up_exps", "mlp.experts.gate_up_proj"},
    {"ffn_down_exps", "mlp.experts.down_proj"},
    {0},
};

static const PartName mixtral_names[] = {
    {"ffn_gate_inp", "block_sparse_moe.gate"},
    {"ffn_gate_exp", "block_sparse_moe.experts.#.w1"},
    {"ffn_up_exp", "block_sparse_moe.experts.#.w3"},
    {"ffn_down_exp", "block_sparse_moe.experts.#.w2"},
    {0},
};

static const PartName llama4_names[] = {{"ffn_gate", "feed_forward.gate_proj"},
                                        {"ffn_up", "feed_forward.up_proj"},
                                        {"ffn_down", "feed_forward.down_proj"},
                                        {"ffn_gate_inp", "feed_forward.router"},
                                        {"ffn_gate_up_exps", "feed_forward.experts.gate_up_proj"},
                                        {"ffn_down_exps", "feed_forward.experts.down_proj"},
                                        {"ffn_gate_shexp", "feed_forward.shared_expert.gate_proj"},
                                        {"ffn_up_shexp", "feed_forward.shared_expert.up_proj"},
                                        {"ffn_down_shexp", "feed_forward.shared_expert.down_proj"},
                                        {0}};

static const PartName post_norm_names[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
    {0},
};

static const PartName phi2_names[] = {{"output_norm", "final_layernorm"},
                                      {"attn_output", "self_attn.dense"},
                                      {"ffn_up", "mlp.fc1"},
                                      {"ffn_down", "mlp.fc2"},
                                      {0}};
static const PartName stablelm_names[] = {
    {"attn_q_norm", "self_attn.q_layernorm.norms.#"}, {"attn_k_norm", "self_attn.k_layernorm.norms.#"}, {0}};
static const PartName glm_names[] = {{"ffn_up", "mlp.gate_up_proj"}, {0}};
static const PartName glm4_names[] = {{"ffn_up", "mlp.gate_up_proj"},
                                      {"post_attention_norm", "post_self_attn_layernorm"},
                                      {"post_ffw_norm", "post_mlp_layernorm"},
                                      {0}};
static const PartName hunyuan_names[] = {
    {"attn_q_norm", "self_attn.query_layernorm"}, {"attn_k_norm", "self_attn.key_layernorm"}, {0}};
static const PartName seed_oss_gguf_names[] = {{"ffn_norm", "post_attention_norm"}, {0}};

static const PartName internlm2_names[] = {
    {"token_embd", "tok_embeddings"}, {"output", "/output"},
    {"attn_norm", "attention_norm"},  {"attn_qkv", "attention.wqkv"},
    {"attn_output", "attention.wo"},  {"ffn_norm", "ffn_norm"},
    {"ffn_gate", "feed_forward.w1"},  {"ffn_up", "feed_forward.w3"},
    {"ffn_down", "feed_forward.w2"},  {0},
};

static const PartName apertus_names[] = {{"attn_norm", "attention_layernorm"},
                                         {"ffn_norm", "feedforward_layernorm"},
                                         {"xielu_alpha_p", "mlp.act_fn.alpha_p"},
                                         {"xielu_alpha_n", "mlp.act_fn.alpha_n"},
                                         {"xielu_beta", "mlp.act_fn.beta"},
                                         {"xielu_eps", "mlp.act_fn.eps"},
                                         {0}};

#define BLOOM_NAMES                                                                                                    \
    {"token_embd", "word_embeddings"}, {"output_norm", "ln_f"}, {"attn_qkv", "self_attention.query_key_value"},        \
        {"attn_output", "self_attention.dense"}, {"ffn_up", "mlp.dense_h_to_4h"}, {                                    \
        "ffn_down", "mlp.dense_4h_to_h"                                                                                \
    }
static const PartName bloom_names[] = {BLOOM_NAMES, {"token_embd_norm", "word_embeddings_layernorm"}, {0}};
static const PartName falcon_names[] = {BLOOM_NAMES, {0}};
static const PartName falcon_40b_names[] = {BLOOM_NAMES, {"attn_norm", "ln_attn"}, {"ffn_norm", "ln_mlp"}, {0}};
static const PartName falcon_40b_gguf_names[] = {{"attn_norm", "attn_norm_2"}, {"ffn_norm", "attn_norm"}, {0}};

static const PartName mpt_names[] = {
    {"token_embd", "wte"},     {"output_norm", "norm_f"},        {"attn_norm", "norm_1"},
    {"attn_qkv", "attn.Wqkv"}, {"attn_output", "attn.out_proj"}, {"ffn_norm", "norm_2"},
    {"ffn_up", "ffn.up_proj"}, {"ffn_down", "ffn.down_proj"},    {0},
};

#define DELTA_NAMES                                                                                                    \
    {"ssm_conv1d", "linear_attn.conv1d"}, {"ssm_a", "linear_attn.A_log"}, {"ssm_dt", "linear_attn.dt_bias"},           \
        {"ssm_norm", "linear_attn.norm"}, {                                                                            \
        "ssm_out", "linear_attn.out_proj"                                                                              \
    }
static const PartName qwen3next_names[] = {
    DELTA_NAMES, {"ssm_in", "linear_attn.in_proj_qkvz"}, {"ssm_ba", "linear_attn.in_proj_ba"}, {0}};
static const PartName qwen35_names[] = {DELTA_NAMES,
                                        {"attn_qkv", "linear_attn.in_proj_qkv"},
                                        {"attn_gate", "linear_attn.in_proj_z"},
                                        {"ssm_beta", "linear_attn.in_proj_b"},
                                        {"ssm_alpha", "linear_attn.in_proj_a"},
                                        {0}};
static const PartName delta_gguf_names[] = {{"ffn_norm", "post_attention_norm"}, {0}};

// Of flash-linear-attention.
static const PartName rwkv7_names[] = {{"token_embd", "embeddings"},
                                       {"token_embd_norm", "layers.0.pre_norm"},
                                       {"attn_norm", "attn_norm"},
                                       {"ffn_norm", "ffn_norm"},
                                       {"time_mix_lerp_fused", "attn.x_x"},
                                       {"time_mix_lerp_r", "attn.x_r"},
                                       {"time_mix_lerp_w", "attn.x_w"},
                                       {"time_mix_lerp_k", "attn.x_k"},
                                       {"time_mix_lerp_v", "attn.x_v"},
                                       {"time_mix_lerp_a", "attn.x_a"},
                                       {"time_mix_lerp_g", "attn.x_g"},
                                       {"time_mix_w1", "attn.w_lora.lora.0"},
                                       {"time_mix_w2", "attn.w_lora.lora.2"},
                                       {"time_mix_a1", "attn.a_lora.lora.0"},
                                       {"time_mix_a2", "attn.a_lora.lora.2"},
                                       {"time_mix_v1", "attn.v_lora.lora.0"},
                                       {"time_mix_v2", "attn.v_lora.lora.2"},
                                       {"time_mix_g1", "attn.g_lora.lora.0"},
                                       {"time_mix_g2", "attn.g_lora.lora.2"},
                                       {"time_mix_k_k", "attn.k_k"},
                                       {"time_mix_k_a", "attn.k_a"},
                                       {"time_mix_r_k", "attn.r_k"},
                                       {"time_mix_receptance", "attn.r_proj"},
                                       {"time_mix_key", "attn.k_proj"},
                                       {"time_mix_value", "attn.v_proj"},
                                       {"time_mix_output", "attn.o_proj"},
                                       {"time_mix_ln", "attn.g_norm"},
                                       {"channel_mix_lerp_k", "ffn.x_k"},
                                       {"channel_mix_key", "ffn.key"},
                                       {"channel_mix_value", "ffn.value"},
                                       {0}};
// ARWKV.
static const PartName arwkv7_names[] = {{"time_mix_lerp_fused", "self_attn.time_mixer.x_x"},
                                        {"time_mix_lerp_r", "self_attn.time_mixer.x_r"},
                                        {"time_mix_lerp_w", "self_attn.time_mixer.x_w"},
                                        {"time_mix_lerp_k", "self_attn.time_mixer.x_k"},
                                        {"time_mix_lerp_v", "self_attn.time_mixer.x_v"},
                                        {"time_mix_lerp_a", "self_attn.time_mixer.x_a"},
                                        {"time_mix_lerp_g", "self_attn.time_mixer.x_g"},
                                        {"time_mix_w0", "self_attn.time_mixer.w0"},
                                        {"time_mix_w1", "self_attn.time_mixer.w1"},
                                        {"time_mix_w2", "self_attn.time_mixer.w2"},
                                        {"time_mix_a0", "self_attn.time_mixer.a0"},
                                        {"time_mix_a1", "self_attn.time_mixer.a1"},
                                        {"time_mix_a2", "self_attn.time_mixer.a2"},
                                        {"time_mix_v0", "self_attn.time_mixer.v0"},
                                        {"time_mix_v1", "self_attn.time_mixer.v1"},
                                        {"time_mix_v2", "self_attn.time_mixer.v2"},
                                        {"time_mix_g1", "self_attn.time_mixer.g1"},
                                        {"time_mix_g2", "self_attn.time_mixer.g2"},
                                        {"time_mix_k_k", "self_attn.time_mixer.k_k"},
                                        {"time_mix_k_a", "self_attn.time_mixer.k_a"},
                                        {"time_mix_r_k", "self_attn.time_mixer.r_k"},
                                        {"time_mix_receptance", "self_attn.time_mixer.receptance"},
                                        {"time_mix_key", "self_attn.time_mixer.key"},
                                        {"time_mix_value", "self_attn.time_mixer.value"},
                                        {"time_mix_output", "self_attn.time_mixer.output"},
                                        {"time_mix_ln", "self_attn.time_mixer.ln_x"},
                                        {0}};
static const PartName linear_names[] = {{"token_embd", "embeddings"},
                                        {"attn_norm", "attn_norm"},
                                        {"ffn_norm", "mlp_norm"},
                                        {"attn_q", "attn.q_proj"},
                                        {"attn_k", "attn.k_proj"},
                                        {"attn_v", "attn.v_proj"},
                                        {"attn_gate", "attn.g_proj"},
                                        {"attn_output", "attn.o_proj"},
                                        {"gated_norm", "attn.g_norm_swish_gate"},
                                        {"head_norm", "attn.g_norm"},
                                        {"decay_a", "attn.gk_proj.0"},
                                        {"decay_b", "attn.gk_proj.1"},
                                        {0}};
static const PartName linear_attn_names[] = {{"token_embd", "embeddings"},
                                             {"attn_norm", "attn_norm"},
                                             {"ffn_norm", "mlp_norm"},
                                             {"attn_q", "attn.q_proj"},
                                             {"attn_k", "attn.k_proj"},
                                             {"attn_v", "attn.v_proj"},
                                             {"attn_output", "attn.o_proj"},
                                             {"gated_norm", "attn.g_norm_swish_gate"},
                                             {"head_norm", "attn.norm"},
                                             {"map_q", "attn.feature_map_q.layer"},
                                             {"map_q1", "attn.feature_map_q.layer1"},
                                             {"map_q2", "attn.feature_map_q.layer2"},
                                             {"map_k", "attn.feature_map_k.layer"},
                                             {"map_k1", "attn.feature_map_k.layer1"},
                                             {"map_k2", "attn.feature_map_k.layer2"},
                                             {"map_random", "attn.feature_map.projection"},
                                             {0}};
// Hyena's operator in Llama's layers; its parts are called as in github.com/HazyResearch/safari.
static const PartName hyena_names[] = {{"hyena_in", "mixer.in_proj"},
                                       {"hyena_conv", "mixer.short_filter"},
                                       {"hyena_out", "mixer.out_proj"},
                                       {"hyena_skip", "mixer.filter_fn.bias"},
                                       {"hyena_decay", "mixer.filter_fn.modulation.deltas"},
                                       {"hyena_filter_0", "mixer.filter_fn.implicit_filter.0"},
                                       {"hyena_filter_1", "mixer.filter_fn.implicit_filter.2"},
                                       {"hyena_filter_2", "mixer.filter_fn.implicit_filter.4"},
                                       {"hyena_filter_3", "mixer.filter_fn.implicit_filter.6"},
                                       {0}};
static const PartName rwkv6_names[] = {{"token_embd", "embeddings"},
                                       {"token_embd_norm", "layers.0.pre_norm"},
                                       {"attn_norm", "attn_norm"},
                                       {"ffn_norm", "ffn_norm"},
                                       {"time_mix_lerp_x", "attn.x_proj.0.mu"},
                                       {"time_mix_lerp_fused", "attn.x_bias"},
                                       {"time_mix_w1", "attn.x_proj.0.linear"},
                                       {"time_mix_w2", "attn.x_proj.2"},
                                       {"time_mix_decay_w1", "attn.w_proj.linear.lora.0"},
                                       {"time_mix_decay_w2", "attn.w_proj.linear.lora.2"},
                                       {"time_mix_first", "attn.bonus"},
                                       {"time_mix_receptance", "attn.r_proj.linear"},
                                       {"time_mix_key", "attn.k_proj.linear"},
                                       {"time_mix_value", "attn.v_proj.linear"},
                                       {"time_mix_gate", "attn.g_proj.linear"},
                                       {"time_mix_output", "attn.o_proj"},
                                       {"time_mix_ln", "attn.g_norm"},
                                       {"channel_mix_lerp_k", "ffn.key.mu"},
                                       {"channel_mix_lerp_r", "ffn.receptance.mu"},
                                       {"channel_mix_key", "ffn.key.linear"},
                                       {"channel_mix_receptance", "ffn.receptance.linear"},
                                       {"channel_mix_value", "ffn.value"},
                                       {0}};
// LFM2. The norm behind the last layer has the name of one behind the embedding, in GGUF also of what it is.
static const PartName lfm2_names[] = {{"output_norm", "embedding_norm"},
                                      {"attn_norm", "operator_norm"},
                                      {"attn_output", "self_attn.out_proj"},
                                      {"attn_q_norm", "self_attn.q_layernorm"},
                                      {"attn_k_norm", "self_attn.k_layernorm"},
                                      {"shortconv.in_proj", "conv.in_proj"},
                                      {"shortconv.conv", "conv.conv"},
                                      {"shortconv.out_proj", "conv.out_proj"},
                                      {"ffn_norm", "ffn_norm"},
                                      {"ffn_gate", "feed_forward.w1"},
                                      {"ffn_up", "feed_forward.w3"},
                                      {"ffn_down", "feed_forward.w2"},
                                      {"ffn_gate_inp", "feed_forward.gate"},
                                      {"exp_probs_b", "feed_forward.expert_bias"},
                                      {"ffn_gate_exp", "feed_forward.experts.#.w1"},
                                      {"ffn_up_exp", "feed_forward.experts.#.w3"},
                                      {"ffn_down_exp", "feed_forward.experts.#.w2"},
                                      {"ffn_gate_up_exps", "feed_forward.experts.gate_up_proj"},
                                      {"ffn_down_exps", "feed_forward.experts.down_proj"},
                                      {0}};
static const PartName lfm2_gguf_names[] = {
    {"output_norm", "token_embd_norm"}, {"output_norm_other", "output_norm"}, {0}};
static const PartName rwkv_gguf_names[] = {{"ffn_norm", "attn_norm_2"}, {0}};

// DeepSeek's experts.
static const PartName router_names[] = {{"exp_probs_b", "mlp.gate.e_score_correction_bias"},
                                        {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
                                        {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
                                        {"ffn_down_shexp", "mlp.shared_experts.down_proj"},
                                        {0}};
static const PartName glm4_moe_gguf_names[] = {{"ffn_norm", "post_attention_norm"}, {0}};

static const PartName phi3_names[] = {{"ffn_up", "mlp.gate_up_proj"}, {0}};
static const PartName starcoder2_names[] = {{"ffn_up", "mlp.c_fc"}, {"ffn_down", "mlp.c_proj"}, {0}};
static const PartName gpt_oss_names[] = {{"ffn_gate_inp", "mlp.router"}, {0}};
static const PartName gpt_oss_gguf_names[] = {{"ffn_norm", "post_attention_norm"}, {0}};

static const PartName gpt2_names[] = {
    {"token_embd", "wte"},       {"position_embd", "wpe"},
    {"output_norm", "ln_f"},     {"attn_norm", "ln_1"},
    {"attn_qkv", "attn.c_attn"}, {"attn_output", "attn.c_proj"},
    {"ffn_norm", "ln_2"},        {"ffn_up", "mlp.c_fc"},
    {"ffn_down", "mlp.c_proj"},  {0},
};

static const PartName neox_names[] = {
    {"token_embd", "embed_in"},         {"output_norm", "final_layer_norm"},
    {"output", "/embed_out"},           {"attn_qkv", "attention.query_key_value"},
    {"attn_output", "attention.dense"}, {"ffn_up", "mlp.dense_h_to_4h"},
    {"ffn_down", "mlp.dense_4h_to_h"},  {0},
};

// Encoder-decoders of the BART family, and vision transformers: not in the table, since they are no decoders.
static const PartName bart_names[] = {
    {"token_embd", "/model.shared"},
    {"position_embd", "embed_positions"},
    {"embd_norm", "layernorm_embedding"},
    {"output_norm", "layer_norm"},
    {"output", "/lm_head"},
    {"output_bias", "/final_logits_bias"},
    {"attn_norm", "self_attn_layer_norm"},
    {"attn_output", "self_attn.out_proj"},
    {"cross_attn_norm", "encoder_attn_layer_norm"},
    {"cross_attn_q", "encoder_attn.q_proj"},
    {"cross_attn_k", "encoder_attn.k_proj"},
    {"cross_attn_v", "encoder_attn.v_proj"},
    {"cross_attn_output", "encoder_attn.out_proj"},
    {"ffn_norm", "final_layer_norm"},
    {"ffn_up", "fc1"},
    {"ffn_down", "fc2"},
    {0},
};
const Family family_bart = {.arch = "bart", .names = bart_names};

static const PartName vit_names[] = {
    {"class_embd", "embeddings.cls_token"},
    {"distillation_embd", "embeddings.distillation_token"},
    {"position_embd", "embeddings.position_embeddings"},
    {"patch_embd", "embeddings.patch_embeddings.projection"},
    {"output_norm", "layernorm"},
    {"output", "/classifier"},
    {"class_output", "/cls_classifier"},
    {"distillation_output", "/distillation_classifier"},
    {"attn_norm", "layernorm_before"},
    {"attn_q", "attention.attention.query"},
    {"attn_k", "attention.attention.key"},
    {"attn_v", "attention.attention.value"},
    {"attn_output", "attention.output.dense"},
    {"ffn_norm", "layernorm_after"},
    {"ffn_up", "intermediate.dense"},
    {"ffn_down", "output.dense"},
    {0},
};
const Family family_vit = {.arch = "vit", .layers = "encoder.layer", .names = vit_names};

// ---- rows

#define GEMMA .norm_plus_one = true, .activation = ACT_GELU_TANH
#define ALL_BIASES .qkv_bias = true, .out_bias = true, .ffn_bias = true

#define COHERE .layer_norm = true, .no_norm_bias = true, .parallel = true, .shared_norm = true
// What Falcon 7B and 40B have in common.
#define FALCON                                                                                                         \
    .arch = "falcon", .activation_key = "activation", .default_context = 2048, .default_hidden = 4,                    \
    .gguf_pairing = ROPE_HALF, .tied = true, .qkv_by_group = true, .gguf_fused_qkv = true, .multi_query = true,        \
    .bias_key = "bias", .layers = "h"

static const Family falcon_40b = {
    FALCON, .base = {.layer_norm = true, .plain_ffn = true, .activation = ACT_GELU, .parallel = true},
    .names = falcon_40b_names, .gguf_names = falcon_40b_gguf_names};

// Gated delta nets with gated attention in every fourth layer.
#define QWEN_DELTA                                                                                                     \
    .base = {.qk_norm = QK_NORM_HEAD, .norm_plus_one = true, .kinds = {{.gated = true}}}, .gguf_pairing = ROPE_HALF,   \
    .default_rotary = 0.25f, .mixer = MIX_DELTA, .attention_period = 4, .extra_layers = true,                          \
    .gguf_names = delta_gguf_names

#define SSM_NAMES(mixer)                                                                                               \
    {"ssm_in", mixer "in_proj"}, {"ssm_conv1d", mixer "conv1d"}, {"ssm_dt", mixer "dt_bias"},                          \
        {"ssm_a", mixer "A_log"}, {"ssm_d", mixer "D"}, {"ssm_norm", mixer "norm"}, {                                  \
        "ssm_out", mixer "out_proj"                                                                                    \
    }
static const PartName mamba2_names[] = {
    SSM_NAMES("mixer."), {"token_embd", "embeddings"}, {"output_norm", "norm_f"}, {"attn_norm", "norm"}, {0}};

#define HYBRID_NAMES                                                                                                   \
    SSM_NAMES("mamba."), {"output_norm", "final_layernorm"}, {"ffn_norm", "pre_ff_layernorm"},                         \
        {"ffn_gate", "feed_forward.gate_proj"}, {"ffn_up", "feed_forward.up_proj"}, {                                  \
        "ffn_down", "feed_forward.down_proj"                                                                           \
    }
#define MAMBA_NAMES(mixer)                                                                                             \
    {"ssm_in", mixer "in_proj"}, {"ssm_conv1d", mixer "conv1d"}, {"ssm_x", mixer "x_proj"},                            \
        {"ssm_dt", mixer "dt_proj"}, {"ssm_a", mixer "A_log"}, {"ssm_d", mixer "D"}, {                                 \
        "ssm_out", mixer "out_proj"                                                                                    \
    }
static const PartName mamba_names[] = {
    MAMBA_NAMES("mixer."), {"token_embd", "embeddings"}, {"output_norm", "norm_f"}, {"attn_norm", "norm"}, {0}};
static const PartName jamba_names[] = {MAMBA_NAMES("mamba."),
                                       {"ssm_dt_norm", "mamba.dt_layernorm"},
                                       {"ssm_b_norm", "mamba.b_layernorm"},
                                       {"ssm_c_norm", "mamba.c_layernorm"},
                                       {"output_norm", "final_layernorm"},
                                       {"ffn_norm", "pre_ff_layernorm"},
                                       {"ffn_gate", "feed_forward.gate_proj"},
                                       {"ffn_up", "feed_forward.up_proj"},
                                       {"ffn_down", "feed_forward.down_proj"},
                                       {"ffn_gate_inp", "feed_forward.router"},
                                       {"ffn_gate_exp", "feed_forward.experts.#.gate_proj"},
                                       {"ffn_up_exp", "feed_forward.experts.#.up_proj"},
                                       {"ffn_down_exp", "feed_forward.experts.#.down_proj"},
                                       {0}};
static const PartName bamba_names[] = {HYBRID_NAMES, {0}};
static const PartName granite_hybrid_names[] = {SSM_NAMES("mamba."),
                                                {"ffn_up", "shared_mlp.input_linear"},
                                                {"ffn_down", "shared_mlp.output_linear"},
                                                {"ffn_up_shexp", "shared_mlp.input_linear"},
                                                {"ffn_down_shexp", "shared_mlp.output_linear"},
                                                {"ffn_gate_inp", "block_sparse_moe.router.layer"},
                                                {"ffn_gate_up_exps", "block_sparse_moe.input_linear.weight"},
                                                {"ffn_down_exps", "block_sparse_moe.output_linear.weight"},
                                                {0}};
static const PartName nemotron_h_names[] = {SSM_NAMES("mixer."),
                                            {"token_embd", "embeddings"},
                                            {"output_norm", "norm_f"},
                                            {"attn_norm", "norm"},
                                            {"attn_q", "mixer.q_proj"},
                                            {"attn_k", "mixer.k_proj"},
                                            {"attn_v", "mixer.v_proj"},
                                            {"attn_output", "mixer.o_proj"},
                                            {"ffn_up", "mixer.up_proj"},
                                            {"ffn_down", "mixer.down_proj"},
                                            {"ffn_gate_inp", "mixer.gate"},
                                            {"exp_probs_b", "mixer.gate.e_score_correction_bias"},
                                            {"ffn_up_exp", "mixer.experts.#.up_proj"},
                                            {"ffn_down_exp", "mixer.experts.#.down_proj"},
                                            {"ffn_up_shexp", "mixer.shared_experts.up_proj"},
                                            {"ffn_down_shexp", "mixer.shared_experts.down_proj"},
                                            {0}};

#define RWKV                                                                                                           \
    .base = {.layer_norm = true,                                                                                       \
             .embedding_norm = true,                                                                                   \
             .plain_ffn = true,                                                                                        \
             .activation = ACT_RELU_SQUARED,                                                                           \
             .channel_mix = true},                                                                                     \
    .no_attention = true, .hidden_step = 32, .gguf_names = rwkv_gguf_names

// Of flash-linear-attention, whose folders have no form in GGUF.
#define FLA .no_gguf = true, .no_attention = true, .hidden_step = 256

// Latent attention with DeepSeek's experts: V2, whose GGUF files are also V3's, and V3.
#define DEEPSEEK                                                                                                       \
    .arch = "deepseek2", .hf_interleaved = true, .extra_layers = true, .router = true, .names = router_names

#define LFM2                                                                                                           \
    .gguf_pairing = ROPE_HALF, .tied = true, .mixer = MIX_CONV, .zeros_by_layer = true, .names = lfm2_names,           \
    .gguf_names = lfm2_gguf_names

// Nemotron-H, whose GGUF files have another architecture with experts.
#define NEMOTRON_H                                                                                                     \
    .model_type = "nemotron_h", .expert_arch = "nemotron_h_moe",                                                       \
    .base = {.plain_ffn = true,                                                                                        \
             .activation = ACT_RELU_SQUARED,                                                                           \
             .router_sigmoid = true,                                                                                   \
             .router_choice_bias = true,                                                                               \
             .shared_ungated = true},                                                                                  \
    .activation_key = "mlp_hidden_act", .mixer = MIX_SSM, .router = true, .zeros_by_layer = true,                      \
    .one_sublayer = true, .no_rope = true, .names = nemotron_h_names

static const Family families[] = {
    {.arch = "llama"},
    {.arch = "llama", .model_type = "mistral"},
    {.arch = "llama", .model_type = "mixtral", .names = mixtral_names},
    {.arch = "qwen2", .base = {.qkv_bias = true}, .gguf_pairing = ROPE_HALF, .window_if_asked = true},
    {.arch = "qwen2moe",
     .model_type = "qwen2_moe",
     .base = {.qkv_bias = true, .experts_keep_softmax = true},
     .gguf_pairing = ROPE_HALF,
     .window_if_asked = true},
    {.arch = "qwen3", .base = {.qk_norm = QK_NORM_HEAD}, .gguf_pairing = ROPE_HALF, .window_if_asked = true},
    {.arch = "qwen3moe",
     .model_type = "qwen3_moe",
     .base = {.qk_norm = QK_NORM_HEAD},
     .gguf_pairing = ROPE_HALF,
     .window_if_asked = true},
    {.arch = "qwen3next", .model_type = "qwen3_next", QWEN_DELTA, .names = qwen3next_names},
    {.arch = "qwen35", .model_type = "qwen3_5_text", QWEN_DELTA, .gguf_tiled_heads = true, .names = qwen35_names},
    {.arch = "qwen35moe",
     .model_type = "qwen3_5_moe_text",
     QWEN_DELTA,
     .gguf_tiled_heads = true,
     .names = qwen35_names},
    {.arch = "rwkv6", RWKV, .mixer = MIX_RWKV6, .names = rwkv6_names},
    {.arch = "rwkv7", RWKV, .mixer = MIX_RWKV7, .names = rwkv7_names},
    {.arch = "rwkv7", .model_type = "rwkv7_fla", RWKV, .mixer = MIX_RWKV7, .names = rwkv7_names}, // its older name
    {.arch = "arwkv7",
     .model_type = "rwkv_hybrid",
     .mixer = MIX_RWKV7,
     .no_attention = true,
     .default_context = 1 << 20,
     .names = arwkv7_names},
    {.arch = "mamba2",
     .default_context = 1 << 20,
     .default_eps = 1e-5f,
     .mixer = MIX_SSM,
     .no_attention = true,
     .no_feed_forward = true,
     .names = mamba2_names},
    {.arch = "mamba",
     .default_context = 1 << 20,
     .default_eps = 1e-5f,
     .mixer = MIX_MAMBA,
     .no_attention = true,
     .no_feed_forward = true,
     .names = mamba_names},
    {.arch = "mamba",
     .model_type = "falcon_mamba",
     .default_context = 1 << 20,
     .default_eps = 1e-5f,
     .mixer = MIX_MAMBA,
     .no_attention = true,
     .no_feed_forward = true,
     .step_norm = true,
     .names = mamba_names},
    {.arch = "jamba",
     .base = {.experts_keep_softmax = true},
     .mixer = MIX_MAMBA,
     .zeros_by_layer = true,
     .some_experts = true,
     .no_rope = true,
     .names = jamba_names},
    {.arch = "granitemoe", .base = {.shared_ungated = true}, .multipliers = true, .names = granite_hybrid_names},
    {.arch = "granitemoe",
     .model_type = "granitemoeshared",
     .base = {.shared_ungated = true},
     .multipliers = true,
     .shared_mlp = true,
     .names = granite_hybrid_names},
    {.arch = "granitehybrid",
     .model_type = "granitemoehybrid",
     .base = {.shared_ungated = true},
     .mixer = MIX_SSM,
     .multipliers = true,
     .zeros_by_layer = true,
     .shared_mlp = true,
     .rope_if_asked = true,
     .names = granite_hybrid_names},
    {.arch = "granitehybrid",
     .model_type = "bamba",
     .base = {.shared_ungated = true},
     .mixer = MIX_SSM,
     .default_rotary = 0.5f,
     .names = bamba_names},
    {.arch = "falcon-h1",
     .model_type = "falcon_h1",
     .gguf_pairing = ROPE_HALF,
     .mixer = MIX_SSM_ATTENTION,
     .ssm_multipliers = true,
     .names = bamba_names},
    {.arch = "nemotron_h", NEMOTRON_H},
    {.arch = "nemotron_h_moe", NEMOTRON_H},
    {.arch = "lfm2", .base = {.qk_norm = QK_NORM_HEAD}, LFM2},
    {.arch = "lfm2moe",
     .model_type = "lfm2_moe",
     .base = {.qk_norm = QK_NORM_HEAD, .router_sigmoid = true},
     .router = true,
     LFM2},
    {.arch = "gla", FLA, .mixer = MIX_GLA, .names = linear_names},
    {.arch = "retnet", FLA, .mixer = MIX_RETENTION, .names = linear_names},
    {.arch = "linear_attn", FLA, .mixer = MIX_LINEAR, .names = linear_attn_names},
    // The project's own, which have no form elsewhere.
    {.arch = "performer", FLA, .mixer = MIX_LINEAR, .names = linear_attn_names},
    {.arch = "hyena", .no_gguf = true, .no_attention = true, .mixer = MIX_HYENA, .names = hyena_names},
    {.arch = "bigbird_causal", .no_gguf = true, .blocks = true},
    {.arch = "gemma",
     .activation_key = "hidden_activation",
     .base = {GEMMA},
     .gguf_pairing = ROPE_HALF,
     .tied = true,
     .scaled_embedding = true},
    {.arch = "gemma2",
     .activation_key = "hidden_activation",
     .base = {GEMMA, .post_norm = true, .attn_softcap = 50, .logit_softcap = 30},
     .gguf_window = 4096,
     .softcaps = true,
     .global_period = 2,
     .gguf_pairing = ROPE_HALF,
     .tied = true,
     .scaled_embedding = true,
     .big_layers = 46,
     .names = post_norm_names},
    {.arch = "gemma3",
     .activation_key = "hidden_activation",
     .model_type = "gemma3_text",
     .base = {GEMMA, .post_norm = true, .qk_norm = QK_NORM_HEAD},
     .softcaps = true,
     .window_theta = 10000,
     .global_period = 6,
     .gguf_pairing = ROPE_HALF,
     .tied = true,
     .scaled_embedding = true,
     .big_layers = 62,
     .names = post_norm_names},
    {.arch = "phi3", .gguf_pairing = ROPE_HALF, .gguf_fused_qkv = true, .gguf_fused_ffn = true, .names = phi3_names},
    {.arch = "phimoe",
     .base = {.layer_norm = true, .router_jitter = 0.01f},
     .gguf_pairing = ROPE_HALF,
     .gguf_rms_eps = true,
     .names = mixtral_names},
    {.arch = "smollm3", .nope_period = 4, .tied = true, .window_if_asked = true},
    {.arch = "olmo2",
     .base = {.no_pre_norm = true, .post_norm = true, .qk_norm = QK_NORM_FULL},
     .gguf_pairing = ROPE_HALF,
     .names = post_norm_names},
    {.arch = "olmoe", .base = {.qk_norm = QK_NORM_FULL, .experts_keep_softmax = true}, .gguf_pairing = ROPE_HALF},
    {.arch = "starcoder2",
     .base = {.layer_norm = true, .plain_ffn = true, .activation = ACT_GELU_TANH, ALL_BIASES},
     .gguf_pairing = ROPE_HALF,
     .tied = true,
     .names = starcoder2_names},
    {.arch = "gpt2",
     .default_hidden = 4,
     .base =
         {.layer_norm = true, .plain_ffn = true, .activation = ACT_GELU_TANH, .learned_positions = true, ALL_BIASES},
     .tied = true,
     .transposed = true,
     .gguf_fused_qkv = true,
     .layers = "h",
     .names = gpt2_names},
    {.arch = "gptneox",
     .model_type = "gpt_neox",
     .base = {.layer_norm = true, .plain_ffn = true, .activation = ACT_GELU, .parallel = true, ALL_BIASES},
     .gguf_pairing = ROPE_HALF,
     .qkv_by_group = true,
     .gguf_fused_qkv = true,
     .names = neox_names},
    {.arch = "gpt-oss",
     .fixed_activation = true,
     .exact_yarn_borders = true,
     .model_type = "gpt_oss",
     .global_period = 2,
     .base = {.learned_sinks = true, .activation = ACT_QUICK_GELU, .ffn_clamp = 7, .router_bias = true, ALL_BIASES},
     .gguf_pairing = ROPE_HALF,
     .names = gpt_oss_names,
     .gguf_names = gpt_oss_gguf_names},
    {.arch = "granite", .multipliers = true},
    {.arch = "command-r",
     .model_type = "cohere",
     .base = {COHERE},
     .hf_interleaved = true,
     .tied = true,
     .logit_scale = true,
     .optional_qk_norm = QK_NORM_OWN},
    {.arch = "cohere2",
     .base = {COHERE},
     .hf_interleaved = true,
     .tied = true,
     .logit_scale = true,
     .global_period = 4,
     .global_nope = true,
     .window_needed = true},
    {.arch = "phi2",
     .model_type = "phi",
     .base = {.layer_norm = true,
              .plain_ffn = true,
              .activation = ACT_GELU_TANH,
              .parallel = true,
              .shared_norm = true,
              .output_bias = true,
              ALL_BIASES},
     .default_rotary = 0.5f,
     .gguf_pairing = ROPE_HALF,
     .names = phi2_names},
    {.arch = "chatglm",
     .model_type = "glm",
     .default_rotary = 0.5f,
     .hf_interleaved = true,
     .out_bias_apart = true,
     .gguf_fused_qkv = true,
     .gguf_fused_ffn = true,
     .names = glm_names},
    {.arch = "glm4",
     .base = {.post_norm = true},
     .default_rotary = 0.5f,
     .hf_interleaved = true,
     .out_bias_apart = true,
     .gguf_fused_ffn = true,
     .names = glm4_names},
    {.arch = "glm4moe",
     .model_type = "glm4_moe",
     .base = {.router_sigmoid = true, .shared_ungated = true},
     .default_rotary = 0.5f,
     .gguf_pairing = ROPE_HALF,
     .out_bias_apart = true,
     .optional_qk_norm = QK_NORM_HEAD,
     .extra_layers = true,
     .router = true,
     .names = router_names,
     .gguf_names = glm4_moe_gguf_names},
    {DEEPSEEK, .model_type = "deepseek_v2",
     .base = {.kinds = {{.mixer = MIX_LATENT}}, .experts_keep_softmax = true, .shared_ungated = true}},
    {DEEPSEEK, .model_type = "deepseek_v3",
     .base = {.kinds = {{.mixer = MIX_LATENT}}, .router_sigmoid = true, .shared_ungated = true}},
    {.arch = "minicpm3",
     .base = {.kinds = {{.mixer = MIX_LATENT}}},
     .gguf_pairing = ROPE_HALF,
     .tied = true,
     .depth_scales = true,
     .gguf_joint_latent = true},
    {.arch = "stablelm",
     .base = {.layer_norm = true, .shared_norm = true},
     .default_rotary = 0.25f,
     .gguf_pairing = ROPE_HALF,
     .attention_bias_key = "use_qkv_bias",
     .out_bias_apart = true,
     .optional_qk_norm = QK_NORM_OWN,
     .names = stablelm_names},
    {FALCON,
     .base = {.layer_norm = true, .plain_ffn = true, .activation = ACT_GELU, .parallel = true, .shared_norm = true},
     .two_norms = &falcon_40b, .names = falcon_names},
    {.arch = "exaone4",
     .base = {.no_pre_norm = true, .post_norm = true, .qk_norm = QK_NORM_HEAD},
     .gguf_pairing = ROPE_HALF,
     .global_period = 4,
     .global_nope = true,
     .names = post_norm_names},
    {.arch = "ernie4_5", .hf_interleaved = true, .tied = true},
    {.arch = "seed_oss",
     .base = {.qkv_bias = true},
     .gguf_pairing = ROPE_HALF,
     .out_bias_apart = true,
     .gguf_names = seed_oss_gguf_names},
    {.arch = "hunyuan-dense",
     .model_type = "hunyuan_v1_dense",
     .base = {.qk_norm = QK_NORM_HEAD, .qk_norm_last = true},
     .gguf_pairing = ROPE_HALF,
     .names = hunyuan_names},
    {.arch = "internlm2", .qkv_by_group = true, .attention_bias_key = "bias", .names = internlm2_names},
    {.arch = "nemotron",
     .base = {.layer_norm = true, .norm_plus_one = true, .plain_ffn = true, .activation = ACT_RELU_SQUARED},
     .default_rotary = 0.5f,
     .gguf_pairing = ROPE_HALF},
    {.arch = "apertus",
     .base = {.qk_norm = QK_NORM_HEAD, .plain_ffn = true, .xielu = true},
     .fixed_activation = true,
     .gguf_pairing = ROPE_HALF,
     .names = apertus_names},
    {.arch = "mistral3", .model_type = "ministral3"},
    {.arch = "llama4",
     .model_type = "llama4_text",
     .base = {.qk_norm = QK_NORM_BARE,
              .qk_norm_last = true,
              .temperature_nope = true,
              .router_sigmoid = true,
              .router_input = true,
              .experts_keep_softmax = true,
              .shared_ungated = true},
     .hf_interleaved = true,
     .experts_transposed = true,
     .chunked = true,
     .gguf_window = 8192,
     .global_period = 4,
     .global_nope = true,
     .names = llama4_names},
    {.arch = "bloom",
     .base = {.layer_norm = true,
              .plain_ffn = true,
              .activation = ACT_GELU_TANH,
              .alibi_max = 8,
              .embedding_norm = true,
              ALL_BIASES},
     .fixed_activation = true,
     .default_context = 2048,
     .default_hidden = 4,
     .tied = true,
     .qkv_by_group = true,
     .gguf_fused_qkv = true,
     .layers = "h",
     .names = bloom_names},
    {.arch = "mpt",
     .base = {.layer_norm = true, .no_norm_bias = true, .plain_ffn = true, .activation = ACT_GELU, .alibi_max = 8},
     .fixed_activation = true,
     .default_context = 2048,
     .default_eps = 1e-5f,
     .default_hidden = 4,
     .tied = true,
     .attn_config = true,
     .gguf_fused_qkv = true,
     .layers = "blocks",
     .names = mpt_names},
};

enum { N_FAMILIES = sizeof families / sizeof *families };

static const char *model_type(const Family *f) {
    return f->model_type ? f->model_type : f->arch;
}

const Family *family_of_arch(const char *arch, size_t n) {
    for (int i = 0; i < N_FAMILIES; i++) {
        if (families[i].no_gguf) continue;
        if (strlen(families[i].arch) == n && !memcmp(families[i].arch, arch, n)) return &families[i];
    }
    return NULL;
}

const Family *family_of_model_type(const char *type) {
    for (int i = 0; i < N_FAMILIES; i++) {
        if (!strcmp(model_type(&families[i]), type)) return &families[i];
    }
    return NULL;
}

void family_list(bool model_types, char *list, size_t size) {
    size_t n = 0;
    for (int i = 0; i < N_FAMILIES && n < size; i++) {
        const char *name = model_types ? model_type(&families[i]) : families[i].arch;
        const Family *first = model_types ? family_of_model_type(name) : family_of_arch(name, strlen(name));
        if (first != &families[i]) continue;
        n += (size_t)snprintf(list + n, size - n, "%s%s", n ? ", " : "", name);
    }
}

// ---- tensors

static const char *name_in(const PartName *list, const char *part) {
    for (const PartName *p = list; p && p->part; p++) {
        if (!strcmp(p->part, part)) return p->name;
    }
    return NULL;
}

const char *family_gguf_part(const Family *f, const char *part) {
    const char *name = f ? name_in(f->gguf_names, part) : NULL;
    return name ? name : part;
}

static const char *hf_part(const Family *f, const char *part) {
    const char *name = name_in(f->names, part);
    if (!name) name = name_in(llama_names, part);
    return name ? name : part;
}

bool family_tensor_name(const Family *f, const char *prefix, const char *part, int layer, int expert,
                        const char *suffix, char *name, size_t size) {
    const char *own = hf_part(f, part), *number = strchr(own, '#');
    char where[40] = "", which[16] = "";
    if (*own == '/') { // in a larger model, beside its language model or inside it
        static const char outer[] = "language_model.";
        prefix = strncmp(prefix, outer, sizeof outer - 1) ? "" : outer;
        own++;
    }
    if (layer >= 0) snprintf(where, sizeof where, "%s.%d.", f->layers ? f->layers : "layers", layer);
    if (number) snprintf(which, sizeof which, "%d", expert);
    int before = number ? (int)(number - own) : (int)strlen(own);
    int n = snprintf(name, size, "%s%s%.*s%s%s%s", prefix, where, before, own, which, number ? number + 1 : "", suffix);
    return n >= 0 && (size_t)n < size;
}
