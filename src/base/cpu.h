// cpu: the instruction-set level and the number of cores of this machine, detected once.
//
// Owns the choice of the level. TESSERA_CPU=scalar|avx2|avx2int|avx512|avx512bf16|amx, or
// scalar|neon|neon_dot|neon_bf16 on Arm, lowers it in any program. Refuses levels that the machine lacks. Called by
// kernels, threads and the programs.
#pragma once

typedef enum {
    LEVEL_SCALAR,
    LEVEL_NEON,
    LEVEL_NEON_DOT,
    LEVEL_NEON_BF16, // dot products of bfloat16 pairs
    LEVEL_AVX2,
    LEVEL_AVX2INT, // the same instructions; products of integers
    LEVEL_AVX512,
    LEVEL_AVX512BF16, // dot products of bfloat16 pairs
    LEVEL_AMX,        // products of bfloat16 tiles
    N_LEVELS
} CpuLevel;

// The highest level that the processor *and* the operating system (XGETBV, AT_HWCAP) support, before TESSERA_CPU.
CpuLevel cpu_best_level(void);
// The level to use: cpu_best_level, lowered by TESSERA_CPU. An unknown or unsupported name gets one warning on stderr
// and is ignored.
CpuLevel cpu_level(void);
const char *cpu_level_name(CpuLevel r);
// Cores that this process may use: its affinity mask, and the CPU quotas of its control groups (cores.h); at least 1.
int cpu_count(void);
// "Intel(R) Xeon(R) ...", or "unknown".
const char *cpu_model(void);
