// utf8: decodes and encodes UTF-8. The only decoder of the tree, called wherever text is read by characters.
//
// Owns the definition of a valid character, table 3-7 of the Unicode standard. Refuses overlong forms, surrogates and
// everything above U+10FFFF.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Length in bytes of a character whose first byte is `lead`; 0 when no character begins with it.
static inline int utf8_lead(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Whether `b` can be byte i >= 1 of a character that begins with `lead`.
static inline bool utf8_follows(unsigned char lead, int i, unsigned char b) {
    unsigned char lo = 0x80, hi = 0xBF;
    if (i == 1 && lead == 0xE0) lo = 0xA0;
    if (i == 1 && lead == 0xED) hi = 0x9F;
    if (i == 1 && lead == 0xF0) lo = 0x90;
    if (i == 1 && lead == 0xF4) hi = 0x8F;
    return lo <= b && b <= hi;
}

// Length in bytes of the character at the start of text[n], n >= 1; 1 for a byte that begins no valid character.
static inline int utf8_unit(const char *text, int n) {
    int len = utf8_lead((unsigned char)text[0]);
    if (len > n) return 1;
    for (int i = 1; i < len; i++) {
        if (!utf8_follows((unsigned char)text[0], i, (unsigned char)text[i])) return 1;
    }
    return len ? len : 1;
}

// Decodes the character at the start of text[n], n >= 1, and returns its length; U+FFFD and 1 for an invalid byte.
static inline int utf8_decode(const char *text, size_t n, uint32_t *c) {
    unsigned char lead = (unsigned char)text[0];
    int len = utf8_unit(text, n < 4 ? (int)n : 4);
    if (len == 1) *c = lead < 0x80 ? lead : 0xFFFD;
    else *c = lead & (0x7Fu >> len);
    for (int i = 1; i < len; i++) *c = *c << 6 | ((unsigned char)text[i] & 0x3F);
    return len;
}

// Decodes the character that ends at byte `end` >= 1 of text, and returns its length; U+FFFD and 1 for an invalid byte.
static inline int utf8_decode_before(const char *text, size_t end, uint32_t *c) {
    for (int len = 4; len > 1; len--) {
        if ((size_t)len <= end && utf8_unit(text + end - len, len) == len) return utf8_decode(text + end - len, len, c);
    }
    return utf8_decode(text + end - 1, 1, c);
}

// Encodes a code point into out[4] and returns its length.
static inline int utf8_encode(uint32_t c, char *out) {
    int len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(len == 1 ? c : (0xF00u >> len & 0xFF) | c);
    return len;
}

// Whether text[n], n >= 1, begins with valid UTF-8. *end: length of the valid (or invalid) run at its start.
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

// A streaming decoder: bytes in, whole characters out. Each maximal ill-formed subpart is replaced by one U+FFFD
// (Unicode 3.9, "U+FFFD substitution of maximal subparts"; the same as the WHATWG decoder).
typedef struct {
    int n_held; // bytes of an incomplete character
    unsigned char held[4];
} Utf8Stream;
size_t utf8_push(Utf8Stream *s, unsigned char b, char *out); // returns bytes written, at most 6
size_t utf8_finish(Utf8Stream *s, char *out); // at the end of the input: an incomplete character is U+FFFD
