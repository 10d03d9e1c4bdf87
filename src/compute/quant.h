// quant: number formats, each defined once.
//
// Owns the conversions: bfloat16 is the upper half of an IEEE single, F16 is IEEE half precision (1 sign, 5 exponent,
// 10 fraction bits). Rounding is to nearest, ties to even; NaN stays NaN (quiet). Refuses nothing; called by kernels,
// ops, the loaders and quantize.
//
// Blocks hold 32 or 256 consecutive values of a row with common scales, as in GGUF files (source: the public
// description of the format, github.com/ggml-org/ggml). d, m: F16. In every format the products of scales and values
// are exact in fp32 and at most one sum is rounded, so a fused multiply-add changes no bit.
#pragma once
#include <stdint.h>
#include <string.h>

typedef enum {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I8G,  // int8 values and one fp32 scale for each `group` consecutive values: w = q * scale (llama2.c v2)
    DTYPE_Q4_0, // from here on: blocks, see below
    DTYPE_Q4_1,
    DTYPE_Q5_0,
    DTYPE_Q5_1,
    DTYPE_Q8_0,
    DTYPE_Q2_K,
    DTYPE_Q3_K,
    DTYPE_Q4_K,
    DTYPE_Q5_K,
    DTYPE_Q6_K,
    DTYPE_IQ4_NL,
    DTYPE_IQ4_XS,
    DTYPE_IQ3_S,
    DTYPE_IQ3_XXS,
    DTYPE_IQ2_S,
    DTYPE_IQ2_XS,
    DTYPE_IQ2_XXS,
    DTYPE_IQ1_S,
    DTYPE_IQ1_M,
    DTYPE_TQ1_0,
    DTYPE_TQ2_0,
    DTYPE_MXFP4,
    DTYPE_MXFP4_SPLIT, // the same values with the exponents in a separate tensor (gpt-oss's safetensors)
    DTYPE_U8,          // bytes: the parts of MXFP4_SPLIT
    DTYPE_INTEGER,     // buffers such as position_ids: no weight
    DTYPE_OTHER,       // stored in the file, not supported
    N_DTYPES
} DType;

static inline float f32_from_bf16(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t bf16_from_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

static inline float f32_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 0x3ffu;
    if (!exponent) { // zero and denormals: fraction * 2^-24, exact
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    uint32_t bits = sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | fraction << 13;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f16_from_f32(float f); // from 65520 on: infinity

// ---- blocks

enum { BLOCK = 32, SUPER = 256, BLOCK_MAX = SUPER }; // values of a block, of a super-block

#define QUANT_PACKED __attribute__((packed))

// Nibbles of a block of 32: byte j holds value j (low) and value j + 16 (high). Bit j of `high`: the fifth bit of value
// j.
typedef struct QUANT_PACKED {
    uint16_t d;
    uint8_t q[16];
} BlockQ4_0; // d (q - 8)

typedef struct QUANT_PACKED {
    uint16_t d, m;
    uint8_t q[16];
} BlockQ4_1; // d q + m

typedef struct QUANT_PACKED {
    uint16_t d;
    uint32_t high;
    uint8_t q[16];
} BlockQ5_0; // d (q - 16)

typedef struct QUANT_PACKED {
    uint16_t d, m;
    uint32_t high;
    uint8_t q[16];
} BlockQ5_1; // d q + m

typedef struct QUANT_PACKED {
    uint16_t d;
    int8_t q[BLOCK];
} BlockQ8_0; // d q

typedef struct QUANT_PACKED {
    uint8_t e;     // 2^(e - 127), 255 is NaN
    uint8_t q[16]; // E2M1: sign, 2 exponent, 1 fraction bits
} BlockMxfp4;      // OCP Microscaling Formats v1.0, 5.3 and 5.4

// The values that the 4-bit codes of IQ4_NL and IQ4_XS stand for: denser near zero.
extern const int8_t iq4_values[16];

typedef struct QUANT_PACKED {
    uint16_t d;
    uint8_t q[16];
} BlockIQ4_NL; // d iq4_values[q]

// Super-blocks of 16 groups of 16, or of 8 groups of 32. Two bits: byte 32 h + j of q holds the values j, j + 32,
// j + 64, j + 96 of half h, lowest first.
typedef struct QUANT_PACKED {
    uint8_t scales[16]; // of a group: scale (low nibble), minimum (high nibble)
    uint8_t q[64];
    uint16_t d, m;
} BlockQ2_K; // d scale q - m minimum

typedef struct QUANT_PACKED {
    uint8_t high[32]; // bit g of byte j: the third bit of value 32 g + j, 0 means -4
    uint8_t q[64];
    uint8_t scales[12]; // 6 bits each, see quant.c
    uint16_t d;
} BlockQ3_K; // d (scale - 32) q

typedef struct QUANT_PACKED {
    uint16_t d, m;
    uint8_t scales[12]; // 6-bit scales and minima of the groups, see quant.c
    uint8_t q[128];     // byte 32 p + j: value j of group 2 p (low), of group 2 p + 1 (high)
} BlockQ4_K;            // d scale q - m minimum

typedef struct QUANT_PACKED {
    uint16_t d, m;
    uint8_t scales[12];
    uint8_t high[32]; // bit g of byte j: the fifth bit of value j of group g
    uint8_t q[128];
} BlockQ5_K;

typedef struct QUANT_PACKED {
    uint8_t low[128]; // byte 64 h + j: value j (low) and value j + 64 (high) of half h
    uint8_t high[64]; // byte 32 h + j: two bits of the values j, j + 32, j + 64, j + 96 of half h, lowest first
    int8_t scales[16];
    uint16_t d;
} BlockQ6_K; // d scale (q - 32)

typedef struct QUANT_PACKED {
    uint16_t d;
    uint16_t high;  // two high bits of the scale of each group of 32, lowest first
    uint8_t low[4]; // four low bits of them, low nibble first
    uint8_t q[128]; // each group of 32 in 16 bytes, as in IQ4_NL
} BlockIQ4_XS;      // d (scale - 32) iq4_values[q]

// Super-blocks of vectors of 8 (IQ1, IQ2) or 4 values (IQ3) by their index in a grid (grids.h), of which q holds the
// lowest 8 bits. Bit j of `signs` is set where value j is negative; of the signs in 7 bits, the eighth makes the number
// of negative values even.
typedef struct QUANT_PACKED {
    uint16_t d;
    uint8_t q[64];
    uint8_t high[8]; // bit i of byte g: the ninth bit of index i of 8 of group g
    uint8_t signs[32];
    uint8_t scales[4]; // 4 bits for each group of 32, low nibble first
} BlockIQ3_S;          // d (2 scale + 1) value

typedef struct QUANT_PACKED {
    uint16_t d;
    uint8_t q[64];
    uint32_t signs[8]; // of a group of 32: four of 7 bits, lowest first; above them 4 bits of scale
} BlockIQ3_XXS;        // d (2 scale + 1) / 4 value

typedef struct QUANT_PACKED {
    uint16_t d;
    uint8_t q[32], signs[32];
    uint8_t high[8];   // two bits for each of the 4 indices of a group of 32, lowest first
    uint8_t scales[8]; // 4 bits for each group of 16, low nibble first
} BlockIQ2_S;          // d (2 scale + 1) / 8 value

typedef struct QUANT_PACKED {
    uint16_t d;
    uint16_t q[32];    // 9 bits of index, 7 bits of signs
    uint8_t scales[8]; // as in IQ2_S
} BlockIQ2_XS;

typedef struct QUANT_PACKED {
    uint8_t q[4];
    uint32_t signs; // as in IQ3_XXS
} RangeIQ2_XXS;

typedef struct QUANT_PACKED {
    uint16_t d;
    RangeIQ2_XXS ranges[8]; // of 32 values
} BlockIQ2_XXS;

typedef struct QUANT_PACKED {
    uint16_t d;
    uint8_t q[32];
    uint16_t high[8]; // of a group of 32: 3 bits for each of 4 indices, lowest first, 3 bits of scale, the shift's sign
} BlockIQ1_S;         // d (2 scale + 1) / 8 (value + shift), shift 1 or (bit set) -1

typedef struct QUANT_PACKED {
    uint8_t q[32];
    uint8_t high[16];   // 4 bits for each index, low nibble first: 3 of it, the sign of its values' shift
    uint16_t scales[4]; // of four groups of 16: 3 bits each, lowest first; above them 4 bits of d, lowest of it first
} BlockIQ1_M;           // as IQ1_S

// Super-blocks of -1, 0 and 1, as codes 0, 1 and 2.
typedef struct QUANT_PACKED {
    uint8_t q[48];   // five codes in a byte: c0 to c4, see quant_grids.c. Values 0 to 159 in bytes 0 to 31, c0 of all
                     // first, then c1; values 160 to 239 in the other 16 likewise
    uint8_t last[4]; // the remaining 16 values, four in a byte
    uint16_t d;
} BlockTQ1_0; // d (code - 1)

typedef struct QUANT_PACKED {
    uint8_t q[64]; // two bits as in Q2_K
    uint16_t d;
} BlockTQ2_0; // d (code - 1); code 3 is 2

_Static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22, "as in files");
_Static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockMxfp4) == 17, "as in files");
_Static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144, "as in files");
_Static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210, "as in files");
_Static_assert(sizeof(BlockIQ4_NL) == 18 && sizeof(BlockIQ4_XS) == 136, "as in files");
_Static_assert(sizeof(BlockIQ3_S) == 110 && sizeof(BlockIQ3_XXS) == 98 && sizeof(BlockIQ2_S) == 82, "as in files");
_Static_assert(sizeof(BlockIQ2_XS) == 74 && sizeof(BlockIQ2_XXS) == 66 && sizeof(BlockIQ1_S) == 50, "as in files");
_Static_assert(sizeof(BlockIQ1_M) == 56 && sizeof(BlockTQ1_0) == 54 && sizeof(BlockTQ2_0) == 66, "as in files");

// n blocks to fp32; y and blocks do not overlap.
void unpack_q4_0(float *y, const void *blocks, int64_t n);
void unpack_q4_1(float *y, const void *blocks, int64_t n);
void unpack_q5_0(float *y, const void *blocks, int64_t n);
void unpack_q5_1(float *y, const void *blocks, int64_t n);
void unpack_q8_0(float *y, const void *blocks, int64_t n);
void unpack_iq4_nl(float *y, const void *blocks, int64_t n);
void unpack_mxfp4(float *y, const void *blocks, int64_t n);
// MXFP4 as in safetensors: neighbours share a byte (16 bytes a block), exponents are separate.
void unpack_mxfp4_split(float *y, const uint8_t *blocks, const uint8_t *exponents, int64_t n);
// The same values as n blocks of GGUF.
void join_mxfp4(void *blocks, const uint8_t *split, const uint8_t *exponents, int64_t n);
void unpack_q2_k(float *y, const void *blocks, int64_t n);
void unpack_q3_k(float *y, const void *blocks, int64_t n);
void unpack_q4_k(float *y, const void *blocks, int64_t n);
void unpack_q5_k(float *y, const void *blocks, int64_t n);
void unpack_q6_k(float *y, const void *blocks, int64_t n);
void unpack_iq4_xs(float *y, const void *blocks, int64_t n);
void unpack_iq3_s(float *y, const void *blocks, int64_t n);
void unpack_iq3_xxs(float *y, const void *blocks, int64_t n);
void unpack_iq2_s(float *y, const void *blocks, int64_t n);
void unpack_iq2_xs(float *y, const void *blocks, int64_t n);
void unpack_iq2_xxs(float *y, const void *blocks, int64_t n);
void unpack_iq1_s(float *y, const void *blocks, int64_t n);
void unpack_iq1_m(float *y, const void *blocks, int64_t n);
void unpack_tq1_0(float *y, const void *blocks, int64_t n);
void unpack_tq2_0(float *y, const void *blocks, int64_t n);

// Finite values to n blocks, with the scales of least squared error that a short search finds. Values out of range of
// F16 scales are clamped: tiny blocks become zeros.
void pack_q8_0(void *blocks, const float *x, int64_t n);
void pack_q4_0(void *blocks, const float *x, int64_t n);
void pack_q4_1(void *blocks, const float *x, int64_t n);
void pack_q5_0(void *blocks, const float *x, int64_t n);
void pack_q5_1(void *blocks, const float *x, int64_t n);
void pack_q2_k(void *blocks, const float *x, int64_t n);
void pack_q3_k(void *blocks, const float *x, int64_t n);
void pack_q4_k(void *blocks, const float *x, int64_t n);
void pack_q5_k(void *blocks, const float *x, int64_t n);
void pack_q6_k(void *blocks, const float *x, int64_t n);
void pack_iq4_nl(void *blocks, const float *x, int64_t n);
void pack_iq4_xs(void *blocks, const float *x, int64_t n);
void pack_tq1_0(void *blocks, const float *x, int64_t n);
void pack_tq2_0(void *blocks, const float *x, int64_t n);
