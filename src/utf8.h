// utf8: characters by table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once
#include <stdbool.h>

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
