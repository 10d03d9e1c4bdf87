// mechanism: an operator that runs an attention mechanism.
//
// Owns the interface and the list of all rows. A mechanism is a row in the table of its family's file (scores.c,
// heads.c, ...), and what is known of it is in facts.json; a new family is a file, its table here and in mechanism.c.
// All operators take the same rows of queries, keys, values and gates, so that one bench, one picture and one check
// serve them all; what a mechanism needs besides (projections, random features, pooling weights) it draws from
// Shape.seed when it is opened. Refuses nothing itself.
#pragma once
#include "compute.h"
#include "kvcache.h"
#include "ops.h"
#include "random.h"
#include "state.h"

// In which order an operator takes its rows.
typedef enum {
    TIME_CAUSAL, // n_q = n_keys: rows are appended, row t sees rows 0..t; in steps of any size, with the same result
    TIME_CROSS,  // keys are stored, queries are answered over all keys stored so far; n_q or n_keys may be 0
    TIME_WHOLE   // one step, n_q = n_keys: a set whose rows may all see each other
} TimeKind;

typedef struct {
    int n_heads, n_kv_heads, head_dim;
    int n_max;     // rows that the operator will be given at most
    int window;    // keys of a local neighbourhood, the query's own included
    int block;     // tokens of a block of block-sparse masks; memory's unit of retrieval
    int rank;      // random features, rows of a low-rank projection, width of a latent, keys retrieved
    KvDType type;  // what KV caches store
    uint64_t seed; // of what the mechanism draws
} Shape;

// Rows of one timeline. gates: standard normal numbers, from which gated mechanisms compute their decays and strengths
// as their rows say; the others ignore them.
typedef struct {
    int n_q, n_keys;
    const float *q;     // [n_q][n_heads][head_dim]
    const float *k, *v; // [n_keys][n_kv_heads][head_dim]
    const float *gates; // [n_keys][n_heads][head_dim]
    float *out;         // [n_q][n_heads][head_dim]; not q
} Rows;

typedef struct Mechanism Mechanism;
typedef struct Operator Operator;

enum { MAX_OWNED = 12 };

// A mechanism at work on one timeline.
struct Operator {
    const Mechanism *mechanism;
    Compute *compute; // borrowed
    Shape shape;
    uint64_t seed;           // of the next number that open draws
    int kv_heads;            // that rows come with: shape.n_kv_heads, or fewer with Mechanism.each_head
    int length;              // keys stored
    double flops;            // of all steps so far: each multiplication, addition and transcendental function counts 1
    double computed;         // pairs of a query and a key, of a head, that attention() computed in all steps
    double attended;         // seconds in attention()
    double held;             // bytes kept of the text, those of caches, states and parts aside
    void *own;               // the mechanism's
    void *blocks[MAX_OWNED]; // what operator_close frees: memory of operator_own, caches, the state, and parts
    KvCache *caches[MAX_OWNED];
    State *state;    // NULL: none
    Operator *parts; // operators of which this one is made
    int n_blocks, n_caches, n_parts;
};

struct Mechanism {
    const char *name; // "bigbird", as in facts.json
    TimeKind time;
    int kv_heads;      // of the heads' keys and values; 0: one for each head
    bool approximates; // softmax attention over the same rows: the error against it means something
    bool each_head;    // takes keys and values for each head of queries: copies of those that heads share
    bool whole_blocks; // Shape.block divides a cache's block
    bool opaque;       // outputs are not sums of values by weights, so that there are no weights to show
    int most_rows;     // that the bench gives it; 0: any number. For what is O(n^2) in memory or in slow operations
    int variant;       // what the family's functions tell their rows apart by
    int piece;         // rows that step takes at most; 0: any number
    // Sets op->own, with room for shape.n_max rows; NULL: it keeps nothing. Ends the program when memory runs out, as
    // step does.
    void (*open)(Operator *op);
    // Appends, answers, and adds to op->flops and op->held. op->length is that before.
    void (*step)(Operator *op, const Rows *rows);
};

// A family's table, ended by a row without a name.
extern const Mechanism scores_rows[], heads_rows[], masks_rows[], exact_rows[], linear_rows[], memory_rows[],
    recurrent_rows[], beyond_rows[], hyena_rows[], vision_rows[], graph_rows[];

// The rows of all families in order; NULL behind the last.
const Mechanism *mechanism_at(int i);
// NULL: there is none of this name.
const Mechanism *mechanism_find(const char *name);

// What the program uses where nothing else is asked for; as many heads of keys and values as the mechanism has, at most
// all.
Shape shape_of(const Mechanism *m, int n_max, int n_heads, int head_dim);

// -1 with a line in err where the mechanism refuses the shape.
int operator_open(Operator *op, const Mechanism *m, const Shape *shape, Compute *c, char *err, size_t errlen);
// The same; ends the program where it refuses.
void operator_need(Operator *op, const Mechanism *m, const Shape *shape, Compute *c);
void operator_step(Operator *op, const Rows *rows);
double operator_bytes(const Operator *op); // of caches and state, held now
void operator_close(Operator *op);         // accepts a zeroed one
// operator_need, one step, and close.
void operator_run(const Mechanism *m, const Shape *shape, Compute *c, const Rows *rows);

// What each row gives each row's value: weights[n_heads][n][n] of one mechanism that is not opaque, for n <= n_max rows
// of q, k and gates. Found by running the operator on unit vectors as values, head_dim keys at a time.
void mechanism_weights(const Mechanism *m, const Shape *shape, Compute *c, const Rows *rows, float *weights);

// ---- what operators draw and share

static const float LOG2_E = 1.44269504088896340736f;
static const float LEAST_SUM = 1e-20f; // of weights

// Floats of a row of queries, and of a row of keys; where row t has the keys and values that a head of queries reads.
static inline int64_t query_width(const Shape *s) {
    return (int64_t)s->n_heads * s->head_dim;
}
static inline int64_t key_width(const Shape *s) {
    return (int64_t)s->n_kv_heads * s->head_dim;
}
static inline int64_t key_place(const Shape *s, int64_t t, int head) {
    return t * key_width(s) + head / (s->n_heads / s->n_kv_heads) * s->head_dim;
}

// Rows first..first + n - 1 of a step that has as many queries as keys.
Rows rows_part(const Rows *rows, const Shape *shape, int first, int n);
// The step in parts of at most `piece` rows, op->length being that before each.
void step_pieces(Operator *op, const Rows *rows, int piece, void (*step)(Operator *op, const Rows *rows));

// Heads first..first + count - 1 of rows x [n][x_heads][head_dim], each of which serves n_heads / x_heads in turn, to
// [n][count][head_dim].
void take_heads(const Shape *s, float *to, const float *x, int x_heads, int first, int count, int n);

// A matrix for each head: y[t][h] = w[h] x[t][h], w [heads][rows][cols].
void map_heads(const Compute *c, const float *w, int heads, int rows, int cols, const float *x, float *y, int n);

// Zeroed memory on a cache line, for the operator's life; ends the program when there is none, as do the others.
void *operator_own(Operator *op, size_t bytes);
float *operator_floats(Operator *op, int64_t n);
// The next n by random_normals from op->seed.
float *operator_normals(Operator *op, int64_t n, float deviation);
void operator_state(Operator *op, const StateShape *shape);
void operator_scratch(Operator *op, int64_t n); // floats of each worker
// Zeroed floats on a cache line, for free(); ends the program when there are none.
float *floats_need(int64_t n);

// A step that is split over threads: what the task of an item gets.
typedef struct Work Work;
typedef void WorkTask(const Work *w, int item);
struct Work {
    const Operator *op;
    const Rows *rows;
    float *scratch; // the worker's
    WorkTask *task;
};
void operator_for(const Operator *op, const Rows *rows, int n_items, WorkTask *task);

// Rows of ld floats as they are: word k of column i is x[k * ld + i]. A panel behind the last may be read.
static inline PackedMatrix packed_rows(const float *x, int64_t ld) {
    return (PackedMatrix){.data = x, .row_stride = ld, .panel_stride = MAX_PANEL};
}
// y[n_rows][n] = x[n_rows][k] w, rows y_ld and x_ld floats apart, split over threads.
typedef struct {
    const Compute *compute;
    float *y;
    const float *x;
    PackedMatrix w;
    int64_t y_ld, x_ld;
    int n_rows, k, n;
} Product;
void multiply_rows(Product p);
