// synth: a model of a real shape with random weights, for measuring speed and memory. What it writes means nothing.
//
// Owns the writing side of llama2.c's files, v0 (fp32) and v2 (int8) with a tokenizer beside the model, the shapes, and
// a made-up vocabulary; GGUF goes through gguf_writer. Values are uniform with standard deviation 1 / sqrt(columns), so
// that activations stay near 1 through every layer; packed ones are drawn from a pool, for packing each takes minutes.
// Only plain llama shapes: llama-3.2-1b is without its scaled RoPE.
#include "cli.h"

#include "gguf_llama.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

static const char usage[] = "usage: build/synth SHAPE TYPE OUT.bin|OUT.gguf\n"
                            "  SHAPE   tiny | 134m | smollm2-135m | tinyllama-1.1b | llama-3.2-1b | mistral-7b\n"
                            "          (llama-3.2-1b without its scaled RoPE; mistral-7b as of v0.3)\n"
                            "  TYPE    of a .bin: f32 (llama2.c v0) or int8 (llama2.c v2);\n"
                            "          of a .gguf: F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K\n"
                            "  OUT.tokenizer.bin is written beside a .bin; a .gguf holds its vocabulary\n";

typedef struct {
    const char *name;
    int dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len;
    bool tied;        // the classifier is the embedding
    float rope_theta; // .bin: always 10000
} Shape;

static const Shape shapes[] = {
    {"tiny", 64, 128, 2, 4, 2, 512, 256, true, 10000},
    {"134m", 768, 2048, 12, 12, 12, 32000, 4096, false, 10000},
    {"smollm2-135m", 576, 1536, 30, 9, 3, 32000, 8192, false, 10000},
    {"tinyllama-1.1b", 2048, 5632, 22, 32, 4, 32000, 2048, false, 10000},
    {"llama-3.2-1b", 2048, 8192, 16, 32, 8, 128256, 131072, true, 500000},
    {"mistral-7b", 4096, 14336, 32, 32, 8, 32768, 32768, false, 1000000},
};

enum { GROUP = 64, MAGIC = 0x616b3432, HEADER_BYTES = 256, N_CONTROL = 3, N_BYTES = 256, MAX_PIECE = 16 };

typedef struct {
    FILE *file;
    const char *path;
    uint64_t rng, n_params, n_bytes;
    uint64_t buffer[1 << 16];
} Writer;

static Writer out; // half a megabyte: too much for the stack

static void put(const void *data, size_t n) {
    if (fwrite(data, 1, n, out.file) != n) die(1, "%s: %s", out.path, strerror(errno));
    out.n_bytes += n;
}

static void open_file(const char *path) {
    out.path = path;
    if (!(out.file = fopen(path, "wb"))) die(1, "%s: %s", path, strerror(errno));
}

static void close_file(void) {
    if (fclose(out.file)) die(1, "%s: %s", out.path, strerror(errno));
}

static uint64_t next_random(void) { // xorshift64 (Marsaglia, 2003): cheap, and good enough for weights
    out.rng ^= out.rng << 13;
    out.rng ^= out.rng >> 7;
    return out.rng ^= out.rng << 17;
}

// ---- tensors

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
    out.n_params = params; // scales are no parameters
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

// v0: the norms lie between the matrices, and RoPE tables, which readers skip, before the classifier.
static void write_f32(const Shape *s) {
    int64_t dim = s->dim, hidden = s->hidden_dim, kv_dim = dim / s->n_heads * s->n_kv_heads;
    int n = s->n_layers;
    int32_t header[] = {
        s->dim, s->hidden_dim, n, s->n_heads, s->n_kv_heads, s->tied ? s->vocab_size : -s->vocab_size, s->seq_len};
    put(header, sizeof header);
    put_matrices(false, 1, s->vocab_size, dim);
    put_norms(n, dim);
    put_matrices(false, n, dim, dim);
    put_matrices(false, n, kv_dim, dim);
    put_matrices(false, n, kv_dim, dim);
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
    put_matrices(true, n, kv_dim, dim);
    put_matrices(true, n, kv_dim, dim);
    put_matrices(true, n, dim, dim);
    put_matrices(true, n, hidden, dim);
    put_matrices(true, n, dim, hidden);
    put_matrices(true, n, hidden, dim);
    if (!s->tied) put_matrices(true, 1, s->vocab_size, dim);
}

// ---- tokenizer

// Word number i of a, b, .. z, aa, ab, ..: each is an earlier one and a letter, so merging reaches it.
static void spell(char *word, int i) {
    char letters[MAX_PIECE];
    int n = 0;
    for (i++; i > 0; i = (i - 1) / 26) letters[n++] = (char)('a' + (i - 1) % 26);
    while (n) *word++ = letters[--n];
    *word = 0;
}

static int make_piece(char *piece, int id) {
    enum { FIRST_ASCII = N_CONTROL + N_BYTES, N_ASCII = '~' - ' ' + 1, FIRST_WORD = FIRST_ASCII + N_ASCII };
    static const char *const control[] = {"<unk>", "\n<s>\n", "\n</s>\n"};
    if (id < N_CONTROL) return snprintf(piece, MAX_PIECE, "%s", control[id]);
    if (id < FIRST_ASCII) return snprintf(piece, MAX_PIECE, "<0x%02X>", (unsigned)(id - N_CONTROL) & 255u);
    if (id < FIRST_WORD) return snprintf(piece, MAX_PIECE, "%c", ' ' + id - FIRST_ASCII);
    int word = id - FIRST_WORD; // " a" " b" .. " z", then "aa" " aa" "ab" " ab" ..
    bool space = word < 26 || word % 2;
    piece[0] = ' ';
    spell(piece + space, word < 26 ? word : 26 + (word - 26) / 2);
    return (int)strlen(piece);
}

static void write_tokenizer(const Shape *s) {
    char piece[MAX_PIECE];
    uint32_t longest = 0;
    for (int id = 0; id < s->vocab_size; id++) {
        uint32_t n = (uint32_t)make_piece(piece, id);
        longest = n > longest ? n : longest;
    }
    put(&longest, sizeof longest);
    for (int id = 0; id < s->vocab_size; id++) {
        int32_t n = make_piece(piece, id);
        float score = id < N_CONTROL + N_BYTES ? 0 : (float)-id;
        put(&score, sizeof score);
        put(&n, sizeof n);
        put(piece, (size_t)n);
    }
}

static void write_bin(const Shape *s, bool int8, const char *path) {
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

// ---- GGUF

enum { UNIT = 256, POOL = 512, BATCH = 1024 }; // values drawn at once, whole blocks; units of the pool, of a write

typedef struct {
    char name[64];
    Tensor tensor;
} Named;

// The tensors of the model, in the order of a forward pass; an stb_ds array.
static Named *list_tensors(const Shape *s, DType type) {
    int64_t dim = s->dim, hidden = s->hidden_dim, kv_dim = dim / s->n_heads * s->n_kv_heads;
    const struct {
        const char *name;
        int64_t rows, cols; // cols 0: a norm
    } parts[] = {{"attn_norm", dim, 0},     {"attn_q", dim, dim},      {"attn_k", kv_dim, dim},
                 {"attn_v", kv_dim, dim},   {"attn_output", dim, dim}, {"ffn_norm", dim, 0},
                 {"ffn_gate", hidden, dim}, {"ffn_up", hidden, dim},   {"ffn_down", dim, hidden}};
    enum { N_PARTS = sizeof parts / sizeof *parts };
    Tensor embedding = {.dtype = gguf_llama_fit(type, dim), .n_dims = 2, .shape = {s->vocab_size, dim}};
    Tensor norm = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {dim}};
    Named *list = NULL;
    arrput(list, ((Named){"token_embd.weight", embedding}));
    for (int i = 0; i < s->n_layers * N_PARTS; i++) {
        Named n = {.tensor = norm};
        int64_t cols = parts[i % N_PARTS].cols;
        if (cols) {
            n.tensor =
                (Tensor){.dtype = gguf_llama_fit(type, cols), .n_dims = 2, .shape = {parts[i % N_PARTS].rows, cols}};
        }
        snprintf(n.name, sizeof n.name, "blk.%d.%s.weight", i / N_PARTS, parts[i % N_PARTS].name);
        arrput(list, n);
    }
    arrput(list, ((Named){"output_norm.weight", norm}));
    if (!s->tied) arrput(list, ((Named){"output.weight", embedding}));
    return list;
}

static float uniform(void) { // [-1, 1)
    return (float)(int32_t)next_random() * 0x1p-31f;
}

// Packed values: units of the pool in a random order, and a part of one at the end.
static void put_tensor(GgufWriter *w, const Tensor *t) {
    static uint8_t pool[POOL * UNIT * sizeof(float)], batch[BATCH * UNIT * sizeof(float)];
    const DTypeInfo *type = dtype_info(t->dtype);
    size_t unit = UNIT / (size_t)type->block * (size_t)type->block_bytes;
    float x[UNIT], reach = sqrtf(3.0f / (float)t->shape[1]);
    uint64_t bytes = tensor_bytes(t), n_units = (uint64_t)tensor_count(t) / UNIT + 1;
    size_t n_pool = n_units < POOL ? (size_t)n_units : POOL;
    for (size_t u = 0; u < n_pool; u++) {
        for (int i = 0; i < UNIT; i++) x[i] = t->n_dims > 1 ? reach * uniform() : 1 + 0.1f * uniform();
        gguf_llama_pack(t->dtype, pool + u * unit, x, UNIT);
    }
    for (uint64_t done = 0; done < bytes; done += BATCH * unit) {
        uint64_t n = bytes - done < BATCH * unit ? bytes - done : BATCH * unit;
        for (size_t at = 0; at < n; at += unit) memcpy(batch + at, pool + (next_random() >> 32) % n_pool * unit, unit);
        gguf_data(w, batch, n);
    }
    gguf_align(w);
}

static void put_vocab(GgufWriter *w, const Shape *s) {
    Vocab v = {.bos_id = 1, .eos_id = 2, .unk_id = 0, .add_space_prefix = true};
    v.text = malloc((size_t)s->vocab_size * MAX_PIECE);
    if (!v.text) die(1, "out of memory for the vocabulary");
    for (int id = 0; id < s->vocab_size; id++) {
        static const char *const control[] = {"<unk>", "<s>", "</s>"};
        char *text = v.text + (size_t)id * MAX_PIECE;
        Piece p = {.text = text, .len = make_piece(text, id), .score = id < N_CONTROL + N_BYTES ? 0 : (float)-id};
        if (id < N_CONTROL) p.text = control[id], p.len = (int)strlen(p.text);
        p.type = id >= N_CONTROL + N_BYTES ? TOKEN_NORMAL : id >= N_CONTROL ? TOKEN_BYTE : TOKEN_CONTROL;
        if (!id) p.type = TOKEN_UNKNOWN;
        arrput(v.pieces, p);
    }
    gguf_llama_vocab(w, &v);
    arrfree(v.pieces);
    free(v.text);
}

static void write_gguf(const Shape *s, DType type, const char *path) {
    Config c = {.dim = s->dim,
                .hidden_dim = s->hidden_dim,
                .n_layers = s->n_layers,
                .n_heads = s->n_heads,
                .n_kv_heads = s->n_kv_heads,
                .head_dim = s->dim / s->n_heads,
                .vocab_size = s->vocab_size,
                .max_seq_len = s->seq_len,
                .norm_eps = 1e-5f,
                .rope_theta = s->rope_theta,
                .tied = s->tied};
    GgufWriter w = gguf_writer(path);
    gguf_llama_settings(&w, s->name, &c, type);
    put_vocab(&w, s);
    Named *list = list_tensors(s, type);
    uint64_t n_params = 0;
    int n = 0, n_q8_0 = 0, n_f16 = 0; // matrices
    for (ptrdiff_t i = 0; i < arrlen(list); i++) {
        const Tensor *t = &list[i].tensor;
        gguf_tensor(&w, list[i].name, t);
        n_params += (uint64_t)tensor_count(t);
        n += t->n_dims > 1;
        n_q8_0 += t->dtype != type && t->dtype == DTYPE_Q8_0;
        n_f16 += t->dtype != type && t->dtype == DTYPE_F16;
    }
    gguf_begin(&w);
    for (ptrdiff_t i = 0; i < arrlen(list); i++) put_tensor(&w, &list[i].tensor);
    arrfree(list);
    uint64_t bytes = gguf_finish(&w);
    gguf_llama_note(type, n, n_q8_0, n_f16);
    fprintf(stderr, "%s: %.1f M parameters, %.1f MiB\n", path, (double)n_params * 1e-6, (double)bytes / 0x1p20);
}

int main(int argc, char **argv) {
    Args a = args_start(argc, argv, usage);
    for (int i = 1; i < argc; i++) {
        if (*argv[i] == '-') die(2, "%s: unknown flag; build/synth --help lists what it takes", argv[i]);
    }
    if (argc != 4) die(2, "expected SHAPE TYPE OUT, found %d arguments", argc - 1);
    const char *name = args_next(&a), *type = args_next(&a), *path = args_next(&a), *dot = strrchr(path, '.');
    const Shape *s = NULL;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (!strcmp(shapes[i].name, name)) s = &shapes[i];
    }
    if (!s) die(2, "%s: expected tiny, 134m, smollm2-135m, tinyllama-1.1b, llama-3.2-1b or mistral-7b", name);
    out.rng = 0x9E3779B97F4A7C15u;
    if (dot && !strcmp(dot, ".gguf")) {
        DType dtype = gguf_llama_type(type);
        if (dtype == DTYPE_OTHER) die(2, "%s: expected for a .gguf " GGUF_LLAMA_TYPES, type);
        write_gguf(s, dtype, path);
        return 0;
    }
    bool int8 = !strcmp(type, "int8");
    if (!int8 && strcmp(type, "f32")) die(2, "%s: expected f32 or int8 (others: OUT.gguf)", type);
    write_bin(s, int8, path);
    return 0;
}
