// fuzz_llama2c: the .bin loader on arbitrary bytes.
//
// The first byte chooses: raw bytes as the file, or a header made plausible (each number modulo a small range) over
// a file of exactly, or nearly, the size it implies. That size is computed here a second time, apart from the
// loader: a header within the rules must load at this size and no other. Every tensor of a loaded model is read at
// its ends.
#include "load.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#include "fuzz.h"

enum { HEADER_MAX = 256, FILE_MAX = 1 << 16 };

static volatile uint8_t sink;

static void touch(const void *p, uint64_t n) {
    const uint8_t *b = p;
    REQUIRE((uintptr_t)b % 4 == 0 && n > 0);
    sink = (uint8_t)(sink + b[0] + b[n - 1]);
}

static void check_tensor(const Model *m, const char *name, int64_t rows, int64_t cols) {
    char err[256];
    const Tensor *t = weights_get(&m->weights, name, DTYPE_ANY, rows, cols, err, sizeof err);
    REQUIRE(t);
    uint64_t n = (uint64_t)tensor_count(t);
    touch(t->data, t->dtype == DTYPE_I8G ? n : n * 4);
    if (t->dtype == DTYPE_I8G) {
        REQUIRE(cols && t->group > 0 && n % (uint64_t)t->group == 0);
        touch(t->scales, n / (uint64_t)t->group * 4);
    }
}

static void check_loaded(const Model *m) {
    const Config *c = &m->config;
    int64_t dim = c->dim, hidden = c->hidden_dim, kv_dim = (int64_t)c->kinds[0].n_kv_heads * c->kinds[0].k_dim;
    const struct {
        const char *kind;
        int64_t rows, cols;
    } layer[] = {{"attn_norm", dim, 0},     {"attn_q", dim, dim},      {"attn_k", kv_dim, dim},
                 {"attn_v", kv_dim, dim},   {"attn_output", dim, dim}, {"ffn_norm", dim, 0},
                 {"ffn_gate", hidden, dim}, {"ffn_down", dim, hidden}, {"ffn_up", hidden, dim}};
    REQUIRE(shlen(m->weights.table) == 2 + !c->tied + 9 * c->n_layers);
    for (int i = 0; i < c->n_layers; i++) {
        for (size_t k = 0; k < sizeof layer / sizeof *layer; k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", i, layer[k].kind);
            check_tensor(m, name, layer[k].rows, layer[k].cols);
        }
    }
    check_tensor(m, "token_embd.weight", c->vocab_size, dim);
    check_tensor(m, "output_norm.weight", dim, 0);
    if (!c->tied) check_tensor(m, "output.weight", c->vocab_size, dim);
}

// Returns 0, or -1 after checking that the failure is a clean one.
static int load(uint8_t *bytes, size_t size) {
    static char path[] = "fuzz.bin";
    char err[256] = "";
    Model m;
    File file = {.path = path, .data = bytes, .size = size, .borrowed = true};
    int rc = load_llama2c_file(&m, &file, err, sizeof err);
    REQUIRE(!file.data && !file.path);
    if (!rc) {
        check_loaded(&m);
        weights_free(&m.weights);
    } else {
        REQUIRE(rc == -1 && !m.weights.files && !m.weights.table && !m.config.dim);
        require_line(err, "fuzz.bin");
    }
    return rc;
}

typedef struct {
    int version, dim, hidden, n_layers, n_heads, n_kv_heads, vocab, seq, tied, group;
} Header;

// Bytes of a model with these (small) numbers; 0: the rules of the format forbid it.
static size_t implied_size(const Header *h) {
    if (h->dim < 1 || h->hidden < 1 || h->n_layers < 1 || h->n_heads < 1 || h->n_kv_heads < 1 || h->vocab < 1 ||
        h->seq < 1 || h->dim % (2 * h->n_heads) || h->n_heads % h->n_kv_heads) {
        return 0;
    }
    if (h->version == 2 && h->group < 1) return 0;
    int kv_dim = h->dim / h->n_heads * h->n_kv_heads;
    const int matrices[][2] = {{h->vocab * h->dim, 2 - h->tied},
                               {h->dim * h->dim, 2 * h->n_layers},
                               {kv_dim * h->dim, 2 * h->n_layers},
                               {h->hidden * h->dim, 3 * h->n_layers}};
    size_t size = (size_t)(h->version ? 256 : 28) + 4 * (size_t)(h->dim * (2 * h->n_layers + 1));
    if (!h->version) size += 4 * (size_t)(h->seq * (h->dim / h->n_heads));
    for (int i = 0; i < 4; i++) {
        int n = matrices[i][0], times = matrices[i][1];
        if (h->version == 2 && (n % h->group || n % 4)) return 0;
        size += (size_t)times * (size_t)(h->version == 2 ? n + n / h->group * 4 : n * 4);
    }
    return size;
}

static void try_plausible(const uint8_t *data, size_t size) {
    uint8_t in[16] = {0};
    memcpy(in, data, size < sizeof in ? size : sizeof in);
    static const int groups[16] = {1, 2, 4, 8, 16, 12, 3, 0, -1, 6, 5, 32, 4, 2, 1, 8};
    Header h = {.version = in[0] % 3,
                .dim = in[1] % 24 + (in[1] > 16),
                .hidden = in[2] % 20,
                .n_layers = in[3] % 4,
                .n_heads = in[4] % 9,
                .n_kv_heads = in[5] % 9,
                .vocab = in[6] % 40,
                .seq = in[7] % 8,
                .tied = in[8] & 1,
                .group = groups[in[9] & 15]};
    size_t want = implied_size(&h), n = (want ? want : 4096) + (in[10] > 128 ? in[10] - 192u : 0u);
    if (n > FILE_MAX || !n) n = FILE_MAX;
    uint8_t *bytes = calloc(1, n > HEADER_MAX ? n : HEADER_MAX);
    int32_t numbers[9] = {0x616b3432, h.version, h.dim, h.hidden, h.n_layers, h.n_heads, h.n_kv_heads, h.vocab, h.seq};
    if (h.version) {
        memcpy(bytes, numbers, sizeof numbers);
        bytes[36] = (uint8_t)h.tied;
        if (h.version == 2) memcpy(bytes + 37, &h.group, 4);
    } else {
        if (!h.tied) numbers[7] = -numbers[7];
        memcpy(bytes, numbers + 2, 28);
    }
    // The rest of the input goes over one header byte and into the arrays.
    bool patched = size > 13 && in[11] & 1;
    if (patched) bytes[in[12] % 41] ^= in[13];
    if (size > 16 && n > HEADER_MAX)
        memcpy(bytes + HEADER_MAX, data + 16, size - 16 < n - HEADER_MAX ? size - 16 : n - HEADER_MAX);
    int rc = load(bytes, n);
    if (!patched) REQUIRE((rc == 0) == (want && n == want));
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    if (data[0] & 7) {
        try_plausible(data + 1, size - 1);
        return 0;
    }
    uint8_t *bytes = malloc(size - 1);
    memcpy(bytes, data + 1, size - 1);
    load(bytes, size - 1);
    free(bytes);
    return 0;
}
