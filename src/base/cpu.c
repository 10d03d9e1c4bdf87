// cpu: see cpu.h.
#include "cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// FIRST_RUNG: the lowest of this architecture beside scalar; each has all that those below have.
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST_RUNG = RUNG_AVX2 };

static uint64_t enabled_state(void) { // XCR0: the register state that the operating system saves
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

// Linux gives a process the tiles when it asks (Documentation/arch/x86/xstate.rst); every thread may use them then.
static bool may_use_tiles(void) {
    enum { XCR0_TILES = 0x60000, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    if ((enabled_state() & XCR0_TILES) != XCR0_TILES) return false;
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

static CpuRung detect(void) {
    enum { XCR0_AVX = 0x6, XCR0_AVX512 = 0xe6 };
    unsigned a, b, c, d, a7, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return RUNG_SCALAR;
    unsigned need = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((c & need) != need || (enabled_state() & XCR0_AVX) != XCR0_AVX) return RUNG_SCALAR;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !(b7 & bit_AVX2)) return RUNG_SCALAR;
    unsigned need7 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((b7 & need7) != need7 || !(c7 & bit_AVX512VNNI)) return RUNG_AVX2;
    if ((enabled_state() & XCR0_AVX512) != XCR0_AVX512) return RUNG_AVX2;
    enum { AVX512_BF16 = 1 << 5, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 }; // gcc and clang name them differently
    if (!__get_cpuid_count(7, 1, &a7, &b, &c, &d) || !(a7 & AVX512_BF16)) return RUNG_AVX512;
    unsigned tiles = AMX_TILE | AMX_BF16;
    return (d7 & tiles) == tiles && may_use_tiles() ? RUNG_AMX : RUNG_AVX512BF16;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

enum { FIRST_RUNG = RUNG_NEON }; // Advanced SIMD is part of the base architecture

static CpuRung detect(void) {
    enum { BF16 = 1 << 14 }; // HWCAP2_BF16, which older headers lack
    if (!(getauxval(AT_HWCAP) & HWCAP_ASIMDDP)) return RUNG_NEON;
    return getauxval(AT_HWCAP2) & BF16 ? RUNG_NEON_BF16 : RUNG_NEON_DOT;
}
#else
enum { FIRST_RUNG = N_RUNGS };

static CpuRung detect(void) {
    return RUNG_SCALAR;
}
#endif

static CpuRung best, chosen;
static char model[80] = "unknown";
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_model(void) {
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        snprintf(model, sizeof model, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
}

static void ask(void) {
    best = chosen = detect();
    read_model();
    const char *want = getenv("TESSERA_CPU");
    if (!want || !*want) return;
    for (CpuRung r = RUNG_SCALAR; r < N_RUNGS; r++) {
        bool runs = r == RUNG_SCALAR || ((int)r >= FIRST_RUNG && r <= best);
        if (!strcmp(want, cpu_rung_name(r)) && runs) {
            chosen = r;
            return;
        }
    }
    fprintf(stderr, "TESSERA_CPU=%s: not a rung of this machine; using %s\n", want, cpu_rung_name(best));
}

CpuRung cpu_best_rung(void) {
    pthread_once(&once, ask);
    return best;
}

CpuRung cpu_rung(void) {
    pthread_once(&once, ask);
    return chosen;
}

const char *cpu_rung_name(CpuRung r) {
    static const char *const names[N_RUNGS] = {"scalar", "neon",   "neon_dot",   "neon_bf16",
                                               "avx2",   "avx512", "avx512bf16", "amx"};
    return (unsigned)r < N_RUNGS ? names[r] : "?";
}

int cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

const char *cpu_model(void) {
    pthread_once(&once, ask);
    return model;
}
