// metrics: see metrics.h.
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const double bounds[N_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15,
                                         0.25,  0.5,    1,     2.5,  10,    30,   120};

void histogram_add(Histogram *h, double seconds) {
    int i = 0;
    while (i < N_BUCKETS && seconds > bounds[i]) i++;
    h->counts[i]++;
    h->sum_us += (uint64_t)(seconds * 1e6);
}

static uint64_t histogram_count(const Histogram *h) {
    uint64_t n = 0;
    for (int i = 0; i <= N_BUCKETS; i++) n += h->counts[i];
    return n;
}

double histogram_mean(const Histogram *h) {
    uint64_t n = histogram_count(h);
    return n ? (double)h->sum_us * 1e-6 / (double)n : 0;
}

static void put_histogram(FILE *f, const char *name, const char *help, const Histogram *h, const char *model) {
    uint64_t n = 0;
    fprintf(f, "# HELP tessera:%s %s\n# TYPE tessera:%s histogram\n", name, help, name);
    for (int i = 0; i < N_BUCKETS; i++) {
        n += h->counts[i];
        fprintf(f, "tessera:%s_bucket{model_name=\"%s\",le=\"%g\"} %" PRIu64 "\n", name, model, bounds[i], n);
    }
    n += h->counts[N_BUCKETS];
    fprintf(f, "tessera:%s_bucket{model_name=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, model, n);
    fprintf(f, "tessera:%s_sum{model_name=\"%s\"} %.6f\n", name, model, (double)h->sum_us * 1e-6);
    fprintf(f, "tessera:%s_count{model_name=\"%s\"} %" PRIu64 "\n", name, model, n);
}

// A label's value: without what would end it.
static void clean_label(char *to, size_t size, const char *from) {
    size_t n = 0;
    for (; *from && n + 1 < size; from++)
        if (*from != '"' && *from != '\\' && *from != '\n') to[n++] = *from;
    to[n] = 0;
}

char *metrics_text(const Metrics *m, const char *model_name) {
    char *text = NULL, model[128];
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    clean_label(model, sizeof model, model_name);
    const struct {
        const char *name, *type, *help;
        double value;
    } list[] = {
        {"num_requests_running", "gauge", "Texts being computed.", (double)m->running},
        {"num_requests_waiting", "gauge", "Texts in the queue.", (double)m->waiting},
        {"kv_cache_bytes", "gauge", "Bytes held by KV caches and states.", (double)m->kv_bytes},
        {"kv_cache_usage_perc", "gauge", "Of the limit of --kv-bytes, 0 to 1; 0 without a limit.",
         m->kv_limit ? (double)m->kv_bytes / (double)m->kv_limit : 0},
        {"requests_total", "counter", "Requests that were accepted.", (double)m->n_requests},
        {"requests_refused_total", "counter", "Requests refused because the queue was full.", (double)m->n_refused},
        {"requests_cancelled_total", "counter", "Requests whose client went away.", (double)m->n_cancelled},
        {"num_preemptions_total", "counter", "Texts parked because memory was short.", (double)m->n_parked},
        {"prompt_tokens_total", "counter", "Tokens of prompts.", (double)m->n_prompt},
        {"prompt_tokens_cached_total", "counter", "Of these, found in the cache.", (double)m->n_cached},
        {"generation_tokens_total", "counter", "Tokens generated.", (double)m->n_generated},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        fprintf(f, "# HELP tessera:%s %s\n# TYPE tessera:%s %s\n", list[i].name, list[i].help, list[i].name,
                list[i].type);
        fprintf(f, "tessera:%s{model_name=\"%s\"} %.15g\n", list[i].name, model, list[i].value);
    }
    put_histogram(f, "time_to_first_token_seconds", "From a request to its first token.", &m->first_token, model);
    put_histogram(f, "inter_token_latency_seconds", "Between two tokens of a text.", &m->gap, model);
    put_histogram(f, "e2e_request_latency_seconds", "From a request to its last token.", &m->whole, model);
    put_histogram(f, "request_queue_time_seconds", "From a request to its first pass.", &m->queue, model);
    fclose(f);
    return text;
}
