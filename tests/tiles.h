// tiles: the amx kernels over tile operations in plain C, for machines that have no tiles. Linked where the
// machine is an x86-64; elsewhere the symbols are NULL.
#pragma once
#include "kernels.h"

extern const Bf16Kernels bf16_tiles_in_c __attribute__((weak));
extern const IntKernels int8_tiles_in_c __attribute__((weak));
// What an operation found wrong: a tile used before its layout was loaded, sizes that do not fit. "" if nothing.
const char *tiles_fault(void) __attribute__((weak));
