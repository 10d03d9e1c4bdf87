// config: what a decoder is, in numbers. The differences between families are fields here, and nothing but fields.
//
// Owns the range checks that every loader's Config must pass before a tensor is looked up or a product is formed. A
// zeroed field is what the first Llama does, so that llama2.c files need to set only sizes.
#pragma once
#include "kernels.h"

#include <stdbool.h>
#include <stddef.h>

// Which two dimensions of a head rotate together (RoPE, arXiv:2104.09864).
typedef enum {
    ROPE_NEIGHBOUR, // (2i, 2i + 1): llama2.c, Llama-arch GGUF
    ROPE_SPLIT,     // (i, i + n_rot / 2): Hugging Face
} RopePairing;

// How rotary positions are stretched beyond the context of the training.
typedef enum {
    ROPE_UNSCALED,
    ROPE_LINEAR,  // positions / factor (arXiv:2306.15595)
    ROPE_DYNAMIC, // NTK-aware: theta grows with the context limit beyond the original one
    ROPE_YARN,    // by frequency: high ones stay, low ones are interpolated (arXiv:2309.00071, section 3.2)
    ROPE_LLAMA3,  // by wavelength, smooth between two borders (Llama 3.1)
    ROPE_LONG,    // a factor for each frequency, of two lists the one for the context limit (arXiv:2402.13753)
} RopeScalingKind;

typedef struct {
    RopeScalingKind kind;
    float factor;
    int original_ctx;           // positions before stretching
    float low_freq, high_freq;  // ROPE_LLAMA3: wavelengths original_ctx / these
    float beta_fast, beta_slow; // ROPE_YARN: turns within original_ctx
    bool whole_dims;            // ROPE_YARN: the borders between frequencies are rounded outwards
    float attention_factor;     // ROPE_YARN, ROPE_LONG: cos and sin are times it; 0: the papers' formulas
} RopeScaling;

typedef enum {
    QK_NORM_NONE,
    QK_NORM_HEAD, // an RMSNorm within each head of queries and keys, before RoPE (Qwen 3, Gemma 3)
    QK_NORM_FULL, // over all heads at once (OLMo 2)
} QkNorm;

enum { MAX_DECODER_LAYERS = 1024 };
typedef struct {
    uint64_t bits[MAX_DECODER_LAYERS / 64];
} LayerSet;

typedef struct {
    int dim;        // width of the residual stream
    int hidden_dim; // width of the feed-forward layer, also of an expert
    int n_layers;
    int n_heads;    // query heads
    int n_kv_heads; // key/value heads; divides n_heads
    int head_dim;   // not tied to dim / n_heads
    int vocab_size;
    int max_seq_len; // positions the model was made for

    // attention
    int window;         // a query sees the last `window` positions, itself included; 0: all
    LayerSet global;    // with a window, the layers that see everything all the same
    float attn_scale;   // of the scores; 0: 1 / sqrt(head_dim)
    float attn_softcap; // scores become cap tanh(score / cap) (Gemma 2, arXiv:2408.00118); 0: off
    QkNorm qk_norm;
    bool learned_sinks; // a logit for each query head joins the softmax and has no value (gpt-oss)

    // positions
    bool learned_positions; // a table [max_seq_len][dim] added to the embedding, no RoPE (GPT-2)
    RopePairing rope_pairing;
    int n_rot; // dimensions of a head that turn, from the first, even; 0: all
    float rope_theta;
    float rope_local_theta; // of layers with a window, which are never scaled; 0: as the others
    RopeScaling rope_scaling;
    LayerSet still; // layers that do not turn (SmolLM 3)

    // norms and residual connections
    bool layer_norm; // LayerNorm with bias; else RMSNorm
    float norm_eps;
    bool norm_plus_one; // RMSNorm weights are stored less one (Gemma outside GGUF)
    bool no_pre_norm;   // attention and feed-forward read the stream as it is (OLMo 2)
    bool post_norm;     // and their outputs are normed before they join it (Gemma 2, OLMo 2)
    bool parallel;      // both read the same stream: x + attention(norm x) + ffn(norm' x) (GPT-NeoX)

    // feed-forward
    Activation activation;     // ACT_NONE: silu
    bool plain_ffn;            // down(act(up x)); else down(act(gate x) * up x) (arXiv:2002.05202)
    float ffn_clamp;           // gate <= clamp, |up| <= clamp, and up + 1 in place of up (gpt-oss); 0: off
    int n_experts;             // 0: none, the layers have one feed-forward network
    int n_experts_used;        // those of a token, the best by the router (arXiv:2101.03961 with top-k)
    bool experts_keep_softmax; // their weights are softmax over all experts; else normalized over those used
    int shared_dim;            // width of one more expert that every token uses, behind a sigmoid gate; 0: none

    // biases of linear layers
    bool qkv_bias, out_bias, ffn_bias, router_bias;

    // vocabulary
    float embedding_scale; // of the embedding; 0: 1
    float logit_softcap;   // as attn_softcap; 0: off
    bool tied;             // the classifier is the embedding table
} Config;

// The last layer of every `period` joins the set; 0: none.
void layers_add_every(LayerSet *set, int period);
void layers_add(LayerSet *set, int layer);
bool layers_have(const LayerSet *set, int layer);

// Does this layer see only the window? Does it turn queries and keys?
bool config_layer_slides(const Config *c, int layer);
bool config_layer_turns(const Config *c, int layer);
int config_rotated(const Config *c); // dimensions of a head that turn

// 0, or -1 with "path: field: expected ..., found ..." in err.
int config_check(const Config *c, const char *path, char *err, size_t errlen);
