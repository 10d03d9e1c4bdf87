// cpu: what this machine can do, asked once.
//
// Owns the choice of the rung of the kernel staircase. TESSERA_CPU=scalar|avx2|avx512|avx512bf16|amx, or
// scalar|neon|neon_dot|neon_bf16 on Arm, lowers it in any program.
#pragma once

typedef enum {
    RUNG_SCALAR,
    RUNG_NEON,
    RUNG_NEON_DOT,
    RUNG_NEON_BF16, // dots of pairs of bfloat16
    RUNG_AVX2,
    RUNG_AVX512,
    RUNG_AVX512BF16, // the same
    RUNG_AMX,        // tiles of them
    N_RUNGS
} CpuRung;

// The highest rung that the processor *and* the operating system (XGETBV, AT_HWCAP) support, before TESSERA_CPU.
CpuRung cpu_best_rung(void);
// The rung to use: cpu_best_rung, lowered by TESSERA_CPU; an unknown or unsupported name is said once on stderr and
// ignored.
CpuRung cpu_rung(void);
const char *cpu_rung_name(CpuRung r);
// Cores this process may run on (its affinity mask), at least 1.
int cpu_count(void);
// "Intel(R) Xeon(R) ...", or "unknown".
const char *cpu_model(void);
