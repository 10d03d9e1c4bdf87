// measure: what bench times: a prompt read, and tokens generated, behind any depth of context.
//
// Owns the state that all tests share: the options, the models, the machine, and of the test under way the session and
// its random tokens. Ends the program where a session cannot be opened or computed.
#pragma once
#include "bench_options.h"
#include "cpu.h"
#include "profile.h"

typedef struct {
    char label[96]; // "llama 1.1B Q8_0"
    const char *path;
    Engine *engine;
    EngineInfo info;
    bool is_random; // the weights are build/synth's
} BenchModel;

typedef struct {
    double read_gb;          // GB/s; 0: unknown
    double gflops[N_LEVELS]; // with --profile; 0: unknown, or a level that is not used
} Machine;

typedef struct {
    BenchOptions o;
    BenchModel models[MAX_LIST];
    Machine machines[MAX_LIST]; // for each number of threads
    // of the current test
    const BenchModel *model;
    const Machine *machine;
    int n_threads;
    EngineInfo info;
    Session *session; // the first of those that decode together
    Session *sessions[MAX_SEQUENCES];
    int n_sessions;   // opened
    int n_sequences;  // of the current test
    Profile *profile; // of the current test; NULL: none
    int32_t *tokens;  // random ids; every test uses a prefix of them
    int n_rows;       // printed
    bool over;        // some test was faster than memory
} Bench;

enum { MEASURE_BLOCK = 512 }; // tokens that a prompt is read in

void *measure_alloc(size_t bytes); // for kernels: aligned to 64 bytes; free() it
uint32_t measure_random(void);     // the same numbers in every run

// The test under way is of model i and of number of threads i of the options.
void measure_use_model(Bench *b, int i);
void measure_use_threads(Bench *b, int i);

// n_sessions sessions for n tokens, and random ids. who: asked for them, for the message where -c is too small.
void measure_open(Bench *b, int n_sessions, int n, const char *who);
void measure_close(Bench *b);

// What the test's sessions hold together, and that in bytes: KV caches and recurrent states.
SessionInfo measure_info(const Bench *b);
uint64_t measure_held(const Bench *b);

// Seconds to read n tokens behind the first `depth`.
double measure_prefill(Bench *b, int depth, int n);
// Seconds for n tokens of every sequence, one at a time, behind the first `depth`. *bytes: read for each token, on
// average.
double measure_decode(Bench *b, int depth, int n, double *bytes);
