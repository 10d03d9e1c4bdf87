// kernels: the choice of a table.
#include "kernels.h"

#include <pthread.h>
#include <stddef.h>

#if defined(__x86_64__)
static Kernels avx512bf16, amx;

static void fill(void) {
    avx512bf16 = amx = kernels_avx512;
    avx512bf16.name = cpu_rung_name(RUNG_AVX512BF16);
    avx512bf16.bf16 = &bf16_avx512;
    amx.name = cpu_rung_name(RUNG_AMX);
    amx.bf16 = &bf16_amx;
}
#endif

const Kernels *kernels_for(CpuRung r) {
#if defined(__x86_64__)
    static pthread_once_t filled = PTHREAD_ONCE_INIT;
    pthread_once(&filled, fill);
#endif
    switch (r) {
    case RUNG_SCALAR: return &kernels_scalar;
#if defined(__x86_64__)
    case RUNG_AVX2: return &kernels_avx2;
    case RUNG_AVX512: return &kernels_avx512;
    case RUNG_AVX512BF16: return &avx512bf16;
    case RUNG_AMX: return &amx;
#elif defined(__aarch64__)
    case RUNG_NEON: return &kernels_neon;
    case RUNG_NEON_DOT: return &kernels_neon_dot;
#endif
    default: return NULL;
    }
}

const Kernels *kernels(void) {
    return kernels_for(cpu_rung());
}
