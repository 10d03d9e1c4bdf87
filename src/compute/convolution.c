// convolution: see convolution.h.
#include "convolution.h"

#include <string.h>

// The input of a position; one before the pass lies in the state.
static const float *input_at(const Convolution *v, int pos) {
    const StateShape *shape = state_shape(v->state);
    int length = state_length(v->state), first = state_border(v->state) - (shape->conv_width - 1);
    if (pos >= length) return v->x + (pos - length) * v->ld;
    return state_inputs(v->state) + (int64_t)(pos - first) * shape->conv_dim;
}

static void run_row(const Compute *c, const Convolution *v, int row) {
    const StateShape *shape = state_shape(v->state);
    int pos = state_length(v->state) + row, n = shape->conv_dim;
    float *y = v->y + (int64_t)row * n;
    const float *x[MAX_TAPS];
    for (int j = 0; j < shape->conv_width; j++) x[j] = input_at(v, pos - shape->conv_width + 1 + j);
    c->kernels->convolve(y, x, v->taps, v->bias, shape->conv_width, n);
    if (v->act) c->kernels->activate(y, n, v->act);
}

// Keep the inputs from conv_width - 1 before the border that the pass leads to.
static void store_inputs(const Convolution *v) {
    const StateShape *shape = state_shape(v->state);
    int end = state_length(v->state) + v->n, border = end / STATE_CHUNK * STATE_CHUNK,
        first = border - (shape->conv_width - 1);
    float *inputs = state_inputs(v->state);
    int from = border == state_border(v->state) ? state_length(v->state) : first;
    for (int pos = from; pos < end; pos++) { // towards lower addresses: a row is read before it is overwritten
        memmove(inputs + (int64_t)(pos - first) * shape->conv_dim, input_at(v, pos),
                sizeof *inputs * (size_t)shape->conv_dim);
    }
}

typedef struct {
    const Compute *compute;
    const Convolution *list;
    int n;
} Job;

static void run_item(void *context, int index, int worker) {
    (void)worker;
    const Job *job = context;
    const Convolution *v = job->list;
    while (index >= v->n) index -= v++->n;
    run_row(job->compute, v, index);
}

void convolution(const Compute *c, const Convolution *list, int n) {
    enum { SMALL = 1 << 14 };
    int rows = 0;
    for (int i = 0; i < n; i++) rows += list[i].n;
    const StateShape *shape = state_shape(list->state);
    Job job = {.compute = c, .list = list, .n = n};
    profile_begin(c->profile, PROFILE_RECURRENCE);
    threads_for_if((int64_t)rows * shape->conv_dim >= SMALL, c->pool, rows, run_item, &job);
    for (int i = 0; i < n; i++) store_inputs(&list[i]);
    profile_end(c->profile, 2.0 * rows * shape->conv_dim * shape->conv_width, 0);
}

// ---- token shift

// The state's row of the last input before a position: the first row is that before the border.
static float *shifted_input(const TokenShift *s, int pos, int border) {
    return state_inputs(s->state) + (int64_t)(pos - border) * state_shape(s->state)->conv_dim + s->first;
}

static void shift_rows(const TokenShift *s) {
    int length = state_length(s->state), end = length + s->n, border = end / STATE_CHUNK * STATE_CHUNK;
    size_t row = sizeof(float) * (size_t)s->dim;
    memcpy(s->previous, shifted_input(s, length, state_border(s->state)), row);
    memcpy(s->previous + s->dim, s->x, row * (size_t)(s->n - 1));
    int from = border == state_border(s->state) ? length : border - 1;
    for (int pos = from; pos < end; pos++) {
        memcpy(shifted_input(s, pos + 1, border), s->x + (int64_t)(pos - length) * s->dim, row);
    }
}

void token_shift(const Compute *c, const TokenShift *list, int n) {
    profile_begin(c->profile, PROFILE_RECURRENCE);
    for (int i = 0; i < n; i++) shift_rows(&list[i]);
    profile_end(c->profile, 0, 0);
}
