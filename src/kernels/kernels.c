// kernels: the choice of a table.
#include "kernels.h"

#include <stddef.h>

const Kernels *kernels_for(CpuRung r) {
    switch (r) {
    case RUNG_SCALAR: return &kernels_scalar;
#if defined(__x86_64__)
    case RUNG_AVX2: return &kernels_avx2;
    case RUNG_AVX512: return &kernels_avx512;
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
