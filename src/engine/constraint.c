// constraint: text that must follow a JSON Schema, as a mask over the vocabulary. See tessera.h.
//
// Owns the place that the text has reached, and the masks of the places met lately.
#include "chat.h"
#include "engine.h"
#include "file.h"
#include "schema.h"
#include "tokenmask.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { MOST_MASKS = 256 };

struct Constraint {
    const Engine *engine;
    Automaton *automaton;
    int state; // AUTOMATON_DEAD: a token came that was not allowed
    struct {
        int key; // a state
        uint64_t *value;
    } * masks;     // stb_ds map
    int32_t *ends; // stb_ds array
    float *masked; // [vocab]
};

static int open_automaton(Constraint *c, const char *schema, char *err, size_t errlen) {
    json_error_t at;
    json_t *root = schema ? json_loads(schema, JSON_DECODE_ANY, &at) : NULL;
    if (schema && !root) return fail(err, errlen, "schema: line %d, column %d: %s", at.line, at.column, at.text);
    int rule = schema_compile(c->automaton, root, err, errlen);
    json_decref(root);
    if (rule < 0) return -1;
    c->state = automaton_start(c->automaton, rule);
    return 0;
}

Constraint *constraint_open(const Engine *e, const Chat *chat, const char *schema, char *err, size_t errlen) {
    Constraint *c = calloc(1, sizeof *c);
    if (c) {
        c->engine = e;
        c->automaton = automaton_open();
        c->masked = malloc(sizeof *c->masked * (size_t)e->info.vocab_size);
    }
    if (!c || !c->automaton || !c->masked) fail(err, errlen, "out of memory");
    else if (!open_automaton(c, schema, err, errlen)) {
        for (int32_t id = 0; id < e->info.vocab_size; id++) {
            if (tokenizer_is_end(e->tokenizer, id) || (chat && chat_ends(chat, id))) arrput(c->ends, id);
        }
        return c;
    }
    constraint_close(c);
    return NULL;
}

static void drop_masks(Constraint *c) {
    for (ptrdiff_t i = 0; i < hmlen(c->masks); i++) free(c->masks[i].value);
    hmfree(c->masks);
}

void constraint_close(Constraint *c) {
    if (!c) return;
    drop_masks(c);
    automaton_close(c->automaton);
    arrfree(c->ends);
    free(c->masked);
    free(c);
}

// NULL: out of memory.
static const uint64_t *mask_of(Constraint *c) {
    ptrdiff_t known = hmgeti(c->masks, c->state);
    if (known >= 0) return c->masks[known].value;
    if (hmlen(c->masks) >= MOST_MASKS) drop_masks(c);
    uint64_t *mask = calloc(((size_t)c->engine->info.vocab_size + 63) / 64, sizeof *mask);
    if (!mask) return NULL;
    if (tokenmask_fill(c->engine->order, c->automaton, c->state, mask) < 0) {
        free(mask);
        return NULL;
    }
    if (automaton_accepts(c->automaton, c->state)) {
        for (ptrdiff_t i = 0; i < arrlen(c->ends); i++) mask[c->ends[i] / 64] |= 1ull << c->ends[i] % 64;
    }
    hmput(c->masks, c->state, mask);
    return mask;
}

const float *constraint_mask(Constraint *c, const float *logits) {
    const uint64_t *mask = mask_of(c);
    bool any = false;
    if (!mask) return NULL;
    for (int32_t id = 0; id < c->engine->info.vocab_size; id++) {
        bool allowed = mask[id / 64] >> id % 64 & 1;
        c->masked[id] = allowed ? logits[id] : -HUGE_VALF;
        any |= allowed;
    }
    return any ? c->masked : NULL;
}

void constraint_accept(Constraint *c, int32_t id) {
    c->state = tokenmask_next(c->engine->order, c->automaton, c->state, id);
}

bool constraint_complete(const Constraint *c) {
    return automaton_accepts(c->automaton, c->state) && !automaton_goes_on(c->automaton, c->state);
}
