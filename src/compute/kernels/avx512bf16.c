// avx512bf16: the gemm of bfloat16 pairs, added to the avx512 kernels.
#include "bf16.h"

#define V __m512
#define LANES 16
#define PANEL_V 2
#define GEMM_ROWS 12
#define v_zero _mm512_setzero_ps
#define v_load _mm512_loadu_ps
#define v_store _mm512_storeu_ps

static inline __m512 v_add_dots(__m512 sum, __m512 pairs, int pair) {
    return _mm512_dpbf16_ps(sum, (__m512bh)pairs, (__m512bh)_mm512_set1_epi32(pair));
}

#include "pairs_tmpl.h"

enum { SHARED = 28 };
const Bf16Kernels bf16_avx512 = BF16_KERNELS;
