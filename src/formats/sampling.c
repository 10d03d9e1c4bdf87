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

static const double MOST_TEMPERATURE = 100, LEAST_PENALTY = 0.01, MOST_PENALTY = 100;
enum { MOST_TOP_K = 1 << 24, MOST_LAST_N = 1 << 28, ALL_TOKENS = -1 };

static float get_part(Gguf *g, const char *key, double least, double most) {
    const GgufValue *v = gguf_get_value(g, key, false);
    double x = v ? gguf_get_number(g, key) : -1;
    if (!v || g->in.failed) return -1;
    if (!(x >= least && x <= most)) {
        cursor_fail(&g->in, v->at, "%s: expected %g to %g, found %g", key, least, most, x);
    }
    return (float)x;
}

// A penalty of no tokens is none.
static void get_penalty(Sampling *s, Gguf *g) {
    s->repeat_penalty = get_part(g, "general.sampling.penalty_repeat", LEAST_PENALTY, MOST_PENALTY);
    int64_t last_n = gguf_get_whole(g, "general.sampling.penalty_last_n", -1, MOST_LAST_N, -2);
    if (last_n == 0) s->repeat_penalty = 1;
    if (last_n != -2) s->penalty_last_n = (int)last_n;
}

void sampling_read_gguf(Model *m, Gguf *g) {
    static const char *const others[] = {"xtc_probability", "mirostat"};
    Sampling *s = &m->sampling;
    s->temperature = get_part(g, "general.sampling.temp", 0, MOST_TEMPERATURE);
    s->top_p = get_part(g, "general.sampling.top_p", 0, 1);
    s->min_p = get_part(g, "general.sampling.min_p", 0, 1);
    int64_t top_k = gguf_get_whole(g, "general.sampling.top_k", -1, MOST_TOP_K, -2);
    s->top_k = top_k == -2 ? -1 : top_k < 0 ? 0 : (int)top_k;
    get_penalty(s, g);
    s->source = "general.sampling";
    for (size_t i = 0; i < sizeof others / sizeof *others && !g->in.failed; i++) {
        char key[64];
        snprintf(key, sizeof key, "general.sampling.%s", others[i]);
        double found = gguf_get_value(g, key, false) ? gguf_get_number(g, key) : 0;
        if (found != 0) note(&m->notes, "%s = %g is not applied", key, found);
    }
}

static void read_generation(Model *m, Settings *s) {
    static const struct {
        const char *key;
        double neutral;
    } others[] = {{"typical_p", 1}, {"epsilon_cutoff", 0}, {"no_repeat_ngram_size", 0}};
    Sampling *to = &m->sampling;
    if (settings_has(s, "temperature"))
        to->temperature = (float)settings_number(s, "temperature", 0, MOST_TEMPERATURE, 0);
    if (settings_has(s, "top_p")) to->top_p = (float)settings_number(s, "top_p", 0, 1, 1);
    if (settings_has(s, "min_p")) to->min_p = (float)settings_number(s, "min_p", 0, 1, 0);
    if (settings_has(s, "top_k")) to->top_k = settings_int(s, "top_k", -1, MOST_TOP_K, 0);
    if (settings_has(s, "top_k") && to->top_k < 0) to->top_k = 0;
    if (settings_has(s, "repetition_penalty")) {
        to->repeat_penalty = (float)settings_number(s, "repetition_penalty", LEAST_PENALTY, MOST_PENALTY, 1);
        to->penalty_last_n = ALL_TOKENS; // RepetitionPenaltyLogitsProcessor looks at the whole text
    }
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
    m->sampling = (Sampling){-1, -1, -1, -1, -1, 0, "generation_config.json"};
    if (access(file, R_OK)) return 0;
    Settings s;
    if (settings_read(&s, file, err, errlen)) return -1;
    read_generation(m, &s);
    bool failed = s.failed;
    settings_free(&s);
    return failed ? -1 : 0;
}
