// drafter: guesses of a text's next tokens, behind one interface, and how many of them are worth their time.
//
// Owns what tessera.h calls a Drafter: who guesses (the earlier text, or a smaller model), how often guesses of each
// class were right, and what passes of several rows cost. Guesses are points, without probabilities: a token is drawn
// as without them and compared, which is speculative sampling (arXiv:2211.17192, section 2.3) for a draft that is
// certain of its token. So neither the text nor its logits depend on them, or on the clock. Called by draw.c.
#pragma once
#include "sampler.h"

enum { MAX_GUESSES = 7, MAX_CLASSES = 4 }; // with the token before them, guesses are the rows of one exact pass

// Up to `most` guesses of what follows text[0..n), where `sampler` will pick. *class: of those that are right about
// equally often. Returns their number.
typedef int (*Guess)(void *context, const int32_t *text, int n, const Sampler *sampler, int most, int32_t *guesses,
                     int *class);

struct Drafter {
    Guess guess;
    void *context;
    void (*close)(void *context); // NULL: the context belongs to the caller
    bool is_measured;             // some ratio is known
    bool is_free;                 // a guess takes no time
    DrafterInfo info;
    float right[MAX_CLASSES];      // how often a guess is right whose predecessors were, lately
    double pass;                   // seconds of a pass without guesses, lately; 0: not known yet
    double ratio[1 + MAX_GUESSES]; // of a pass with so many guesses to that, lately; 0: not known yet
    double guess_seconds;          // for one guess, lately
    int n_idle;                    // draws since guesses were in a pass, or took time
};

typedef struct {
    int n, n_used, class; // guessed; of them, those that are worth being in the pass
    int32_t ids[MAX_GUESSES];
} Guesses;

Drafter *drafter_open(Guess guess, void *context, bool is_free); // NULL: out of memory
double drafter_clock(void);                                      // seconds
// What may follow text[0..n), n_used <= most.
Guesses drafter_guess(Drafter *d, const int32_t *text, int n, const Sampler *sampler, int most);
// After a pass in which these tokens were drawn, at least one.
void drafter_learn(Drafter *d, const Guesses *g, const int32_t *drawn, int n_drawn, double pass_seconds);
