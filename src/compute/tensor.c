// tensor: see tensor.h.
#include "tensor.h"

static const DTypeInfo dtypes[N_DTYPES] = {
    [DTYPE_F32] = {"F32", 1, sizeof(float), NULL},
    [DTYPE_F16] = {"F16", 1, sizeof(uint16_t), NULL},
    [DTYPE_BF16] = {"BF16", 1, sizeof(uint16_t), NULL},
    [DTYPE_I8G] = {"I8G", 0, 0, NULL},
    [DTYPE_Q4_0] = {"Q4_0", BLOCK, sizeof(BlockQ4_0), unpack_q4_0},
    [DTYPE_Q4_1] = {"Q4_1", BLOCK, sizeof(BlockQ4_1), unpack_q4_1},
    [DTYPE_Q5_0] = {"Q5_0", BLOCK, sizeof(BlockQ5_0), unpack_q5_0},
    [DTYPE_Q5_1] = {"Q5_1", BLOCK, sizeof(BlockQ5_1), unpack_q5_1},
    [DTYPE_Q8_0] = {"Q8_0", BLOCK, sizeof(BlockQ8_0), unpack_q8_0},
    [DTYPE_Q2_K] = {"Q2_K", SUPER, sizeof(BlockQ2_K), unpack_q2_k},
    [DTYPE_Q3_K] = {"Q3_K", SUPER, sizeof(BlockQ3_K), unpack_q3_k},
    [DTYPE_Q4_K] = {"Q4_K", SUPER, sizeof(BlockQ4_K), unpack_q4_k},
    [DTYPE_Q5_K] = {"Q5_K", SUPER, sizeof(BlockQ5_K), unpack_q5_k},
    [DTYPE_Q6_K] = {"Q6_K", SUPER, sizeof(BlockQ6_K), unpack_q6_k},
    [DTYPE_IQ4_NL] = {"IQ4_NL", BLOCK, sizeof(BlockIQ4_NL), unpack_iq4_nl},
    [DTYPE_IQ4_XS] = {"IQ4_XS", SUPER, sizeof(BlockIQ4_XS), unpack_iq4_xs},
    [DTYPE_IQ3_S] = {"IQ3_S", SUPER, sizeof(BlockIQ3_S), unpack_iq3_s},
    [DTYPE_IQ3_XXS] = {"IQ3_XXS", SUPER, sizeof(BlockIQ3_XXS), unpack_iq3_xxs},
    [DTYPE_IQ2_S] = {"IQ2_S", SUPER, sizeof(BlockIQ2_S), unpack_iq2_s},
    [DTYPE_IQ2_XS] = {"IQ2_XS", SUPER, sizeof(BlockIQ2_XS), unpack_iq2_xs},
    [DTYPE_IQ2_XXS] = {"IQ2_XXS", SUPER, sizeof(BlockIQ2_XXS), unpack_iq2_xxs},
    [DTYPE_IQ1_S] = {"IQ1_S", SUPER, sizeof(BlockIQ1_S), unpack_iq1_s},
    [DTYPE_IQ1_M] = {"IQ1_M", SUPER, sizeof(BlockIQ1_M), unpack_iq1_m},
    [DTYPE_TQ1_0] = {"TQ1_0", SUPER, sizeof(BlockTQ1_0), unpack_tq1_0},
    [DTYPE_TQ2_0] = {"TQ2_0", SUPER, sizeof(BlockTQ2_0), unpack_tq2_0},
    [DTYPE_MXFP4] = {"MXFP4", BLOCK, sizeof(BlockMxfp4), unpack_mxfp4},
    [DTYPE_MXFP4_SPLIT] = {"MXFP4", BLOCK, BLOCK / 2, NULL},
    [DTYPE_U8] = {"U8", 1, 1, NULL},
    [DTYPE_INTEGER] = {"of integers", 0, 0, NULL},
    [DTYPE_OTHER] = {"that this build does not know", 0, 0, NULL},
};

const DTypeInfo *dtype_info(DType d) {
    return &dtypes[d];
}

const char *dtype_name(DType d) {
    return (unsigned)d < N_DTYPES ? dtypes[d].name : "?";
}

int64_t tensor_count(const Tensor *t) {
    uint64_t n = 1; // unsigned: an empty tensor's other dimensions may overflow
    for (int i = 0; i < t->n_dims; i++) n *= (uint64_t)t->shape[i];
    return (int64_t)n;
}

bool floats_finite(const float *x, int64_t n) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u; // all ones: no number
    }
    return !bad;
}

uint64_t tensor_bytes(const Tensor *t) {
    uint64_t n = (uint64_t)tensor_count(t);
    const DTypeInfo *info = dtype_info(t->dtype);
    if (t->dtype == DTYPE_I8G) return n + n / (uint64_t)t->group * sizeof(float);
    uint64_t n_blocks = info->block ? n / (uint64_t)info->block : 0;
    return n_blocks * ((uint64_t)info->block_bytes + (t->dtype == DTYPE_MXFP4_SPLIT));
}
