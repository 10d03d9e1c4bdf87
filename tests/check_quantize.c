// quantize and synth's GGUF: what they write opens again and says the same in the way its type allows. What it
// makes of stories260K is check_containers'.
#include "bad/commands.h"
#include "bad/gguf.h"

#include "decoder.h"
#include "gguf.h"
#include "load.h"
#include "tokenizer.h"
#include "quant.h"
#include "tessera.h"
#include "utf8.h"

#include <jansson.h>

#define IN_BIN in_folder("in.bin")
#define IN_GGUF in_folder("in.gguf")
#define OUT in_folder("out.gguf")

// Rows of whole super-blocks; vocabulary with byte tokens.
static const BinSpec wide = {256, 512, 2, 4, 2, 320, 64, .tied = true, .seed = 5};

// The types, and the error that each may leave in weights (uniform ones: less than half of it), in logits, and in
// logits of stories260K, whose rows of 64 and 172 values are too short for some: see test_fallback.
static const struct {
    const char *name;
    DType dtype;
    double weights, logits, stories;
} kinds[] = {{"F32", DTYPE_F32, 0, 0, 0},
             {"F16", DTYPE_F16, 1e-7, 1e-5, 1e-5},
             {"BF16", DTYPE_BF16, 1e-5, 1e-3, 1e-3},
             {"Q8_0", DTYPE_Q8_0, 5e-5, 5e-3, 1e-3},
             {"Q4_0", DTYPE_Q4_0, 1e-2, 0.5, 0.1},
             {"Q4_1", DTYPE_Q4_1, 1e-2, 0.5, 0.1},
             {"Q5_0", DTYPE_Q5_0, 2e-3, 0.2, 0.02},
             {"Q5_1", DTYPE_Q5_1, 2e-3, 0.2, 0.02},
             {"Q2_K", DTYPE_Q2_K, 0.11, 3, 0.1},
             {"Q3_K", DTYPE_Q3_K, 3e-2, 1, 0.1},
             {"Q4_K", DTYPE_Q4_K, 1e-2, 0.5, 0.02},
             {"Q5_K", DTYPE_Q5_K, 2e-3, 0.2, 0.02},
             {"Q6_K", DTYPE_Q6_K, 5e-4, 5e-2, 1e-3},
             {"IQ4_NL", DTYPE_IQ4_NL, 1e-2, 0.5, 0.1},
             {"IQ4_XS", DTYPE_IQ4_XS, 1e-2, 0.5, 0.1},
             {"TQ1_0", DTYPE_TQ1_0, 0.25, 10, 0.1},
             {"TQ2_0", DTYPE_TQ2_0, 0.25, 10, 0.1}};

// ---- models as they were and as they are

typedef struct {
    Model model;
    Vocab vocab;
    File tokenizer;
} Opened;

static bool opened(Opened *o, const char *path, const char *tokenizer) {
    char err[512] = "";
    int rc = load_model(&o->model, path, err, sizeof err) ||
             load_vocab(&o->vocab, &o->tokenizer, &o->model, tokenizer, err, sizeof err);
    CHECK(!rc, "%s", err);
    return !rc;
}

static void closed(Opened *o) {
    vocab_free(&o->vocab);
    file_unmap(&o->tokenizer);
    weights_free(&o->model.weights);
}

static float *values_of(const Tensor *t) {
    int64_t n = tensor_count(t);
    float *v = need_floats(n);
    const uint16_t *half = t->data;
    if (t->dtype == DTYPE_F32) memcpy(v, t->data, sizeof *v * (size_t)n);
    else if (t->dtype == DTYPE_I8G) {
        for (int64_t i = 0; i < n; i++)
            v[i] = (float)((const int8_t *)t->data)[i] * ((const float *)t->scales)[i / t->group];
    } else if (dtype_info(t->dtype)->unpack) dtype_info(t->dtype)->unpack(v, t->data, n / dtype_info(t->dtype)->block);
    else {
        for (int64_t i = 0; i < n; i++) {
            v[i] = t->dtype == DTYPE_F16 ? f32_from_f16(half[i]) : f32_from_bf16(half[i]);
        }
    }
    return v;
}

static double tensor_error(const Tensor *a, const Tensor *b) {
    CHECK(a->n_dims == b->n_dims && !memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->n_dims), "another shape");
    if (tensor_count(a) != tensor_count(b)) return INFINITY;
    float *x = values_of(a), *y = values_of(b);
    double off = nmse_f32(x, y, (int)tensor_count(a));
    free(x);
    free(y);
    return off;
}

// Every tensor of `before`, no other, norms as they were, matrices of the type within its error.
static void same_weights(const Opened *before, const Opened *after, DType type, double most, const char *what) {
    const Weights *a = &after->model.weights, *b = &before->model.weights;
    CHECK(weights_count(a) == weights_count(b), "%s: %zu tensors, not %zu", what, weights_count(a), weights_count(b));
    for (size_t i = 0; i < weights_count(b); i++) {
        const char *name = b->table[i].key;
        const Tensor *old = weights_at(b, i), *new = weights_find(a, name);
        CHECK(new, "%s: no %s", what, name);
        if (!new) continue;
        double off = tensor_error(new, old), limit = old->n_dims > 1 ? most : 0;
        CHECK(off <= limit, "%s: %s: NMSE %g, expected at most %g", what, name, off, limit);
        DType want = old->n_dims > 1 ? type : DTYPE_F32;
        CHECK(new->dtype == want, "%s: %s: %s", what, name, dtype_name(new->dtype));
        CHECK(((const uint8_t *)new->data - a->files[0].data) % 32 == 0, "%s: %s: alignment", what, name);
    }
}

static void same_vocab(const Vocab *a, const Vocab *b, const char *what) {
    CHECK(arrlen(a->pieces) == arrlen(b->pieces), "%s: %td pieces", what, arrlen(b->pieces));
    for (ptrdiff_t i = 0; i < arrlen(a->pieces) && i < arrlen(b->pieces); i++) {
        const Piece *p = &a->pieces[i], *q = &b->pieces[i];
        bool same = p->len == q->len && !memcmp(p->text, q->text, (size_t)p->len) && p->type == q->type;
        bool score = !memcmp(&p->score, &q->score, sizeof p->score);
        CHECK(same && score, "%s: piece %d: '%.*s', '%.*s'", what, (int)i, p->len, p->text, q->len, q->text);
    }
    CHECK(a->bos_id == b->bos_id && a->eos_id == b->eos_id && a->unk_id == b->unk_id, "%s: special ids", what);
    CHECK(a->no_bos == b->no_bos && a->add_space_prefix == b->add_space_prefix, "%s: flags", what);
}

static void same_config(const Config *a, const Config *b, const char *what) {
    const LayerKind *k = &a->kinds[0], *l = &b->kinds[0];
    const int x[] = {a->dim,     a->hidden_dim, a->n_layers,   a->vocab_size, a->max_seq_len, a->tied,
                     a->n_kinds, k->n_heads,    k->n_kv_heads, k->k_dim,      k->window,      (int)k->rope.pairing};
    const int y[] = {b->dim,     b->hidden_dim, b->n_layers,   b->vocab_size, b->max_seq_len, b->tied,
                     b->n_kinds, l->n_heads,    l->n_kv_heads, l->k_dim,      l->window,      (int)l->rope.pairing};
    CHECK(!memcmp(x, y, sizeof x), "%s: the shape differs", what);
    CHECK(!memcmp(&a->norm_eps, &b->norm_eps, 4) && k->rope.theta == l->rope.theta, "%s: eps, theta", what);
}

// The ids of the text in ids and the logits after it; NULL on failure.
static float *logits_after(const char *path, const char *tokenizer, const char *text, int32_t **ids, int *n) {
    char err[512] = "";
    Engine *e = engine_open(path, tokenizer, err, sizeof err);
    Session *s = e ? session_open(e, &(SessionOptions){.n_threads = 1, .kv = KV_F32}, err, sizeof err) : NULL;
    *n = s ? engine_encode(e, text, strlen(text), true, false, ids, err, sizeof err) : -1;
    float *logits = NULL;
    if (*n > 0 && !session_sync(s, *ids, *n, err, sizeof err)) {
        size_t bytes = sizeof *logits * (size_t)engine_info(e).vocab_size;
        logits = memcpy(need(bytes), session_logits(s), bytes);
    }
    CHECK(logits, "%s: %s", path, err);
    session_close(s);
    engine_close(e);
    return logits;
}

static void same_logits(const char *before, const char *tokenizer, const char *after, double most, int vocab,
                        const char *what) {
    const char text[] = "a word, and caf\xc3\xa9  two";
    int32_t *a = NULL, *b = NULL;
    int n, m;
    float *x = logits_after(before, tokenizer, text, &a, &n), *y = logits_after(after, NULL, text, &b, &m);
    CHECK(n == m && n > 0 && !memcmp(a, b, sizeof *a * (size_t)n), "%s: the text has other ids", what);
    double off = x && y ? nmse_f32(y, x, vocab) : INFINITY;
    CHECK(off <= most, "%s: logits: NMSE %g, expected at most %g", what, off, most);
    free(a);
    free(b);
    free(x);
    free(y);
}

// The number after `key` in what the program said.
static double said(const char *text, const char *key) {
    const char *at = strstr(text, key);
    return at ? strtod(at + strlen(key), NULL) : NAN;
}

static void check_conversion(const char *in, const char *tokenizer, const char *type, const char *what) {
    const char *z = tokenizer ? "-z" : NULL;
    Result r = CALL("quantize", in, OUT, type, "--pure", z, tokenizer);
    CHECK(r.status == 0 && !*r.out, "%s: status %d: %s", what, r.status, r.err);
    struct stat a = {0}, b = {0};
    CHECK(!stat(in, &a) && !stat(OUT, &b), "%s: no output", what);
    CHECK(said(r.err, " | ") == (double)a.st_size, "%s: bytes in: %s", what, r.err);
    CHECK(said(r.err, " -> ") == (double)b.st_size, "%s: bytes out: %s", what, r.err);
    release(&r);
}

// ---- quantize

static void make_wide(void) {
    make_bin(IN_BIN, &wide);
    make_tokenizer_bin(in_folder("in.tokenizer.bin"), wide.vocab_size, 3);
}

static void test_each_type(void) {
    make_wide();
    for (int k = 0; k < N_OF(kinds); k++) {
        Opened a, b;
        check_conversion(IN_BIN, NULL, kinds[k].name, kinds[k].name);
        if (!opened(&a, IN_BIN, NULL) || !opened(&b, OUT, NULL)) return;
        CHECK(!strcmp(b.model.kind, "GGUF v3"), "%s", b.model.kind);
        same_weights(&a, &b, kinds[k].dtype, kinds[k].weights, kinds[k].name);
        same_vocab(&a.vocab, &b.vocab, kinds[k].name);
        same_config(&a.model.config, &b.model.config, kinds[k].name);
        same_logits(IN_BIN, NULL, OUT, kinds[k].logits, wide.vocab_size, kinds[k].name);
        closed(&a);
        closed(&b);
    }
}

// What the program says of the error is what the two files say.
static void test_the_error_it_tells(void) {
    make_wide();
    Result r = CALL("quantize", IN_BIN, OUT, "q4_0", "-t", "1");
    Opened a, b;
    if (!opened(&a, IN_BIN, NULL) || !opened(&b, OUT, NULL)) return;
    double error = 0, power = 0, worst = 0;
    for (size_t i = 0; i < weights_count(&a.model.weights); i++) {
        const Tensor *t = weights_at(&a.model.weights, i);
        if (t->n_dims < 2) continue;
        float *x = values_of(t), *y = values_of(weights_find(&b.model.weights, a.model.weights.table[i].key));
        for (int64_t k = 0; k < tensor_count(t); k++) {
            error += ((double)y[k] - (double)x[k]) * ((double)y[k] - (double)x[k]);
            power += (double)x[k] * (double)x[k];
        }
        worst = fmax(worst, nmse_f32(y, x, (int)tensor_count(t)));
        free(x);
        free(y);
    }
    CHECK(fabs(said(r.err, "NMSE ") / (error / power) - 1) < 0.005, "expected %g: %s", error / power, r.err);
    CHECK(fabs(said(r.err, "worst ") / worst - 1) < 0.005, "expected %g: %s", worst, r.err);
    closed(&a);
    closed(&b);
    release(&r);
}

static void same_bytes(const char *a, const char *b, const char *what) {
    size_t n, m;
    char *x = read_file(a, &n), *y = read_file(b, &m);
    CHECK(n == m && !memcmp(x, y, n), "%s: the files differ", what);
    free(x);
    free(y);
}

static void test_threads_and_repetition(void) {
    make_wide();
    TELLS(0, "", "", "quantize", IN_BIN, IN_GGUF, "Q4_K", "-t", "1");
    TELLS(0, "", "", "quantize", IN_BIN, OUT, "Q4_K", "-t", "3");
    same_bytes(IN_GGUF, OUT, "1 and 3 threads");
    Result r = CALL("quantize", IN_GGUF, OUT, "Q4_K"); // what has the type keeps its bytes
    CHECK(r.status == 0 && said(r.err, "NMSE ") == 0, "%s", r.err);
    same_bytes(IN_GGUF, OUT, "Q4_K again");
    release(&r);
}

// An int8 file becomes what its values times their scales are.
static void test_int8_input(void) {
    BinSpec int8 = wide;
    int8.version = 2, int8.group = 64, int8.tied = false;
    make_wide();
    make_bin(IN_BIN, &int8);
    check_conversion(IN_BIN, NULL, "F32", "int8");
    Opened a, b;
    if (!opened(&a, IN_BIN, NULL) || !opened(&b, OUT, NULL)) return;
    same_weights(&a, &b, DTYPE_F32, 0, "int8");
    CHECK(!b.model.config.tied, "the classifier stays apart");
    same_logits(IN_BIN, NULL, OUT, 1e-9, wide.vocab_size, "int8");
    closed(&a);
    closed(&b);
}

// What a GGUF vocabulary and its settings can say beyond a tokenizer.bin.
static void test_gguf_input(void) {
    BinSpec spec = {64, 96, 2, 4, 2, 300, 64, .seed = 9};
    Maker m = maker_new();
    maker_llama(&m, &spec);
    maker_bool(&m, "tokenizer.ggml.add_bos_token", 0);
    maker_bool(&m, "tokenizer.ggml.add_space_prefix", 0);
    maker_u32(&m, "tokenizer.ggml.eos_token_id", 280);
    maker_u32(&m, "tokenizer.ggml.unknown_token_id", 0xFFFFFFFFu);
    maker_u32(&m, "llama.attention.sliding_window", 32);
    maker_f32(&m, "llama.rope.freq_base", 500000);
    maker_f32(&m, "llama.attention.layer_norm_rms_epsilon", 1e-6f);
    int32_t *token_types = (int32_t *)(void *)maker_pair(&m, "tokenizer.ggml.token_type")->payload.at;
    token_types[270] = 4, token_types[271] = 5, token_types[280] = 3;
    maker_write(&m, IN_GGUF);
    maker_free(&m);
    const char *const types[] = {"F32", "Q8_0"};
    for (int i = 0; i < N_OF(types); i++) {
        Opened a, b;
        check_conversion(IN_GGUF, NULL, types[i], "GGUF");
        if (!opened(&a, IN_GGUF, NULL) || !opened(&b, OUT, NULL)) return;
        same_weights(&a, &b, i ? DTYPE_Q8_0 : DTYPE_F32, i ? 5e-5 : 0, "GGUF");
        same_vocab(&a.vocab, &b.vocab, "GGUF");
        same_config(&a.model.config, &b.model.config, "GGUF");
        CHECK(b.vocab.unk_id == -1 && b.vocab.no_bos && b.vocab.pieces[270].type == TOKEN_USER, "vocabulary");
        closed(&a);
        closed(&b);
    }
}

// ---- settings of a GGUF

static const BinSpec narrow = {32, 64, 1, 2, 1, 300, 16, .seed = 7};

// Settings of every type, known and unknown.
static void put_odd_settings(Maker *m) {
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 0x80};
    char key[40];
    for (uint32_t type = G_U8; type <= G_F64; type++) {
        static const int sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
        snprintf(key, sizeof key, "somebody.key%u", type);
        if (type == G_BOOL) maker_bool(m, key, 1);
        else if (sizes[type]) maker_put(m, key, type, bytes, (size_t)sizes[type]);
    }
    bytes_put_text(&maker_set(m, "somebody.text", G_STRING)->payload, "a\0b\xff\n", 5);
    maker_text(m, "tokenizer.chat_template", "{% for m in messages %}{{ m }}{% endfor %}");
    maker_array(m, "somebody.nothing", G_STRING);
    MakePair *list = maker_array(m, "general.languages", G_STRING);
    array_put_text(list, "en");
    array_put_text(list, "");
    list = maker_array(m, "somebody.numbers", G_I16);
    for (int i = 0; i < 3; i++) array_put(list, bytes + 2 * i, 2);
}

// Each setting of the maker with the same bytes, in its order, then the two of the new type.
static void check_carried(const Maker *m, const char *path, uint32_t file_type) {
    char err[512] = "";
    File file;
    Gguf g;
    NEED(!file_map(&file, path, err, sizeof err), "%s", err);
    CHECK(!gguf_read(&g, &file, err, sizeof err), "%s", err);
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 0; i < arrlen(m->pairs) && at < shlen(g.pairs); i++) {
        const MakePair *p = &m->pairs[i];
        if (!strncmp(p->key, "split.", 6) || !strcmp(p->key, "general.alignment")) continue;
        if (!strcmp(p->key, "general.file_type") || !strcmp(p->key, "general.quantization_version")) continue;
        const GgufPair *q = &g.pairs[at++];
        const GgufValue *v = &q->value;
        CHECK(!strcmp(p->key, q->key), "%s: found %s", p->key, q->key);
        CHECK(v->is_array == p->array && (uint32_t)v->type == (p->array ? p->element : p->type), "%s: type", p->key);
        CHECK(v->count == p->count, "%s: %llu elements", p->key, (unsigned long long)v->count);
        size_t n = arrlenu(p->payload.at);
        CHECK(!n || !memcmp(file.data + v->at, p->payload.at, n), "%s: other bytes", p->key);
    }
    CHECK(at + 2 == shlen(g.pairs), "%td settings, expected two more than %td", shlen(g.pairs), at);
    CHECK(gguf_get_whole(&g, "general.file_type", 0, 99, -1) == file_type, "file type");
    CHECK(gguf_get_whole(&g, "general.quantization_version", 0, 99, -1) == 2, "quantization version");
    CHECK(!gguf_get_value(&g, "general.alignment", false), "the alignment is the usual one again");
    gguf_free(&g);
    file_unmap(&file);
}

static void test_settings_carried(void) {
    Maker m = maker_new();
    m.alignment = 128;
    maker_u32(&m, "general.alignment", 128);
    maker_u32(&m, "general.quantization_version", 1);
    maker_llama(&m, &narrow);
    maker_u32(&m, "general.file_type", 0);
    put_odd_settings(&m);
    maker_write(&m, IN_GGUF);
    check_conversion(IN_GGUF, NULL, "Q8_0", "odd settings");
    check_carried(&m, OUT, 7);
    check_conversion(IN_GGUF, NULL, "BF16", "odd settings");
    check_carried(&m, OUT, 32);
    maker_free(&m);
}

// A model in two files becomes what it becomes from one.
static void test_split_input(void) {
    Maker all = maker_new(), parts[2] = {maker_new(), maker_new()};
    maker_llama(&all, &narrow);
    maker_write(&all, IN_GGUF);
    check_conversion(IN_GGUF, NULL, "Q8_0", "one file");
    CHECK(!rename(OUT, in_folder("whole.gguf")), "rename");
    int32_t n_tensors = (int32_t)arrlen(all.tensors);
    maker_settings(&parts[0], &narrow);
    maker_vocab(&parts[0], narrow.vocab_size);
    for (uint16_t i = 0; i < 2; i++) {
        char name[40];
        maker_put(&parts[i], "split.no", G_U16, &i, 2);
        maker_put(&parts[i], "split.count", G_U16, &(uint16_t){2}, 2);
        maker_put(&parts[i], "split.tensors.count", G_I32, &n_tensors, 4);
        for (int t = 0; t < n_tensors; t++) {
            const MakeTensor *from = &all.tensors[t];
            if ((t < 4) != (i == 0)) continue; // the first file has the first four
            MakeTensor *to = maker_add_tensor(&parts[i], from->name, from->type, from->dims[0],
                                              from->n_dims > 1 ? from->dims[1] : 0);
            bytes_put(&to->data, from->data.at, arrlenu(from->data.at));
        }
        snprintf(name, sizeof name, "in-%05d-of-00002.gguf", i + 1);
        maker_write(&parts[i], in_folder(name));
        maker_free(&parts[i]);
    }
    TELLS(0, "", "", "quantize", in_folder("in-00001-of-00002.gguf"), OUT, "Q8_0");
    same_bytes(OUT, in_folder("whole.gguf"), "two files");
    REFUSES(2, "overwrite the input", "quantize", in_folder("in-00001-of-00002.gguf"),
            in_folder("in-00002-of-00002.gguf"), "Q8_0");
    maker_free(&all);
}

// -z puts another vocabulary in place of the model's, --no-vocab none.
static void test_other_vocabulary(void) {
    BinSpec spec = narrow;
    Maker m = maker_new();
    maker_llama(&m, &spec);
    maker_write(&m, IN_GGUF);
    maker_text(&m, "tokenizer.chat_template", "{{ messages }}");
    maker_u32(&m, "tokenizer.ggml.eos_token_id", 299);
    maker_write(&m, in_folder("other.gguf"));
    make_bin(IN_BIN, &spec);
    make_tokenizer_bin(in_folder("in.tokenizer.bin"), spec.vocab_size, 3);
    const char *const models[] = {IN_GGUF, IN_BIN};
    for (int i = 0; i < N_OF(models); i++) {
        char err[512];
        Opened a, b;
        File file;
        Gguf g;
        check_conversion(models[i], in_folder("other.gguf"), "F32", "another's vocabulary");
        if (!opened(&a, in_folder("other.gguf"), NULL) || !opened(&b, OUT, NULL)) return;
        same_vocab(&a.vocab, &b.vocab, "another's vocabulary");
        CHECK(b.vocab.eos_id == 299, "eos %d", b.vocab.eos_id);
        uint64_t n;
        CHECK(!gguf_read(&g, &b.model.weights.files[0], err, sizeof err), "%s", err);
        CHECK(gguf_get_text(&g, "tokenizer.chat_template", false, &n) && n == 14, "chat template");
        gguf_free(&g);
        closed(&a);
        closed(&b);
        check_conversion(models[i], in_folder("in.tokenizer.bin"), "F32", "a tokenizer.bin");
        if (!opened(&a, IN_BIN, NULL) || !opened(&b, OUT, NULL)) return;
        same_vocab(&a.vocab, &b.vocab, "a tokenizer.bin");
        closed(&a);
        closed(&b);
        TELLS(0, "", "", "quantize", models[i], OUT, "F32", "--no-vocab");
        CHECK(!file_map(&file, OUT, err, sizeof err) && !gguf_read(&g, &file, err, sizeof err), "%s", err);
        CHECK(!gguf_get_value(&g, "tokenizer.ggml.tokens", false), "--no-vocab: tokens");
        gguf_need_text(&g, "tokenizer.ggml.model", "no_vocab", true);
        CHECK(!g.in.failed, "%s", err);
        gguf_free(&g);
        file_unmap(&file);
        REFUSES(1, "tokenizer", "run", OUT, "-n", "1");
    }
    maker_free(&m);
}

// ---- tokenizer.json

// A byte as GPT-2's alphabet writes it.
static size_t put_byte(char *to, unsigned char byte) {
    return (size_t)utf8_encode(byte_character(byte), to);
}

// A byte-level vocabulary: the 256 bytes, then what the merges make.
static json_t *byte_level_model(const char *const (*merges)[2], int n) {
    json_t *vocab = json_object(), *list = json_array();
    for (int b = 0; b < 256; b++) {
        char text[8] = "";
        put_byte(text, (unsigned char)b);
        json_object_set_new(vocab, text, json_integer(b));
    }
    for (int i = 0; i < n; i++) {
        char text[2][64] = {"", ""}, whole[128];
        for (int side = 0; side < 2; side++) {
            size_t at = 0;
            for (const char *c = merges[i][side]; *c; c++) at += put_byte(text[side] + at, (unsigned char)*c);
            text[side][at] = 0;
        }
        snprintf(whole, sizeof whole, "%s%s", text[0], text[1]);
        if (!json_object_get(vocab, whole)) json_object_set_new(vocab, whole, json_integer(256 + i));
        json_array_append_new(list, json_pack("[s, s]", text[0], text[1]));
    }
    return json_pack("{s:s, s:o, s:o}", "type", "BPE", "vocab", vocab, "merges", list);
}

// tokenizer.json in the folder, with these steps (JSON with ' for ") before the bytes; what stands beside it.
static void write_byte_level(const char *split, bool ignore_merges) {
    static const char *const merges[][2] = {{"1", "2"},  {"12", "3"}, {"'", "s"},   {"'", "S"}, {" ", "1"},
                                            {"!", "\n"}, {"(", "a"},  {" ", "t"},   {"h", "e"}, {" t", "he"},
                                            {"a", "b"},  {"/", "\n"}, {"\n", "\n"}, {"e", "r"}, {"l", "C"},
                                            {";", "\n"}, {"/", "a"},  {"/a", "b"},  {" ", " "}, {"?", "a"}};
    char steps[1024];
    json_t *model = byte_level_model(merges, N_OF(merges));
    json_object_set_new(model, "ignore_merges", json_boolean(ignore_merges));
    snprintf(steps, sizeof steps,
             "{'type': 'Sequence', 'pretokenizers': [%s{'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': "
             "%s}]}",
             split ? split : "", split && *split ? "false" : "true");
    char *json = json_of(steps);
    json_t *pre = json_loads(json, 0, NULL),
           *added = json_loads("[{\"id\":276,\"content\":\"<|end|>\",\"special\":true},"
                               "{\"id\":277,\"content\":\"<|eot|>\",\"special\":true}"
                               "]",
                               0, NULL);
    json_t *o = json_pack("{s:o, s:o, s:o, s:{s:s}}", "model", model, "pre_tokenizer", pre, "added_tokens", added,
                          "decoder", "type", "ByteLevel");
    char *text = json_dumps(o, 0);
    write_text("tokenizer.json", text);
    write_json("tokenizer_config.json",
               "{'bos_token': null, 'eos_token': '<|end|>', 'chat_template': '{{ messages }}'}");
    write_json("generation_config.json", "{'eos_token_id': [276, 277]}");
    free(text);
    free(json);
    json_decref(o);
}

#define LETTERS "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+"
#define OTHERS " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPLIT(regex) "{'type': 'Split', 'pattern': {'Regex': '" regex "'}, 'behavior': 'Isolated', 'invert': false}, "

// Both take over their vocabulary.
static void same_encoding(Vocab *a, Vocab *b, const char *text, const char *what) {
    char err[512] = "";
    Tokenizer *s = tokenizer_new(a, err, sizeof err), *t = tokenizer_new(b, err, sizeof err);
    int32_t *x = NULL, *y = NULL;
    int n = s ? tokenizer_encode(s, text, strlen(text), TOKENIZE_BOS, &x, err, sizeof err) : -1;
    int m = t ? tokenizer_encode(t, text, strlen(text), TOKENIZE_BOS, &y, err, sizeof err) : -1;
    CHECK(n > 0 && n == m && !memcmp(x, y, sizeof *x * (size_t)n), "%s: %d ids, then %d: %s", what, n, m, err);
    tokenizer_free(s);
    tokenizer_free(t);
    free(x);
    free(y);
}

// The name of the pre-tokenizer is found by what it does; ids and what stands beside tokenizer.json are carried over.
static void test_tokenizer_json(void) {
    static const struct {
        const char *split, *pre; // pre NULL: refused
        bool ignore_merges;
    } cases[] = {
        {"", "gpt-2", false},
        {"{'type': 'Digits', 'individual_digits': true}, {'type': 'Split', 'pattern': {'Regex': 'XXXX'}, 'behavior': "
         "'Isolated', 'invert': false}, ",
         NULL, false},
        {SPLIT("(?i:[^a-z]s|[^a-z]t)|" LETTERS "|\\\\p{N}|" OTHERS), NULL, false},
        {SPLIT("(?i:\\u0027s|\\u0027t|\\u0027re|\\u0027ve|\\u0027m|\\u0027ll|\\u0027d)|" LETTERS "|\\\\p{N}|" OTHERS),
         "qwen2", false},
        {SPLIT("(?i:\\u0027s|\\u0027t|\\u0027re|\\u0027ve|\\u0027m|\\u0027ll|\\u0027d)|" LETTERS
               "|\\\\p{N}{1,3}|" OTHERS),
         "llama-bpe", true},
        {SPLIT("(?i:\\u0027s|\\u0027t|\\u0027re|\\u0027ve|\\u0027m|\\u0027ll|\\u0027d)|" LETTERS
               "|\\\\p{N}{1,3}|" OTHERS),
         "dbrx", false},
    };
    BinSpec spec = narrow;
    make_bin(IN_BIN, &spec);
    for (int i = 0; i < N_OF(cases); i++) {
        static const char text[] = "The 1234 hers' (ab)!\n\n He's SHE'S /ab; 12 123!\n";
        char err[512] = "";
        write_byte_level(cases[i].split, cases[i].ignore_merges);
        if (!cases[i].pre) {
            REFUSES(1, "--no-vocab", "quantize", IN_BIN, OUT, "F32", "-z", folder);
            continue;
        }
        check_conversion(IN_BIN, folder, "F32", cases[i].pre);
        Opened a, b;
        Gguf g;
        if (!opened(&a, IN_BIN, folder) || !opened(&b, OUT, NULL)) return;
        CHECK(!gguf_read(&g, &b.model.weights.files[0], err, sizeof err), "%s", err);
        gguf_need_text(&g, "tokenizer.ggml.pre", cases[i].pre, true);
        gguf_need_text(&g, "tokenizer.ggml.model", "gpt2", true);
        gguf_need_text(&g, "tokenizer.chat_template", "{{ messages }}", true);
        CHECK(gguf_get_whole(&g, "tokenizer.ggml.eos_token_id", 0, 299, -1) == 276, "eos");
        CHECK(gguf_get_whole(&g, "tokenizer.ggml.eot_token_id", 0, 299, -1) == 277, "eot");
        CHECK(!g.in.failed, "%s", err);
        CHECK(arrlen(b.vocab.pieces) == 300 && b.vocab.pieces[299].type == TOKEN_UNUSED, "as many as the model has");
        gguf_free(&g);
        same_encoding(&a.vocab, &b.vocab, text, cases[i].pre);
        closed(&a);
        closed(&b);
    }
    unlink(in_folder("tokenizer.json")); // other tests have none beside their models
}

static void test_fallback(void) {
    BinSpec spec = {96, 40, 1, 4, 4, 300, 16, .tied = true, .seed = 2};
    const struct {
        const char *type;
        DType even, odd; // of rows of 96 and of 40 values
        const char *note;
    } cases[] = {{"Q6_K", DTYPE_Q8_0, DTYPE_F16, "8 of 8 matrices, which became: 1 F16, 7 Q8_0"},
                 {"Q4_0", DTYPE_Q4_0, DTYPE_F16, "1 of 8 matrices, which became: 1 F16"},
                 {"Q2_K", DTYPE_Q4_0, DTYPE_F16, "8 of 8"},
                 {"Q3_K_S", DTYPE_Q4_0, DTYPE_F16, "8 of 8"},
                 {"Q4_K_S", DTYPE_Q5_0, DTYPE_F16, "8 of 8"},
                 {"Q5_K_S", DTYPE_Q5_1, DTYPE_F16, "8 of 8"},
                 {"IQ4_XS", DTYPE_IQ4_NL, DTYPE_F16, "8 of 8"},
                 {"TQ1_0", DTYPE_Q4_0, DTYPE_F16, "8 of 8"},
                 {"TQ2_0", DTYPE_Q4_0, DTYPE_F16, "8 of 8"},
                 {"BF16", DTYPE_BF16, DTYPE_BF16, NULL}};
    make_bin(IN_BIN, &spec);
    make_tokenizer_bin(in_folder("in.tokenizer.bin"), spec.vocab_size, 3);
    for (int i = 0; i < N_OF(cases); i++) {
        Opened o;
        Result r = CALL("quantize", IN_BIN, OUT, cases[i].type, "--pure");
        CHECK(r.status == 0 && (cases[i].note ? !!strstr(r.err, cases[i].note) : !strstr(r.err, "note")), "%s", r.err);
        release(&r);
        if (!opened(&o, OUT, NULL)) return;
        const Weights *w = &o.model.weights;
        CHECK(weights_find(w, "blk.0.attn_q.weight")->dtype == cases[i].even, "%s: attn_q", cases[i].type);
        CHECK(weights_find(w, "blk.0.ffn_down.weight")->dtype == cases[i].odd, "%s: ffn_down", cases[i].type);
        closed(&o);
    }
}

// The embedding and the output with types of their own; where the output is the embedding, it has the embedding's.
static void test_types_of_the_ends(void) {
    static const struct {
        bool tied;
        const char *pure;
        DType embedding, output, other;
    } cases[] = {{false, "--pure", DTYPE_Q8_0, DTYPE_F16, DTYPE_Q4_0},
                 {false, "-t=1", DTYPE_Q8_0, DTYPE_F16, DTYPE_Q4_0},
                 {true, "-t=1", DTYPE_Q8_0, DTYPE_Q8_0, DTYPE_Q4_0}};
    for (int i = 0; i < N_OF(cases); i++) {
        BinSpec spec = wide;
        spec.tied = cases[i].tied;
        make_bin(IN_BIN, &spec);
        make_tokenizer_bin(in_folder("in.tokenizer.bin"), spec.vocab_size, 3);
        Opened o;
        Result r = CALL("quantize", cases[i].pure, "--output-tensor-type", "f16", "--token-embedding-type", "q8_0",
                        IN_BIN, OUT, "q4_0", "2");
        CHECK(r.status == 0, "%s", r.err);
        release(&r);
        if (!opened(&o, OUT, NULL)) return;
        const Weights *w = &o.model.weights;
        const Tensor *output = weights_find(w, "output.weight");
        CHECK(!output == cases[i].tied, "case %d: the output matrix", i);
        CHECK(!output || output->dtype == cases[i].output, "case %d: output", i);
        CHECK(weights_find(w, "token_embd.weight")->dtype == cases[i].embedding, "case %d: embedding", i);
        CHECK(weights_find(w, "blk.0.attn_v.weight")->dtype == cases[i].other, "case %d: attn_v", i);
        closed(&o);
    }
    REFUSES(2, "--output-tensor-type: expected F32, F16", "quantize", IN_BIN, OUT, "F32", "--output-tensor-type", "Q9");
}

// An embedding that is not the output has four bits in a ternary mix.
static void test_ternary_embedding(void) {
    BinSpec spec = wide;
    Opened o;
    spec.tied = false;
    make_bin(IN_BIN, &spec);
    TELLS(0, "!", "", "quantize", IN_BIN, OUT, "TQ2_0");
    if (!opened(&o, OUT, NULL)) return;
    const Weights *w = &o.model.weights;
    CHECK(weights_find(w, "token_embd.weight")->dtype == DTYPE_Q4_K, "embedding");
    CHECK(weights_find(w, "output.weight")->dtype == DTYPE_Q6_K, "output");
    CHECK(weights_find(w, "blk.0.attn_v.weight")->dtype == DTYPE_TQ2_0, "attn_v");
    closed(&o);
}

// What llama.cpp gives the tensors of a model of 16 layers: the types of attn_v and ffn_down by layer, a letter each
// (digits: Q2_K to Q6_K, 8: Q8_0; t, T: TQ1_0, TQ2_0), of attn_output, of the others, of the embedding, which is the
// output too.
static void test_mixes(void) {
    static const BinSpec deep = {256, 256, 16, 4, 2, 300, 16, .tied = true, .seed = 3};
    static const struct {
        const char *name;
        uint32_t file_type;
        const char *values, *down;
        char out, other, embedding;
    } cases[] = {
        {"Q2_K", 10, "3333333333333333", "3333333333333333", '3', '2', '6'},
        {"Q3_K_S", 11, "3333333333333333", "3333333333333333", '3', '3', '6'},
        {"q3_k_m", 12, "5544444444444444", "5444444444444444", '4', '3', '6'},
        {"Q3_K", 12, "5544444444444444", "5444444444444444", '4', '3', '6'},
        {"Q3_K_L", 13, "5555555555555555", "5555555555555555", '5', '3', '6'},
        {"Q4_K_S", 14, "5555444444444444", "5544444444444444", '4', '4', '6'},
        {"Q4_K_M", 15, "6644644644644666", "6644644644644666", '4', '4', '6'},
        {"Q4_K", 15, "6644644644644666", "6644644644644666", '4', '4', '6'},
        {"Q5_K_S", 16, "5555555555555555", "5555555555555555", '5', '5', '6'},
        {"Q5_K_M", 17, "6655655655655666", "6655655655655666", '5', '5', '6'},
        {"Q6_K", 18, "6666666666666666", "6666666666666666", '6', '6', '6'},
        {"Q8_0", 7, "8888888888888888", "8888888888888888", '8', '8', '8'},
        {"TQ1_0", 36, "tttttttttttttttt", "tttttttttttttttt", 't', 't', '6'},
        {"TQ2_0", 37, "TTTTTTTTTTTTTTTT", "TTTTTTTTTTTTTTTT", 'T', 'T', '6'},
    };
    static const DType types[] = {['2'] = DTYPE_Q2_K, ['3'] = DTYPE_Q3_K, ['4'] = DTYPE_Q4_K,  ['5'] = DTYPE_Q5_K,
                                  ['6'] = DTYPE_Q6_K, ['8'] = DTYPE_Q8_0, ['t'] = DTYPE_TQ1_0, ['T'] = DTYPE_TQ2_0};
    make_bin(IN_BIN, &deep);
    make_tokenizer_bin(in_folder("in.tokenizer.bin"), deep.vocab_size, 3);
    for (int i = 0; i < N_OF(cases); i++) {
        Opened o;
        char err[512] = "";
        Gguf g;
        Result r = CALL("quantize", IN_BIN, OUT, cases[i].name);
        CHECK(r.status == 0 && !strstr(r.err, "note"), "%s: %s", cases[i].name, r.err);
        release(&r);
        if (!opened(&o, OUT, NULL)) return;
        for (size_t t = 0; t < weights_count(&o.model.weights); t++) {
            const char *name = o.model.weights.table[t].key;
            int layer = 0;
            bool in_layer = sscanf(name, "blk.%d.", &layer) == 1;
            DType got = weights_at(&o.model.weights, t)->dtype, want = types[(int)cases[i].other];
            if (!in_layer) want = types[(int)cases[i].embedding];
            if (strstr(name, "attn_v")) want = types[(int)cases[i].values[layer]];
            if (strstr(name, "ffn_down")) want = types[(int)cases[i].down[layer]];
            if (strstr(name, "attn_output")) want = types[(int)cases[i].out];
            if (strstr(name, "norm")) want = DTYPE_F32;
            CHECK(got == want, "%s: %s is %s, expected %s", cases[i].name, name, dtype_name(got), dtype_name(want));
        }
        CHECK(!gguf_read(&g, &o.model.weights.files[0], err, sizeof err), "%s", err);
        uint32_t number = (uint32_t)gguf_get_whole(&g, "general.file_type", 0, 99, -1);
        CHECK(number == cases[i].file_type, "%s: file type %u", cases[i].name, number);
        gguf_free(&g);
        closed(&o);
    }
}

// A value that a matrix of the .bin (v0, the first is the embedding) holds instead.
static void spoil(const char *path, float value) {
    size_t n;
    char *bytes = read_file(path, &n);
    memcpy(bytes + 28 + 4 * wide.dim, &value, sizeof value);
    write_bytes(path, bytes, n);
    free(bytes);
}

static void test_values_it_refuses(void) {
    make_wide();
    write_text("out.gguf", "what was there");
    spoil(IN_BIN, INFINITY);
    REFUSES(1, "token_embd.weight: row 1: expected finite values", "quantize", IN_BIN, OUT, "F32");
    spoil(IN_BIN, NAN);
    REFUSES(1, "row 1: expected finite values", "quantize", IN_BIN, OUT, "Q4_K");
    spoil(IN_BIN, 1e5f);
    REFUSES(1, "up to 65504", "quantize", IN_BIN, OUT, "F16");
    char *text = read_file(OUT, NULL);
    CHECK(!strcmp(text, "what was there"), "a failure leaves OUT as it was, found '%.40s'", text);
    CHECK(count_files("out.gguf.") == 0, "a part is left behind");
    free(text);
}

static void test_quantize_refuses(void) {
    make_wide();
    Result r = CALL("quantize", IN_BIN, IN_GGUF, "F16");
    release(&r);
    CHECK(!link(IN_GGUF, in_folder("in2.gguf")), "link");
    refuse_commands("commands_quantize");
    unlink(in_folder("in.tokenizer.bin"));
    REFUSES(1, "no tokenizer", "quantize", IN_BIN, OUT, "F32");
    Opened o;
    if (opened(&o, IN_GGUF, NULL)) closed(&o); // the refusals have left it whole
}

static void test_disk_full(void) {
    SKIP_WITHOUT("/dev/full");
    make_wide();
    unlink(OUT);
    CHECK(!symlink("/dev/full", OUT), "symlink");
    REFUSES(1, "No space left on device", "quantize", IN_BIN, OUT, "F32");
    REFUSES(1, "No space left on device", "synth", "tiny", "Q8_0", OUT);
    unlink(OUT);
}

// ---- real files

static const char story[] =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";

// A folder whose tokenizer.json has ranked merges of characters: scores in GGUF.
static void test_tinystories(void) {
    static const char in[] = SHARED_DATA "tinystories-656k-hf";
    SKIP_WITHOUT(in);
    Opened a, b;
    Result r = CALL("quantize", in, OUT, "BF16");
    CHECK(r.status == 0 && said(r.err, "NMSE ") == 0, "%s", r.err);
    release(&r);
    same_logits(in, NULL, OUT, 1e-10, 2048, "folder to BF16");
    if (!opened(&a, in, NULL) || !opened(&b, OUT, NULL)) return;
    CHECK(b.vocab.kind == VOCAB_SCORE_BPE && b.vocab.eos_id == a.vocab.eos_id, "%s", vocab_kind_name(&b.vocab));
    same_encoding(&a.vocab, &b.vocab, story, "folder to BF16");
    closed(&a);
    closed(&b);
}

// ---- synth

static void check_synth(const char *shape, const char *type, const char *layers) {
    int32_t *ids = NULL;
    int n;
    char what[80];
    snprintf(what, sizeof what, "%s %s", shape, type);
    TELLS(0, "!", "", "synth", shape, type, OUT, "--layers", layers, "--vocab", "512");
    float *logits = logits_after(OUT, NULL, "a word or two: \xc3\xa9!", &ids, &n);
    double power = 0;
    for (int i = 0; logits && i < 512; i++) power += (double)logits[i] * (double)logits[i];
    CHECK(power > 1 && power < 512e6, "%s: logits of power %g", what, power);
    free(logits);
    free(ids);
}

static void test_synth_types(void) {
    for (int k = 0; k < N_OF(kinds); k++) check_synth("tiny", kinds[k].name, "9");
    CHECK(access(in_folder("out.tokenizer.bin"), F_OK), "the vocabulary is inside");
}

// Layers of each kind, of models that have more.
static void test_synth_hybrids(void) {
    static const struct {
        const char *name, *arch, *layers;
        bool large;
    } shapes[] = {{"lfm2-350m", "lfm2", "3", true},
                  {"lfm2-moe-tiny", "lfm2moe", "6", false},
                  {"qwen3.5-0.8b", "qwen35", "4", true},
                  {"qwen3.5-tiny", "qwen35", "5", false},
                  {"qwen3.5-moe-tiny", "qwen35moe", "4", false},
                  {"qwen3-next-tiny", "qwen3next", "4", false},
                  {"rwkv7-0.1b", "rwkv7", "2", true},
                  {"rwkv7-tiny", "rwkv7", "2", false},
                  {"arwkv7-tiny", "arwkv7", "2", false},
                  {"llama4-tiny", "llama4", "4", false}};
    for (int i = 0; i < N_OF(shapes); i++) {
        Opened o;
        if (shapes[i].large && quick()) continue;
        check_synth(shapes[i].name, "Q8_0", shapes[i].layers);
        if (!opened(&o, OUT, NULL)) return;
        CHECK(!strcmp(o.model.family->arch, shapes[i].arch), "%s: %s", shapes[i].name, o.model.family->arch);
        closed(&o);
    }
}

// A layer of each shape; of the large ones, where the machine is not emulated.
static void test_synth_shapes(void) {
    static const struct {
        const char *name, *arch;
        bool large;
    } shapes[] = {
        {"134m", "llama", false},         {"smollm2-135m", "llama", false},      {"tinyllama-1.1b", "llama", true},
        {"llama-3.2-1b", "llama", true},  {"llama-3.1-8b", "llama", true},       {"mistral-7b", "llama", true},
        {"qwen2.5-0.5b", "qwen2", true},  {"qwen3-0.6b", "qwen3", true},         {"qwen3-4b", "qwen3", true},
        {"gemma-2-2b", "gemma2", true},   {"gemma-3-1b", "gemma3", true},        {"gemma-3-4b", "gemma3", true},
        {"phi-3-mini", "phi3", true},     {"smollm3-3b", "smollm3", true},       {"olmo2-1b", "olmo2", true},
        {"gpt2", "gpt2", false},          {"pythia-160m", "gptneox", false},     {"starcoder2-3b", "starcoder2", true},
        {"mixtral-tiny", "llama", false}, {"qwen3-moe-tiny", "qwen3moe", false}, {"gpt-oss-tiny", "gpt-oss", false}};
    for (int i = 0; i < N_OF(shapes); i++) {
        Opened o;
        if (shapes[i].large && quick()) continue;
        check_synth(shapes[i].name, "Q8_0", "1");
        if (!opened(&o, OUT, NULL)) return;
        CHECK(!strcmp(o.model.family->arch, shapes[i].arch), "%s: %s", shapes[i].name, o.model.family->arch);
        const Tensor *factors = weights_find(&o.model.weights, "rope_freqs.weight");
        CHECK((factors != NULL) == !strncmp(shapes[i].name, "llama-3", 7), "%s: RoPE's factors", shapes[i].name);
        closed(&o);
    }
    // What gpt-oss's experts are, they stay, and their values are what a float type says.
    Result r = CALL("synth", "gpt-oss-tiny", "Q4_0", IN_GGUF);
    CHECK(strstr(r.err, "12 of 30 matrices are MXFP4 already"), "%s", r.err);
    release(&r);
    check_conversion(IN_GGUF, NULL, "Q8_0", "MXFP4");
    same_logits(IN_GGUF, NULL, OUT, 0.1, 512, "MXFP4 and Q8_0");
    r = CALL("quantize", IN_GGUF, OUT, "BF16"); // Q4_0's values are not BF16's, MXFP4's are
    CHECK(r.status == 0 && said(r.err, "NMSE ") < 1e-5, "%s", r.err);
    CHECK(!strstr(r.err, "worst 0"), "%s", r.err);
    release(&r);
    same_logits(IN_GGUF, NULL, OUT, 1e-3, 512, "MXFP4 to BF16");
}

int main(void) {
    without_rounding();
    folder_make();
    need_program("quantize");
    RUN(test_each_type);
    RUN(test_the_error_it_tells);
    RUN(test_threads_and_repetition);
    RUN(test_int8_input);
    RUN(test_gguf_input);
    RUN(test_settings_carried);
    RUN(test_split_input);
    RUN(test_other_vocabulary);
    RUN(test_tokenizer_json);
    RUN(test_fallback);
    RUN(test_types_of_the_ends);
    RUN(test_ternary_embedding);
    RUN(test_mixes);
    RUN(test_values_it_refuses);
    RUN(test_quantize_refuses);
    RUN(test_disk_full);
    RUN(test_tinystories);
    RUN(test_synth_types);
    RUN(test_synth_shapes);
    RUN(test_synth_hybrids);
    folder_remove();
    return test_report();
}
