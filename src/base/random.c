// random: see random.h.
#include "random.h"

#include <math.h>

uint64_t random_bits(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

double random_unit(uint64_t *state) {
    return (double)(random_bits(state) >> 11) * 0x1p-53;
}

float random_open(uint64_t *state) {
    return ((float)(random_bits(state) >> 41) + 0.5f) * 0x1p-23f;
}

// Box and Muller 1958, one of the two.
float random_normal(uint64_t *state) {
    float radius = sqrtf(-2 * logf(random_open(state)));
    return radius * cosf(6.28318530718f * random_open(state));
}

void random_normals(uint64_t *state, float *x, int64_t n, float deviation) {
    for (int64_t i = 0; i < n; i++) x[i] = deviation * random_normal(state);
}
