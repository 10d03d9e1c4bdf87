// marked: see marked.h.
#include "marked.h"

#include <string.h>

#include <stb/stb_ds.h>

enum { MOST_BLANKS = 20 };

static const ByteSet blank = {.bits[0] = 1ull << ' ' | 1ull << '\t' | 1ull << '\n' | 1ull << '\r'};
static const ByteSet any_byte = {{~UINT64_C(0), ~UINT64_C(0), ~UINT64_C(0), ~UINT64_C(0)}};

static int blanks(Automaton *a, int next) {
    int node = next;
    for (int i = 0; i < MOST_BLANKS; i++) node = automaton_either(a, automaton_set(a, blank, node), next);
    return node;
}

static int either(Automaton *a, int way, int others) { // others -1: none
    return others < 0 ? way : automaton_either(a, way, others);
}

// How many first bytes of the mark a string ends with that ended with n of them before one more byte came.
static size_t bytes_of_mark(const char *mark, size_t n, unsigned char byte) {
    for (size_t len = n + 1; len; len--) {
        if ((unsigned char)mark[len - 1] == byte && !memcmp(mark, mark + n + 1 - len, len - 1)) return len;
    }
    return 0;
}

// The next byte of free text, behind n bytes of the mark. free_text: [length of the mark]; call: behind all of it.
static int next_byte(Automaton *a, const char *mark, size_t n, const int *free_text, int call) {
    int node = -1;
    for (size_t after = 0; after <= n + 1; after++) {
        ByteSet set = {0};
        bool any = false;
        for (unsigned b = 0; b < 256; b++) {
            if (bytes_of_mark(mark, n, (unsigned char)b) != after) continue;
            byteset_add(&set, (unsigned char)b);
            any = true;
        }
        if (!any) continue;
        int way = automaton_set(a, set, mark[after] ? free_text[after] : call);
        node = either(a, way, node);
    }
    return node;
}

int marked_compile(Automaton *a, int rule, const char *mark, const char *close, bool once) {
    size_t length = strlen(mark);
    int *free_text = NULL, whole = automaton_rule(a); // free_text: stb_ds array, behind so many bytes of the mark
    for (size_t i = 0; i < length; i++) arrput(free_text, automaton_loop(a));
    int behind = automaton_text(a, close, strlen(close), once ? AUTOMATON_END : free_text[0]);
    int call = blanks(a, automaton_call(a, rule, *close ? blanks(a, behind) : behind));
    for (size_t i = 0; i < length; i++)
        automaton_loop_ways(a, free_text[i], next_byte(a, mark, i, free_text, call), AUTOMATON_END);
    automaton_define(a, whole, free_text[0]);
    arrfree(free_text);
    return whole;
}

// Whether the byte was in the set, in which it is no longer.
static bool take_byte(ByteSet *set, unsigned char byte) {
    uint64_t bit = UINT64_C(1) << byte % 64, had = set->bits[byte / 64] & bit;
    set->bits[byte / 64] &= ~bit;
    return had;
}

// Those of `begins` whose byte n is this one; NULL where one of them ends with it. Both are stb_ds arrays.
static const char **behind_byte(const char *const *begins, size_t n, char byte) {
    const char **same = NULL;
    bool ends = false;
    for (ptrdiff_t i = 0; i < arrlen(begins); i++) {
        if (begins[i][n] != byte) continue;
        arrput(same, begins[i]);
        ends |= !begins[i][n + 1];
    }
    if (ends) arrfree(same);
    return same;
}

// A string that begins with none of `begins`, behind n bytes that these have in common: further blanks where they may
// stand, the next byte of some of them, or another, behind which all is free.
static int other_text(Automaton *a, const char *const *begins, size_t n, bool quoted, int free_text) {
    ByteSet other = any_byte;
    int node = automaton_loop(a), ways = quoted ? -1 : automaton_set(a, blank, node);
    if (!quoted) other.bits[0] &= ~blank.bits[0]; // blanks are below 64
    for (ptrdiff_t i = 0; i < arrlen(begins); i++) {
        unsigned char byte = (unsigned char)begins[i][n];
        if (!take_byte(&other, byte)) continue; // that of one before
        const char **same = behind_byte(begins, n, begins[i][n]);
        if (!same) continue;
        int next = other_text(a, same, n + 1, quoted != (byte == '"'), free_text);
        ways = either(a, automaton_range(a, byte, byte, next), ways);
        arrfree(same);
    }
    automaton_loop_ways(a, node, either(a, automaton_set(a, other, free_text), ways), AUTOMATON_END);
    return node;
}

int marked_compile_bare(Automaton *a, int rule, const char *const *begins, bool once) {
    const char **list = NULL;
    int whole = automaton_rule(a), free_text = automaton_loop(a), behind = once ? AUTOMATON_END : automaton_loop(a);
    automaton_loop_ways(a, free_text, automaton_set(a, any_byte, free_text), AUTOMATON_END);
    int call = blanks(a, automaton_call(a, rule, behind));
    if (!once) automaton_loop_ways(a, behind, call, AUTOMATON_END);
    for (; *begins; begins++) arrput(list, *begins);
    automaton_define(a, whole, automaton_either(a, call, other_text(a, list, 0, false, free_text)));
    arrfree(list);
    return whole;
}
