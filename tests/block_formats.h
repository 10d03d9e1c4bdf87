// block_formats.h: every type of matrix that a GGUF file can hold and an engine multiplies, as tests make them.
#pragma once
#include "tensor.h"

static const struct {
    uint32_t number;
    DType dtype;
    int d_at, m_at; // bytes where a block's F16 scales stand; -1: none
    float d, m;     // what they are about, for values like those of a model
} formats[] = {
    {0, DTYPE_F32, -1, -1, 0, 0},
    {1, DTYPE_F16, -1, -1, 0, 0},
    {30, DTYPE_BF16, -1, -1, 0, 0},
    {2, DTYPE_Q4_0, 0, -1, 0.013f, 0},
    {3, DTYPE_Q4_1, 0, 2, 0.013f, -0.1f},
    {6, DTYPE_Q5_0, 0, -1, 0.0065f, 0},
    {7, DTYPE_Q5_1, 0, 2, 0.0065f, -0.1f},
    {8, DTYPE_Q8_0, 0, -1, 0.0008f, 0},
    {10, DTYPE_Q2_K, 80, 82, 0.005f, 0.0075f},
    {11, DTYPE_Q3_K, 108, -1, 0.0015f, 0},
    {12, DTYPE_Q4_K, 0, 2, 0.0002f, 0.0015f},
    {13, DTYPE_Q5_K, 0, 2, 0.0001f, 0.0015f},
    {14, DTYPE_Q6_K, 208, -1, 0.00005f, 0},
    {20, DTYPE_IQ4_NL, 0, -1, 0.0008f, 0},
    {23, DTYPE_IQ4_XS, 0, -1, 0.00004f, 0},
    {21, DTYPE_IQ3_S, 0, -1, 0.0002f, 0},
    {18, DTYPE_IQ3_XXS, 0, -1, 0.0002f, 0},
    {22, DTYPE_IQ2_S, 0, -1, 0.0006f, 0},
    {17, DTYPE_IQ2_XS, 0, -1, 0.0006f, 0},
    {16, DTYPE_IQ2_XXS, 0, -1, 0.0006f, 0},
    {19, DTYPE_IQ1_S, 0, -1, 0.006f, 0},
    {29, DTYPE_IQ1_M, 48, -1, 0.006f, 0},
    {34, DTYPE_TQ1_0, 52, -1, 0.05f, 0},
    {35, DTYPE_TQ2_0, 64, -1, 0.05f, 0},
    {39, DTYPE_MXFP4, -1, -1, 0, 0},
};

// Puts a block's F16 scales where they stand; those of IQ1_M are in four parts of four bits.
__attribute__((unused)) static void put_scales(uint8_t *block, int format, float d, float m) {
    uint16_t half_d = f16_from_f32(d), half_m = f16_from_f32(m);
    if (formats[format].m_at >= 0) memcpy(block + formats[format].m_at, &half_m, sizeof half_m);
    if (formats[format].dtype == DTYPE_IQ1_M) {
        uint8_t *top = block + formats[format].d_at + 1;
        for (int i = 0; i < 4; i++) top[2 * i] = (uint8_t)((top[2 * i] & 15) | (half_d >> 4 * i & 15) << 4);
    } else if (formats[format].d_at >= 0) {
        memcpy(block + formats[format].d_at, &half_d, sizeof half_d);
    }
}

enum { N_FORMATS = sizeof formats / sizeof *formats, N_FLOAT_FORMATS = 3 }; // the others are blocks
