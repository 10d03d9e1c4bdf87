// automaton: which bytes may follow, for a grammar of rules that call one another.
//
// Owns the grammar (a recursive transition network, built backwards: each node takes the one that follows it) and, made
// as they are met, the states of a deterministic automaton over it: a state is a set of places in the grammar, each
// with the places to return to. Refuses grammars and runs without limit. Knows no JSON and no vocabulary; called by
// schema.c and tokenmask.c.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Automaton Automaton;
typedef struct {
    uint64_t bits[4];
} ByteSet;

static inline void byteset_add(ByteSet *set, unsigned char byte) {
    set->bits[byte / 64] |= UINT64_C(1) << byte % 64;
}

enum { AUTOMATON_END = 0 };   // the node behind which a rule is complete
enum { AUTOMATON_DEAD = -1 }; // the state from which nothing is allowed

Automaton *automaton_open(void);
void automaton_close(Automaton *a); // accepts NULL

// ---- the grammar; nodes and rules are numbers

int automaton_set(Automaton *a, ByteSet set, int next);          // one byte of the set
int automaton_range(Automaton *a, int from, int upto, int next); // one byte of from..upto
int automaton_text(Automaton *a, const char *text, size_t n, int next);
int automaton_either(Automaton *a, int x, int y);
int automaton_loop(Automaton *a); // an `either` whose ways are given later, by loop_ways
void automaton_loop_ways(Automaton *a, int loop, int x, int y);
int automaton_rule(Automaton *a); // to be defined later
void automaton_define(Automaton *a, int rule, int start);
int automaton_call(Automaton *a, int rule, int next);
size_t automaton_size(const Automaton *a); // nodes

// ---- states. Nothing is added to the grammar from the first of these calls on.

int automaton_start(Automaton *a, int rule);
int automaton_next(Automaton *a, int state, unsigned char byte); // AUTOMATON_DEAD: not allowed
bool automaton_accepts(const Automaton *a, int state);           // the text may end here
bool automaton_goes_on(const Automaton *a, int state);           // some byte is allowed
