// sampling: how a model's files say that tokens are to be picked: general.sampling.* of GGUF, generation_config.json.
//
// Owns what these keys are called. Refuses values that no sampler has; says which keys are not applied here. Called by
// load_gguf and load_hf. Sources: github.com/ggml-org/llama.cpp, gguf-py/gguf/constants.py;
// huggingface.co/docs/transformers, "GenerationConfig".
#include "sampling.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const double MOST_TEMPERATURE = 100;
enum { MOST_TOP_K = 1 << 24 };

static float get_part(Gguf *g, const char *key, double most) {
    const GgufValue *v = gguf_get_value(g, key, false);
    double x = v ? gguf_get_number(g, key) : -1;
    if (!v || g->in.failed) return -1;
    if (!(x >= 0 && x <= most)) cursor_fail(&g->in, v->at, "%s: expected 0 to %g, found %g", key, most, x);
    return (float)x;
}

void sampling_read_gguf(Model *m, Gguf *g) {
    static const char *const others[] = {"xtc_probability", "penalty_repeat", "mirostat"};
    Sampling *s = &m->sampling;
    s->temperature = get_part(g, "general.sampling.temp", MOST_TEMPERATURE);
    s->top_p = get_part(g, "general.sampling.top_p", 1);
    s->min_p = get_part(g, "general.sampling.min_p", 1);
    int64_t top_k = gguf_get_whole(g, "general.sampling.top_k", -1, MOST_TOP_K, -2);
    s->top_k = top_k == -2 ? -1 : top_k < 0 ? 0 : (int)top_k;
    s->source = "general.sampling";
    for (size_t i = 0; i < sizeof others / sizeof *others && !g->in.failed; i++) {
        char key[64];
        snprintf(key, sizeof key, "general.sampling.%s", others[i]);
        double neutral = !strcmp(others[i], "penalty_repeat"), found = neutral;
        if (gguf_get_value(g, key, false)) found = gguf_get_number(g, key);
        if (found != neutral) note(&m->notes, "%s = %g is not applied", key, found);
    }
}

static void read_generation(Model *m, Settings *s) {
    static const struct {
        const char *key;
        double neutral;
    } others[] = {{"repetition_penalty", 1}, {"typical_p", 1}, {"epsilon_cutoff", 0}, {"no_repeat_ngram_size", 0}};
    Sampling *to = &m->sampling;
    if (settings_has(s, "temperature"))
        to->temperature = (float)settings_number(s, "temperature", 0, MOST_TEMPERATURE, 0);
    if (settings_has(s, "top_p")) to->top_p = (float)settings_number(s, "top_p", 0, 1, 1);
    if (settings_has(s, "min_p")) to->min_p = (float)settings_number(s, "min_p", 0, 1, 0);
    if (settings_has(s, "top_k")) to->top_k = settings_int(s, "top_k", -1, MOST_TOP_K, 0);
    if (settings_has(s, "top_k") && to->top_k < 0) to->top_k = 0;
    if (!settings_bool(s, "do_sample", true)) to->temperature = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        double x = settings_number(s, others[i].key, -1e30, 1e30, others[i].neutral);
        if (x != others[i].neutral) note(&m->notes, "generation_config.json: %s = %g is not applied", others[i].key, x);
    }
}

int sampling_read_folder(Model *m, const char *path, char *err, size_t errlen) {
    char file[4096];
    struct stat st;
    const char *slash = strrchr(path, '/');
    bool folder = !stat(path, &st) && S_ISDIR(st.st_mode);
    int n = folder ? (int)strlen(path) : slash ? (int)(slash - path) : 1;
    snprintf(file, sizeof file, "%.*s/generation_config.json", n, folder || slash ? path : ".");
    m->sampling = (Sampling){-1, -1, -1, -1, "generation_config.json"};
    if (access(file, R_OK)) return 0;
    Settings s;
    if (settings_read(&s, file, err, errlen)) return -1;
    read_generation(m, &s);
    bool failed = s.failed;
    settings_free(&s);
    return failed ? -1 : 0;
}
