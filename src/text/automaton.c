// automaton: see automaton.h.
#include "automaton.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { MOST_STATES = 1 << 20, MOST_PLACES = 1 << 12, UNKNOWN = -2 };

typedef enum { NODE_END, NODE_SET, NODE_EITHER, NODE_CALL } NodeKind;

typedef struct {
    NodeKind kind;
    int what; // the set, the other way, the rule
    int next;
} Node;

// Where a rule returns to: a node, and the frame that the rule was called in. Frame 0 is that of the whole text.
typedef struct {
    int node, frame;
} Place;

typedef struct {
    Place *places; // stb_ds array, sorted: of NODE_SET
    int *next;     // [n_classes]: states, AUTOMATON_DEAD or UNKNOWN; NULL: no step was made yet
    int same_hash; // another state with the same hash; -1: none
    bool accepts;
} State;

struct Automaton {
    Node *nodes;   // stb_ds array
    ByteSet *sets; // stb_ds array
    int *rules;    // stb_ds array: their first nodes
    Place *frames; // stb_ds array
    struct {
        Place key;
        int value;
    } * frame_of;  // stb_ds map
    State *states; // stb_ds array
    struct {
        uint64_t key;
        int value;
    } * state_of;          // stb_ds map, by hash
    int n_classes;         // of bytes that every set has or lacks together; 0: the grammar is still built
    uint8_t class_of[256]; // of a byte
    Place *todo, *found;   // stb_ds arrays: of the step being made
};

Automaton *automaton_open(void) {
    Automaton *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    arrput(a->nodes, ((Node){.kind = NODE_END}));
    arrput(a->frames, ((Place){0, 0}));
    return a;
}

void automaton_close(Automaton *a) {
    if (!a) return;
    for (ptrdiff_t i = 0; i < arrlen(a->states); i++) {
        arrfree(a->states[i].places);
        free(a->states[i].next);
    }
    arrfree(a->nodes);
    arrfree(a->sets);
    arrfree(a->rules);
    arrfree(a->frames);
    hmfree(a->frame_of);
    arrfree(a->states);
    hmfree(a->state_of);
    arrfree(a->todo);
    arrfree(a->found);
    free(a);
}

// ---- the grammar

static bool has(const ByteSet *s, unsigned byte) {
    return s->bits[byte / 64] >> byte % 64 & 1;
}

static int add(Automaton *a, NodeKind kind, int what, int next) {
    Node n = {kind, what, next};
    arrput(a->nodes, n);
    return (int)arrlen(a->nodes) - 1;
}

static bool same(const ByteSet *x, const ByteSet *y) {
    uint64_t differ = 0;
    for (int i = 0; i < 4; i++) differ |= x->bits[i] ^ y->bits[i];
    return !differ;
}

int automaton_set(Automaton *a, ByteSet set, int next) {
    ptrdiff_t i = 0;
    while (i < arrlen(a->sets) && !same(&a->sets[i], &set)) i++;
    if (i == arrlen(a->sets)) arrput(a->sets, set);
    return add(a, NODE_SET, (int)i, next);
}

int automaton_range(Automaton *a, int from, int upto, int next) {
    ByteSet set = {0};
    for (int b = from; b <= upto; b++) byteset_add(&set, (unsigned char)b);
    return automaton_set(a, set, next);
}

int automaton_text(Automaton *a, const char *text, size_t n, int next) {
    while (n--) next = automaton_range(a, (unsigned char)text[n], (unsigned char)text[n], next);
    return next;
}

int automaton_either(Automaton *a, int x, int y) {
    return add(a, NODE_EITHER, x, y);
}

int automaton_loop(Automaton *a) {
    return add(a, NODE_EITHER, AUTOMATON_END, AUTOMATON_END);
}

void automaton_loop_ways(Automaton *a, int loop, int x, int y) {
    a->nodes[loop].what = x;
    a->nodes[loop].next = y;
}

int automaton_rule(Automaton *a) {
    arrput(a->rules, AUTOMATON_END);
    return (int)arrlen(a->rules) - 1;
}

void automaton_define(Automaton *a, int rule, int start) {
    a->rules[rule] = start;
}

int automaton_call(Automaton *a, int rule, int next) {
    return add(a, NODE_CALL, rule, next);
}

size_t automaton_size(const Automaton *a) {
    return arrlenu(a->nodes);
}

// ---- states

// Each set splits the classes into the bytes that it has and the others.
static void find_classes(Automaton *a) {
    a->n_classes = 1;
    for (ptrdiff_t i = 0; i < arrlen(a->sets); i++) {
        int part[2][256]; // of a class: the class of its bytes that the set lacks, and of those it has
        memset(part, -1, sizeof part);
        a->n_classes = 0;
        for (unsigned b = 0; b < 256; b++) {
            int *class = &part[has(&a->sets[i], b)][a->class_of[b]];
            if (*class < 0) *class = a->n_classes++;
            a->class_of[b] = (uint8_t) * class;
        }
    }
}

static int frame_of(Automaton *a, Place p) {
    if (a->nodes[p.node].kind == NODE_END) return p.frame; // nothing is left to do there
    ptrdiff_t i = hmgeti(a->frame_of, p);
    if (i >= 0) return a->frame_of[i].value;
    int frame = (int)arrlen(a->frames);
    arrput(a->frames, p);
    hmput(a->frame_of, p, frame);
    return frame;
}

static int by_place(const void *x, const void *y) {
    const Place *a = x, *b = y;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    return (a->frame > b->frame) - (a->frame < b->frame);
}

// From a->todo to the places in a->found that take a byte. Returns whether the text may end there; *limited: there were
// too many.
static bool follow(Automaton *a, bool *limited) {
    bool accepts = false;
    int n = 0;
    arrsetlen(a->found, 0);
    while (arrlen(a->todo)) {
        Place p = arrpop(a->todo);
        Node node = a->nodes[p.node];
        if (++n > MOST_PLACES) {
            *limited = true;
            arrsetlen(a->todo, 0);
            return false;
        }
        switch (node.kind) {
        case NODE_SET: arrput(a->found, p); break;
        case NODE_EITHER:
            arrput(a->todo, ((Place){node.what, p.frame}));
            arrput(a->todo, ((Place){node.next, p.frame}));
            break;
        case NODE_CALL: {
            int frame = frame_of(a, (Place){node.next, p.frame});
            arrput(a->todo, ((Place){a->rules[node.what], frame}));
            break;
        }
        case NODE_END:
            if (!p.frame) accepts = true;
            else arrput(a->todo, a->frames[p.frame]);
        }
    }
    return accepts;
}

static uint64_t hash_places(const Place *p, size_t n, bool accepts) {
    uint64_t h = 0xCBF29CE484222325u ^ accepts;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((uint64_t)(uint32_t)p[i].node << 32 | (uint32_t)p[i].frame)) * 0x9E3779B97F4A7C15u ^ h >> 29;
    return h;
}

// The state of a->todo.
static int state_of(Automaton *a) {
    bool limited = false, accepts = follow(a, &limited);
    size_t n = arrlenu(a->found), kept = 0;
    if (limited || (!n && !accepts) || arrlen(a->states) >= MOST_STATES) return AUTOMATON_DEAD;
    if (n) qsort(a->found, n, sizeof *a->found, by_place);
    for (size_t i = 0; i < n; i++)
        if (!i || by_place(&a->found[i], &a->found[kept - 1])) a->found[kept++] = a->found[i];
    uint64_t hash = hash_places(a->found, kept, accepts);
    ptrdiff_t at = hmgeti(a->state_of, hash);
    int first = at < 0 ? -1 : a->state_of[at].value;
    for (int s = first; s >= 0; s = a->states[s].same_hash) {
        const State *old = &a->states[s];
        if (old->accepts == accepts && arrlenu(old->places) == kept &&
            (!kept || !memcmp(old->places, a->found, kept * sizeof *a->found)))
            return s;
    }
    State new = {.same_hash = first, .accepts = accepts};
    if (kept) memcpy(arraddnptr(new.places, kept), a->found, kept * sizeof *a->found);
    arrput(a->states, new);
    hmput(a->state_of, hash, (int)arrlen(a->states) - 1);
    return (int)arrlen(a->states) - 1;
}

int automaton_start(Automaton *a, int rule) {
    if (!a->n_classes) find_classes(a);
    arrput(a->todo, ((Place){a->rules[rule], 0}));
    return state_of(a);
}

static int step(Automaton *a, int state, unsigned char byte) {
    for (ptrdiff_t i = 0; i < arrlen(a->states[state].places); i++) {
        Place p = a->states[state].places[i];
        const Node *n = &a->nodes[p.node];
        if (has(&a->sets[n->what], byte)) arrput(a->todo, ((Place){n->next, p.frame}));
    }
    return arrlen(a->todo) ? state_of(a) : AUTOMATON_DEAD;
}

int automaton_next(Automaton *a, int state, unsigned char byte) {
    if (state < 0) return AUTOMATON_DEAD;
    int class = a->class_of[byte];
    if (!a->states[state].next) {
        int *next = malloc(sizeof *next * (size_t)a->n_classes);
        if (!next) return AUTOMATON_DEAD;
        for (int i = 0; i < a->n_classes; i++) next[i] = UNKNOWN;
        a->states[state].next = next;
    }
    int next = a->states[state].next[class];
    if (next != UNKNOWN) return next;
    next = step(a, state, byte); // which may move the states
    return a->states[state].next[class] = next;
}

bool automaton_accepts(const Automaton *a, int state) {
    return state >= 0 && a->states[state].accepts;
}

bool automaton_goes_on(const Automaton *a, int state) {
    return state >= 0 && arrlen(a->states[state].places) > 0;
}
