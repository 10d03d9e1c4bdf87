// bench_options: the command line of build/bench.
//
// Owns its flags and the lists that they take: "1,2,4", "1-4", "0-1024+256", "64-512*2". Refuses lists that are none,
// and flags that do not go together, with exit status 2, before anything is measured.
#pragma once
#include "tessera.h"

enum { MAX_LIST = 16, MAX_REPEATS = 1000, MAX_SEQUENCES = 256 };

typedef enum { OUT_MD, OUT_CSV, OUT_JSON, OUT_JSONL } Format;

typedef struct {
    int n, v[MAX_LIST];
} List;

typedef struct {
    List prompt, gen;
} Pairs;

typedef struct {
    int n;
    const char *v[MAX_LIST];
} Models;

typedef struct {
    bool wanted;
    int n; // 0: built-in texts
    const char *v[MAX_LIST];
} Texts;

typedef struct {
    Models models;
    Texts lookup;
    const char *tokenizer, *plot;
    List prompt, gen, depth, threads, batch;
    Pairs pairs; // prompts and what is generated behind each
    int repeats, sweep, attention, products, format;
    bool profile, kv_given;
    SessionOptions session;
} BenchOptions;

// Ends the program for --help and on a wrong line.
BenchOptions bench_options(int argc, char **argv);
