// kernels: see kernels.h. Chooses the table of a level.
#include "kernels.h"

#include "grids.h"

#include <pthread.h>

static Kernels extended[N_LEVELS]; // levels that add products of bfloat16 or integers to the kernels of one below

static const Kernels *const tables[N_LEVELS] = {
    [LEVEL_SCALAR] = &kernels_scalar,
#if defined(__x86_64__)
    [LEVEL_AVX2] = &kernels_avx2,
    [LEVEL_AVX2INT] = &extended[LEVEL_AVX2INT],
    [LEVEL_AVX512] = &extended[LEVEL_AVX512],
    [LEVEL_AVX512BF16] = &extended[LEVEL_AVX512BF16],
    [LEVEL_AMX] = &extended[LEVEL_AMX],
#elif defined(__aarch64__)
    [LEVEL_NEON] = &kernels_neon,
    [LEVEL_NEON_DOT] = &kernels_neon_dot,
    [LEVEL_NEON_BF16] = &extended[LEVEL_NEON_BF16],
#endif
};

static void add(CpuLevel level, const Kernels *to, const Bf16Kernels *bf16, const IntKernels *int8,
                const IntKernels *int16) {
    extended[level] = *to;
    extended[level].name = cpu_level_name(level);
    extended[level].bf16 = bf16;
    extended[level].int8 = int8;
    extended[level].int16 = int16;
}

static void fill(void) {
    grids_expand();
#if defined(__x86_64__)
    add(LEVEL_AVX2INT, &kernels_avx2, NULL, NULL, &int16_avx2);
    extended[LEVEL_AVX2INT].int6 = &int6_avx2;
    add(LEVEL_AVX512, &kernels_avx512, NULL, &int8_vnni, NULL);
    add(LEVEL_AVX512BF16, &kernels_avx512, &bf16_avx512, &int8_vnni, NULL);
    add(LEVEL_AMX, &kernels_avx512, &bf16_amx, &int8_amx, NULL);
#elif defined(__aarch64__)
    add(LEVEL_NEON_BF16, &kernels_neon_dot, &bf16_neon, NULL, NULL);
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
