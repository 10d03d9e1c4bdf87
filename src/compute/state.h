// state: what a recurrent layer remembers of one timeline, in a size that does not grow with the text.
//
// Positions are cut into chunks of STATE_CHUNK, counted from the start of the text and never from a call. Owns the
// matrix states at the border where the open chunk begins, the open chunk's rows (keys, updates, decays), the last
// inputs of the causal convolution, and copies of older borders. A row of the open chunk is computed from the
// border's state and the rows before it (recurrence.h), so that a token decoded alone, a few and a whole prompt give
// the same bits, a token reads the matrix states and writes none, and going back within the open chunk costs nothing.
// Refuses only what does not fit into memory. Written by recurrence.c, recurrence_channels.c, scan.c and convolution.c,
// kept by the model's Memory.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { STATE_CHUNK = 32, MAX_TAPS = 64 };

typedef struct {
    int n_heads;      // matrix states; 0: none, as in a layer of convolutions alone
    int n_key_heads;  // divides n_heads
    int k_dim, v_dim; // a state is [k_dim][v_dim]
    int conv_width;   // taps; 0: no convolution
    int conv_dim;     // channels
    int pairs;        // decays for each key channel (recurrence_channels.h): pairs of a key and an update that a token
                      // adds, 1 or 2; 0: a decay for each head (recurrence.h). With pairs, n_key_heads = n_heads
    int scan;         // 1: a selective scan (scan.h): one head, k_dim values of state for each of v_dim channels
} StateShape;

typedef struct State State;

// n_slots: copies of older borders that there is room for. NULL with a line in err.
State *state_open(const StateShape *shape, int n_slots, char *err, size_t errlen);
void state_close(State *s); // accepts NULL

const StateShape *state_shape(const State *s);
int state_length(const State *s);                                 // tokens
int state_border(const State *s);                                 // where the open chunk begins
uint64_t state_bytes(const State *s);                             // held, copies included
uint64_t state_shape_bytes(const StateShape *shape, int n_slots); // what state_bytes will be
uint64_t state_token_bytes(const State *s);                       // that the next decoded token reads
uint64_t state_copy_bytes(const StateShape *shape);               // of a copy of a border

float *state_matrix(State *s, int head);   // [k_dim][v_dim] at the border, then 32 floats that may be read
float *state_keys(State *s, int key_head); // [STATE_CHUNK][k_dim] of the open chunk; with pairs, [STATE_CHUNK][pairs]
float *state_updates(State *s, int head);  // [STATE_CHUNK][v_dim], the same, then 32 floats that may be read
double *state_decays(State *s, int head);  // [STATE_CHUNK] sums of log decays since the border; not with pairs or scan
// With pairs: each row's decays, factors, and the decayed keys: the product of all decays since the border, then each
// key times the decays that followed it. The decayed keys are those after state_decayed(s) rows of the open chunk.
float *state_factors(State *s, int head);      // [STATE_CHUNK][k_dim]
float *state_decayed_keys(State *s, int head); // [1 + STATE_CHUNK pairs][k_dim]
int state_decayed(const State *s);
// With scan: the state after state_decayed(s) rows of the open chunk (0: that of the border counts), and each row's
// step sizes. The updates are the step sizes times the inputs.
float *state_running(State *s); // [k_dim][v_dim]
float *state_steps(State *s);   // [STATE_CHUNK][v_dim]
// The convolution's inputs: row r is that of position border - (conv_width - 1) + r; zeros before the text.
float *state_inputs(State *s); // [conv_width - 1 + STATE_CHUNK][conv_dim]

// The rows of n more tokens, and the border that they led to, have been written.
void state_advance(State *s, int n);
// n from state_border(s) to the length: keep the first n tokens.
void state_truncate(State *s, int n);
void state_restart(State *s); // forget the text
// What a state of the same shape remembers; not its slots.
void state_copy(State *s, const State *from);
// The text has `length` tokens, whose state the caller has put where state_memory says.
void state_resume(State *s, int length);
// All that a state remembers, and a slot's copy: for saving. Sizes in bytes.
void *state_memory(State *s);
size_t state_memory_bytes(const State *s);
void *state_slot(State *s, int slot); // state_copy_bytes

// Copy what belongs to the border into a slot, and back: the text then ends at `border`, the position of the copy.
void state_save(State *s, int slot);
void state_restore(State *s, int slot, int border);
