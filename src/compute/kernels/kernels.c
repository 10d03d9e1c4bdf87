// kernels: the choice of a table.
#include "kernels.h"

#include <pthread.h>
#include <stddef.h>

static Kernels with_bf16[N_RUNGS]; // the rungs that add products of bfloat16 to another

static void add(CpuRung r, const Kernels *to, const Bf16Kernels *bf16) {
    with_bf16[r] = *to;
    with_bf16[r].name = cpu_rung_name(r);
    with_bf16[r].bf16 = bf16;
}

static void fill(void) {
#if defined(__x86_64__)
    add(RUNG_AVX512BF16, &kernels_avx512, &bf16_avx512);
    add(RUNG_AMX, &kernels_avx512, &bf16_amx);
#elif defined(__aarch64__)
    add(RUNG_NEON_BF16, &kernels_neon_dot, &bf16_neon);
#endif
}

const Kernels *kernels_for(CpuRung r) {
    static pthread_once_t filled = PTHREAD_ONCE_INIT;
    pthread_once(&filled, fill);
    switch (r) {
    case RUNG_SCALAR: return &kernels_scalar;
#if defined(__x86_64__)
    case RUNG_AVX2: return &kernels_avx2;
    case RUNG_AVX512: return &kernels_avx512;
    case RUNG_AVX512BF16:
    case RUNG_AMX: return &with_bf16[r];
#elif defined(__aarch64__)
    case RUNG_NEON: return &kernels_neon;
    case RUNG_NEON_DOT: return &kernels_neon_dot;
    case RUNG_NEON_BF16: return &with_bf16[r];
#endif
    default: return NULL;
    }
}

const Kernels *kernels(void) {
    return kernels_for(cpu_rung());
}
