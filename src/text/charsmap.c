// charsmap: walks SentencePiece's trie. See charsmap.h.
#include "charsmap.h"

#include "file.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

struct Charsmap {
    size_t n_units, n_strings; // n_strings: bytes
    const char *strings;       // behind the units, with a NUL after the last byte
    uint32_t units[];
};

Charsmap *charsmap_open(const void *table, size_t bytes, char *err, size_t errlen) {
    uint32_t trie = 0;
    if (bytes >= 4) memcpy(&trie, table, 4);
    if (bytes < 4 || trie % 4 || trie > bytes - 4) {
        fail(err, errlen, "charsmap: expected a trie of 4-byte units within %zu bytes, found %u bytes", bytes, trie);
        return NULL;
    }
    Charsmap *c = malloc(sizeof *c + bytes - 3);
    if (!c) {
        fail(err, errlen, "charsmap: out of memory");
        return NULL;
    }
    char *copy = (char *)c->units;
    memcpy(copy, (const char *)table + 4, bytes - 4);
    copy[bytes - 4] = 0;
    c->n_units = trie / 4;
    c->n_strings = bytes - 4 - trie;
    c->strings = copy + trie;
    return c;
}

void charsmap_close(Charsmap *c) {
    free(c);
}

// A unit: bits 0-7 label (bit 31 marks a value), bit 8 a key ends here, bit 9 the offset is shifted by 8, bits 10-30
// offset.
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
        if (value >= c->n_strings) break;
        found = c->strings + value;
        *n_new = strlen(found);
        *len = i + 1;
    }
    return found;
}
