// random: numbers that follow from a seed. Called by the sampler, the pattern of blocks, and the atlas's operators.
//
// Owns splitmix64 (Steele et al. 2014, doi:10.1145/2714064.2660195) and what is made of its bits. *state is the seed,
// then what the next number needs.
#pragma once
#include <stdint.h>

uint64_t random_bits(uint64_t *state);
double random_unit(uint64_t *state);  // [0, 1)
float random_open(uint64_t *state);   // (0, 1)
float random_normal(uint64_t *state); // of mean 0 and deviation 1
void random_normals(uint64_t *state, float *x, int64_t n, float deviation);
