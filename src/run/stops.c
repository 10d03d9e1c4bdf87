// stops: see stops.h.
#include "stops.h"

#include "bytes.h"

#include <string.h>

#include <stb/stb_ds.h>

static const char *release(Stops *s, size_t n) {
    bytes_append(&s->out, s->held, n);
    if (n) arrdeln(s->held, 0, n);
    arrput(s->out, 0);
    return s->out;
}

// Whether a stop string stands at held[at..): in whole, or as far as the text goes. *whole: which of the two.
static bool stop_at(const Stops *s, size_t at, bool *whole) {
    size_t left = arrlenu(s->held) - at;
    for (ptrdiff_t i = 0; i < arrlen(s->strings); i++) {
        size_t n = strlen(s->strings[i]);
        if (n <= left && !memcmp(s->held + at, s->strings[i], n)) *whole = true;
        if (*whole) return true;
    }
    for (ptrdiff_t i = 0; i < arrlen(s->strings); i++) {
        if (strlen(s->strings[i]) > left && !memcmp(s->held + at, s->strings[i], left)) return true;
    }
    return false;
}

const char *stops_push(Stops *s, const char *text) {
    size_t n = strlen(text), at = 0, held_first;
    arrsetlen(s->out, 0);
    if (s->found) return release(s, 0);
    bytes_append(&s->held, text, n);
    n = held_first = arrlenu(s->held);
    for (; at < n && !s->found; at++) {
        bool starts = stop_at(s, at, &s->found);
        if (starts && held_first == n) held_first = at;
        if (s->found) held_first = at;
    }
    const char *out = release(s, held_first);
    if (s->found) arrsetlen(s->held, 0);
    return out;
}

const char *stops_finish(Stops *s) {
    arrsetlen(s->out, 0);
    return release(s, s->found ? 0 : arrlenu(s->held));
}

void stops_free(Stops *s) {
    arrfree(s->held);
    arrfree(s->out);
}
