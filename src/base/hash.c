// hash: see hash.h.
#include "hash.h"

#include <string.h>

enum { LANES = 4, STRIPE = LANES * sizeof(uint64_t) };
static const uint64_t ODD = 0x9E3779B97F4A7C15u;

// Four independent sums; each step is a bijection of the sum and of the word that it takes in.
static void add_stripe(uint64_t lanes[LANES], const char *at) {
    uint64_t words[LANES];
    memcpy(words, at, STRIPE);
    for (int i = 0; i < LANES; i++) {
        lanes[i] = (lanes[i] ^ words[i]) * ODD;
        lanes[i] = lanes[i] << 29 | lanes[i] >> 35;
    }
}

uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t n) {
    uint64_t lanes[LANES] = {seed, seed + 1, seed + 2, seed + 3}, hash = n;
    const char *at = bytes;
    size_t left = n;
    for (; left >= STRIPE; left -= STRIPE, at += STRIPE) add_stripe(lanes, at);
    if (left) {
        char rest[STRIPE] = {0};
        memcpy(rest, at, left);
        add_stripe(lanes, rest);
    }
    for (int i = 0; i < LANES; i++) {
        hash = (hash ^ lanes[i]) * ODD;
        hash ^= hash >> 32;
    }
    return hash;
}
