// marked: see marked.h.
#include "marked.h"

#include <string.h>

#include <stb/stb_ds.h>

enum { MOST_BLANKS = 20 };

static int blanks(Automaton *a, int next) {
    const ByteSet blank = {.bits[0] = 1ull << ' ' | 1ull << '\t' | 1ull << '\n' | 1ull << '\r'};
    int node = next;
    for (int i = 0; i < MOST_BLANKS; i++) node = automaton_either(a, automaton_set(a, blank, node), next);
    return node;
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
        node = node < 0 ? way : automaton_either(a, way, node);
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
