// check_containers: one model in every container and type says the same. stories260K as llama2.c v0 is written again as
// v1, as a Hugging Face folder in F32, BF16 and F16, and by build/quantize as GGUF in each type it writes.
//
// Values that a type holds exactly must give the same logits, whatever the container: the GGUF and the folder of one
// type are compared with each other, and each with the original within what the type's rounding costs.
#include "child.h"
#include "make_model.h"

#include "load.h"
#include "quant.h"
#include "tessera.h"

#define STORIES SHARED_DATA "stories260K/"
#define MODEL STORIES "stories260K.bin"
#define VOCAB STORIES "tok512.bin"
#define TINY SHARED_DATA "tinystories-656k-"

enum { N_TOKENS = 120, WORDS = 512 };

static const char text[] = "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
                           "park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.";

typedef struct {
    float logits[N_TOKENS][WORDS];
    int n;
} Seen;

static void see(void *context, int position, const float *logits) {
    Seen *s = context;
    memcpy(s->logits[position], logits, sizeof *s->logits);
}

// All logits of the text.
static bool run_model(Seen *seen, const char *path, const char *tokenizer) {
    char err[512] = "";
    int32_t *ids = NULL;
    memset(seen, 0, sizeof *seen);
    Engine *e = engine_open(path, tokenizer, err, sizeof err);
    Session *s = e ? session_open(e, &(SessionOptions){.n_threads = 1, .kv = KV_F32}, err, sizeof err) : NULL;
    if (s) session_visit(s, see, seen);
    if (s) seen->n = engine_encode(e, text, strlen(text), true, false, &ids, err, sizeof err);
    bool ok = seen->n > 0 && seen->n <= N_TOKENS && !session_sync(s, ids, seen->n, err, sizeof err);
    CHECK(ok, "%s: %s", path, err);
    free(ids);
    session_close(s);
    engine_close(e);
    return ok;
}

static Seen original, seen[2];

static void compare(const Seen *a, const Seen *b, double most, const char *what) {
    double off = nmse_f32(a->logits[0], b->logits[0], WORDS * b->n);
    printf("  %-28s NMSE %.1e\n", what, off);
    CHECK(a->n == b->n && off <= most, "%s: NMSE %.1e, expected at most %.0e", what, off, most);
}

// ---- the same as a folder

static FILE *header, *data;
static long data_at;

static void put_values(const char *name, const float *v, int rows, int cols, const char *dtype) {
    long n = (long)rows * (cols ? cols : 1), bytes = n * (strcmp(dtype, "F32") ? 2 : 4);
    for (long i = 0; i < n; i++) {
        uint16_t half = !strcmp(dtype, "BF16") ? bf16_from_f32(v[i]) : f16_from_f32(v[i]);
        if (!strcmp(dtype, "F32")) fwrite(&v[i], sizeof v[i], 1, data);
        else fwrite(&half, sizeof half, 1, data);
    }
    char dims[40];
    snprintf(dims, sizeof dims, cols ? "%d,%d" : "%d", rows, cols);
    fprintf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%ld,%ld]}", data_at ? "," : "{", name,
            dtype, dims, data_at, data_at + bytes);
    data_at += bytes;
}

// Rows of every head from neighbours (2i, 2i + 1) to halves (i, i + head_dim / 2).
static float *in_halves(const Tensor *t, int head_dim) {
    int64_t rows = t->shape[0], cols = t->shape[1];
    const float *from = t->data;
    float *to = need_floats(rows * cols);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = r % head_dim, half = r - at + at / 2 + (at % 2) * head_dim / 2;
        memcpy(to + half * cols, from + r * cols, sizeof *to * (size_t)cols);
    }
    return to;
}

static void put_part(const Model *m, int layer, const char *part, const char *name, const char *dtype) {
    char from[64], to[80];
    snprintf(from, sizeof from, "blk.%d.%s.weight", layer, part);
    snprintf(to, sizeof to, "model.layers.%d.%s.weight", layer, name);
    if (layer < 0) snprintf(from, sizeof from, "%s.weight", part);
    if (layer < 0) snprintf(to, sizeof to, "model.%s.weight", name);
    const Tensor *t = weights_find(&m->weights, from);
    bool turned = !strcmp(part, "attn_q") || !strcmp(part, "attn_k");
    float *copy = turned ? in_halves(t, m->config.kinds[0].k_dim) : NULL;
    put_values(to, turned ? copy : t->data, (int)t->shape[0], t->n_dims > 1 ? (int)t->shape[1] : 0, dtype);
    free(copy);
}

static void write_folder(const char *dtype) {
    static const char *const parts[][2] = {
        {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
        {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};
    char err[256], config[512];
    char *head, *bytes;
    size_t n_head, n_bytes;
    Model m;
    CHECK(!load_model(&m, MODEL, err, sizeof err), "%s", err);
    const Config *c = &m.config;
    header = open_memstream(&head, &n_head);
    data = open_memstream(&bytes, &n_bytes);
    data_at = 0;
    put_part(&m, -1, "token_embd", "embed_tokens", dtype);
    put_part(&m, -1, "output_norm", "norm", "F32");
    for (int l = 0; l < c->n_layers; l++) {
        for (int i = 0; i < N_OF(parts); i++) {
            put_part(&m, l, parts[i][0], parts[i][1], strstr(parts[i][0], "norm") ? "F32" : dtype);
        }
    }
    fputc('}', header);
    fclose(header);
    fclose(data);
    write_safetensors(head, n_head, bytes, n_bytes);
    snprintf(config, sizeof config,
             "{'model_type':'llama','hidden_size':%d,'intermediate_size':%d,'num_hidden_layers':%d,"
             "'num_attention_heads':%d,'num_key_value_heads':%d,'vocab_size':%d,'max_position_embeddings':%d,"
             "'rms_norm_eps':1e-5,'rope_theta':10000.0,'tie_word_embeddings':true}",
             c->dim, c->hidden_dim, c->n_layers, c->kinds[0].n_heads, c->kinds[0].n_kv_heads, c->vocab_size,
             c->max_seq_len);
    write_json("config.json", config);
    free(head);
    free(bytes);
    weights_free(&m.weights);
}

// ---- all of them

// What rounding to a type may cost the logits of this model, and whether a folder can hold it too.
static const struct {
    const char *type;
    double most;
    bool folder;
} types[] = {{"F32", 1e-11, true}, {"F16", 1e-6, true},  {"BF16", 1e-4, true}, {"Q8_0", 1e-3, false},
             {"Q4_0", 0.1, false}, {"Q4_K", 0.1, false}, {"Q6_K", 1e-2, false}};

static void every_container(void) {
    SKIP_WITHOUT(MODEL);
    if (!run_model(&original, MODEL, VOCAB)) return;
    run_model(&seen[0], STORIES "stories260K-q8.bin", VOCAB);
    compare(&seen[0], &original, 1e-3, "llama2.c v2, int8");
    run_model(&seen[0], STORIES "stories260K.gguf", NULL);
    compare(&seen[0], &original, 1e-11, "GGUF as published, F32");
    for (int i = 0; i < N_OF(types); i++) {
        char what[80];
        folder_make();
        const char *out = in_folder("out.gguf");
        TELLS(0, "", "", "quantize", MODEL, out, types[i].type, "-z", VOCAB);
        run_model(&seen[0], out, NULL);
        snprintf(what, sizeof what, "GGUF %s", types[i].type);
        compare(&seen[0], &original, types[i].most, what);
        if (types[i].folder) {
            write_folder(types[i].type);
            run_model(&seen[1], folder, VOCAB);
            snprintf(what, sizeof what, "folder %s against GGUF %s", types[i].type, types[i].type);
            compare(&seen[1], &seen[0], 1e-11, what);
        }
        folder_remove();
    }
}

static char *greedy(const char *model) {
    folder_make();
    Result r = CALL("run", model, "-p", "Once upon a time", "--temp", "0", "-n", "150", "-q");
    CHECK(r.status == 0, "%s: %s", model, r.err);
    char *out = strdup(r.out);
    release(&r);
    folder_remove();
    return out;
}

// The BF16 safetensors and the F16 GGUF of one model, as its maker says.
static void same_greedy_text(void) {
    SKIP_WITHOUT(TINY "hf/model.safetensors");
    char *a = greedy(TINY "hf"), *b = greedy(TINY "gguf/TinyStories-656K.f16.gguf");
    CHECK(strlen(a) > 300 && !strcmp(a, b), "the folder writes '%s', the GGUF '%s'", a, b);
    free(a);
    free(b);
}

int main(void) {
    without_rounding();
    RUN(every_container);
    RUN(same_greedy_text);
    return test_report();
}
