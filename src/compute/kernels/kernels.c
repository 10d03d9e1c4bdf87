// kernels: see kernels.h. Chooses the table of a level.
#include "kernels.h"

#include <pthread.h>

static Kernels with_bf16[N_LEVELS]; // levels that add bfloat16 products to the kernels of the level below

static const Kernels *const tables[N_LEVELS] = {
    [LEVEL_SCALAR] = &kernels_scalar,
#if defined(__x86_64__)
    [LEVEL_AVX2] = &kernels_avx2,
    [LEVEL_AVX512] = &kernels_avx512,
    [LEVEL_AVX512BF16] = &with_bf16[LEVEL_AVX512BF16],
    [LEVEL_AMX] = &with_bf16[LEVEL_AMX],
#elif defined(__aarch64__)
    [LEVEL_NEON] = &kernels_neon,
    [LEVEL_NEON_DOT] = &kernels_neon_dot,
    [LEVEL_NEON_BF16] = &with_bf16[LEVEL_NEON_BF16],
#endif
};

static void add(CpuLevel level, const Kernels *to, const Bf16Kernels *bf16) {
    with_bf16[level] = *to;
    with_bf16[level].name = cpu_level_name(level);
    with_bf16[level].bf16 = bf16;
}

static void fill(void) {
#if defined(__x86_64__)
    add(LEVEL_AVX512BF16, &kernels_avx512, &bf16_avx512);
    add(LEVEL_AMX, &kernels_avx512, &bf16_amx);
#elif defined(__aarch64__)
    add(LEVEL_NEON_BF16, &kernels_neon_dot, &bf16_neon);
#endif
}

const Kernels *kernels_for(CpuLevel r) {
    static pthread_once_t filled = PTHREAD_ONCE_INIT;
    pthread_once(&filled, fill);
    return (unsigned)r < N_LEVELS ? tables[r] : NULL;
}

const Kernels *kernels(void) {
    return kernels_for(cpu_level());
}
