// claims: what surveys say of attention, put to the test on this machine: build/atlas --claims, --table and --advise.
//
// Owns the claims, the measurements that each needs, and the words on how they compare; the comparative table of
// surveys with measured columns beside the claimed ones; and advice drawn from measurements. Numbers are measured when
// asked for, never stored. Refuses nothing. Called by atlas.
#pragma once
#include "mechanism.h"

// Each claim with its source, what was measured here, and whether it holds. fast: short lengths only, for the checks.
void claims_run(Compute *c, bool json, bool fast);
// Every mechanism's claimed complexity beside measured growth, speed and memory against multi-head attention.
void claims_table(Compute *c, bool json, bool fast);
// Which mechanism for which need, with the figures that say so.
void claims_advise(Compute *c, bool json, bool fast);
