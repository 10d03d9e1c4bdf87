// mixers: the table of mixers, and what they all use.
#include "mixer.h"

enum { ROWS_PER_ITEM = 16, SMALL_ROWS = 8192 };

// ---- layers without a mixer: only asked what they need

static void bind_nothing(Binder *b, void *weights, const LayerKind *kind) {
    (void)b;
    (void)weights;
    (void)kind;
}

static uint64_t no_bytes(const void *weights) {
    (void)weights;
    return 0;
}

static size_t no_floats(const LayerKind *kind) {
    (void)kind;
    return 0;
}

static int no_columns(const LayerKind *kind) {
    (void)kind;
    return 0;
}

static const Mixer mixer_none = {.name = "none",

                                 .weights_size = 1,
                                 .bind = bind_nothing,
                                 .token_bytes = no_bytes,
                                 .scratch = no_floats,
                                 .widest_input = no_columns};

// ---- all

const Mixer *mixer_of(MixerKind kind) {
    static const Mixer *const mixers[N_MIXERS] = {
        [MIX_ATTENTION] = &mixer_attention,
        [MIX_LATENT] = &mixer_latent,
        [MIX_DELTA] = &mixer_delta,
        [MIX_RWKV6] = &mixer_rwkv6,
        [MIX_RWKV7] = &mixer_rwkv7,
        [MIX_SSM] = &mixer_ssm,
        [MIX_SSM_ATTENTION] = &mixer_ssm_attention,
        [MIX_CONV] = &mixer_conv,
        [MIX_MAMBA] = &mixer_mamba,
        [MIX_NONE] = &mixer_none,
        [MIX_LINEAR] = &mixer_linear,
        [MIX_RETENTION] = &mixer_linear,
        [MIX_GLA] = &mixer_linear,
        [MIX_HYENA] = &mixer_hyena,
    };
    return mixers[kind];
}

// Query t of a causal problem sees the keys up to its own; its mask's bitmap, if there is one, has a row for it.
static Attention query_alone(const Attention *a, int t) {
    Attention one = *a;
    one.q += (int64_t)t * a->n_heads * a->kv.k_dim;
    one.out += (int64_t)t * a->n_heads * a->kv.v_dim;
    one.n_q = 1;
    one.pos0 += t;
    if (a->mask.causal) one.n_keys = one.pos0 + 1;
    if (a->mask.bitmap) one.mask.bitmap += (int64_t)t * a->mask.bitmap_stride;
    return one;
}

static void attend_alone(const Compute *c, const Attention *list, int n) {
    Attention queries[MAX_SEGMENTS];
    int count = 0;
    for (int i = 0; i < n; i++) {
        for (int t = 0; t < list[i].n_q; t++) {
            queries[count++] = query_alone(&list[i], t);
            if (count < MAX_SEGMENTS) continue;
            attention(c, queries, count);
            count = 0;
        }
    }
    attention(c, queries, count);
}

void mixer_attend(const MixerCall *call, const Attention *list) {
    const Pass *pass = call->pass;
    if (pass->compute->exact) attend_alone(pass->compute, list, pass->n_segments);
    else attention(pass->compute, list, pass->n_segments);
    if (!pass->visit) return;
    for (int i = 0; i < pass->n_segments; i++) pass->visit(pass->visit_context, call->layer, i, &list[i]);
}

typedef struct {
    RowTask task;
    void *context;
    int n;
} RowJob;

static void run_rows(void *context, int item, int worker) {
    (void)worker;
    const RowJob *job = context;
    int first = item * ROWS_PER_ITEM, n = job->n - first < ROWS_PER_ITEM ? job->n - first : ROWS_PER_ITEM;
    job->task(job->context, first, n);
}

void mixer_rows(const Pass *pass, int width, RowTask task, void *context) {
    RowJob job = {.task = task, .context = context, .n = pass->n};
    bool small = (int64_t)pass->n * width < SMALL_ROWS;
    profile_begin(pass->compute->profile, PROFILE_RECURRENCE);
    threads_for_if(!small, pass->compute->pool, (pass->n + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM, run_rows, &job);
    profile_end(pass->compute->profile, 0, 0);
}
