// hybrid_hf: what the config.json of models with Mamba layers says about them.
//
// Owns the names of their settings beyond those of fields.h. Refuses a type of layer that nothing here runs. Called by
// load_hf.
#pragma once
#include "model.h"
#include "settings.h"

// Of Mamba-2, after the fields of its state: a head's width, and what bounds its step sizes.
void hybrid_read_state(Settings *s, Config *c, StateShape *state);
// The same of Mamba-1: the channels, the rank of the step sizes, their norm.
void hybrid_read_mamba(Settings *s, Config *c, const Family *f, StateShape *state);
// num_hidden_layers of models whose list of layers counts, since they do not keep it up to date.
void hybrid_count_layers(Settings *s);
// Which layers are recurrent, and of models with one sublayer a layer, which.
void hybrid_read_layers(Settings *s, Config *c, const Family *f, LayerRules *rules);
// Falcon-H1's multipliers, after the heads. Those of what attention reads, and of its keys, are factors of its scores
// and of its output.
void hybrid_read_multipliers(Settings *s, Config *c);
