// constraint: text that must follow a JSON Schema, all of it or behind marks, as a mask over the vocabulary. See
// tessera.h.
//
// Owns the place that the text has reached, the masks of the places met lately, and which tokens without text of their
// own may stand in free text.
#include "chat.h"
#include "engine.h"
#include "file.h"
#include "marked.h"
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
    } * masks;      // stb_ds map
    int32_t *ends;  // stb_ds array
    float *masked;  // [vocab]
    int32_t *signs; // stb_ds array: control tokens that stand in a mark or its close
    int32_t *bare;  // stb_ds array: other tokens without text, which free text may have. Both NULL: no text is free
};

static int open_automaton(Constraint *c, const char *schema, const ConstraintMarks *marks, char *err, size_t errlen) {
    json_error_t at;
    json_t *root = schema ? json_loads(schema, JSON_DECODE_ANY, &at) : NULL;
    if (schema && !root) return fail(err, errlen, "schema: line %d, column %d: %s", at.line, at.column, at.text);
    int rule = schema_compile(c->automaton, root, err, errlen);
    json_decref(root);
    if (rule < 0) return -1;
    if (marks && *marks->mark) rule = marked_compile(c->automaton, rule, marks->mark, marks->close, marks->once);
    else if (marks) rule = marked_compile_bare(c->automaton, rule, marks->begins, marks->once);
    c->state = automaton_start(c->automaton, rule);
    return 0;
}

static void list_textless(Constraint *c, const ConstraintMarks *marks) {
    for (int32_t id = 0; id < c->engine->info.vocab_size; id++) {
        if (tokenmask_has_text(c->engine->order, id)) continue;
        const Piece *p = tokenizer_piece(c->engine->tokenizer, id);
        bool sign = p && p->type == TOKEN_CONTROL && p->len > 0 &&
                    (memmem(marks->mark, strlen(marks->mark), p->text, (size_t)p->len) ||
                     memmem(marks->close, strlen(marks->close), p->text, (size_t)p->len));
        if (sign) arrput(c->signs, id);
        else arrput(c->bare, id);
    }
}

static Constraint *open_for(const Engine *e, const Chat *chat, const char *schema, const ConstraintMarks *marks,
                            char *err, size_t errlen) {
    Constraint *c = calloc(1, sizeof *c);
    if (c) {
        c->engine = e;
        c->automaton = automaton_open();
        c->masked = malloc(sizeof *c->masked * (size_t)e->info.vocab_size);
    }
    if (!c || !c->automaton || !c->masked) fail(err, errlen, "out of memory");
    else if (!open_automaton(c, schema, marks, err, errlen)) {
        if (marks) list_textless(c, marks);
        for (int32_t id = 0; id < e->info.vocab_size; id++) {
            if (tokenizer_is_end(e->tokenizer, id) || (chat && chat_ends(chat, id))) arrput(c->ends, id);
        }
        return c;
    }
    constraint_close(c);
    return NULL;
}

Constraint *constraint_open(const Engine *e, const Chat *chat, const char *schema, char *err, size_t errlen) {
    return open_for(e, chat, schema, NULL, err, errlen);
}

Constraint *constraint_open_marked(const Engine *e, const Chat *chat, const char *schema, const ConstraintMarks *marks,
                                   char *err, size_t errlen) {
    if (*marks->mark || (marks->begins && *marks->begins)) return open_for(e, chat, schema, marks, err, errlen);
    fail(err, errlen, "mark: expected at least a byte, or how the JSON begins");
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
    arrfree(c->signs);
    arrfree(c->bare);
    free(c->masked);
    free(c);
}

static bool is_among(const int32_t *list, int32_t id) {
    ptrdiff_t i = 0;
    while (i < arrlen(list) && list[i] != id) i++;
    return i < arrlen(list);
}

// The state behind a token.
static int behind(const Constraint *c, int32_t id) {
    const Piece *p = tokenizer_piece(c->engine->tokenizer, id);
    int state = c->state;
    if (is_among(c->bare, id)) return state;
    if (!is_among(c->signs, id)) return tokenmask_next(c->engine->order, c->automaton, state, id);
    for (int i = 0; i < p->len; i++) state = automaton_next(c->automaton, state, (unsigned char)p->text[i]);
    return state;
}

static void allow(uint64_t *mask, const int32_t *ids) {
    for (ptrdiff_t i = 0; i < arrlen(ids); i++) mask[ids[i] / 64] |= 1ull << ids[i] % 64;
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
    bool accepts = automaton_accepts(c->automaton, c->state);
    if (accepts) allow(mask, c->ends);
    if (accepts && automaton_goes_on(c->automaton, c->state)) allow(mask, c->bare); // in free text
    for (ptrdiff_t i = 0; i < arrlen(c->signs); i++) {
        int32_t id = c->signs[i];
        if (behind(c, id) != AUTOMATON_DEAD) mask[id / 64] |= 1ull << id % 64;
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
    c->state = behind(c, id);
}

bool constraint_complete(const Constraint *c) {
    return automaton_accepts(c->automaton, c->state) && !automaton_goes_on(c->automaton, c->state);
}
