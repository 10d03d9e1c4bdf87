// neon_dot: the neon kernels with the dot products of Armv8.2 (FEAT_DotProd).
#include "neon.h"

#define TABLE kernels_neon_dot
#define LEVEL_NAME "neon_dot"

#define i_dots_signed vdotq_s32

#include "blocks_tmpl.h"
#include "lanes_tmpl.h"
