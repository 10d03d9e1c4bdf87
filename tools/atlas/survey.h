// survey: every mechanism at two lengths: the comparative table that surveys print, measured beside claimed, and advice
// drawn from the same measurements: build/atlas --table and --advise.
//
// Owns the columns, and what a need goes by. Refuses nothing. Called by atlas.
#pragma once
#include "mechanism.h"

// fast: lengths a 32nd as long.
void survey_table(Compute *c, bool json, bool fast);
void survey_advise(Compute *c, bool json, bool fast);
