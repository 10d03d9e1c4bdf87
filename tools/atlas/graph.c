// graph: see graph.h; and the rows of graphs and pairs.
//
// Owns the rows of GAT, GCN and pair-biased attention. A score that is no dot product goes through attention() as the
// only number of its key, under a query of 1. A bias for each pair goes through it as more numbers of the keys: those
// of 64 queries at a time, each of which picks its own by a unit vector. Refuses nothing. Draws: GAT the vectors a of
// each head, its queries' half first; pairs each bias where it is needed (pair_bias).
#include "graph.h"

#include "cli.h"

#include <math.h>
#include <stb/stb_ds.h>
#include <stdlib.h>
#include <string.h>

enum { OTHERS = 8, PIECE = 64 }; // neighbours that are drawn; queries whose biases are keys' numbers at a time

// ---- lists of neighbours

Graph graph_draw(int n, uint64_t seed) {
    Graph g = {n, malloc(sizeof(int) * (size_t)(n + 1)), malloc(sizeof(int) * (size_t)n * (OTHERS + 1))};
    if (!g.start || !g.to) die(1, "out of memory for a graph of %d nodes", n);
    uint64_t most = n > OTHERS ? (uint64_t)(n / OTHERS) : 1; // of a step to the next neighbour
    int n_edges = 0;
    for (int i = 0; i < n; i++) {
        g.start[i] = n_edges;
        int64_t j = i;
        for (int left = OTHERS; j < i + n && left >= 0; left--) {
            g.to[n_edges++] = (int)(j % n);
            j += 1 + (int64_t)(random_bits(&seed) % most);
        }
    }
    g.start[n] = n_edges;
    return g;
}

void graph_free(Graph *g) {
    free(g->start);
    free(g->to);
    *g = (Graph){0};
}

void graph_reserve(Soft *s, Operator *op, int n_heads, int v_dim) {
    soft_open_as(s, op, n_heads, &(KvShape){n_heads, 1, v_dim, KV_DTYPE_F32, 0, 0}); // scores are not to be rounded
    s->scale = 1;
    s->mask.causal = true; // with a window as long as the list: the span of a node's edges
}

void graph_attend(Operator *op, Soft *s, const Graph *g, const float *from, const float *at, const float *v,
                  float *out) {
    int heads = s->n_heads, v_dim = kvcache_view(s->cache).v_dim, n_edges = g->start[g->n];
    int64_t width = (int64_t)heads * v_dim;
    float *keys = floats_need(n_edges * (heads + width) + heads), *values = keys + (int64_t)n_edges * heads;
    float *ones = values + n_edges * width;
    Attention *list = NULL; // stb_ds
    for (int h = 0; h < heads; h++) ones[h] = 1;
    memset(out, 0, sizeof *out * (size_t)(g->n * width));
    for (int i = 0; i < g->n; i++) {
        for (int e = g->start[i]; e < g->start[i + 1]; e++) {
            for (int h = 0; h < heads; h++) {
                float score = from[(int64_t)i * heads + h] + at[(int64_t)g->to[e] * heads + h];
                keys[(int64_t)e * heads + h] = score > 0 ? score : 0.2f * score;
            }
            memcpy(values + e * width, v + g->to[e] * width, sizeof *v * (size_t)width);
        }
    }
    kvcache_restart(s->cache);
    soft_store(s, n_edges, keys, values);
    for (int i = 0; i < g->n; i++) {
        int end = g->start[i + 1];
        if (end == g->start[i]) continue;
        arrput(list, soft_problem(s, ones, out + i * width, 1, end - 1, end));
        arrlast(list).mask.window = end - g->start[i];
    }
    soft_attend(op, list, (int)arrlen(list));
    kvcache_advance(s->cache, n_edges);
    arrfree(list);
    free(keys);
}

void graph_sum(Operator *op, const Graph *g, const float *v, int width, float *out) {
    memset(out, 0, sizeof *out * (size_t)g->n * (size_t)width);
    for (int i = 0; i < g->n; i++) {
        for (int e = g->start[i]; e < g->start[i + 1]; e++) {
            int j = g->to[e];
            float by = 1 / sqrtf((float)(g->start[i + 1] - g->start[i]) * (float)(g->start[j + 1] - g->start[j]));
            for (int c = 0; c < width; c++) out[(int64_t)i * width + c] += by * v[(int64_t)j * width + c];
        }
    }
    op->flops += 2.0 * g->start[g->n] * width;
}

// ---- GAT and GCN over a graph that is drawn

typedef struct {
    Soft soft;
    float *a; // [2][n_heads][head_dim]
} Gat;

static void gat_open(Operator *op) {
    const Shape *s = &op->shape;
    Gat *g = op->own = operator_own(op, sizeof *g);
    g->a = operator_normals(op, 2 * query_width(s), 1 / sqrtf((float)s->head_dim));
    graph_reserve(&g->soft, op, s->n_heads, s->head_dim);
}

static void gat_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Gat *g = op->own;
    int n = rows->n_keys, d = s->head_dim, heads = s->n_heads;
    Graph graph = graph_draw(n, s->seed);
    float *from = floats_need(2LL * n * heads), *to = from + n * heads;
    map_heads(op->compute, g->a, heads, 1, d, rows->q, from, n);
    map_heads(op->compute, g->a + heads * d, heads, 1, d, rows->k, to, n);
    op->flops += 4.0 * n * heads * d;
    graph_attend(op, &g->soft, &graph, from, to, rows->v, rows->out);
    graph_free(&graph);
    free(from);
}

static void gcn_step(Operator *op, const Rows *rows) {
    Graph graph = graph_draw(rows->n_keys, op->shape.seed);
    graph_sum(op, &graph, rows->v, (int)query_width(&op->shape), rows->out);
    graph_free(&graph);
}

// ---- a bias for each pair, and a gate

// Between -2 and 2; in a model a row of the pairs' n x n table, times a vector of the head.
static float pair_bias(const Shape *s, int head, int64_t t, int64_t j) {
    uint64_t state = s->seed + (uint64_t)((head * s->n_max + t) * s->n_max + j) * 0x9e6c63d0876a9a35u;
    return 4 * random_open(&state) - 2;
}

static void pairs_open(Operator *op) {
    const Shape *s = &op->shape;
    op->own = operator_own(op, sizeof(Soft));
    soft_open_as(op->own, op, s->n_heads, &(KvShape){s->n_heads, s->head_dim + PIECE, s->head_dim, s->type, 0, 0});
}

static void pairs_step(Operator *op, const Rows *rows) {
    const Shape *s = &op->shape;
    Soft *soft = op->own; // keys of head_dim + PIECE
    int n = rows->n_keys, d = s->head_dim, heads = s->n_heads, wide = d + PIECE;
    float *keys = floats_need((int64_t)(n + PIECE) * heads * wide), *q = keys + (int64_t)n * heads * wide;
    float root = sqrtf((float)d);
    for (int at = 0; at < n; at += PIECE) {
        int n_q = n - at < PIECE ? n - at : PIECE;
        for (int i = 0; i < n * heads; i++) {
            float *key = keys + (int64_t)i * wide;
            memcpy(key, rows->k + (int64_t)i * d, sizeof *key * (size_t)d);
            for (int r = 0; r < n_q; r++) key[d + r] = root * pair_bias(s, i % heads, at + r, i / heads);
        }
        memset(q, 0, sizeof *q * (size_t)(PIECE * heads * wide));
        for (int i = 0; i < n_q * heads; i++) {
            memcpy(q + (int64_t)i * wide, rows->q + ((int64_t)at * heads + i) * d, sizeof *q * (size_t)d);
            q[(int64_t)i * wide + d + i / heads] = 1;
        }
        kvcache_restart(soft->cache);
        Rows part = {.n_q = n_q, .n_keys = n, .k = keys, .v = rows->v, .out = rows->out + at * query_width(s)};
        soft_step(op, soft, q, &part);
    }
    for (int64_t i = 0; i < n * query_width(s); i++) rows->out[i] *= sigmoidf(rows->gates[i]);
    op->flops += 3.0 * n * heads * d;
    free(keys);
}

#define GRAPH .time = TIME_WHOLE, .each_head = true

const Mechanism graph_rows[] = {
    {"gat", GRAPH, .open = gat_open, .step = gat_step},
    {"gcn", GRAPH, .step = gcn_step},
    {"pair-bias", GRAPH, .open = pairs_open, .step = pairs_step, .most_rows = 8192},
    {0},
};
