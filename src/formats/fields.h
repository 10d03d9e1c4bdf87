// fields: the sizes of a Config, and what GGUF and config.json call them: one table for both readers and the writer.
//
// Keys whose meaning differs between the containers (positions, caps, biases) are read by load_gguf.c and load_hf.c.
#pragma once
#include "model.h"

enum {
    FIELD_REQUIRED = -1, // a file without it is an error
    FIELD_KEEP = -2,     // what was read before stays
    MAX_FIELDS = 8
};

typedef struct {
    const char *gguf;  // behind "<architecture>."
    const char *hf[6]; // in config.json: the first that is there; ended by NULL
    int *value;        // of the Config
    int least;         // smallest valid value
    int absent;        // value when the key is absent, FIELD_REQUIRED or FIELD_KEEP
} Field;

// A file may have an array of it, one number a layer.
bool field_by_layer(const Field *f, const Config *c);
// An array's numbers, one a layer: equal ones are the value; heads that differ become kinds of layers. -1: all is set;
// otherwise the first layer that differs from layer 0, which this field cannot.
int field_set_layers(const Field *f, const Config *c, const int *numbers, LayerRules *rules);

// The set of layers for which a family's array may have zeros, since they have nothing of the kind; NULL: none may.
LayerSet *field_zeros(const Field *f, const Config *c, const Family *family, LayerRules *rules);
// Puts the layers with zeros into the set, and the number of another layer (1: of none) in their place.
void field_take_zeros(int *numbers, int n, LayerSet *without);

// Of every model: `list` in the order in which they are to be read. Returns how many.
int fields_of_shape(Config *c, const Family *f, Field list[MAX_FIELDS]);
// Then of the heads, whose defaults depend on those, and of the feed-forward layers.
int fields_of_heads(Config *c, Field list[MAX_FIELDS]);
// Of latent attention in place of those: the heads' own widths the containers count differently. Then what its cache
// has.
int fields_of_latent(Config *c, Field list[MAX_FIELDS]);
void latent_set_cache(LayerKind *k);
// Of DeepSeek's router: n experts' width that every token uses; the first n layers have no experts.
void router_set_shared(Config *c, int n);
void router_set_dense(LayerRules *rules, int n);
// Of the state of recurrent layers, as far as both containers count the same.
int fields_of_state(StateShape *state, MixerKind mixer, Field list[MAX_FIELDS]);
// Then the channels of the mixer's convolution.
void state_set_channels(StateShape *state, MixerKind mixer, int dim);
// Of RWKV's mixers, once heads and widths are known: the rows before, and the pairs of a token.
void state_set_shifts(StateShape *state, MixerKind mixer, int dim);
// Of RWKV's mixers whose heads fill the model's width: all from the width of a head. False when it does not divide dim.
bool state_set_heads(StateShape *state, MixerKind mixer, int dim);
int fields_of_feed_forward(Config *c, const Family *f, Field list[MAX_FIELDS]);
// Sets an absent head width to dim / n_heads. False when n_heads does not divide dim.
bool fields_default_width(Config *c);
