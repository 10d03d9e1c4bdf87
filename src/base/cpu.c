// cpu: see cpu.h.
#include "cpu.h"

#include "cores.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// FIRST_LEVEL: the lowest level of this architecture above scalar. Each level includes those below it.
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST_LEVEL = LEVEL_AVX2 };

static uint64_t enabled_state(void) { // XCR0: the register state that the operating system saves
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

// Linux enables AMX for a process on request, for all of its threads (Documentation/arch/x86/xstate.rst).
static bool may_use_tiles(void) {
    enum { XCR0_TILES = 0x60000, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    if ((enabled_state() & XCR0_TILES) != XCR0_TILES) return false;
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

static CpuLevel detect(void) {
    enum { XCR0_AVX = 0x6, XCR0_AVX512 = 0xe6 };
    unsigned a, b, c, d, a7, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return LEVEL_SCALAR;
    unsigned need = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((c & need) != need || (enabled_state() & XCR0_AVX) != XCR0_AVX) return LEVEL_SCALAR;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !(b7 & bit_AVX2)) return LEVEL_SCALAR;
    unsigned need7 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((b7 & need7) != need7 || !(c7 & bit_AVX512VNNI)) return LEVEL_AVX2INT;
    if ((enabled_state() & XCR0_AVX512) != XCR0_AVX512) return LEVEL_AVX2INT;
    // gcc and clang name them differently.
    enum { AVX512_BF16 = 1 << 5, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    if (!__get_cpuid_count(7, 1, &a7, &b, &c, &d) || !(a7 & AVX512_BF16)) return LEVEL_AVX512;
    unsigned tiles = AMX_TILE | AMX_BF16 | AMX_INT8;
    return (d7 & tiles) == tiles && may_use_tiles() ? LEVEL_AMX : LEVEL_AVX512BF16;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

enum { FIRST_LEVEL = LEVEL_NEON }; // Advanced SIMD is part of the base architecture

static CpuLevel detect(void) {
    enum { BF16 = 1 << 14 }; // HWCAP2_BF16, which older headers lack
    if (!(getauxval(AT_HWCAP) & HWCAP_ASIMDDP)) return LEVEL_NEON;
    return getauxval(AT_HWCAP2) & BF16 ? LEVEL_NEON_BF16 : LEVEL_NEON_DOT;
}
#else
enum { FIRST_LEVEL = N_LEVELS };

static CpuLevel detect(void) {
    return LEVEL_SCALAR;
}
#endif

static CpuLevel best, chosen;
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

static void detect_once(void) {
    best = chosen = detect();
    read_model();
    const char *want = getenv("TESSERA_CPU");
    if (!want || !*want) return;
    for (CpuLevel r = LEVEL_SCALAR; r < N_LEVELS; r++) {
        bool runs = r == LEVEL_SCALAR || ((int)r >= FIRST_LEVEL && r <= best);
        if (!strcmp(want, cpu_level_name(r)) && runs) {
            chosen = r;
            return;
        }
    }
    fprintf(stderr, "TESSERA_CPU=%s: not an instruction-set level of this machine; using %s\n", want,
            cpu_level_name(best));
}

CpuLevel cpu_best_level(void) {
    pthread_once(&once, detect_once);
    return best;
}

CpuLevel cpu_level(void) {
    pthread_once(&once, detect_once);
    return chosen;
}

const char *cpu_level_name(CpuLevel r) {
    static const char *const names[N_LEVELS] = {"scalar",  "neon",   "neon_dot",   "neon_bf16", "avx2",
                                                "avx2int", "avx512", "avx512bf16", "amx"};
    return (unsigned)r < N_LEVELS ? names[r] : "?";
}

static pthread_once_t quota_once = PTHREAD_ONCE_INIT;
static int quota; // 0: none

static void read_quota(void) {
    quota = cores_in_quota("");
}

int cpu_count(void) {
    pthread_once(&quota_once, read_quota);
    int n = cores_in_mask();
    return quota && quota < n ? quota : n;
}

const char *cpu_model(void) {
    pthread_once(&once, detect_once);
    return model;
}
