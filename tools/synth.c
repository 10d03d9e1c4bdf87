// synth: writes a model of a real shape with random weights, for measuring speed and memory. Its output is meaningless.
//
// Owns the shapes, a synthetic vocabulary, and the writer of llama2.c's files: v0 (fp32) and v2 (int8), with a separate
// tokenizer. GGUF is written by gguf_model from a decoder without weights. Values are uniform with standard deviation
// 1 / sqrt(columns), so that activations stay near 1 through every layer. Quantized blocks are drawn from a pool, since
// quantizing all of them takes minutes. Refuses a .bin of other than llama shapes; theta is 10000 in a .bin.
#include "cli.h"

#include "fields.h"
#include "gguf_model.h"
#include "gguf_vocab.h"
#include "mix_rwkv7.h"
#include "synth_vocab.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

typedef struct {
    const char *name, *arch; // arch NULL: llama
    int dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len;
    int head_dim;                        // 0: dim / n_heads
    bool tied;                           // the output matrix is the embedding
    float theta, eps;                    // eps 0: 1e-5
    int window, n_rot;                   // 0: no window, all dimensions
    int n_experts, n_used;               // 0: dense
    int expert_dim, shared_dim, n_dense; // width of an expert, of what all tokens use; first layers without experts
    int latent_rank;                     // 0: the attention is not latent
    LatentShape latent;
    RopeScaling scaling;
    float mscale;          // of YaRN with latent attention, for cos, sin and scores
    StateShape state;      // of recurrent layers, which are
    const char *recurrent; // those with an r of this pattern, repeated; NULL: none
    int step_rank;         // of Mamba-1's step sizes
    int head_size;         // of RWKV-7, whose layers are all recurrent; then the ranks of its
    int decay_rank, rate_rank, value_rank, gate_rank; // decays, rates, values and gates
} Shape;

#define DEEPSEEK_YARN                                                                                                  \
    .scaling = {.kind = ROPE_YARN,                                                                                     \
                .factor = 40,                                                                                          \
                .original_ctx = 4096,                                                                                  \
                .beta_fast = 32,                                                                                       \
                .beta_slow = 1,                                                                                        \
                .whole_dims = true,                                                                                    \
                .attention_factor = 1},                                                                                \
    .mscale = 0.707f

// From the models' config.json. mistral-7b is v0.3, phi-3-mini 4k, olmo2-1b 0425, gemma-3-4b its text model.
static const Shape shapes[] = {
    {"tiny", NULL, 64, 128, 2, 4, 2, 512, 256, .tied = true, .theta = 10000},
    {"134m", NULL, 768, 2048, 12, 12, 12, 32000, 4096, .theta = 10000},
    {"smollm2-135m", NULL, 576, 1536, 30, 9, 3, 32000, 8192, .theta = 10000},
    {"tinyllama-1.1b", NULL, 2048, 5632, 22, 32, 4, 32000, 2048, .theta = 10000},
    {"llama-3.2-1b", NULL, 2048, 8192, 16, 32, 8, 128256, 131072, .tied = true, .theta = 5e5f,
     .scaling = {.kind = ROPE_LLAMA3, .factor = 32, .original_ctx = 8192, .low_freq = 1, .high_freq = 4}},
    {"llama-3.1-8b", NULL, 4096, 14336, 32, 32, 8, 128256, 131072, .theta = 5e5f,
     .scaling = {.kind = ROPE_LLAMA3, .factor = 8, .original_ctx = 8192, .low_freq = 1, .high_freq = 4}},
    {"mistral-7b", NULL, 4096, 14336, 32, 32, 8, 32768, 32768, .theta = 1e6f},
    {"qwen2.5-0.5b", "qwen2", 896, 4864, 24, 14, 2, 151936, 32768, .tied = true, .theta = 1e6f, .eps = 1e-6f},
    {"qwen3-0.6b", "qwen3", 1024, 3072, 28, 16, 8, 151936, 40960, .head_dim = 128, .tied = true, .theta = 1e6f,
     .eps = 1e-6f},
    {"qwen3-4b", "qwen3", 2560, 9728, 36, 32, 8, 151936, 40960, .head_dim = 128, .tied = true, .theta = 1e6f,
     .eps = 1e-6f},
    {"gemma-2-2b", "gemma2", 2304, 9216, 26, 8, 4, 256000, 8192, .head_dim = 256, .tied = true, .theta = 1e4f,
     .eps = 1e-6f, .window = 4096},
    {"gemma-3-1b", "gemma3", 1152, 6912, 26, 4, 1, 262144, 32768, .head_dim = 256, .tied = true, .theta = 1e6f,
     .eps = 1e-6f, .window = 512},
    {"gemma-3-4b", "gemma3", 2560, 10240, 34, 8, 4, 262208, 131072, .head_dim = 256, .tied = true, .theta = 1e6f,
     .eps = 1e-6f, .window = 1024, .scaling = {.kind = ROPE_LINEAR, .factor = 8, .original_ctx = 131072}},
    {"phi-3-mini", "phi3", 3072, 8192, 32, 32, 32, 32064, 4096, .theta = 1e4f, .window = 2047},
    {"smollm3-3b", "smollm3", 2048, 11008, 36, 16, 4, 128256, 65536, .tied = true, .theta = 5e6f, .eps = 1e-6f},
    {"olmo2-1b", "olmo2", 2048, 8192, 16, 16, 16, 100352, 4096, .theta = 5e5f, .eps = 1e-6f},
    {"starcoder2-3b", "starcoder2", 3072, 12288, 30, 24, 2, 49152, 16384, .tied = true, .theta = 999999.442f,
     .window = 4096},
    {"gpt2", "gpt2", 768, 3072, 12, 12, 12, 50257, 1024, .tied = true},
    {"pythia-160m", "gptneox", 768, 3072, 12, 12, 12, 50304, 2048, .theta = 1e4f, .n_rot = 16},
    {"lfm2-350m", "lfm2", 1024, 4608, 16, 16, 8, 65536, 128000, .tied = true, .theta = 1e6f, .state = {.conv_width = 3},
     .recurrent = "rrfrrfrrfrfrfrfr"},
    {"lfm2-moe-tiny", "lfm2moe", 256, 512, 6, 8, 2, 512, 128000, .tied = true, .theta = 1e6f, .n_experts = 16,
     .n_used = 4, .expert_dim = 128, .n_dense = 2, .state = {.conv_width = 3}, .recurrent = "rrfrrf"},
    {"qwen3.5-0.8b", "qwen35", 1024, 3584, 24, 8, 2, 248320, 262144, .head_dim = 256, .tied = true, .theta = 1e7f,
     .eps = 1e-6f, .n_rot = 64, .recurrent = "rrrf",
     .state = {.n_heads = 16, .n_key_heads = 16, .k_dim = 128, .v_dim = 128, .conv_width = 4}},
    {"qwen3.5-tiny", "qwen35", 256, 512, 8, 4, 2, 512, 262144, .head_dim = 64, .tied = true, .theta = 1e7f,
     .eps = 1e-6f, .n_rot = 16, .recurrent = "rrrf",
     .state = {.n_heads = 8, .n_key_heads = 4, .k_dim = 32, .v_dim = 32, .conv_width = 4}},
    {"qwen3.5-moe-tiny", "qwen35moe", 256, 128, 8, 4, 2, 512, 262144, .head_dim = 64, .theta = 1e7f, .eps = 1e-6f,
     .n_rot = 16, .n_experts = 16, .n_used = 4, .shared_dim = 128, .recurrent = "rrrf",
     .state = {.n_heads = 8, .n_key_heads = 4, .k_dim = 32, .v_dim = 32, .conv_width = 4}},
    {"qwen3-next-tiny", "qwen3next", 256, 128, 8, 4, 2, 512, 262144, .head_dim = 64, .theta = 1e7f, .eps = 1e-6f,
     .n_rot = 16, .n_experts = 16, .n_used = 4, .shared_dim = 128, .recurrent = "rrrf",
     .state = {.n_heads = 8, .n_key_heads = 4, .k_dim = 32, .v_dim = 32, .conv_width = 4}},
    {"mamba-130m", "mamba", 768, 0, 24, 1, 1, 50280, 1 << 20, .tied = true, .recurrent = "r", .step_rank = 48,
     .state = {.n_heads = 1, .n_key_heads = 1, .k_dim = 16, .v_dim = 1536, .conv_width = 4, .scan = 1}},
    {"mamba2-130m", "mamba2", 768, 0, 24, 1, 1, 50288, 1 << 20, .tied = true, .recurrent = "r",
     .state = {.n_heads = 24, .n_key_heads = 1, .k_dim = 128, .v_dim = 64, .conv_width = 4}},
    {"granite-4-h-350m", "granitehybrid", 768, 2048, 32, 12, 4, 100352, 32768, .tied = true,
     .recurrent = "rrrrrrrrrrfrrfrrrfrrrrrrrrrfrrrr",
     .state = {.n_heads = 48, .n_key_heads = 1, .k_dim = 128, .v_dim = 32, .conv_width = 4}},
    {"rwkv7-0.1b", "rwkv7", 768, 3072, 12, 12, 12, 65536, 1 << 20, .head_size = 64, .decay_rank = 64, .rate_rank = 64,
     .value_rank = 32, .gate_rank = 128},
    {"rwkv7-tiny", "rwkv7", 256, 512, 4, 4, 4, 512, 1 << 20, .head_size = 64, .decay_rank = 32, .rate_rank = 32,
     .value_rank = 32, .gate_rank = 32},
    {"arwkv7-tiny", "arwkv7", 256, 512, 4, 4, 4, 512, 1 << 20, .head_size = 64, .decay_rank = 32, .rate_rank = 32,
     .value_rank = 32, .gate_rank = 32},
    {"llama4-tiny", "llama4", 256, 512, 8, 8, 2, 512, 1 << 20, .theta = 5e5f, .window = 8192, .n_experts = 8,
     .n_used = 1, .expert_dim = 256, .shared_dim = 256},
    {"mixtral-tiny", NULL, 256, 512, 4, 8, 2, 512, 32768, .theta = 1e6f, .n_experts = 8, .n_used = 2},
    {"qwen3-moe-tiny", "qwen3moe", 256, 256, 4, 8, 2, 512, 40960, .head_dim = 64, .theta = 1e6f, .eps = 1e-6f,
     .n_experts = 16, .n_used = 4},
    {"gpt-oss-tiny", "gpt-oss", 256, 256, 4, 8, 2, 512, 131072, .head_dim = 64, .theta = 1.5e5f, .window = 128,
     .n_experts = 8, .n_used = 4,
     .scaling = {.kind = ROPE_YARN, .factor = 32, .original_ctx = 4096, .beta_fast = 32, .beta_slow = 1}},
    {"minicpm3-4b", "minicpm3", 2560, 6400, 62, 40, 40, 73448, 32768, .tied = true, .theta = 1e4f, .n_rot = 32,
     .latent_rank = 256, .latent = {.q_rank = 768, .nope_dim = 64, .value_dim = 64}},
    {"deepseek-v2-lite",
     "deepseek2",
     2048,
     10944,
     27,
     16,
     16,
     102400,
     163840,
     .theta = 1e4f,
     .eps = 1e-6f,
     .n_rot = 64,
     .n_experts = 64,
     .n_used = 6,
     .expert_dim = 1408,
     .shared_dim = 2 * 1408,
     .n_dense = 1,
     .latent_rank = 512,
     .latent = {.nope_dim = 128, .value_dim = 128},
     DEEPSEEK_YARN},
    {"deepseek-v2-tiny",
     "deepseek2",
     256,
     512,
     4,
     8,
     8,
     512,
     163840,
     .theta = 1e4f,
     .eps = 1e-6f,
     .n_rot = 32,
     .n_experts = 16,
     .n_used = 4,
     .expert_dim = 256,
     .shared_dim = 2 * 256,
     .n_dense = 1,
     .latent_rank = 128,
     .latent = {.q_rank = 192, .nope_dim = 64, .value_dim = 64},
     DEEPSEEK_YARN},
};

enum { GROUP = 64, MAGIC = 0x616b3432, HEADER_BYTES = 256 };
enum { MIN_VOCAB = 512, MAX_SYNTH_VOCAB = 1 << 20 }; // the minimum: control and byte tokens, ASCII, some words

typedef struct {
    OutFile file;
    uint64_t rng, n_params, n_bytes;
    uint64_t buffer[1 << 16];
} Writer;

static Writer out; // half a megabyte: too large for the stack

static void put(const void *data, size_t n) {
    if (fwrite(data, 1, n, out.file.file) != n) {
        die(1, "%s: %s%s", out.file.path, strerror(errno), outfile_fate(&out.file));
    }
    out.n_bytes += n;
}

static void open_file(const char *path) {
    char err[512];
    if (outfile_open(&out.file, path, err, sizeof err)) die(1, "%s", err);
}

static void close_file(void) {
    char err[512];
    if (outfile_finish(&out.file, err, sizeof err)) die(1, "%s", err);
}

static uint64_t next_random(void) { // xorshift64 (Marsaglia, 2003)
    out.rng ^= out.rng << 13;
    out.rng ^= out.rng >> 7;
    return out.rng ^= out.rng << 17;
}

// n values uniform in mean - reach .. mean + reach
static void put_f32(uint64_t n, float mean, float reach) {
    enum { ROOM = sizeof out.buffer / (sizeof(float)) };
    float *values = (float *)(void *)out.buffer, scale = reach * 0x1p-31f;
    out.n_params += n;
    for (uint64_t done = 0; done < n;) {
        size_t count = n - done < ROOM ? (size_t)(n - done) : ROOM;
        for (size_t i = 0; i < count; i += 2) {
            uint64_t r = next_random();
            values[i] = mean + (float)(int32_t)r * scale;
            values[i + 1] = mean + (float)(int32_t)(r >> 32) * scale; // ROOM is even: at most one too many is made
        }
        put(values, sizeof *values * count);
        done += count;
    }
}

// n int8 values, then a scale for each GROUP of them
static void put_int8(uint64_t n, float reach) {
    out.n_params += n;
    for (uint64_t done = 0; done < n;) {
        size_t count = n - done < sizeof out.buffer ? (size_t)(n - done) : sizeof out.buffer;
        for (size_t i = 0; i < (count + 7) / 8; i++) out.buffer[i] = next_random();
        int8_t *q = (int8_t *)out.buffer;
        for (size_t i = 0; i < count; i++) q[i] = q[i] == -128 ? 0 : q[i];
        put(q, count);
        done += count;
    }
    uint64_t params = out.n_params;
    put_f32(n / GROUP, reach / 127, reach / 127 * 0.1f);
    out.n_params = params; // scales are not counted
}

static void put_matrices(bool int8, int n, int64_t rows, int64_t cols) {
    float reach = sqrtf(3.0f / (float)cols);
    for (int i = 0; i < n; i++) {
        if (int8) put_int8((uint64_t)(rows * cols), reach);
        else put_f32((uint64_t)(rows * cols), 0, reach);
    }
}

static void put_norms(int n, int64_t size) {
    put_f32((uint64_t)(n * size), 1, 0.1f);
}

// v0: norms between the matrices; unused RoPE tables before the output matrix.
static void write_f32(const Shape *s) {
    int64_t dim = s->dim, hidden = s->hidden_dim, kv_dim = dim / s->n_heads * s->n_kv_heads;
    int n = s->n_layers;
    int32_t header[] = {
        s->dim, s->hidden_dim, n, s->n_heads, s->n_kv_heads, s->tied ? s->vocab_size : -s->vocab_size, s->seq_len};
    put(header, sizeof header);
    put_matrices(false, 1, s->vocab_size, dim);
    put_norms(n, dim);
    put_matrices(false, n, dim, dim);
    put_matrices(false, 2 * n, kv_dim, dim);
    put_matrices(false, n, dim, dim);
    put_norms(n, dim);
    put_matrices(false, n, hidden, dim);
    put_matrices(false, n, dim, hidden);
    put_matrices(false, n, hidden, dim);
    put_norms(1, dim);
    uint64_t params = out.n_params;
    put_f32((uint64_t)s->seq_len * (uint64_t)(dim / s->n_heads), 0, 0);
    out.n_params = params;
    if (!s->tied) put_matrices(false, 1, s->vocab_size, dim);
}

static void write_int8(const Shape *s) {
    int64_t dim = s->dim, hidden = s->hidden_dim, kv_dim = dim / s->n_heads * s->n_kv_heads;
    int n = s->n_layers;
    int32_t numbers[] = {MAGIC, 2, s->dim, s->hidden_dim, n, s->n_heads, s->n_kv_heads, s->vocab_size, s->seq_len};
    int32_t group = GROUP;
    unsigned char header[HEADER_BYTES] = {0};
    memcpy(header, numbers, sizeof numbers);
    header[sizeof numbers] = s->tied;
    memcpy(header + sizeof numbers + 1, &group, sizeof group); // unaligned
    put(header, sizeof header);
    put_norms(2 * n + 1, dim);
    put_matrices(true, 1, s->vocab_size, dim);
    put_matrices(true, n, dim, dim);
    put_matrices(true, 2 * n, kv_dim, dim);
    put_matrices(true, n, dim, dim);
    put_matrices(true, n, hidden, dim);
    put_matrices(true, n, dim, hidden);
    put_matrices(true, n, hidden, dim);
    if (!s->tied) put_matrices(true, 1, s->vocab_size, dim);
}

static void write_tokenizer(const Shape *s) {
    char piece[SYNTH_PIECE];
    uint32_t longest = 0;
    for (int id = 0; id < s->vocab_size; id++) {
        uint32_t n = (uint32_t)synth_piece(piece, id);
        longest = n > longest ? n : longest;
    }
    put(&longest, sizeof longest);
    for (int id = 0; id < s->vocab_size; id++) {
        int32_t n = synth_piece(piece, id);
        float score = id < SYNTH_CONTROL + SYNTH_BYTES ? 0 : (float)-id;
        put(&score, sizeof score);
        put(&n, sizeof n);
        put(piece, (size_t)n);
    }
}

static void write_bin(const Shape *s, bool int8, const char *path) {
    if (!outfile_replaces(path)) die(2, "%s: expected a file, with OUT.tokenizer.bin beside it", path);
    open_file(path);
    (int8 ? write_int8 : write_f32)(s);
    uint64_t model_bytes = out.n_bytes;
    close_file();
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    char tokenizer[4096];
    int stem = dot ? (int)(dot - path) : (int)strlen(path);
    if (snprintf(tokenizer, sizeof tokenizer, "%.*s.tokenizer.bin", stem, path) >= (int)sizeof tokenizer) {
        die(1, "%s: the path is too long", path);
    }
    open_file(tokenizer);
    write_tokenizer(s);
    close_file();
    fprintf(stderr, "%s: %.1f M parameters, %.1f MiB, and %s\n", path, (double)out.n_params * 1e-6,
            (double)model_bytes / 0x1p20, tokenizer);
}

enum { UNIT = 256, POOL = 512, BATCH = 1024 }; // values drawn at once, whole blocks; units of the pool, of a write

static float uniform(void) { // [-1, 1)
    return (float)(int32_t)next_random() * 0x1p-31f;
}

// Blocks of random codes, whose mean square is 8.6, with equal exponents.
static void pack_random_mxfp4(BlockMxfp4 *blocks, int n, float deviation) {
    for (int b = 0; b < n; b++) {
        blocks[b].e = (uint8_t)lroundf(127 + log2f(deviation / sqrtf(8.6f)));
        for (int j = 0; j < BLOCK / 2; j++) blocks[b].q[j] = (uint8_t)(next_random() >> 32);
    }
}

// UNIT values of a tensor: of norms near 1, of biases and sinks near 0.
static void draw_unit(const Part *p, void *to) {
    float x[UNIT], reach = sqrtf(3.0f / (float)p->as.shape[p->as.n_dims - 1]), mean = 0;
    if (p->as.dtype == DTYPE_MXFP4) {
        pack_random_mxfp4(to, UNIT / BLOCK, reach / sqrtf(3));
        return;
    }
    if (strstr(p->name, "norm.weight") || strstr(p->name, "_ln.weight") || strstr(p->name, "attn_norm_2.w")) mean = 1;
    if (strstr(p->name, "_lerp_") || strstr(p->name, "_k_k") || strstr(p->name, "_k_a")) mean = 0.5f;
    if (strlen(p->name) > 6 && !strcmp(p->name + strlen(p->name) - 6, ".ssm_a")) { // decays: below 0
        mean = -1;
        reach = 0.9f;
    }
    if (strstr(p->name, "norm") || strstr(p->name, ".bias") || strstr(p->name, "sinks")) reach = 0.1f;
    for (int i = 0; i < UNIT; i++) x[i] = mean + reach * uniform();
    values_pack(p->as.dtype, to, x, UNIT);
}

// Units of the pool in random order, the last one possibly in part.
static void put_part(GgufWriter *w, const Part *p) {
    static uint8_t pool[POOL * UNIT * sizeof(float)], batch[BATCH * UNIT * sizeof(float)];
    size_t unit = dtype_row_bytes(p->as.dtype, UNIT);
    uint64_t bytes = tensor_bytes(&p->as), n_units = (uint64_t)tensor_count(&p->as) / UNIT + 1;
    size_t n_pool = n_units < POOL ? (size_t)n_units : POOL;
    if (p->made) {
        gguf_data(w, p->made, bytes);
        gguf_align(w);
        return;
    }
    for (size_t u = 0; u < n_pool; u++) draw_unit(p, pool + u * unit);
    for (uint64_t done = 0; done < bytes; done += BATCH * unit) {
        uint64_t n = bytes - done < BATCH * unit ? bytes - done : BATCH * unit;
        for (size_t at = 0; at < n; at += unit) memcpy(batch + at, pool + (next_random() >> 32) % n_pool * unit, unit);
        gguf_data(w, batch, n);
    }
    gguf_align(w);
}

static void put_vocab(GgufWriter *w, const Shape *s) {
    Vocab v = {.bos_id = 1, .eos_id = 2, .unk_id = 0, .add_space_prefix = true};
    v.text = malloc((size_t)s->vocab_size * SYNTH_PIECE);
    if (!v.text) die(1, "out of memory for the vocabulary");
    for (int id = 0; id < s->vocab_size; id++) {
        static const char *const control[] = {"<unk>", "<s>", "</s>"};
        char *text = v.text + (size_t)id * SYNTH_PIECE;
        Piece p = {
            .text = text, .len = synth_piece(text, id), .score = id < SYNTH_CONTROL + SYNTH_BYTES ? 0 : (float)-id};
        if (id < SYNTH_CONTROL) {
            p.text = control[id];
            p.len = (int)strlen(p.text);
            p.type = id ? TOKEN_CONTROL : TOKEN_UNKNOWN;
        } else p.type = id < SYNTH_CONTROL + SYNTH_BYTES ? TOKEN_BYTE : TOKEN_NORMAL;
        arrput(v.pieces, p);
    }
    gguf_vocab(w, &v, s->vocab_size, s->name);
}

static void set_latent(Config *c, const Shape *s) {
    LayerKind *k = &c->kinds[0];
    k->n_kv_heads = 1;
    k->v_dim = s->latent_rank;
    k->k_dim = s->latent_rank + s->n_rot;
    k->latent = s->latent;
    c->experts_scale = 1;
    float magnitude = s->mscale > 0 ? 0.1f * s->mscale * logf(s->scaling.factor) + 1 : 0;
    c->attn_scale = magnitude * magnitude / sqrtf((float)(s->latent.nope_dim + s->n_rot));
}

static Config config_of(const Shape *s, const Family *f) {
    Config c = f->base;
    c.norm_plus_one = false;
    c.dim = s->dim;
    c.hidden_dim = s->hidden_dim;
    c.n_layers = s->n_layers;
    c.vocab_size = s->vocab_size;
    c.max_seq_len = s->seq_len;
    c.tied = s->tied;
    c.norm_eps = s->eps > 0 ? s->eps : 1e-5f;
    c.n_experts = s->n_experts;
    c.n_experts_used = s->n_used;
    c.expert_dim = s->expert_dim;
    c.shared_dim = s->shared_dim;
    c.router_choice_bias = f->router && c.router_sigmoid;
    LayerKind *k = &c.kinds[0];
    k->n_heads = s->n_heads;
    k->n_kv_heads = s->n_kv_heads;
    k->k_dim = k->v_dim = s->head_dim ? s->head_dim : s->dim / s->n_heads;
    if (s->latent_rank) set_latent(&c, s);
    if (f->multipliers) { // Granite 4's
        c.attn_scale = 0.015625f;
        c.embedding_scale = 12;
        c.residual_scale = 0.246f;
        c.logit_scale = 1 / 3.0f;
    }
    if (!c.learned_positions && !f->no_rope && !f->rope_if_asked) {
        k->rope = (RopeConfig){s->n_rot ? s->n_rot : k->k_dim, s->theta, f->gguf_pairing, s->scaling};
    }
    LayerRules rules = {.window = s->window, .window_theta = f->window_theta, .mixer = f->mixer, .state = s->state};
    state_set_channels(&rules.state, f->mixer, c.dim);
    if (s->head_size) {
        rules.state.k_dim = s->head_size;
        state_set_heads(&rules.state, f->mixer, c.dim);
        if (!c.channel_mix) rules.state.conv_dim = c.dim;
        layers_add_every(&rules.recurrent, 1);
    }
    c.step_rank = s->step_rank;
    if (f->no_feed_forward) layers_add_every(&rules.bare, 1);
    for (int i = 0; s->recurrent && i < c.n_layers; i++) {
        if (s->recurrent[(size_t)i % strlen(s->recurrent)] == 'r') layers_add(&rules.recurrent, i);
    }
    layers_add_every(&rules.full, f->global_period);
    layers_add_every(&rules.nope, f->nope_period);
    for (int i = 0; i < s->n_dense; i++) layers_add(&rules.dense, i);
    config_set_layers(&c, &rules);
    return c;
}

static void set_ranks(const Shape *s, Rwkv7Weights *w) {
    w->n_mixes = RWKV7_MIXES;
    w->decay.down.w.shape[0] = s->decay_rank;
    w->rate.down.w.shape[0] = s->rate_rank;
    w->residual.down.w.shape[0] = s->value_rank;
    w->gate.down.w.shape[0] = s->gate_rank;
}

// A decoder of this shape without weights; experts of gpt-oss are MXFP4. layers_free its stack.
static Decoder decoder_without_weights(const Shape *s, const Family *f) {
    Decoder d = {.stack.config = config_of(s, f)};
    size_t n_layers = (size_t)s->n_layers, n_experts = (size_t)s->n_experts;
    DType dtype = d.stack.config.learned_sinks ? DTYPE_MXFP4 : DTYPE_F32;
    Layer *layers = d.stack.layers = calloc(n_layers, sizeof *layers);
    size_t mixer_bytes = 0; // of the largest
    for (int i = 0; i < d.stack.config.n_kinds; i++) {
        size_t bytes = mixer_of(d.stack.config.kinds[i].mixer)->weights_size;
        mixer_bytes = bytes > mixer_bytes ? bytes : mixer_bytes;
    }
    char *mixers = calloc(n_layers, mixer_bytes);
    FeedForward *experts = calloc(n_layers * n_experts + 1, sizeof *experts);
    if (!layers || !mixers || !experts) die(1, "out of memory for %d layers", s->n_layers);
    void *all[] = {layers, mixers, experts};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) arrput(d.stack.allocations, all[i]);
    for (size_t i = 0; i < n_layers; i++) {
        layers[i].mixer = mixers + i * mixer_bytes;
        if (s->head_size) set_ranks(s, layers[i].mixer);
        layers[i].experts.list = experts + i * n_experts;
    }
    for (size_t i = 0; i < n_layers * n_experts; i++) {
        experts[i].gate.w.dtype = experts[i].up.w.dtype = experts[i].down.w.dtype = dtype;
    }
    return d;
}

static void write_gguf(const Shape *s, const Family *f, GgufMix mix, const char *path) {
    Decoder d = decoder_without_weights(s, f);
    GgufWriter w = gguf_writer(path);
    TypeCount count = {0};
    uint64_t n_params = 0;
    gguf_general_settings(&w, f, s->name);
    gguf_model_settings(&w, f, &d);
    gguf_type_settings(&w, mix);
    put_vocab(&w, s);
    Part *parts = gguf_model_parts(&w, f, &d, mix, &count);
    gguf_begin(&w);
    for (ptrdiff_t i = 0; i < arrlen(parts); i++) {
        put_part(&w, &parts[i]);
        n_params += (uint64_t)tensor_count(&parts[i].as);
    }
    uint64_t bytes = gguf_finish(&w);
    gguf_type_note(&count, mix);
    fprintf(stderr, "%s: %.1f M parameters, %.1f MiB\n", path, (double)n_params * 1e-6, (double)bytes / 0x1p20);
    gguf_parts_free(parts);
    layers_free(&d.stack);
    decoder_free(&d);
}

// Q4_K_M and the like; other names stand for one type of every matrix.
static bool names_mix(const char *type) {
    const char *end = strrchr(type, '_');
    return end && strlen(end) == 2 && strchr("SMLsml", end[1]);
}

static Shape find_shape(const char *name) {
    char list[800];
    size_t n = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (!strcmp(shapes[i].name, name)) return shapes[i];
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", shapes[i].name);
    }
    die(2, "%s: expected one of %s", name, list);
}

int main(int argc, char **argv) {
    static int n_layers = MAX_LAYERS, vocab_size;
    const Flag flags[] = {
        {"--layers", "N", "limit the number of layers", TAKES_INT(&n_layers, 1, MAX_LAYERS)},
        {"--vocab", "N", "size of the vocabulary", TAKES_INT(&vocab_size, MIN_VOCAB, MAX_SYNTH_VOCAB)},
    };
    const Program program = {
        "build/synth", "SHAPE TYPE OUT.bin|OUT.gguf [--layers N] [--vocab N]",
        "  SHAPE: tiny | 134m | smollm2-135m | tinyllama-1.1b | llama-3.2-1b | llama-3.1-8b | mistral-7b |\n"
        "         qwen2.5-0.5b | qwen3-0.6b | qwen3-4b | gemma-2-2b | gemma-3-1b | gemma-3-4b | phi-3-mini |\n"
        "         smollm3-3b | olmo2-1b | starcoder2-3b | gpt2 | pythia-160m | lfm2-350m | qwen3.5-0.8b |\n"
        "         minicpm3-4b | deepseek-v2-lite | rwkv7-0.1b |\n"
        "         mamba-130m | mamba2-130m | granite-4-h-350m |\n"
        "         mixtral-tiny | qwen3-moe-tiny | gpt-oss-tiny | deepseek-v2-tiny | qwen3.5-tiny |\n"
        "         qwen3.5-moe-tiny | qwen3-next-tiny | lfm2-moe-tiny | rwkv7-tiny | arwkv7-tiny | llama4-tiny (the\n"
        "         structure of the large ones, small)\n"
        "  TYPE:  of a .bin, for llama shapes: f32 (llama2.c v0) or int8 (llama2.c v2);\n"
        "         of a .gguf: " GGUF_PLAIN_TYPES ",\n"
        "         " GGUF_SIZED_TYPES ";\n"
        "         every matrix has it unless it ends in _S, _M or _L\n"
        "  With OUT.bin, OUT.tokenizer.bin is written too; a .gguf contains its vocabulary.\n",
        flags, sizeof flags / sizeof *flags};
    const char *names[3];
    cli_exactly(&program, argc, argv, names, 3);
    const char *type = names[1], *path = names[2], *dot = strrchr(path, '.');
    Shape s = find_shape(names[0]);
    const char *arch = s.arch ? s.arch : "llama";
    if (n_layers < s.n_layers) s.n_layers = n_layers;
    if (vocab_size) s.vocab_size = vocab_size;
    if (s.recurrent && strchr(s.recurrent, 'f') && strcspn(s.recurrent, "f") >= (size_t)s.n_layers)
        die(2, "--layers: expected at least %zu, the last with attention, found %d", strcspn(s.recurrent, "f") + 1,
            n_layers);
    out.rng = 0x9E3779B97F4A7C15u;
    if (dot && !strcmp(dot, ".gguf")) {
        GgufMix mix = gguf_mix_named(type, !names_mix(type));
        if (!mix.rules) die(2, "%s: expected for a .gguf " GGUF_TYPES, type);
        write_gguf(&s, family_of_arch(arch, strlen(arch)), mix, path);
        return 0;
    }
    bool int8 = !strcmp(type, "int8");
    if (!int8 && strcmp(type, "f32") != 0) die(2, "%s: expected f32 or int8 for a .bin (other types: OUT.gguf)", type);
    if (s.arch || s.n_experts) die(2, "%s: expected OUT.gguf: a .bin can hold only dense llama shapes", names[0]);
    write_bin(&s, int8, path);
    return 0;
}
