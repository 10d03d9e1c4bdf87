// check_quant: the block formats. Unpacking against hashes of values that fixtures/quant.py computed one by one from
// the formats' description; half precision against all its values; packing within bounds of the error, and closer than
// the plain roundings; what packing must do with zeros, the largest and the smallest.
#include "reference.h"

#include "grids.h"
#include "quant.h"
#include "weights.h"

// In the order of fixtures/quant.py.
static const DType block_types[] = {DTYPE_Q4_0,   DTYPE_Q4_1,  DTYPE_Q5_0,    DTYPE_Q5_1,  DTYPE_Q8_0,   DTYPE_Q2_K,
                                    DTYPE_Q3_K,   DTYPE_Q4_K,  DTYPE_Q5_K,    DTYPE_Q6_K,  DTYPE_MXFP4,  DTYPE_IQ4_NL,
                                    DTYPE_IQ4_XS, DTYPE_IQ3_S, DTYPE_IQ3_XXS, DTYPE_IQ2_S, DTYPE_IQ2_XS, DTYPE_IQ2_XXS,
                                    DTYPE_IQ1_S,  DTYPE_IQ1_M, DTYPE_TQ1_0,   DTYPE_TQ2_0};
enum { RECORDS = 200 };

static uint64_t hash_values(const float *v, int n) { // FNV-1a, every NaN alike
    uint64_t h = 0xCBF29CE484222325u;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u;
        for (int k = 0; k < 32; k += 8) h = (h ^ (bits >> k & 255)) * 0x100000001B3u;
    }
    return h;
}

static void unpack_equals_fixture(void) {
    FILE *f = fopen("tests/fixtures/quant.bin", "rb");
    CHECK(f, "tests/fixtures/quant.bin: not found; checks run in the repository's root");
    if (!f) return;
    uint8_t block[256];
    uint64_t want;
    float v[BLOCK_MAX + 1];
    for (int t = 0; t < N_OF(block_types); t++) {
        const DTypeInfo *info = dtype_info(block_types[t]);
        for (int k = 0; k < RECORDS; k++) {
            bool whole = fread(block, (size_t)info->block_bytes, 1, f) == 1 && fread(&want, 8, 1, f) == 1;
            CHECK(whole, "%s: record %d is missing", info->name, k);
            if (!whole) break;
            v[info->block] = 12345;
            info->unpack(v, block, 1);
            CHECK(hash_values(v, info->block) == want, "%s: record %d differs; quant.py %s %d prints its values",
                  info->name, k, info->name, k);
            CHECK(v[info->block] == 12345, "%s: wrote beyond its values", info->name);
        }
    }
    CHECK(fgetc(f) == EOF, "records are left over");
    fclose(f);
}

// Several blocks in one call are the same as one by one, from any address.
static void unpack_many(void) {
    enum { N = 5 };
    for (int t = 0; t < N_OF(block_types); t++) {
        const DTypeInfo *info = dtype_info(block_types[t]);
        uint8_t bytes[N * 256 + 1];
        static float all[N * BLOCK_MAX], one[BLOCK_MAX];
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)test_u32();
        for (int odd = 0; odd < 2; odd++) {
            info->unpack(all, bytes + odd, N);
            for (int k = 0; k < N; k++) {
                info->unpack(one, bytes + odd + k * info->block_bytes, 1);
                CHECK(hash_values(one, info->block) == hash_values(all + k * info->block, info->block), "%s: block %d",
                      info->name, k);
            }
        }
    }
}

// What each entry of a grid stands for, against hashes of ggml's tables (fixtures/grids.py); the same as bytes.
static void grids_equal_source(void) {
    const struct {
        const char *name;
        const Grid *grid;
        int unit; // of the source's values
        const void *bytes;
        uint64_t hash;
    } cases[] = {
        {"IQ1", &grid_iq1, 8, grid_bytes.iq1, 0x6703ed863501ae2e},
        {"IQ2_XXS", &grid_iq2_xxs, 1, grid_bytes.iq2_xxs, 0xbb4ee025b5ac6e8e},
        {"IQ2_XS", &grid_iq2_xs, 1, grid_bytes.iq2_xs, 0xc9b1ee61e79909bd},
        {"IQ2_S", &grid_iq2_s, 1, grid_bytes.iq2_s, 0x123edd38a3b62b90},
        {"IQ3_XXS", &grid_iq3_xxs, 1, grid_bytes.iq3_xxs, 0xdfa5dc83d6a155d5},
        {"IQ3_S", &grid_iq3_s, 1, grid_bytes.iq3_s, 0xfa37020c25b44829},
    };
    kernels(); // expands the grids
    for (int c = 0; c < N_OF(cases); c++) {
        const Grid *g = cases[c].grid;
        const int8_t *bytes = cases[c].bytes;
        uint64_t h = 0xCBF29CE484222325u;
        for (int i = 0; i < g->n * g->values; i++) {
            int value = grid_value(g, i / g->values, i % g->values);
            h = (h ^ (uint8_t)(value / cases[c].unit)) * 0x100000001B3u;
            CHECK(bytes[i] == value, "%s: byte %d is %d, expected %d", cases[c].name, i, bytes[i], value);
        }
        CHECK(h == cases[c].hash, "%s: hash %016llx", cases[c].name, (unsigned long long)h);
    }
}

static void half_precision(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f32_from_f16((uint16_t)h);
        uint16_t back = f16_from_f32(f);
        bool nan = (h & 0x7fff) > 0x7c00;
        CHECK(nan ? (back & 0x7fff) > 0x7c00 && (back & 0x8000) == (h & 0x8000) : back == h, "%04x became %04x", h,
              back);
        if ((h & 0x7fff) >= 0x7c00) continue;
        // Half way to the next one: the even one; a little to either side: the nearer one.
        uint32_t next = h + 1;
        double a = (double)f, b = (h & 0x7fff) == 0x7bff ? copysign(65536, a) : (double)f32_from_f16((uint16_t)next);
        float middle = (float)((a + b) / 2), inward = nextafterf(middle, (float)a);
        float outward = nextafterf(middle, (float)b);
        CHECK(f16_from_f32(middle) == (h & 1 ? next : h), "half way from %04x: %04x", h, f16_from_f32(middle));
        CHECK(f16_from_f32(inward) == h, "below half way from %04x: %04x", h, f16_from_f32(inward));
        CHECK(f16_from_f32(outward) == next, "above half way from %04x: %04x", h, f16_from_f32(outward));
    }
    CHECK(f16_from_f32(1e30f) == 0x7c00 && f16_from_f32(-1e30f) == 0xfc00 && f16_from_f32(1e-30f) == 0, "far away");
}

// ---- pack

static const struct {
    DType type;
    void (*pack)(void *blocks, const float *x, int64_t n);
    double most_gauss, most_uniform; // NMSE of the round trip
    int least, most;                 // codes that any group can hold exactly
} packs[] = {
    {DTYPE_Q8_0, pack_q8_0, 5e-5, 3e-5, -127, 127},     {DTYPE_Q4_0, pack_q4_0, 9e-3, 6e-3, -8, 7},
    {DTYPE_Q4_1, pack_q4_1, 8e-3, 6e-3, -8, 7},         {DTYPE_Q5_0, pack_q5_0, 2e-3, 1.5e-3, -16, 15},
    {DTYPE_Q5_1, pack_q5_1, 2e-3, 1.5e-3, -16, 15},     {DTYPE_Q2_K, pack_q2_k, 9e-2, 6e-2, -1, 2},
    {DTYPE_Q3_K, pack_q3_k, 3e-2, 2e-2, -4, 3},         {DTYPE_Q4_K, pack_q4_k, 6e-3, 4e-3, -8, 7},
    {DTYPE_Q5_K, pack_q5_k, 1.5e-3, 1e-3, -8, 7},       {DTYPE_Q6_K, pack_q6_k, 5e-4, 3e-4, -32, 31},
    {DTYPE_IQ4_NL, pack_iq4_nl, 7e-3, 6e-3, -127, 113}, {DTYPE_IQ4_XS, pack_iq4_xs, 7e-3, 6e-3, -127, 113},
    {DTYPE_TQ1_0, pack_tq1_0, 0.21, 0.12, -1, 1},       {DTYPE_TQ2_0, pack_tq2_0, 0.21, 0.12, -1, 1},
};

enum { N_SUPERS = 200, N_VALUES = N_SUPERS * SUPER };

static float *round_trip(int p, const float *x, int n) {
    const DTypeInfo *info = dtype_info(packs[p].type);
    int n_blocks = n / info->block;
    uint8_t *blocks = need((size_t)(n_blocks * info->block_bytes));
    float *y = need_floats(n);
    packs[p].pack(blocks, x, n_blocks);
    info->unpack(y, blocks, n_blocks);
    free(blocks);
    return y;
}

static float gauss(void) {
    float u = 0.5f * test_uniform() + 0.5000001f, v = test_uniform();
    return sqrtf(-2 * logf(u)) * cosf(3.14159265f * v);
}

// NMSE that rounding to the extreme value of each 32 gives, with `levels` on either side.
static double plain_nmse(const float *x, int n, float levels) {
    float *y = need_floats(n);
    for (int i = 0; i < n; i += BLOCK) {
        float top = 0;
        for (int j = 0; j < BLOCK; j++) top = fmaxf(top, fabsf(x[i + j]));
        for (int j = 0; j < BLOCK; j++) y[i + j] = rintf(x[i + j] / top * levels) * top / levels;
    }
    double e = nmse_f32(y, x, n);
    free(y);
    return e;
}

static void pack_error(void) {
    float *x = need_floats(N_VALUES);
    for (int p = 0; p < N_OF(packs); p++) {
        const char *name = dtype_name(packs[p].type);
        double found[3];
        for (int kind = 0; kind < 3; kind++) { // normal; uniform; normal around its own deviation
            for (int i = 0; i < N_VALUES; i++) {
                x[i] = 0.02f * (kind == 1 ? test_uniform() : gauss()) + (kind == 2 ? 0.02f : 0);
            }
            float *y = round_trip(p, x, N_VALUES);
            found[kind] = nmse_f32(y, x, N_VALUES);
            if (packs[p].type == DTYPE_Q4_0 || packs[p].type == DTYPE_Q4_K) {
                double plain = plain_nmse(x, N_VALUES, 7);
                CHECK(found[kind] < plain, "%s: %g, plain rounding %g", name, found[kind], plain);
            }
            free(y);
        }
        printf("    %s: NMSE %.2e of normal values, %.2e of uniform, %.2e off centre\n", name, found[0], found[1],
               found[2]);
        CHECK(found[0] < packs[p].most_gauss && found[1] < packs[p].most_uniform, "%s", name);
    }
    free(x);
}

static bool is_iq4(DType type) {
    return type == DTYPE_IQ4_NL || type == DTYPE_IQ4_XS;
}

// How far any value may be off, of the largest in the block: by the steps of its group, or as far as a scale that fits
// the others better clips it.
static float most_off(DType type) {
    switch (type) {
    case DTYPE_Q2_K: return 0.6f;
    case DTYPE_Q3_K: return 0.3f;
    case DTYPE_TQ1_0:
    case DTYPE_TQ2_0: return 0.8f; // values above the mean magnitude of those that are not 0
    default: return 0.2f;
    }
}

// No value is off by more than that. Beside it: half the smallest scale times the largest code.
static void pack_any_scale(void) {
    float x[SUPER];
    for (int p = 0; p < N_OF(packs); p++) {
        float part = most_off(packs[p].type);
        for (int e = -20; e <= 12; e++) {
            for (int round = 0; round < 4; round++) {
                float top = 0;
                for (int i = 0; i < SUPER; i++) {
                    x[i] = ldexpf(round == 3 ? fabsf(gauss()) : gauss(), e);
                    if (round == 1 && i % 32) x[i] = 0;
                    top = fmaxf(top, fabsf(x[i]));
                }
                if (round == 2) x[pick(SUPER)] = top = ldexpf(20, e);
                float *y = round_trip(p, x, SUPER);
                for (int i = 0; i < SUPER; i++) {
                    float off = fabsf(y[i] - x[i]);
                    CHECK(off <= part * top + (is_iq4(packs[p].type) ? 0x1p-18f : 0x1p-19f), "%s: 2^%d: %g became %g",
                          dtype_name(packs[p].type), e, (double)x[i], (double)y[i]);
                }
                free(y);
            }
        }
    }
}

static void pack_edges(void) {
    static const float edges[] = {0, -0.0f, 1e-30f, -1e-38f, 1e-42f, 65504, -65504, 1e30f, -3e38f, 3.4e38f};
    float x[SUPER];
    for (int p = 0; p < N_OF(packs); p++) {
        const char *name = dtype_name(packs[p].type);
        for (int k = 0; k < N_OF(edges); k++) {
            for (int i = 0; i < SUPER; i++) x[i] = edges[k];
            float *y = round_trip(p, x, SUPER);
            for (int i = 0; i < SUPER; i++) {
                CHECK(isfinite(y[i]) && !(y[i] * edges[k] < 0), "%s: %g became %g", name, (double)edges[k],
                      (double)y[i]);
                if (fabsf(edges[k]) < 1e-9f) CHECK(y[i] == 0, "%s: %g became %g", name, (double)edges[k], (double)y[i]);
                if (fabsf(edges[k]) == 65504)
                    CHECK(fabsf(y[i] - x[i]) < 200, "%s: %g became %g", name, (double)x[i], (double)y[i]);
            }
            free(y);
        }
    }
}

// What a block says is said again exactly: values of a block whose scale is a power of two survive.
static void pack_again(void) {
    float x[SUPER];
    for (int p = 0; p < N_OF(packs); p++) {
        bool iq4 = is_iq4(packs[p].type);
        int least = packs[p].least, most = packs[p].most;
        for (int i = 0; i < SUPER; i++) {
            x[i] = 0.125f * (float)(iq4 ? iq4_values[pick(16)] : least + pick(most - least + 1));
        }
        for (int i = 0; i < SUPER; i += 16) x[i] = 0.125f * (float)least, x[i + 1] = 0.125f * (float)most;
        float *y = round_trip(p, x, SUPER);
        for (int i = 0; i < SUPER; i++) {
            CHECK(fabsf(y[i] - x[i]) < 1e-3f * 0.125f * (float)most, "%s: %g became %g", dtype_name(packs[p].type),
                  (double)x[i], (double)y[i]);
        }
        free(y);
    }
}

int main(void) {
    RUN(unpack_equals_fixture);
    RUN(unpack_many);
    RUN(grids_equal_source);
    RUN(half_precision);
    RUN(pack_error);
    RUN(pack_any_scale);
    RUN(pack_edges);
    RUN(pack_again);
    return test_report();
}
