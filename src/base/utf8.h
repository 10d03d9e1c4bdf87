// utf8: characters by table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes of the character that `lead` begins; 0 when it begins none.
static inline int utf8_lead(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

// May `b` be byte i >= 1 of a character that begins with `lead`?
static inline bool utf8_follows(unsigned char lead, int i, unsigned char b) {
    unsigned char lo = 0x80, hi = 0xBF;
    if (i == 1 && lead == 0xE0) lo = 0xA0;
    if (i == 1 && lead == 0xED) hi = 0x9F;
    if (i == 1 && lead == 0xF0) lo = 0x90;
    if (i == 1 && lead == 0xF4) hi = 0x8F;
    return lo <= b && b <= hi;
}

// Bytes of the character at text[n], n >= 1, or 1 for a byte that belongs to none. Depends on no byte behind it.
static inline int utf8_unit(const char *text, int n) {
    int len = utf8_lead((unsigned char)text[0]);
    if (len > n) return 1;
    for (int i = 1; i < len; i++) {
        if (!utf8_follows((unsigned char)text[0], i, (unsigned char)text[i])) return 1;
    }
    return len ? len : 1;
}

// The code point of the character at text[n], n >= 1, and its bytes; of a byte that belongs to none U+FFFD, and 1.
static inline int utf8_decode(const char *text, size_t n, uint32_t *c) {
    unsigned char lead = (unsigned char)text[0];
    int len = utf8_unit(text, n < 4 ? (int)n : 4);
    *c = lead < 0x80 ? lead : len == 1 ? 0xFFFD : lead & (0x7Fu >> len);
    for (int i = 1; i < len; i++) *c = *c << 6 | ((unsigned char)text[i] & 0x3F);
    return len;
}

// The bytes of a code point, into out[4].
static inline int utf8_encode(uint32_t c, char *out) {
    int len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(len == 1 ? c : (0xF00u >> len & 0xFF) | c);
    return len;
}

// Does text[n], n >= 1, begin with characters, or with bytes that belong to none? *end: where that changes.
static inline bool utf8_run(const char *text, size_t n, size_t *end) {
    bool first = false;
    size_t i = 0;
    for (int len; i < n; i += (size_t)len) {
        unsigned char lead = (unsigned char)text[i];
        len = lead < 0x80 ? 1 : utf8_unit(text + i, n - i < 4 ? (int)(n - i) : 4);
        bool valid = lead < 0x80 || len > 1;
        if (!i) first = valid;
        else if (valid != first) break;
    }
    *end = i;
    return first;
}
