// tokenmask: see tokenmask.h.
#include "tokenmask.h"

#include "file.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *text;
    int len, shared; // bytes; those at the beginning that the token before has too
    int32_t id;
} OrderedToken;

struct TokenOrder {
    const Tokenizer *tokenizer;
    pthread_mutex_t lock;
    OrderedToken *tokens; // NULL: not sorted yet
    int n;
    char bytes[256]; // texts of BYTE tokens
};

TokenOrder *tokenorder_open(const Tokenizer *t, char *err, size_t errlen) {
    TokenOrder *o = calloc(1, sizeof *o);
    if (!o) fail(err, errlen, "out of memory");
    if (!o) return NULL;
    o->tokenizer = t;
    pthread_mutex_init(&o->lock, NULL);
    for (int b = 0; b < 256; b++) o->bytes[b] = (char)b;
    return o;
}

void tokenorder_close(TokenOrder *o) {
    if (!o) return;
    pthread_mutex_destroy(&o->lock);
    free(o->tokens);
    free(o);
}

// False: the token has no text that a grammar could allow.
static bool token_text(const TokenOrder *o, int32_t id, const char **text, int *len) {
    const Piece *p = tokenizer_piece(o->tokenizer, id);
    int byte = p ? piece_byte(p) : -1;
    if (!p || p->type == TOKEN_CONTROL || p->type == TOKEN_UNKNOWN || p->type == TOKEN_UNUSED || p->len <= 0)
        return false;
    *text = byte < 0 ? p->text : &o->bytes[byte];
    *len = byte < 0 ? p->len : 1;
    return true;
}

static int by_bytes(const void *a, const void *b) {
    const OrderedToken *x = a, *y = b;
    int order = memcmp(x->text, y->text, (size_t)(x->len < y->len ? x->len : y->len));
    return order ? order : x->len != y->len ? (x->len < y->len ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static OrderedToken *sorted(const TokenOrder *o, int *n) {
    OrderedToken *tokens = calloc((size_t)tokenizer_size(o->tokenizer) + 1, sizeof *tokens);
    *n = 0;
    for (int32_t id = 0; tokens && id < tokenizer_size(o->tokenizer); id++) {
        OrderedToken *t = &tokens[*n];
        t->id = id;
        *n += token_text(o, id, &t->text, &t->len);
    }
    if (*n) qsort(tokens, (size_t)*n, sizeof *tokens, by_bytes);
    for (int i = 1; i < *n; i++) {
        OrderedToken *t = &tokens[i];
        while (t->shared < t->len && t->shared < t[-1].len && t->text[t->shared] == t[-1].text[t->shared]) t->shared++;
    }
    return tokens;
}

int tokenmask_fill(TokenOrder *o, Automaton *a, int state, uint64_t *mask) {
    pthread_mutex_lock(&o->lock);
    if (!o->tokens) o->tokens = sorted(o, &o->n);
    pthread_mutex_unlock(&o->lock);
    int *states = malloc(sizeof *states * ((size_t)tokenizer_longest(o->tokenizer) + 2)), n = 0;
    if (!states || !o->tokens) {
        free(states);
        return -1;
    }
    int alive = 0; // bytes of the last tried token that are allowed: states[0..alive] are theirs
    states[0] = state;
    for (int i = 0; i < o->n; i++) {
        const OrderedToken *t = &o->tokens[i];
        if (t->shared > alive) continue;
        for (alive = t->shared; alive < t->len; alive++) {
            states[alive + 1] = automaton_next(a, states[alive], (unsigned char)t->text[alive]);
            if (states[alive + 1] == AUTOMATON_DEAD) break;
        }
        if (alive < t->len) continue;
        mask[t->id / 64] |= 1ull << t->id % 64;
        n++;
    }
    free(states);
    return n;
}

int tokenmask_next(const TokenOrder *o, Automaton *a, int state, int32_t id) {
    const char *text;
    int len;
    if (!token_text(o, id, &text, &len)) return AUTOMATON_DEAD;
    for (int i = 0; i < len; i++) state = automaton_next(a, state, (unsigned char)text[i]);
    return state;
}

bool tokenmask_has_text(const TokenOrder *o, int32_t id) {
    const char *text;
    int len;
    return token_text(o, id, &text, &len);
}
