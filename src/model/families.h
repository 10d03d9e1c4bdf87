// families: the architectures that run, one row each.
//
// Owns what a family fixes (a Config to start from), how its containers name it, and where Hugging Face puts its
// tensors. A new cousin of Llama is a row here. Called by load_gguf, load_hf and the binder.
//
// Tensors are known inside by GGUF's names without ".weight" (a part): token_embd, output_norm, output, position_embd,
// rope_freqs, and of a layer attn_norm, attn_q, attn_k, attn_v, attn_qkv, attn_output, attn_q_norm, attn_k_norm,
// attn_sinks, shortconv.in_proj, shortconv.conv, shortconv.out_proj, attn_q_a, attn_q_a_norm, attn_q_b, attn_kv_a_mqa,
// attn_kv_a_norm, attn_k_b, attn_v_b, attn_kv_b, exp_probs_b, post_attention_norm, ffn_norm, ffn_gate, ffn_up,
// ffn_down, post_ffw_norm, ffn_gate_inp, ffn_gate_exps, ffn_up_exps, ffn_down_exps, ffn_gate_inp_shexp, ffn_gate_shexp,
// ffn_up_shexp, ffn_down_shexp.
#pragma once
#include "config.h"

// Where Hugging Face has a part. Of a layer: behind "<layers>.<layer>."; a '#' stands for an expert's number; a name
// that begins with '/' has no prefix of the model in front.
typedef struct {
    const char *part, *name;
} PartName;

typedef struct Family {
    const char *arch;           // general.architecture of GGUF
    bool no_gguf;               // GGUF has no such architecture: arch is a name for messages
    const char *model_type;     // of config.json; NULL: as arch
    const char *expert_arch;    // of GGUF files of models with experts; NULL: as arch
    Config base;                // what the family fixes
    RopePairing gguf_pairing;   // of its GGUF files; Hugging Face's are ROPE_HALF
    bool hf_interleaved;        // or ROPE_INTERLEAVED
    bool tied;                  // unless config.json decides
    bool scaled_embedding;      // the embedding is times sqrt(dim)
    bool window_if_asked;       // sliding_window counts only with use_sliding_window
    int global_period;          // with a window, the last layer of every so many sees everything; 0: none does
    bool global_nope;           // with a window, the layers that see everything have no rotary positions
    bool window_needed;         // a file without a window is an error
    int gguf_window;            // of GGUF files that do not say it; 0: then there is none
    int nope_period;            // the last layer of every so many has no rotary positions; 0: all have
    float window_theta;         // RoPE's theta of layers with a window, which are then not scaled; 0: as the others
    bool softcaps;              // config.json may set or unset the caps of scores and logits
    bool fixed_activation;      // config.json's value is ignored
    const char *activation_key; // where config.json names the activation; NULL: the usual places
    int default_context;        // positions where config.json does not give them; 0: it must
    float default_eps;          // of norms, the same
    float default_rotary;       // part of a head that rotates where config.json does not say; 0: all
    int default_hidden;         // hidden_dim / dim where a file does not give hidden_dim; 0: a file must
    bool gguf_rms_eps;          // GGUF files: the eps of LayerNorms has the name of RMS norms'
    bool exact_yarn_borders;    // GGUF files: YaRN's borders between frequencies are not rounded
    bool qkv_by_group;          // Hugging Face's fused tensor has the queries, key and value of a KV head side by side
    QkNorm optional_qk_norm;    // what a model of the family may have: config.json or the tensors tell
    bool multi_query;           // multi_query and new_decoder_architecture of config.json tell the KV heads (Falcon)
    const struct Family *two_norms; // the row of models whose parallel sublayers have a norm each
    bool attn_config;               // config.json has an object of attention's settings (MPT)
    bool multipliers;               // Granite's factors of embedding, scores, residual connections and logits
    bool logit_scale;               // config.json's logit_scale, or 1/16, multiplies the logits
    const char *bias_key;           // where config.json tells of the biases of all linear layers; NULL: use_bias
    const char *attention_bias_key; // and of attention's; NULL: attention_bias
    bool out_bias_apart;            // which is about queries, keys and values only
    bool transposed;                // Hugging Face's matrices of layers are [in][out]
    bool experts_transposed;        // and those of all experts in one tensor, [experts][in][out]
    bool chunked;                   // windows are chunks, with Llama 4's names of settings and its layers of experts
    bool blocks;                    // config.json has a pattern of blocks that a query sees
    bool gguf_fused_qkv;            // GGUF has query, key and value in one tensor, attn_qkv
    bool gguf_fused_ffn;            // and gate and up, in this order, in ffn_up
    int big_layers; // number of layers of the one model size that scales scores by 1 / sqrt(dim / n_heads): GGUF has no
                    // key
    MixerKind mixer;       // of its recurrent layers; MIX_ATTENTION: it has none
    bool no_attention;     // all layers are recurrent, without heads or positions in the files' settings
    bool no_feed_forward;  // layers are a mixer and nothing else
    bool zeros_by_layer;   // GGUF: layers whose attention.head_count_kv is 0 are recurrent
    bool one_sublayer;     // with zeros_by_layer: a layer has a feed-forward network, where its feed_forward_length
                           // is not 0, or a mixer
    bool shared_mlp;       // config.json's shared_intermediate_size is the width of the feed-forward network that every
                           // token uses, alone or beside experts (Granite 4)
    bool step_norm;        // Mamba-1's step sizes, B and C are normed without weights, as config.json says
    bool some_experts;     // GGUF: layers with a router have experts
    bool ssm_multipliers;  // config.json has Falcon-H1's multipliers
    bool no_rope;          // no rotary positions
    bool rope_if_asked;    // none unless rope.scaling.finetuned is true, or position_embedding_type is "rope"
    int hidden_step;       // hidden_dim is hidden_ratio times dim, times 2/3 with a gate, up to a multiple of this,
                           // where config.json does not give it (flash-linear-attention); 0: it must
    int attention_period;  // the last layer of every so many has attention where a file does not say which do
    bool gguf_tiled_heads; // GGUF has value head h beside key head h % n_key_heads; else n consecutive share one
    bool extra_layers;     // files have more layers behind the last, which predict further tokens: never run
    bool router;           // experts are scored, chosen and shared as DeepSeek's are, and the first layers have none
    bool depth_scales;     // MiniCPM 3's factors of embedding, residual connections and logits
    bool
        gguf_joint_latent; // GGUF has latent attention's keys and values in one tensor, and no widths of what is cached
    const char *layers;    // "layers" when NULL
    const PartName *names; // what differs from Llama's, ended by {0}
    const PartName *gguf_names; // the parts whose names in GGUF are others for this family
} Family;

extern const Family family_bart, family_vit; // names of encoder-decoders and vision transformers: no decoders

// NULL: unknown.
const Family *family_of_arch(const char *arch, size_t n);
const Family *family_of_model_type(const char *model_type);
// The names of all, for messages: "llama, qwen2, ...".
enum { FAMILY_LIST_ROOM = 1200 };
void family_list(bool model_types, char *list, size_t size);

// The name of a part in GGUF.
const char *family_gguf_part(const Family *f, const char *part);
// The tensor of a part in a Hugging Face file: prefix + name + suffix (".weight"). layer, expert: -1 where it has none.
// False when the name does not fit.
bool family_tensor_name(const Family *f, const char *prefix, const char *part, int layer, int expert,
                        const char *suffix, char *name, size_t size);
