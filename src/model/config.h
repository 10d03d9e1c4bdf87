// config: what a stack of layers computes, in numbers. What families differ in is a field here; how their files differ
// is a field of Family (families.h).
//
// Owns the table of layer kinds and the range checks that every loader's Config must pass before a tensor is looked up
// or a product is formed. A zeroed field is what the first Llama does.
#pragma once
#include "attention.h"
#include "rope.h"
#include "state.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    QK_NORM_NONE,
    QK_NORM_HEAD, // an RMSNorm within each head of queries and keys, before RoPE (Qwen 3, Gemma 3)
    QK_NORM_FULL, // over all heads at once (OLMo 2)
    QK_NORM_OWN,  // a LayerNorm without bias within each head, every head with weights of its own (Command R+)
    QK_NORM_BARE, // an RMSNorm without weights within each head, of layers with rotary positions, after these (Llama 4)
} QkNorm;

// The limits of every model, whatever container it came in.
enum {
    MAX_LAYERS = 1024,
    MAX_LAYER_KINDS = 8,
    MAX_WIDTH = 1 << 20,
    MAX_VOCAB = 1 << 24,
    MAX_POSITIONS = 1 << 28,
    MAX_EXPERTS = 4096,
    MAX_STATE = 1 << 28, // values of a layer's recurrent state
};

// How a layer mixes information between positions: one file of mixers/ for each value; the three of linear attention
// share one.
// MIX_NONE: the layer has a feed-forward network alone.
typedef enum {
    MIX_ATTENTION,
    MIX_LATENT,
    MIX_DELTA,
    MIX_RWKV6,
    MIX_RWKV7,
    MIX_SSM,
    MIX_SSM_ATTENTION,
    MIX_MAMBA,
    MIX_CONV,
    MIX_NONE,
    MIX_LINEAR,
    MIX_RETENTION,
    MIX_GLA,
    MIX_HYENA,
    N_MIXERS
} MixerKind;

// What linear attention does to the queries and keys of a head (MIX_LINEAR); from FEATURES_T2R on with learned
// matrices.
typedef enum {
    FEATURES_IDENTITY,
    FEATURES_ELU,      // elu(x) + 1 (arXiv:2006.16236)
    FEATURES_RELU,     // max(x, 0)
    FEATURES_T2R,      // max(W x, 0) (arXiv:2103.13076)
    FEATURES_PRODUCT,  // (W x + a) * (V x + b)
    FEATURES_HEDGEHOG, // softmax of (2 y, -2 y), y = W x + b: twice as many (arXiv:2402.04347)
    FEATURES_RANDOM,   // exp(W x - |x|^2 / 2) of x / sqrt(sqrt(its width)), W drawn (arXiv:2009.14794, equation 7)
} FeatureMap;

// What follows the mixer.
typedef enum { FFN_DENSE, FFN_EXPERTS, FFN_CHANNEL_MIX, FFN_NONE } FfnKind;

// Latent attention (arXiv:2405.04434, section 2.1): the cache has one KV head. Its value is the latent, whose width is
// the kind's v_dim; its key is the latent and behind it the part with rotary positions. Zeros: the kind has none.
typedef struct {
    int q_rank;    // width of the queries' own latent; 0: they are projected at once
    int nope_dim;  // dimensions of a query and key head without positions
    int value_dim; // of a head's output
} LatentShape;

// What layers may differ in. Most models have one kind; those that mix windows, position schemes or mixers have more.
typedef struct {
    MixerKind mixer;
    FfnKind ffn;

    // attention; zeros: the mixer has none
    int n_heads;         // query heads
    int n_kv_heads;      // key/value heads; divides n_heads
    int k_dim, v_dim;    // widths of a head; not tied to dim / n_heads
    int window;          // a query sees the last `window` positions, itself included; 0: all
    bool chunked;        // and none before the last multiple of `window` (Llama 4)
    BlockPattern blocks; // the blocks of positions that a query sees; the seed is the layer's number
    RopeConfig rope;
    bool gated; // the output is times the sigmoid of gates that are projected with the queries (Qwen3-Next)
    LatentShape latent;

    // what a recurrent mixer keeps of the text; zeros: nothing
    StateShape state;
} LayerKind;

typedef struct {
    int dim;        // width of the residual stream
    int hidden_dim; // width of the feed-forward layer; 0: no layer has one; config_set_layers: of an expert, where all
                    // layers have them
    int n_layers;
    int vocab_size;
    int max_seq_len; // positions the model was made for

    int n_kinds;
    LayerKind kinds[MAX_LAYER_KINDS]; // loaders fill the first and let config_set_layers derive the others from it
    uint8_t kind_of[MAX_LAYERS];      // of each layer, an index into kinds

    // attention
    float attn_scale;   // multiplies q k; 0: 1 / sqrt(the width of a query head)
    float latent_eps;   // of the norms of latents; 0: norm_eps
    float attn_softcap; // scores become cap tanh(score / cap) (Gemma 2, arXiv:2408.00118); 0: off
    QkNorm qk_norm;
    bool qk_norm_last;      // after RoPE (Hunyuan)
    float qkv_clamp;        // queries, keys and values are clamped to +-this (MPT); 0: off
    float alibi_max;        // ALiBi (arXiv:2108.12409): the slopes' largest exponent, usually 8; 0: none
    float temperature;      // queries at p are times 1 + temperature log(1 + p / temperature_ctx), the quotient
    int temperature_ctx;    // rounded down (Ministral 3); 0: off
    bool temperature_nope;  // of layers without rotary positions alone, with p + 1 in place of p (Llama 4)
    bool learned_sinks;     // one learned score for each query head enters the softmax's denominator only (gpt-oss)
    bool bidirectional;     // every position sees every other (encoders)
    FeatureMap feature_map; // of MIX_LINEAR
    int features_width;     // of a head whose FEATURES_RANDOM are as many as the state has rows
    bool features_normed;   // its outputs are over the sum of the weights
    bool features_q_sum, features_k_sum; // features of a head are over their sum plus 1e-4
    bool features_tied;                  // queries and keys have one map, which files may have once
    bool cross;                          // a second attention sublayer, over an encoder's output

    // positions
    bool learned_positions; // a table [max_seq_len][dim] added to the embedding, no RoPE (GPT-2)

    // norms and residual connections
    bool layer_norm;   // LayerNorm with bias; else RMSNorm
    bool no_norm_bias; // LayerNorm without (Command R, MPT)
    float norm_eps;
    bool norm_plus_one; // norms' weights are stored as weight - 1 (Gemma, Nemotron outside GGUF)
    bool no_pre_norm;   // sublayers read the stream as it is (OLMo 2, BART)
    bool post_norm;     // their outputs are normed before the residual sum (Gemma 2, OLMo 2)
    bool residual_norm; // the stream is normed after the residual sum (arXiv:1706.03762; BART)
    bool parallel;      // mixer and feed-forward read the same stream: x + attention(norm x) + ffn(norm' x) (GPT-NeoX)
    bool shared_norm;   // where parallel, norm' is norm (Phi-2, Falcon, Command R)
    int rescale_every;  // the stream is halved behind every so many layers (RWKV-6); 0: never
    float residual_scale; // sublayers' outputs are times this before the sum (Granite); 0: 1

    // feed-forward
    Activation activation;     // ACT_NONE: silu
    bool plain_ffn;            // down(act(up x)); else down(act(gate x) * up x) (arXiv:2002.05202)
    bool channel_mix;          // layers are RWKV's, which also read the row before (channel_mix.h)
    bool xielu;                // its activation is xIELU (arXiv:2411.13010), with numbers of each layer (Apertus)
    float ffn_clamp;           // gate <= clamp, |up| <= clamp, and up + 1 in place of up (gpt-oss); 0: off
    int n_experts;             // 0: none
    int n_experts_used;        // experts for each token, the router's top k (arXiv:2101.03961)
    int expert_dim;            // width of an expert; 0: hidden_dim
    bool experts_keep_softmax; // weights are the scores themselves; else their sum over the experts used is 1
    bool router_sigmoid;       // a score is the sigmoid of a logit; else of a softmax (arXiv:2412.19437, eq. 15)
    bool router_input;         // the weights multiply what experts read, not what they give (Llama 4)
    bool router_choice_bias;   // each expert has a number that joins its score in choosing, not in weighing (eq. 16)
    int n_expert_groups;       // experts are chosen from the n_groups_used best of so many groups, equally large and
    int n_groups_used;         // in order: by the best logit (arXiv:2405.04434, section 2.2.2) or, with sigmoids, by
                               // the sum of the two best scores; 0: no groups
    float experts_scale;       // of the weights; 0: 1
    float router_jitter; // two experts, one after the other the best of those left, each with its part of a softmax
                         // over those left whose logits are within twice this of its, as a part of the larger one
                         // (SparseMixer: arXiv:2409.12136, section 2; Phi-3.5-MoE); 0: as above
    int shared_dim;      // width of one more expert that every token uses; 0: none
    bool shared_ungated; // it counts in full; else as much as a sigmoid gate says

    // state spaces
    bool ssm_norm_first;      // the norm precedes the gate (Falcon-H1)
    float step_min, step_max; // their step sizes are clamped to these (Mamba-2's time_step_limit); step_max 0: not
    int step_rank;            // of Mamba-1's step sizes, which come from so many values
    float step_norm_eps;      // those, B and C are normed, without weights, with this eps (Falcon Mamba); 0: not

    // the network that gives MIX_HYENA its filters; their positions are max_seq_len
    int filter_dim;    // its width
    int filter_bands;  // cosines and as many sines of the position, beside the position itself
    int filter_length; // positions in which its time goes from 0 to 1

    // biases of linear layers
    bool qkv_bias, out_bias, ffn_bias, router_bias;
    bool conv_bias; // of short convolutions and the matrices around them (LFM2)

    // vocabulary
    float embedding_scale; // of the embedding; 0: 1
    bool embedding_norm;   // the embedding is normed (BLOOM)
    float logit_scale;     // of the logits, before the cap; 0: 1
    float logit_softcap;   // as attn_softcap; 0: off
    bool output_bias;      // of the classifier (Phi-2)
    bool tied;             // the classifier is the embedding table

    // Falcon-H1's multipliers, where a file has not multiplied them into the weights; all 0: none
    float attn_out_scale;               // of attention's outputs, before their projection
    float ssm_scales[5], ssm_out_scale; // of z, x, B, C and d; of the outputs, before their projection
    float gate_scale, ffn_out_scale;    // of the feed-forward's gate, before its activation; of what down reads

    bool fp32_products; // activations are never rounded for a product (the small models of tools/)
} Config;

// The kind of a layer.
const LayerKind *config_kind(const Config *c, int layer);
// The first kind with the same rotary positions, so that kinds can share a table.
int config_rope_kind(const Config *c, int kind);
int config_expert_dim(const Config *c);
// For a model none of whose layers has experts, whatever its file says of their number.
void config_drop_experts(Config *c);
// Width of the queries, of the keys and of the values of all heads.
int64_t kind_q_dim(const LayerKind *k);
int64_t kind_k_dim(const LayerKind *k);
int64_t kind_v_dim(const LayerKind *k);
// Width of a query head as it is projected.
int kind_head_dim(const LayerKind *k);
// The layer has a KV cache; it has a recurrent state. Every mixer has one of them or both.
bool kind_has_cache(const LayerKind *k);
bool kind_has_state(const LayerKind *k);

// One kind of layers: n_heads heads, each dim / n_heads wide, and no rotary positions (encoders and encoder-decoders).
void config_set_heads(Config *c, int n_heads);

// A set of layers.
typedef struct {
    uint64_t bits[MAX_LAYERS / 64];
} LayerSet;

// Add layers period - 1, 2 period - 1, ...; period 0: none.
void layers_add_every(LayerSet *set, int period);
void layers_add(LayerSet *set, int layer);
void layers_add_others(LayerSet *set, const LayerSet *these); // all layers but these
bool layers_have(const LayerSet *set, int layer);

typedef struct {
    int window;         // of all layers but `full`; 0: none has one
    bool chunked;       // windows are chunks
    LayerSet full;      // layers that see everything
    LayerSet nope;      // layers without rotary positions (SmolLM 3)
    float window_theta; // RoPE's theta of layers with a window, which are then never scaled; 0: as the others
    int n_heads[MAX_LAYERS], n_kv_heads[MAX_LAYERS]; // of each layer; 0: as kinds[0]
    LayerSet recurrent;                              // layers with these in place of attention
    MixerKind mixer;
    StateShape state;
    RopeConfig rope;
    LayerSet dense; // layers without experts in a model that has them
    LayerSet bare;  // layers without a feed-forward network
    LayerSet idle;  // layers without a mixer
} LayerRules;

// Make the table of kinds out of kinds[0], whose window is 0, and the rules. -1, or the first layer of a kind that the
// table has no room for.
int config_set_layers(Config *c, const LayerRules *rules);
// The inverse, for writers of files: returns the rules and stores in *base the kind of a layer without a window.
LayerRules config_rules(const Config *c, LayerKind *base);

// The activation with this name in Hugging Face's settings; ACT_NONE: there is none.
Activation activation_named(const char *name);

// 0, or -1 with "path: field: expected ..., found ..." in err.
int config_check(const Config *c, const char *path, char *err, size_t errlen);
