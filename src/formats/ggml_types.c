// ggml_types: see ggml_types.h.
#include "ggml_types.h"

#include <stdio.h>

#define NO DTYPE_OTHER // not read

static const struct {
    const char *name;
    DType dtype;
} types[] = {
    [0] = {"F32", DTYPE_F32},
    [1] = {"F16", DTYPE_F16},
    [2] = {"Q4_0", DTYPE_Q4_0},
    [3] = {"Q4_1", DTYPE_Q4_1},
    [4] = {"Q4_2 (removed)", NO},
    [5] = {"Q4_3 (removed)", NO},
    [6] = {"Q5_0", DTYPE_Q5_0},
    [7] = {"Q5_1", DTYPE_Q5_1},
    [8] = {"Q8_0", DTYPE_Q8_0},
    [9] = {"Q8_1", NO},
    [10] = {"Q2_K", DTYPE_Q2_K},
    [11] = {"Q3_K", DTYPE_Q3_K},
    [12] = {"Q4_K", DTYPE_Q4_K},
    [13] = {"Q5_K", DTYPE_Q5_K},
    [14] = {"Q6_K", DTYPE_Q6_K},
    [15] = {"Q8_K", NO},
    [16] = {"IQ2_XXS", DTYPE_IQ2_XXS},
    [17] = {"IQ2_XS", DTYPE_IQ2_XS},
    [18] = {"IQ3_XXS", DTYPE_IQ3_XXS},
    [19] = {"IQ1_S", DTYPE_IQ1_S},
    [20] = {"IQ4_NL", DTYPE_IQ4_NL},
    [21] = {"IQ3_S", DTYPE_IQ3_S},
    [22] = {"IQ2_S", DTYPE_IQ2_S},
    [23] = {"IQ4_XS", DTYPE_IQ4_XS},
    [24] = {"I8", NO},
    [25] = {"I16", NO},
    [26] = {"I32", NO},
    [27] = {"I64", NO},
    [28] = {"F64", NO},
    [29] = {"IQ1_M", DTYPE_IQ1_M},
    [30] = {"BF16", DTYPE_BF16},
    [31] = {"Q4_0_4_4 (removed)", NO},
    [32] = {"Q4_0_4_8 (removed)", NO},
    [33] = {"Q4_0_8_8 (removed)", NO},
    [34] = {"TQ1_0", DTYPE_TQ1_0},
    [35] = {"TQ2_0", DTYPE_TQ2_0},
    [36] = {"IQ4_NL_4_4 (removed)", NO},
    [37] = {"IQ4_NL_4_8 (removed)", NO},
    [38] = {"IQ4_NL_8_8 (removed)", NO},
    [39] = {"MXFP4", DTYPE_MXFP4},
    [40] = {"NVFP4", NO},
    [41] = {"Q1_0", NO},
    [42] = {"Q2_0", NO},
};

enum { N_TYPES = sizeof types / sizeof *types };

const char *ggml_type_name(uint32_t number) {
    return number < N_TYPES ? types[number].name : NULL;
}

DType ggml_type_dtype(uint32_t number) {
    return number < N_TYPES ? types[number].dtype : DTYPE_OTHER;
}

int ggml_type_number(DType dtype) {
    for (int i = 0; i < N_TYPES && dtype != DTYPE_OTHER; i++) {
        if (types[i].dtype == dtype) return i;
    }
    return -1;
}

void ggml_types_list(char *text, size_t size) {
    size_t n = 0;
    for (int i = 0; i < N_TYPES && n < size; i++) {
        if (types[i].dtype == DTYPE_OTHER) continue;
        n += (size_t)snprintf(text + n, size - n, "%s%s", n ? " " : "", types[i].name);
    }
}
