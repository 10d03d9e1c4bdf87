// claims: what surveys say of attention, put to the test on this machine: build/atlas --claims.
//
// Owns the claims, the measurements that each needs, and the words on how they compare. Numbers are measured when asked
// for, never stored. Refuses nothing. Called by atlas.
#pragma once
#include "mechanism.h"

// Each claim with its source, what was measured here, and whether it holds. fast: lengths a 32nd as long.
void claims_run(Compute *c, bool json, bool fast);
