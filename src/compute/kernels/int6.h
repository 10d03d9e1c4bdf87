// int6: products of block formats of 6 bits and fewer by VPMADDUBSW, up to four times as many a cycle as of fp32.
// Included by avx2.c after blocks_tmpl.h and lanes_tmpl.h.
//
// A chunk of 256 columns of a row of w has one scale; its groups, of 32 or (of formats whose scales stand for 16) of 16
// columns, have integers that multiply it, and a group's values are signed, of 5 or 6 bits: w ~ scale * multiple * q +
// minimum. x has a scale for each chunk and is biased by 128, so that its bytes are unsigned. A sum of 16 bits has room
// for a group's products, because 128 times the sum of q is taken off where it begins; sums before its end may wrap.
//
// A panel has for each group: where the sums begin [PANEL][2], q in words of four columns [group / 4][PANEL], and the
// multiples, twice each [PANEL][2], all but q as int16.

enum { BIAS = 128, MOST_5_BITS = 4095, MOST_6_BITS = 2047 }; // the largest multiples: a chunk's sum fits 32 bits

typedef uint16_t U16x16 __attribute__((vector_size(32))); // unsigned, since sums may wrap; as in int16.c not __m256i
typedef uint32_t U32x8 __attribute__((vector_size(32)));

static inline __m256i load_32(const void *p) {
    return _mm256_loadu_si256(p);
}

static float round_to_uint8(void *q, const float *x, int n, float limit) {
    V most = v_zero(), poison = v_zero();
    for (int i = 0; i < n; i += LANES) {
        V v = v_load(x + i);
        most = v_max(most, v_abs(v));
        poison = v_fma(v, v_zero(), poison); // NaN where a value is not finite
    }
    float top = v_max_of(most);
    const V inverse = v_set1(top >= SMALLEST_TOP ? limit / top : 0);
    for (int i = 0; i < n; i += 2 * LANES) {
        __m256i low = _mm256_cvtps_epi32(v_mul(v_load(x + i), inverse));
        __m256i high = _mm256_cvtps_epi32(v_mul(v_load(x + i + LANES), inverse));
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), _MM_SHUFFLE(3, 1, 2, 0));
        __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)((uint8_t *)q + i), _mm_xor_si128(bytes, _mm_set1_epi8((char)BIAS)));
    }
    return (top >= SMALLEST_TOP ? top / limit : 0) + v_sum(poison);
}

static void sums_of_32(float *sums, const float *x, int n) {
    for (int i = 0; i < n; i += BLOCK) {
        V sum = v_load(x + i);
        for (int j = LANES; j < BLOCK; j += LANES) sum = v_add(sum, v_load(x + i + j));
        sums[i / BLOCK] = v_sum(sum);
    }
}

// ---- panels

INNER int group_of(const DType f) {
    return layouts[f].narrow ? BLOCK / 2 : BLOCK;
}

// The byte that becomes 0.
INNER int middle_of(const DType f) {
    const int zero = layouts[f].zero;
    return zero ? zero : (layouts[f].most + 1) / 2;
}

typedef struct {
    int8_t q[PANEL][CHUNK];
    int16_t multiple[PANEL][GROUPS]; // in the order of group_at
    float minimum[PANEL][GROUPS];    // the same
} PanelChunk;

// The first n columns of the chunk at p, as row i; returns its scale.
INNER float split_chunk(const DType f, PanelChunk *to, int i, const uint8_t *p, int n) {
    const float middle = (float)middle_of(f), limit = group_of(f) == BLOCK ? MOST_5_BITS : MOST_6_BITS;
    V most = v_zero(), poison = v_zero();
    Scales s;
    scales_of(&s, f, p);
    for (int g = 0; g < GROUP_V; g++) {
        most = v_max(most, v_abs(s.scale[g]));
        poison = v_fma(s.scale[g], v_zero(), v_fma(s.minimum[g], v_zero(), poison));
        v_store(to->minimum[i] + g * LANES, v_fma(s.scale[g], v_set1(middle), s.minimum[g]));
    }
    float top = v_max_of(most);
    bool tiny = top < SMALLEST_TOP;
    for (int g = 0; g < GROUP_V; g++) {
        V steps = v_mul(s.scale[g], v_set1(tiny ? 0 : limit / top));
        v_store_i16(to->multiple[i] + g * LANES, v_round(steps));
    }
#pragma GCC unroll 4
    for (int j = 0; j < SPANS; j++) {
        if (j * SPAN >= n) break;
        U u[2];
        bytes_of(u, f, p, j);
        for (int h = 0; h < 2; h++) {
            __m256i q = _mm256_sub_epi8(u[h], _mm256_set1_epi8((char)middle_of(f)));
            int8_t *at = to->q[i] + j * SPAN + h * 16;
            _mm_storeu_si128((__m128i *)(void *)at, _mm256_castsi256_si128(q));
            _mm_storeu_si128((__m128i *)(void *)(at + BLOCK), _mm256_extracti128_si256(q, 1));
        }
    }
    return (tiny ? 0 : top / limit) + v_sum(poison);
}

// Group g of a chunk; returns where the next one begins.
INNER int8_t *put_group_of(int8_t *to, const PanelChunk *c, int g, int n_rows, const int group) {
    int8_t *words = to + 4 * PANEL;
    int16_t *multiples = (int16_t *)(void *)(words + group * PANEL);
    pack((float *)(void *)words, (const float *)(const void *)&c->q[0][g * group], CHUNK / 4, n_rows, group / 4);
    for (int v = 0; v < 4 * PANEL; v += 32) {
        U16x16 begin = {0};
        for (int w = 0; w < group * PANEL; w += 4 * PANEL) {
            begin -= (U16x16)_mm256_maddubs_epi16(_mm256_set1_epi8((char)BIAS), load_32(words + w + v));
        }
        _mm256_storeu_si256((__m256i *)(void *)(to + v), (__m256i)begin);
    }
    for (int i = 0; i < PANEL; i++) {
        multiples[2 * i] = multiples[2 * i + 1] = i < n_rows ? c->multiple[i][group_at(g * group / 16)] : 0;
    }
    return words + group * PANEL + 4 * PANEL;
}

INNER void panel_format(const DType f, const int block, const int block_bytes, IntPanel *to, const uint8_t *rows,
                        int64_t ld, int n_rows, int k) {
    const int chunk_bytes = CHUNK / block * block_bytes, group = group_of(f);
    int8_t *at = to->q;
    PanelChunk chunk;
    to->group = group;
    to->has_minima = !layouts[f].zero;
    for (int c = 0, n; c * CHUNK < k; c++) {
        n = k - c * CHUNK < CHUNK ? k - c * CHUNK : CHUNK;
        for (int i = 0; i < PANEL; i++) to->scale[c * PANEL + i] = 0;
        for (int i = 0; i < n_rows; i++) {
            uint8_t padded[MOST_CHUNK_BYTES];
            const uint8_t *p = rows + i * ld + c * chunk_bytes;
            if (n < CHUNK) p = padded_chunk(padded, p, n / block * block_bytes);
            to->scale[c * PANEL + i] = split_chunk(f, &chunk, i, p, n);
        }
        for (int g = 0; g * group < n; g++) at = put_group_of(at, &chunk, g, n_rows, group);
        if (!to->has_minima) continue;
        for (int b = 0; b * BLOCK < n; b++) {
            float *minimum = to->minimum + (c * CHUNK / BLOCK + b) * PANEL;
            for (int i = 0; i < PANEL; i++) minimum[i] = i < n_rows ? chunk.minimum[i][group_at(2 * b)] : 0;
        }
    }
}

#define DEFINE_PACK(name, f, block, size)                                                                              \
    static void panel_##name(IntPanel *to, const void *rows, int64_t ld, int n_rows, int k) {                          \
        panel_format(f, block, size, to, rows, ld, n_rows, k);                                                         \
    }
DEFINE_PACK(q4_0, DTYPE_Q4_0, BLOCK, sizeof(BlockQ4_0))
DEFINE_PACK(q4_1, DTYPE_Q4_1, BLOCK, sizeof(BlockQ4_1))
DEFINE_PACK(q5_0, DTYPE_Q5_0, BLOCK, sizeof(BlockQ5_0))
DEFINE_PACK(q5_1, DTYPE_Q5_1, BLOCK, sizeof(BlockQ5_1))
DEFINE_PACK(mxfp4, DTYPE_MXFP4, BLOCK, sizeof(BlockMxfp4))
DEFINE_PACK(q3_k, DTYPE_Q3_K, SUPER, sizeof(BlockQ3_K))
DEFINE_PACK(q4_k, DTYPE_Q4_K, SUPER, sizeof(BlockQ4_K))
DEFINE_PACK(q5_k, DTYPE_Q5_K, SUPER, sizeof(BlockQ5_K))
DEFINE_PACK(q6_k, DTYPE_Q6_K, SUPER, sizeof(BlockQ6_K))
DEFINE_PACK(tq1_0, DTYPE_TQ1_0, SUPER, sizeof(BlockTQ1_0))
DEFINE_PACK(tq2_0, DTYPE_TQ2_0, SUPER, sizeof(BlockTQ2_0))

static const PackInts packs[N_DTYPES] = {
    [DTYPE_Q4_0] = panel_q4_0,   [DTYPE_Q4_1] = panel_q4_1,   [DTYPE_Q5_0] = panel_q5_0,   [DTYPE_Q5_1] = panel_q5_1,
    [DTYPE_MXFP4] = panel_mxfp4, [DTYPE_Q3_K] = panel_q3_k,   [DTYPE_Q4_K] = panel_q4_k,   [DTYPE_Q5_K] = panel_q5_k,
    [DTYPE_Q6_K] = panel_q6_k,   [DTYPE_TQ1_0] = panel_tq1_0, [DTYPE_TQ2_0] = panel_tq2_0,
};

// ---- gemm

// Adds the products of n columns of a chunk to tile: PANEL columns of each row. Returns where the next chunk of the
// panel begins. `rows` and `group` are constants at every call.
INNER const int8_t *add_bytes(float *tile, const int8_t *panel, const float *w_scale, const uint8_t *x, int64_t ldx,
                              const float *x_scale, int64_t parts, int n, const int rows, const int group) {
    U32x8 totals[GEMM_ROWS][PANEL_V];
    for (int g = 0; g < n; g += group) {
        U16x16 sums[GEMM_ROWS][PANEL_V];
        for (int v = 0; v < PANEL_V; v++) {
            for (int j = 0; j < rows; j++) sums[j][v] = (U16x16)load_32(panel + 32 * v);
        }
        panel += 4 * PANEL;
        for (int c = 0; c < group; c += 4, panel += 4 * PANEL) {
            __m256i q[PANEL_V];
            for (int v = 0; v < PANEL_V; v++) q[v] = load_32(panel + 32 * v);
            for (int j = 0; j < rows; j++) {
                __m256i word = u_set1((const int8_t *)x + j * ldx + g + c);
                for (int v = 0; v < PANEL_V; v++) sums[j][v] += (U16x16)_mm256_maddubs_epi16(word, q[v]);
            }
        }
        for (int v = 0; v < PANEL_V; v++) {
            __m256i multiples = load_32(panel + 32 * v);
            for (int j = 0; j < rows; j++) {
                U32x8 total = (U32x8)_mm256_madd_epi16((__m256i)sums[j][v], multiples);
                totals[j][v] = g ? totals[j][v] + total : total;
            }
        }
        panel += 4 * PANEL;
    }
    for (int j = 0; j < rows; j++) {
        for (int v = 0; v < PANEL_V; v++) {
            float *y = tile + j * PANEL + v * LANES;
            V scale = v_mul(v_set1(x_scale[j * parts]), v_load(w_scale + v * LANES));
            v_store(y, v_fma(v_float((__m256i)totals[j][v]), scale, v_load(y)));
        }
    }
    return panel;
}

INNER void gemm_rows_int6(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int k, int n_cols, bool add,
                          const int rows, const int group) {
    float tile[GEMM_ROWS * PANEL] = {0};
    const int8_t *panel = w->q;
    if (add) copy_tile(tile, PANEL, y, ldy, rows, n_cols, PANEL);
    for (int c = 0; c * CHUNK < k; c++) {
        int n = k - c * CHUNK < CHUNK ? k - c * CHUNK : CHUNK;
        panel = add_bytes(tile, panel, w->scale + c * PANEL, (const uint8_t *)x->q + c * CHUNK, x->ld, x->scale + c,
                          x->parts, n, rows, group);
    }
    copy_tile(y, ldy, tile, PANEL, rows, n_cols, PANEL);
}

INNER void gemm_groups(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int n, int k, int n_cols, bool add,
                       const int group) {
    for (int j = 0, rows; j < n; j += rows, y += rows * ldy) {
        IntRows rest = rows_from(x, j, 1);
        rows = n - j >= GEMM_ROWS ? GEMM_ROWS : n - j >= 2 ? 2 : 1;
        if (rows == GEMM_ROWS) gemm_rows_int6(y, ldy, w, &rest, k, n_cols, add, GEMM_ROWS, group);
        else if (rows == 2) gemm_rows_int6(y, ldy, w, &rest, k, n_cols, add, 2, group);
        else gemm_rows_int6(y, ldy, w, &rest, k, n_cols, add, 1, group);
    }
}

static void gemm_int6(float *y, int64_t ldy, const IntPanel *w, const IntRows *x, int n, int k, int n_cols, bool add) {
    if (w->group == BLOCK) gemm_groups(y, ldy, w, x, n, k, n_cols, add, BLOCK);
    else gemm_groups(y, ldy, w, x, n, k, n_cols, add, BLOCK / 2);
}

const IntKernels int6_avx2 = {.shared = 14,
                              .bytes = 1,
                              .part = CHUNK,
                              .x_top = INT8_TOP,
                              .round = round_to_uint8,
                              .gemm = gemm_int6,
                              .packs = packs,
                              .sums = sums_of_32};
