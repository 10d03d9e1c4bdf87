// charsmap: see charsmap.h.
#include "charsmap.h"

#include "file.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

struct Charsmap {
    uint32_t *units;
    size_t n_units;
    char *texts; // the last one is terminated, too
    size_t n_texts;
};

Charsmap *charsmap_open(const void *table, size_t bytes, char *err, size_t errlen) {
    uint32_t array = 0;
    if (bytes >= 4) memcpy(&array, table, 4);
    if (bytes < 4 || array % 4 || array > bytes - 4) {
        fail(err, errlen, "charsmap: expected an array of whole units within %zu bytes, found %u bytes", bytes, array);
        return NULL;
    }
    Charsmap *c = calloc(1, sizeof *c);
    if (c) {
        c->n_units = array / 4;
        c->n_texts = bytes - 4 - array;
        c->units = malloc(array + 4);
        c->texts = malloc(c->n_texts + 1);
    }
    if (!c || !c->units || !c->texts) {
        charsmap_close(c);
        fail(err, errlen, "charsmap: out of memory");
        return NULL;
    }
    memcpy(c->units, (const char *)table + 4, array);
    memcpy(c->texts, (const char *)table + 4 + array, c->n_texts);
    c->texts[c->n_texts] = 0;
    return c;
}

void charsmap_close(Charsmap *c) {
    if (!c) return;
    free(c->units);
    free(c->texts);
    free(c);
}

// A unit: label (8 bits, and bit 31 of a value), bit 8: an end follows, bit 9: the offset counts 256s, offset above.
static size_t unit_offset(uint32_t u) {
    return (size_t)(u >> 10) << ((u & 1u << 9) >> 6);
}

const char *charsmap_find(const Charsmap *c, const char *text, size_t n, size_t *len, size_t *n_new) {
    uint32_t character;
    const char *found = text;
    *len = *n_new = (size_t)utf8_decode(text, n, &character);
    size_t at = c->n_units ? unit_offset(c->units[0]) : 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text[i];
        at ^= byte;
        if (at >= c->n_units || (c->units[at] & (1u << 31 | 0xFF)) != byte) break;
        uint32_t unit = c->units[at];
        at ^= unit_offset(unit);
        if (!(unit >> 8 & 1) || at >= c->n_units) continue;
        size_t value = c->units[at] & 0x7FFFFFFF;
        if (value >= c->n_texts) break;
        found = c->texts + value;
        *n_new = strlen(found);
        *len = i + 1;
    }
    return found;
}
