// layers: see layers.h.
#include "layers.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// ---- binding

static void *own(LayerStack *s, Binder *b, size_t n, size_t size) {
    void *memory = calloc(n ? n : 1, size);
    if (memory) arrput(s->allocations, memory);
    else binder_fail(b, "out of memory for %d layers", s->config.n_layers);
    return memory;
}

static void bind_norms(Binder *b, SublayerNorms *norms, const char *before, const char *after) {
    const Config *c = b->config;
    if (!c->no_pre_norm) bind_norm(b, &norms->input, before, c->dim, c->layer_norm);
    if (c->residual_norm) bind_norm(b, &norms->residual, before, c->dim, c->layer_norm);
    if (c->post_norm) bind_norm(b, &norms->output, after, c->dim, c->layer_norm);
}

static void bind_layer(LayerStack *s, Binder *b, int layer) {
    static const FeedForwardNames names = {"ffn_gate", "ffn_up", "ffn_down"};
    const Config *c = &s->config;
    const LayerKind *kind = config_kind(c, layer);
    const Mixer *mixer = mixer_of(kind->mixer);
    Layer *l = &s->layers[layer];
    b->layer = layer;
    l->mixer = own(s, b, 1, mixer->weights_size);
    bool routed = kind->ffn == FFN_EXPERTS;
    FeedForward *experts = routed ? own(s, b, (size_t)c->n_experts, sizeof *experts) : NULL;
    if (b->failed) return;
    bool only = kind->mixer == MIX_NONE; // the feed-forward network, behind the layer's one norm
    if (!only) bind_norms(b, &l->mixer_norms, "attn_norm", "post_attention_norm");
    mixer->bind(b, l->mixer, kind);
    if (kind->ffn == FFN_NONE) return;
    if (c->cross) bind_norms(b, &l->cross_norms, "cross_attn_norm", "post_cross_attn_norm");
    if (c->cross) cross_bind(b, &l->cross, kind);
    if (!c->parallel || !c->shared_norm) bind_norms(b, &l->ffn_norms, only ? "attn_norm" : "ffn_norm", "post_ffw_norm");
    if (routed) experts_bind(b, &l->experts, experts);
    else if (kind->ffn == FFN_CHANNEL_MIX) channel_mix_bind(b, &l->channel_mix);
    else ffn_bind(b, &l->ffn, &names, c->hidden_dim);
}

int layers_bind(LayerStack *s, Binder *b) {
    *s = (LayerStack){.config = *b->config};
    s->layers = own(s, b, (size_t)s->config.n_layers, sizeof *s->layers);
    for (int i = 0; i < s->config.n_layers && !b->failed; i++) bind_layer(s, b, i);
    b->layer = -1;
    return b->failed ? -1 : 0;
}

void layers_free(LayerStack *s) {
    for (ptrdiff_t i = 0; i < arrlen(s->allocations); i++) free(s->allocations[i]);
    arrfree(s->allocations);
    s->layers = NULL;
}

static uint64_t norms_bytes(const SublayerNorms *n, int dim) {
    return norm_bytes(&n->input, dim) + norm_bytes(&n->output, dim) + norm_bytes(&n->residual, dim);
}

uint64_t layers_token_bytes(const LayerStack *s) {
    const Config *c = &s->config;
    uint64_t bytes = 0;
    for (int i = 0; i < c->n_layers; i++) {
        const Layer *l = &s->layers[i];
        const LayerKind *kind = config_kind(c, i);
        bytes += norms_bytes(&l->mixer_norms, c->dim) + norms_bytes(&l->ffn_norms, c->dim);
        bytes += mixer_of(kind->mixer)->token_bytes(l->mixer);
        if (kind->ffn == FFN_NONE) continue;
        bytes += kind->ffn == FFN_EXPERTS       ? experts_token_bytes(&l->experts, c->n_experts_used)
                 : kind->ffn == FFN_CHANNEL_MIX ? channel_mix_token_bytes(&l->channel_mix)
                                                : ffn_token_bytes(&l->ffn);
    }
    return bytes;
}

// ---- buffers

static size_t max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

// The widths that the kinds of layers ask for, in floats a row.
typedef struct {
    size_t mixer, carried, gate, up, input; // scratch of a mixer; gate and up of a feed-forward; the widest product's
                                            // input
    bool experts;
} Widths;

static Widths widths_of(const Config *c) {
    Widths w = {.input = (size_t)c->dim};
    size_t hidden = (size_t)c->hidden_dim, expert = (size_t)config_expert_dim(c), shared = (size_t)c->shared_dim;
    for (int i = 0; i < c->n_kinds; i++) {
        const LayerKind *kind = &c->kinds[i];
        const Mixer *mixer = mixer_of(kind->mixer);
        w.mixer = max_size(w.mixer, mixer->scratch(kind));
        if (mixer->carried) w.carried = max_size(w.carried, mixer->carried(kind));
        w.input = max_size(w.input, (size_t)mixer->widest_input(kind));
        bool routed = kind->ffn == FFN_EXPERTS;
        w.experts |= routed;
        w.up = max_size(w.up, routed ? max_size(2 * expert, shared) : hidden);
        w.gate = max_size(w.gate, routed ? max_size(expert, shared) : hidden);
    }
    w.input = max_size(w.input, w.gate);
    return w;
}

// Positions and the experts of each token: integers, and so not among the buffers.
static int reserve_integers(Workspace *w, const Config *c, int n, char *err, size_t errlen) {
    if (n <= w->room) return 0;
    size_t rows = (size_t)n;
    int32_t *all = realloc(w->positions, sizeof *all * rows * (1 + (size_t)c->n_experts_used));
    if (!all) return fail(err, errlen, "out of memory for the positions of %d tokens", n);
    w->positions = all;
    w->ffn.picks = all + rows;
    return 0;
}

static int reserve_compute(Workspace *w, const Config *c, const Widths *widths, int n, char *err, size_t errlen) {
    for (int i = 0; i < c->n_kinds; i++) {
        const LayerKind *kind = &c->kinds[i];
        const Mixer *mixer = mixer_of(kind->mixer);
        if (mixer->reserve && mixer->reserve(w->compute, kind, err, errlen)) return -1;
    }
    return c->fp32_products ? 0 : compute_reserve(w->compute, (int)widths->input, n, err, errlen);
}

int workspace_reserve(Workspace *w, const Config *c, int n, char *err, size_t errlen) {
    Widths widths = widths_of(c);
    size_t dim = (size_t)c->dim, picked = widths.experts ? dim : 0, used = (size_t)c->n_experts_used;
    Buffer list[13 + MAX_LAYER_KINDS] = {{&w->x, dim},
                                         {&w->norm, dim},
                                         {&w->ffn_norm, c->parallel ? dim : 0},
                                         {&w->out, c->post_norm || c->residual_scale > 0 ? dim : 0},
                                         {&w->mixer, widths.mixer},
                                         {&w->carried, widths.carried},
                                         {&w->channel_mix, c->channel_mix ? CHANNEL_MIX_ROWS * dim : 0},
                                         {&w->ffn.ffn.gate, c->plain_ffn ? 0 : widths.gate},
                                         {&w->ffn.ffn.up, widths.up},
                                         {&w->ffn.picked_x, picked},
                                         {&w->ffn.picked_y, picked},
                                         {&w->ffn.routes, (size_t)c->n_experts},
                                         {&w->ffn.weights, used > 1 ? used : 1}};
    size_t count = 13;
    for (int i = 0; i < c->n_kinds; i++) {
        size_t width = config_rope_kind(c, i) == i ? (size_t)c->kinds[i].rope.rotary_dim : 0;
        if (width) list[count++] = (Buffer){&w->tables[i], width};
    }
    if (reserve_integers(w, c, n, err, errlen) || reserve_compute(w, c, &widths, n, err, errlen)) return -1;
    return buffers_reserve(&w->memory, &w->room, n, list, count, "tokens", err, errlen);
}

void workspace_close(Workspace *w) {
    free(w->memory);
    free(w->positions);
    memset(w, 0, sizeof *w);
}

// ---- forward

// One pass at work.
typedef struct {
    const LayerStack *stack;
    Workspace *work;
    const LayerPass *request;
    Pass pass;
} Run;

// What a sublayer reads: its norm of the stream in `room`, or the stream itself.
static const float *read_stream(const Run *r, const SublayerNorms *norms, float *room) {
    const Config *c = &r->stack->config;
    if (!norms->input.weight) return r->work->x;
    ops_norm(r->work->compute, room, r->work->x, &norms->input, r->pass.n, c->dim, c->norm_eps);
    return room;
}

// Where a sublayer writes: onto the stream, or where its output is normed or scaled first.
static float *output_of(const Run *r, const SublayerNorms *norms) {
    return norms->output.weight || r->stack->config.residual_scale > 0 ? r->work->out : r->work->x;
}

static void join_stream(const Run *r, const SublayerNorms *norms) {
    const Config *c = &r->stack->config;
    Workspace *w = r->work;
    int n = r->pass.n;
    if (norms->output.weight) ops_norm(w->compute, w->out, w->out, &norms->output, n, c->dim, c->norm_eps);
    if (c->residual_scale > 0) ops_add_scaled(w->compute, w->x, w->out, n, c->dim, c->residual_scale);
    else if (norms->output.weight) ops_add(w->compute, w->x, w->out, n, c->dim);
    if (norms->residual.weight) ops_norm(w->compute, w->x, w->x, &norms->residual, n, c->dim, c->norm_eps);
}

static MixerCall call_of(const Run *r, int layer, const SublayerNorms *norms, const float *x) {
    const Config *c = &r->stack->config;
    float *y = output_of(r, norms);
    return (MixerCall){.pass = &r->pass,
                       .kind = config_kind(c, layer),
                       .kind_index = c->kind_of[layer],
                       .layer = layer,
                       .x = x,
                       .y = y,
                       .add = y == r->work->x};
}

static void run_cross(Run *r, int layer) {
    const Layer *l = &r->stack->layers[layer];
    MixerCall call = call_of(r, layer, &l->cross_norms, read_stream(r, &l->cross_norms, r->work->norm));
    r->pass.visit = r->request->visit_cross;
    cross_forward(&l->cross, &call);
    join_stream(r, &l->cross_norms);
}

static void run_ffn(const Run *r, int layer, const float *in) {
    const Config *c = &r->stack->config;
    const Layer *l = &r->stack->layers[layer];
    Workspace *w = r->work;
    float *y = output_of(r, &l->ffn_norms);
    if (config_kind(c, layer)->ffn == FFN_EXPERTS) {
        experts_forward(w->compute, c, &l->experts, &w->ffn, in, y, r->pass.n, y == w->x);
    } else if (config_kind(c, layer)->ffn == FFN_CHANNEL_MIX) {
        channel_mix_forward(&l->channel_mix, &r->pass, layer, &w->ffn.ffn, w->channel_mix, in, y, y == w->x);
    } else {
        ffn_forward(w->compute, c, &l->ffn, &w->ffn.ffn, in, y, r->pass.n, y == w->x);
    }
    join_stream(r, &l->ffn_norms);
}

static void run_layer(Run *r, int layer) {
    const Layer *l = &r->stack->layers[layer];
    bool parallel = r->stack->config.parallel, shared = r->stack->config.shared_norm;
    const LayerKind *kind = config_kind(&r->stack->config, layer);
    const float *ffn_in = parallel && !shared ? read_stream(r, &l->ffn_norms, r->work->ffn_norm) : NULL;
    if (kind->mixer == MIX_NONE) {
        run_ffn(r, layer, read_stream(r, &l->ffn_norms, r->work->norm));
        return;
    }
    MixerCall call = call_of(r, layer, &l->mixer_norms, read_stream(r, &l->mixer_norms, r->work->norm));
    if (parallel && shared) ffn_in = call.x;
    r->pass.visit = r->request->visit;
    mixer_of(kind->mixer)->forward(l->mixer, &call);
    join_stream(r, &l->mixer_norms);
    if (r->stack->config.cross) run_cross(r, layer);
    if (kind->ffn == FFN_NONE) return;
    run_ffn(r, layer, parallel ? ffn_in : read_stream(r, &l->ffn_norms, r->work->norm));
}

static void halve_stream(const Run *r) {
    float *x = r->work->x;
    int64_t n = (int64_t)r->pass.n * r->stack->config.dim;
    for (int64_t i = 0; i < n; i++) x[i] *= 0.5f;
}

// Tables of cos and sin for every row; kinds with the same rotary positions share one.
static void make_tables(Run *r) {
    const Config *c = &r->stack->config;
    Workspace *w = r->work;
    profile_begin(w->compute->profile, PROFILE_ROPE);
    for (int i = 0; i < c->n_kinds; i++) {
        const RopeConfig *rope = &c->kinds[i].rope;
        int first = config_rope_kind(c, i);
        if (!rope->rotary_dim) continue;
        r->pass.rope_tables[i] = w->tables[first];
        if (first < i) continue;
        int row = 0;
        for (int s = 0; s < r->pass.n_segments; row += r->pass.segments[s++].n) {
            const Segment *segment = &r->pass.segments[s];
            float *table = w->tables[i] + (int64_t)row * rope->rotary_dim;
            rope_table(&segment->memory->ropes[i], table, w->positions + row, segment->n);
        }
    }
    profile_end(w->compute->profile, 0, 0);
}

static Run start(const LayerStack *s, Workspace *w, const LayerPass *pass) {
    Run r = {.stack = s, .work = w, .request = pass};
    r.pass = (Pass){.config = &s->config,
                    .compute = w->compute,
                    .segments = pass->segments,
                    .n_segments = pass->n_segments,
                    .scratch = w->mixer,
                    .carried = w->carried,
                    .visit_context = pass->visit_context};
    for (int i = 0; i < pass->n_segments; i++) r.pass.n += pass->segments[i].n;
    return r;
}

void layers_forward(const LayerStack *s, Workspace *w, const LayerPass *pass) {
    Run r = start(s, w, pass);
    make_tables(&r);
    for (int i = 0; i < s->config.n_layers; i++) {
        run_layer(&r, i);
        if (s->config.rescale_every && (i + 1) % s->config.rescale_every == 0) halve_stream(&r);
    }
}

void layers_store_cross(const LayerStack *s, Workspace *w, const LayerPass *pass, const float *x) {
    Run r = start(s, w, pass);
    for (int i = 0; i < s->config.n_layers; i++) {
        MixerCall call = {.pass = &r.pass, .kind = config_kind(&s->config, i), .layer = i, .x = x};
        cross_store(&s->layers[i].cross, &call);
    }
}
