// hash: see hash.h.
#include "hash.h"

#include <string.h>

// Four independent sums; each step is a bijection of the sum and of the word that it takes in.
uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t n) {
    enum { LANES = 4, STRIPE = LANES * sizeof(uint64_t) };
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint64_t lanes[LANES] = {seed, seed + 1, seed + 2, seed + 3}, words[LANES];
    const char *at = bytes;
    for (size_t left = n; left; at += STRIPE) {
        size_t take = left < STRIPE ? left : STRIPE;
        if (take < STRIPE) memset(words, 0, sizeof words);
        memcpy(words, at, take);
        for (int i = 0; i < LANES; i++) {
            lanes[i] = (lanes[i] ^ words[i]) * odd;
            lanes[i] = lanes[i] << 29 | lanes[i] >> 35;
        }
        left -= take;
    }
    uint64_t hash = n;
    for (int i = 0; i < LANES; i++) {
        hash = (hash ^ lanes[i]) * odd;
        hash ^= hash >> 32;
    }
    return hash;
}
