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
    {39, DTYPE_MXFP4, -1, -1, 0, 0},
};

enum { N_FORMATS = sizeof formats / sizeof *formats, N_FLOAT_FORMATS = 3 }; // the others are blocks
