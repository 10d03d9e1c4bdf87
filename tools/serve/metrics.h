// metrics: what the server counts, for Prometheus.
//
// Owns the counters, gauges and histograms, which both threads write, and their text. Names are vLLM's where it has the
// same, as the Gateway API's model-server protocol reads them, with the prefix `tessera:`.
#pragma once
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { N_BUCKETS = 15 };

typedef struct {
    _Atomic uint64_t counts[N_BUCKETS + 1]; // the last: above every bound
    _Atomic uint64_t sum_us;
} Histogram;

typedef struct {
    Histogram first_token, gap, whole, queue; // seconds
    _Atomic uint64_t n_requests, n_refused, n_cancelled, n_prompt, n_cached, n_generated, n_parked;
    _Atomic int64_t running, waiting;
    _Atomic uint64_t kv_bytes, kv_limit; // limit 0: none
} Metrics;

void histogram_add(Histogram *h, double seconds);
double histogram_mean(const Histogram *h); // seconds; 0: nothing was added

// Prometheus text; free() it.
char *metrics_text(const Metrics *m, const char *model_name);
