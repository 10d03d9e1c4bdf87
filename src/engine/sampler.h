// sampler: what drafts need of a Sampler beside tessera.h.
#pragma once
#include "tessera.h"

// Another that picks as this one would from the same logits: options, history and random numbers. NULL: out of memory.
Sampler *sampler_clone(const Sampler *s);
