// attention_bench: see attention_bench.h.
#include "attention_bench.h"

#include "cli.h"
#include "report.h"
#include "samples.h"
#include "unfused.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static float *random_floats(int64_t n) {
    float *v = measure_alloc(sizeof *v * (size_t)n);
    for (int64_t i = 0; i < n; i++) v[i] = (float)((double)measure_random() / 2147483648.0 - 1.0);
    return v;
}

typedef struct {
    int n_heads, n_kv_heads, head_dim;
    KvDType kv;
} AttentionShape;

typedef struct {
    double fused, plain; // seconds
    uint64_t fused_bytes, plain_bytes;
    double difference; // largest absolute
} AttentionResult;

// Of queries and keys: the causal half, or what the window and the sinks leave of it.
static double visible_pairs(const Bench *b) {
    double n = b->o.attention, w = b->o.session.window, sinks = b->o.session.n_sinks;
    if (!b->o.session.window || w >= n) return n * n / 2;
    double in_window = n * w - w * (w - 1) / 2, beyond = 0; // sinks that the window has left behind
    for (double q = w; q < n; q++) beyond += fmin(sinks, q - w + 1);
    return in_window + beyond;
}

static void print_attention(Bench *b, const AttentionShape *s, const AttentionResult *r) {
    int n = b->o.attention;
    double work = 4.0 * visible_pairs(b) * s->head_dim * s->n_heads * 1e-9; // GFLOP
    double fused_ms = r->fused * 1e3, plain_ms = r->plain * 1e3, ratio = r->plain / r->fused;
    double fused_speed = work / r->fused, plain_speed = work / r->plain, difference = r->difference;
    unsigned long long fused = r->fused_bytes, plain = r->plain_bytes;
    const char *kv = kv_dtype_name(s->kv);
    report_row(b);
    if (b->o.format == OUT_MD) {
        printf("| %d | %d/%d | %s | %d | %.2f | %.1f | %.2f | %.1f | %.2f | %.2f | %.2f | %.1e |\n", s->head_dim,
               s->n_heads, s->n_kv_heads, kv, n, fused_ms, fused_speed, plain_ms, plain_speed, ratio,
               (double)fused / 0x1p20, (double)plain / 0x1p20, difference);
        fflush(stdout);
    } else if (b->o.format == OUT_CSV) {
        printf("%d,%d,%d,%s,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%llu,%llu,%.3g\n", s->head_dim, s->n_heads, s->n_kv_heads, kv,
               n, fused_ms, fused_speed, plain_ms, plain_speed, ratio, fused, plain, difference);
    } else {
        printf("{\"head_dim\": %d, \"n_heads\": %d, \"n_kv_heads\": %d, \"kv\": \"%s\", \"n\": %d, \"n_threads\": %d, "
               "\"fused_ms\": %.6g, \"fused_gflops\": %.6g, \"unfused_ms\": %.6g, \"unfused_gflops\": %.6g, "
               "\"ratio\": %.6g, \"fused_bytes\": %llu, \"unfused_bytes\": %llu, \"max_difference\": %.3g, "
               "\"cpu_level\": \"%s\"}",
               s->head_dim, s->n_heads, s->n_kv_heads, kv, n, b->n_threads, fused_ms, fused_speed, plain_ms,
               plain_speed, ratio, fused, plain, difference, cpu_level_name(cpu_level()));
    }
}

static double largest_difference(const float *a, const float *b, int64_t n) { // NaN if any difference is
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= largest)) largest = d;
        if (isnan(d)) break;
    }
    return largest;
}

// Medians; measured alternately, so that noise affects both.
static void time_both(const Bench *b, const Compute *compute, const Attention *fused, Unfused *plain,
                      AttentionResult *r) {
    double fused_s[MAX_REPEATS], plain_s[MAX_REPEATS];
    for (int i = -1; i < b->o.repeats; i++) { // the first warms up
        double start = seconds();
        attention(compute, fused, 1);
        double middle = seconds();
        unfused_run(compute->pool, plain);
        if (i < 0) continue;
        fused_s[i] = middle - start;
        plain_s[i] = seconds() - middle;
    }
    r->fused = samples_median(fused_s, b->o.repeats);
    r->plain = samples_median(plain_s, b->o.repeats);
}

// Returns whether fused and unfused results agree.
static bool measure_attention(Bench *b, Compute *compute, const AttentionShape *shape) {
    char err[512];
    int n = b->o.attention, hd = shape->head_dim, n_heads = shape->n_heads, n_kv = shape->n_kv_heads;
    int panel = kernels()->panel, kv_dim = n_kv * hd;
    AttnMask mask = {.causal = true, .window = b->o.session.window, .n_sinks = b->o.session.n_sinks};
    int64_t q_count = (int64_t)n * n_heads * hd, kv_count = (int64_t)n * kv_dim;
    float *q = random_floats(q_count), *k = random_floats(kv_count), *v = random_floats(kv_count);
    float *out = measure_alloc(sizeof(float) * (size_t)q_count), *vt = measure_alloc(sizeof(float) * (size_t)kv_count);
    for (int64_t i = 0; i < kv_count; i++) vt[i % kv_dim * n + i / kv_dim] = v[i];
    KvShape kv = {.n_kv_heads = n_kv, .k_dim = hd, .v_dim = hd, .type = shape->kv};
    KvCache *cache = kvcache_open(&kv, NULL, err, sizeof err);
    if (!cache) die(1, "%s", err);
    if (kvcache_reserve(cache, n)) die(1, "out of memory for the cache of %d tokens", n);
    kvcache_store(cache, compute->pool, n, k, v);
    kvcache_advance(cache, n);
    if (attention_reserve(compute, n_heads, n_kv, hd, hd, err, sizeof err)) die(1, "%s", err);
    Attention fused = {.q = q, .out = out, .n_q = n, .n_heads = n_heads, .n_keys = n};
    fused.scale = 1.0f / sqrtf((float)hd);
    fused.kv = kvcache_view(cache);
    fused.mask = mask;
    size_t n_blocks = ((size_t)n + (size_t)panel - 1) / (size_t)panel;
    size_t score_bytes = sizeof(float) * n_blocks * (size_t)panel * (size_t)n;
    Unfused plain = {.kernels = kernels(),
                     .n = n,
                     .head_dim = hd,
                     .n_heads = n_heads,
                     .group = n_heads / n_kv,
                     .mask = mask,
                     .q = q,
                     .k = k,
                     .vt = vt};
    plain.scores = measure_alloc(score_bytes);
    plain.panels = measure_alloc(sizeof(float) * 2 * (size_t)(threads_count(compute->pool) * hd * panel));
    plain.out = measure_alloc(sizeof(float) * (size_t)q_count);
    AttentionResult r = {.fused_bytes = compute_scratch_bytes(compute), .plain_bytes = score_bytes};
    time_both(b, compute, &fused, &plain, &r);
    r.difference = largest_difference(out, plain.out, q_count);
    print_attention(b, shape, &r);
    double most = shape->kv == KV_DTYPE_F32 ? 1e-4 : shape->kv == KV_DTYPE_Q8 ? 5e-2 : 1e-2;
    bool agree = r.difference <= most;
    if (!agree) fprintf(stderr, "error: head_dim %d: fused and unfused attention differ by %g\n", hd, r.difference);
    void *all[] = {q, k, v, vt, out, plain.scores, plain.panels, plain.out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    kvcache_close(cache);
    return agree;
}

// Of the two usual shapes: with --kv that type, else bf16 and fp32.
static int attention_shapes(const Bench *b, AttentionShape *shapes) {
    static const AttentionShape usual[] = {{9, 3, 64, KV_DTYPE_BF16}, {8, 2, 128, KV_DTYPE_BF16}};
    const KvType kv = b->o.session.kv;
    int n = 0;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        shapes[n] = usual[i];
        if (b->o.kv_given) shapes[n].kv = kv == KV_F32 ? KV_DTYPE_F32 : kv == KV_Q8 ? KV_DTYPE_Q8 : KV_DTYPE_BF16;
        n++;
        if (b->o.kv_given) continue;
        shapes[n] = usual[i];
        shapes[n++].kv = KV_DTYPE_F32;
    }
    return n;
}

int attention_bench_run(Bench *b) {
    AttentionShape shapes[4];
    int n = attention_shapes(b, shapes);
    char err[512], header[512];
    const SessionOptions *so = &b->o.session;
    bool agree = true;
    Compute compute;
    if (compute_open(&compute, b->n_threads, err, sizeof err)) die(1, "%s", err);
    int at = so->window ? snprintf(header, sizeof header, "window %d, %d sinks\n\n", so->window, so->n_sinks) : 0;
    snprintf(header + at, sizeof header - (size_t)at,
             "| head dim | heads | KV | n | fused ms | GFLOP/s | unfused ms | GFLOP/s | ratio | fused MiB | "
             "unfused MiB | max diff |\n|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    report_start(b,
                 "head_dim,n_heads,n_kv_heads,kv,n,fused_ms,fused_gflops,unfused_ms,unfused_gflops,ratio,"
                 "fused_bytes,unfused_bytes,max_difference",
                 header);
    for (int i = 0; i < n; i++) agree &= measure_attention(b, &compute, &shapes[i]);
    report_end(b);
    compute_close(&compute);
    return agree ? 0 : 1;
}
