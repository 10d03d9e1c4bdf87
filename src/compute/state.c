// state: see state.h. One block of memory: the matrices and the convolution's history, which a copy of a border holds;
// then the open chunk's rows.
#include "state.h"

#include "compute.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

enum { SLACK = 32 }; // floats that kernels may read beyond a matrix
enum { DECAY_FLOATS = STATE_CHUNK * sizeof(double) / sizeof(float) };

struct State {
    StateShape shape;
    int length, border, n_slots;
    int decayed;                                            // rows of the open chunk, as state_decayed
    size_t matrix, chunk_keys, chunk_updates, chunk_decays; // floats from head to head
    size_t border_floats, total_floats;
    float *memory;                   // [total_floats]
    float *history, *keys, *updates; // in memory, behind the matrices
    float *decays;                   // doubles; with pairs factors, decayed keys; with scan the running state, steps
    float *slots;                    // [n_slots][border_floats]; pages are taken as they are written
};

static size_t matrix_floats(const StateShape *s) {
    return scratch_floats((size_t)s->k_dim * (size_t)s->v_dim + SLACK);
}

static size_t history_floats(const StateShape *s) {
    return s->conv_width ? (size_t)(s->conv_width - 1) * (size_t)s->conv_dim : 0;
}

static size_t border_floats(const StateShape *s) {
    return scratch_floats((size_t)s->n_heads * matrix_floats(s) + history_floats(s));
}

uint64_t state_copy_bytes(const StateShape *shape) {
    return sizeof(float) * border_floats(shape);
}

static void lay_out(State *s) {
    const StateShape *shape = &s->shape;
    size_t heads = (size_t)shape->n_heads, key_heads = (size_t)shape->n_key_heads, k_dim = (size_t)shape->k_dim;
    size_t pairs = STATE_CHUNK * (size_t)(shape->pairs ? shape->pairs : 1);
    s->matrix = matrix_floats(shape);
    s->chunk_keys = scratch_floats(pairs * k_dim);
    s->chunk_updates = scratch_floats(pairs * (size_t)shape->v_dim + SLACK);
    s->chunk_decays = shape->scan    ? scratch_floats((k_dim + STATE_CHUNK) * (size_t)shape->v_dim)
                      : shape->pairs ? scratch_floats((STATE_CHUNK + 1 + pairs) * k_dim)
                                     : DECAY_FLOATS;
    s->border_floats = border_floats(shape);
    size_t rows = shape->conv_width ? STATE_CHUNK * (size_t)shape->conv_dim : 0;
    s->total_floats = scratch_floats(heads * s->matrix + history_floats(shape) + rows) + key_heads * s->chunk_keys +
                      heads * (s->chunk_updates + s->chunk_decays);
}

State *state_open(const StateShape *shape, int n_slots, char *err, size_t errlen) {
    State *s = calloc(1, sizeof *s);
    if (s) {
        s->shape = *shape;
        s->n_slots = n_slots;
        lay_out(s);
        s->memory = calloc(s->total_floats, sizeof *s->memory);
        s->slots = calloc((size_t)n_slots * s->border_floats + 1, sizeof *s->slots);
    }
    if (!s || !s->memory || !s->slots) {
        fail(err, errlen, "out of memory for a recurrent state of %d x %d x %d values", shape->n_heads, shape->k_dim,
             shape->v_dim);
        state_close(s);
        return NULL;
    }
    size_t rows = shape->conv_width ? STATE_CHUNK * (size_t)shape->conv_dim : 0;
    s->history = s->memory + (size_t)shape->n_heads * s->matrix;
    s->keys = s->memory + scratch_floats((size_t)shape->n_heads * s->matrix + history_floats(shape) + rows);
    s->updates = s->keys + (size_t)shape->n_key_heads * s->chunk_keys;
    s->decays = s->updates + (size_t)shape->n_heads * s->chunk_updates;
    return s;
}

void state_close(State *s) {
    if (!s) return;
    free(s->memory);
    free(s->slots);
    free(s);
}

const StateShape *state_shape(const State *s) {
    return &s->shape;
}

int state_length(const State *s) {
    return s->length;
}

int state_border(const State *s) {
    return s->border;
}

uint64_t state_bytes(const State *s) {
    return sizeof(float) * (s->total_floats + (size_t)s->n_slots * s->border_floats);
}

uint64_t state_shape_bytes(const StateShape *shape, int n_slots) {
    State s = {.shape = *shape, .n_slots = n_slots};
    lay_out(&s);
    return state_bytes(&s);
}

uint64_t state_token_bytes(const State *s) {
    const StateShape *shape = &s->shape;
    uint64_t matrices = (uint64_t)shape->n_heads * (uint64_t)shape->k_dim * (uint64_t)shape->v_dim;
    return sizeof(float) * (matrices + history_floats(shape));
}

float *state_matrix(State *s, int head) {
    return s->memory + (size_t)head * s->matrix;
}

float *state_keys(State *s, int key_head) {
    return s->keys + (size_t)key_head * s->chunk_keys;
}

float *state_updates(State *s, int head) {
    return s->updates + (size_t)head * s->chunk_updates;
}

double *state_decays(State *s, int head) {
    return (double *)(void *)(s->decays + (size_t)head * s->chunk_decays);
}

float *state_factors(State *s, int head) {
    return s->decays + (size_t)head * s->chunk_decays;
}

float *state_decayed_keys(State *s, int head) {
    return state_factors(s, head) + STATE_CHUNK * (size_t)s->shape.k_dim;
}

int state_decayed(const State *s) {
    return s->decayed;
}

float *state_running(State *s) {
    return s->decays;
}

float *state_steps(State *s) {
    return s->decays + (size_t)s->shape.k_dim * (size_t)s->shape.v_dim;
}

float *state_inputs(State *s) {
    return s->history;
}

void state_advance(State *s, int n) {
    s->length += n;
    s->border = s->length / STATE_CHUNK * STATE_CHUNK;
    s->decayed = s->length - s->border;
}

void state_truncate(State *s, int n) {
    if (n < s->length) s->decayed = 0;
    s->length = n;
}

void state_restart(State *s) {
    memset(s->memory, 0, sizeof *s->memory * s->border_floats);
    s->length = s->border = s->decayed = 0;
}

void state_copy(State *s, const State *from) {
    memcpy(s->memory, from->memory, state_memory_bytes(s));
    s->length = from->length;
    s->border = from->border;
    s->decayed = from->decayed;
}

void state_resume(State *s, int length) {
    s->length = length;
    s->border = length / STATE_CHUNK * STATE_CHUNK;
    s->decayed = 0;
}

void *state_memory(State *s) {
    return s->memory;
}

size_t state_memory_bytes(const State *s) {
    return sizeof *s->memory * s->total_floats;
}

void *state_slot(State *s, int slot) {
    return s->slots + (size_t)slot * s->border_floats;
}

void state_save(State *s, int slot) {
    memcpy(state_slot(s, slot), s->memory, sizeof *s->memory * s->border_floats);
}

void state_restore(State *s, int slot, int border) {
    memcpy(s->memory, state_slot(s, slot), sizeof *s->memory * s->border_floats);
    s->length = s->border = border;
    s->decayed = 0;
}
