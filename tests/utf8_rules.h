// utf8_rules.h: UTF-8 by arithmetic on code points, to judge readers that go by tables.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static int ref_need(unsigned char lead) {
    return lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
}

// Can the first k bytes of a character of `need` bytes be completed to (k == need: are they) a Unicode scalar
// value?
static bool ref_prefix(const char *p, int k, int need) {
    static const uint32_t first[] = {0, 0, 0x80, 0x800, 0x10000}, lead_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    if (!need) return false;
    uint32_t lo = (unsigned char)p[0] & lead_mask[need], hi = lo;
    for (int i = 1; i < need; i++) {
        if (i < k && ((unsigned char)p[i] & 0xC0) != 0x80) return false;
        lo = lo << 6 | (i < k ? (unsigned char)p[i] & 0x3F : 0);
        hi = hi << 6 | (i < k ? (unsigned char)p[i] & 0x3F : 0x3F);
    }
    if (lo < first[need]) lo = first[need];
    if (hi > 0x10FFFF) hi = 0x10FFFF;
    return lo <= hi && !(lo >= 0xD800 && hi <= 0xDFFF);
}

// Bytes of the valid character at p, 0 for none.
__attribute__((unused)) static int ref_char(const char *p, size_t n) {
    int need = ref_need((unsigned char)p[0]);
    return need && (size_t)need <= n && ref_prefix(p, need, need) ? need : 0;
}

__attribute__((unused)) static bool ref_valid(const char *p, size_t n) {
    for (int len; n; p += len, n -= (size_t)len) {
        len = ref_char(p, n);
        if (!len) return false;
    }
    return true;
}

// Replace every maximal ill-formed subpart by U+FFFD. `out` holds 3 n bytes.
__attribute__((unused)) static size_t ref_repair(const char *p, size_t n, char *out) {
    size_t n_out = 0;
    for (size_t i = 0; i < n;) {
        int need = ref_need((unsigned char)p[i]), k = 1;
        while (k < need && i + (size_t)k < n && ref_prefix(p + i, k + 1, need)) k++;
        bool whole = k == need && ref_prefix(p + i, k, need);
        memcpy(out + n_out, whole ? p + i : "\xEF\xBF\xBD", whole ? (size_t)k : 3);
        n_out += whole ? (size_t)k : 3;
        i += (size_t)k;
    }
    return n_out;
}
