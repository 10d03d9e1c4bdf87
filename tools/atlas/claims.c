// claims: what surveys say of attention, put to the test on this machine: build/atlas --claims.
//
// Owns the claims, the measurements that each needs, and the words on how they compare. Numbers are measured when asked
// for, never stored. Refuses nothing.
#include "atlas.h"

#include "cli.h"
#include "inputs.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { HOLDS, PARTLY, FAILS } Verdict;

typedef struct {
    Compute *compute;
    bool fast; // lengths are divided by FASTER
    char here[1200];
    int used; // of here
} Test;

typedef struct {
    const char *claim, *source;
    Verdict (*test)(Test *t); // says in t->here what was measured
} Claim;

enum { HEADS = 4, WIDTH = 64 };
#define N_OF(list) (int)(sizeof(list) / sizeof *(list))

static const char *const verdict_names[] = {"holds", "holds in part", "does not hold"};

__attribute__((format(printf, 2, 3))) static void say(Test *t, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int room = (int)sizeof t->here - t->used, n = vsnprintf(t->here + t->used, (size_t)room, fmt, args);
    va_end(args);
    t->used += n < room ? n : room - 1;
}

static int rows_of(const Test *t, int n) {
    return t->fast ? n / FASTER : n;
}

// Behind so many rows; `try` divides them where fast.
static Trial try_at(const Test *t, const char *name, int n) {
    const Mechanism *m = mechanism_find(name);
    Shape s = shape_of(m, n, HEADS, WIDTH);
    return trial_run(m, &s, n, false, t->compute);
}

static Trial try(const Test *t, const char *name, int n) {
    return try_at(t, name, rows_of(t, n));
}

enum { OWN, GROUPED, ONE, N_SHARINGS, MANY_HEADS = 32 };

// 32 heads of queries with as many of keys and values, with 8, and with one.
static void try_sharings(const Test *t, int n, Trial trials[N_SHARINGS]) {
    static const char *const names[] = {"mha", "gqa", "mqa"};
    static const int kv_heads[] = {MANY_HEADS, 8, 1};
    for (int i = 0; i < N_SHARINGS; i++) {
        const Mechanism *m = mechanism_find(names[i]);
        Shape s = shape_of(m, n, MANY_HEADS, WIDTH);
        s.n_kv_heads = kv_heads[i];
        trials[i] = trial_run(m, &s, rows_of(t, n), false, t->compute);
    }
}

// ---- claims

static Verdict test_cache(Test *t) {
    double first = 0, last = 0;
    for (int n = 1024; n <= 8192; n *= 2) {
        Trial a = try(t, "mha", n);
        last = a.prefill / a.decode;
        if (first == 0) first = last;
        say(t, "n = %d: %.3g ms a token with a cache of %.3g MiB, %.3g ms without; ", a.n, a.decode * 1e3,
            a.bytes / 0x1p20, a.prefill * 1e3);
    }
    say(t, "the ratio grows from %.0f to %.0f", first, last);
    return last > 4 * first ? HOLDS : last > first ? PARTLY : FAILS;
}

static Verdict test_flash(Test *t) {
    double least = INFINITY, most = 0;
    for (int n = 1024; n <= 8192; n *= 2) {
        Trial naive = try(t, "naive", n), flash = try(t, "flash", n);
        double ratio = naive.prefill / flash.prefill;
        least = fmin(least, ratio);
        most = fmax(most, ratio);
        say(t, "n = %d: %.2g times as fast, %.3g MiB against %.3g; ", naive.n, ratio, flash.peak / 0x1p20,
            naive.peak / 0x1p20);
    }
    say(t, "the naive form computes the hidden half too, which alone is a factor of 2");
    return least >= 2 ? HOLDS : most >= 2 ? PARTLY : FAILS;
}

static Verdict test_shared_heads(Test *t) {
    Trial a[N_SHARINGS];
    try_sharings(t, 8192, a);
    double own = a[OWN].decode, grouped = a[GROUPED].decode, one = a[ONE].decode;
    double saved = (own - grouped) / (own - one), times = own / one;
    say(t,
        "32 heads behind %d tokens: %.3g ms a token with 32 heads of keys, %.3g with 8, %.3g with 1: MQA %.2g times, "
        "GQA %.2g times as fast, %.0f %% of the time that MQA saves; attention alone, the rest of a model dilutes it",
        a[OWN].n, own * 1e3, grouped * 1e3, one * 1e3, times, own / grouped, 100 * saved);
    return times >= 2 && saved >= 0.7 ? HOLDS : times > 1.2 ? PARTLY : FAILS;
}

static Verdict test_cache_sizes(Test *t) {
    Trial a[N_SHARINGS];
    try_sharings(t, 4096, a);
    double own = a[OWN].bytes / 0x1p20, grouped = a[GROUPED].bytes / 0x1p20, one = a[ONE].bytes / 0x1p20;
    say(t,
        "32 heads of %d, %d tokens, a layer: %.4g MiB; with 8 groups %.4g (%.3g times smaller), with one %.4g (%.3g "
        "times)",
        WIDTH, a[OWN].n, own, grouped, own / grouped, one, own / one);
    return own / grouped >= 3.9 && own / grouped <= 8.1 && own / one > 31 ? HOLDS : FAILS;
}

static Verdict test_matrix(Test *t) {
    double n = 100000;
    char err[200];
    if (attention_reserve(t->compute, HEADS, HEADS, WIDTH, WIDTH, err, sizeof err)) die(1, "%s", err);
    say(t,
        "n^2 = 1e10 scores of one head of one layer: %.0f GB in fp32, %.0f in half precision, %.0f in 8 bits, %.1f a "
        "bit each; the tiles' scratch memory here is %.3g MiB at any n",
        n * n * 4e-9, n * n * 2e-9, n * n * 1e-9, n * n / 8e9, (double)compute_scratch_bytes(t->compute) / 0x1p20);
    return FAILS;
}

// The exponent by which prefill grows, from n to 4 n.
static Verdict test_sparse(Test *t) {
    const char *const names[] = {"window", "dilated", "longformer", "bigbird-causal", "strided", "fixed"};
    double most = 0;
    for (int i = 0; i < N_OF(names); i++) {
        Trial first = try(t, names[i], 8192), last = try(t, names[i], 4 * 8192);
        double power = log2(last.prefill / first.prefill) / 2;
        say(t, "%s n^%.2f; ", names[i], power);
        if (i < 4) most = fmax(most, power);
    }
    say(t, "strided and fixed see n / 8 keys besides, which is quadratic in the end");
    return most < 1.2 ? HOLDS : most < 1.5 ? PARTLY : FAILS;
}

// Each mask's time beside dense causal attention's, the least of interleaved rounds; also less what one key takes.
static Verdict test_tiles(Test *t) {
    enum { DENSE, SELF, FIRST, N = FIRST + 5, ROUNDS = 8 };
    const char *const names[N] = {"mha", "window", "window", "sinks", "bigbird-causal", "strided", "fixed"};
    Trial best[N];
    double worst = 0, beyond = 0; // relative; of all, and beyond one key
    for (int i = 0; i < N * ROUNDS; i++) {
        int kind = i % N, n = rows_of(t, 8192);
        const Mechanism *m = mechanism_find(names[kind]);
        Shape s = shape_of(m, n, HEADS, WIDTH);
        if (kind == SELF) s.window = 1;
        Trial a = trial_run(m, &s, n, false, t->compute);
        if (i < N || a.attended < best[kind].attended) best[kind] = a;
    }
    double tiles0 = best[SELF].computed / best[DENSE].computed, time0 = best[SELF].attended / best[DENSE].attended;
    say(t, "one key %.1f %% of the tiles, %.1f %% of the time; ", 100 * tiles0, 100 * time0);
    for (int i = FIRST; i < N; i++) {
        double tiles = best[i].computed / best[DENSE].computed, time = best[i].attended / best[DENSE].attended;
        double more_tiles = (tiles - tiles0) / (1 - tiles0), more_time = (time - time0) / (1 - time0);
        worst = fmax(worst, fabs(time / tiles - 1));
        beyond = fmax(beyond, fabs(more_time / more_tiles - 1));
        say(t, "%s %.1f %%, %.1f %%; ", names[i], 100 * tiles, 100 * time);
    }
    say(t, "at most %.0f %% apart, %.0f beyond one key; a tile is 64 queries by 32 keys", 100 * worst, 100 * beyond);
    return worst <= 0.15 ? HOLDS : worst <= 0.3 ? PARTLY : FAILS;
}

// From which n on each is faster than flash-bf16, in prefill and in decode; 0: not up to the longest.
static Verdict test_linear(Test *t) {
    const char *const names[] = {"linear",   "performer",      "rfa",     "retnet", "gla",
                                 "deltanet", "gated-deltanet", "mamba-2", "rwkv-7", "hyena"};
    enum { N_LENGTHS = 7, FIRST = 128, N = N_OF(names) };
    int n_later = 0;
    Trial exact[N_LENGTHS];
    for (int j = 0; j < N_LENGTHS; j++) exact[j] = try(t, "flash-bf16", FIRST << j);
    for (int i = 0; i < N; i++) {
        int prefill = 0, decode = 0;
        bool faster = true, decodes_faster = true; // at every longer length
        for (int j = N_LENGTHS - 1; j >= 0; j--) {
            Trial a = try(t, names[i], FIRST << j);
            faster &= a.prefill < exact[j].prefill;
            decodes_faster &= a.decode < exact[j].decode;
            if (faster) prefill = a.n;
            if (decodes_faster) decode = a.n;
        }
        n_later += !prefill || prefill >= rows_of(t, 1024);
        say(t, "%s from %d in prefill, %d in decode; ", names[i], prefill, decode);
    }
    say(t, "of %d, %d are slower than exact attention below 1,024 tokens; heads of %d, 0: not up to %d", N, n_later,
        WIDTH, exact[N_LENGTHS - 1].n);
    return 2 * n_later > N ? HOLDS : n_later ? PARTLY : FAILS;
}

// One softmax over a union of keys against the sum of three, each over its own.
static Verdict test_union(Test *t) {
    enum { N = 512, SIZE = 16, BLOCKS = N / SIZE };
    static uint8_t parts[4][BLOCKS * BLOCKS]; // window, global, random, and their union
    Inputs in;
    uint64_t seed = 1;
    float *sum = floats_need(N * WIDTH);
    inputs_open(&in, &(Shape){.n_heads = 1, .n_kv_heads = 1, .head_dim = WIDTH}, N, N, 1);
    for (int i = 0; i < BLOCKS * BLOCKS; i++) {
        int b = i / BLOCKS, c = i % BLOCKS;
        parts[0][i] = b - c < 3;
        parts[1][i] = c < 1;
        parts[2][i] = random_bits(&seed) % BLOCKS < 3;
        parts[3][i] = parts[0][i] | parts[1][i] | parts[2][i];
    }
    for (int p = 0; p < 4; p++) {
        AttnMask mask = {.causal = true, .bitmap = parts[p], .block = SIZE, .bitmap_stride = BLOCKS};
        inputs_attend(&in, &mask, 0, in.out, t->compute);
        for (int i = 0; p < 3 && i < N * WIDTH; i++) sum[i] += in.out[i];
    }
    say(t,
        "the sum of window, global and random outputs is %.2g away from the union's (relative), its weights sum to up "
        "to 3; divided by 3 it still gives a key seen twice twice the weight",
        floats_error(sum, in.out, N * WIDTH));
    free(sum);
    inputs_close(&in);
    return FAILS;
}

// Every query of retrieval and of routing scores all blocks before it; of these the keys alone are read.
static Verdict test_million(Test *t) {
    static const char *const names[] = {"window", "sinks",          "retrieval", "moba",  "infini",
                                        "retnet", "gated-deltanet", "mamba-2",   "rwkv-7"};
    int n = rows_of(t, 1000000);
    for (int i = 0; i < N_OF(names); i++) {
        const Mechanism *m = mechanism_find(names[i]);
        bool stored = !strcmp(names[i], "retrieval") || !strcmp(names[i], "moba");
        Shape s = shape_of(m, n, 1, WIDTH);
        Trial a = trial_run(m, &s, n, stored, t->compute);
        say(t, "%s: %.3g s to %s, %.3g us a token, %.3g MiB; ", m->name, a.prefill, stored ? "store" : "read",
            a.decode * 1e6, a.bytes / 0x1p20);
    }
    say(t, "one head of %d, %d tokens", WIDTH, n);
    return HOLDS;
}

static Verdict test_additive(Test *t) {
    double least = INFINITY;
    for (int n = 128; n <= 2048; n *= 4) {
        Trial dot = try_at(t, "scaled-dot", n), add = try_at(t, "additive", n);
        least = fmin(least, add.prefill / dot.prefill);
        say(t, "n = %d: %.3g ms against %.3g; ", n, add.prefill * 1e3, dot.prefill * 1e3);
    }
    say(t, "at least %.0f times, and %d tanh a pair where dot products have %d multiply-adds", least, WIDTH, WIDTH);
    return least > 1 ? HOLDS : FAILS;
}

static Verdict test_recomputation(Test *t) {
    Trial sinks = try(t, "sinks", 4096), window = try_at(t, "mha", 256);
    double ratio = window.prefill / sinks.decode;
    say(t, "a token takes %.3g us with sinks and a window of 256, %.3g us reading its tokens again: %.1f times as long",
        sinks.decode * 1e6, window.prefill * 1e6, ratio);
    return ratio >= 10 ? HOLDS : ratio > 2 ? PARTLY : FAILS;
}

// FlashAttention-3's test: N(0, 1), and with probability 0.001 N(0, 100) added.
static Verdict test_precision(Test *t) {
    enum { N = 1024 };
    const char *const names[] = {"flash", "flash-bf16", "flash-int8", "int8", "sage", "fp8", "fp8-rotated"};
    double errors[N_OF(names)] = {0};
    uint64_t seed = 8;
    for (int i = 0; i < N_OF(names); i++) {
        const Mechanism *m = mechanism_find(names[i]);
        Shape s = shape_of(m, N, 2, WIDTH);
        Inputs in;
        inputs_open(&in, &s, N, N, 4);
        float *all[] = {in.q, in.k, in.v};
        for (int64_t j = 0; j < 3 * N * 2 * 64; j++) {
            if (random_open(&seed) < 0.001f) all[j % 3][j / 3] += 10 * random_normal(&seed);
        }
        Rows rows = inputs_all(&in);
        operator_run(m, &s, t->compute, &rows);
        errors[i] = inputs_error(&in, TIME_CAUSAL, 0, t->compute);
        inputs_close(&in);
        say(t, "%s %.2g; ", names[i], errors[i]);
    }
    say(t, "relative errors, a scale for each row: a float keeps its relative precision beside an outlier, so that "
           "rotating helps scales for whole blocks or tensors, and here little");
    return errors[6] < errors[5] / 2 ? HOLDS : errors[6] < errors[5] ? PARTLY : FAILS;
}

static const Claim list[] = {
    {"a KV cache makes generation O(n) a token in place of O(n^2), for memory", "surveys", test_cache},
    {"FlashAttention is 2 to 4 times as fast and needs O(n) memory", "surveys; arXiv:2205.14135", test_flash},
    {"MQA generates 2 to 3 times as fast, GQA gets 80 % of that",
     "surveys; 97 % of the time saved in arXiv:2305.13245, table 1", test_shared_heads},
    {"GQA's cache is 4 to 8 times smaller", "surveys", test_cache_sizes},
    {"at 100,000 tokens the n x n matrix takes 40 GB in half precision", "surveys", test_matrix},
    {"window and block-sparse patterns cost near-linear time", "surveys; arXiv:2004.05150, arXiv:2007.14062",
     test_sparse},
    {"what a mask hides costs nothing: time follows the visible tiles", "this engine, within 15 %", test_tiles},
    {"attention is bound by bandwidth: exact fused kernels often beat linear variants", "surveys", test_linear},
    {"BigBird's output is the sum of window, global and random attention",
     "surveys; one softmax over the union in arXiv:2007.14062", test_union},
    {"contexts of 1,000,000 tokens can be run", "surveys", test_million},
    {"additive scores are slower than dot products", "surveys; arXiv:1706.03762, section 3.2.1", test_additive},
    {"sinks are up to 22.2 times as fast as a window computed again", "arXiv:2309.17453, abstract", test_recomputation},
    {"rotation cuts the error of 8-bit floats by 2.6 where there are outliers", "arXiv:2407.08608, abstract",
     test_precision},
};

void claims_run(const Asked *a) {
    json_t *all = json_array();
    for (int i = 0; i < N_OF(list); i++) {
        const Claim *c = &list[i];
        Test t = {.compute = a->compute, .fast = a->fast};
        const char *verdict = verdict_names[c->test(&t)];
        json_array_append_new(all, json_pack("{s:s,s:s,s:s,s:s}", "claim", c->claim, "source", c->source, "here",
                                             t.here, "verdict", verdict));
        if (!a->json) printf("%d. %s (%s)\n   here: %s\n   %s\n\n", i + 1, c->claim, c->source, t.here, verdict);
        fflush(stdout);
    }
    show_json(a, all);
}
