// bench_row: a test of bench and its measurements, and one row of them in the format asked for: Markdown, CSV, JSON, or
// a line with llama-bench's fields.
//
// Owns the columns. The names of -o jsonl are those of llama-bench (github.com/ggml-org/llama.cpp, tools/llama-bench),
// so that its scripts read them.
#pragma once
#include "measure.h"

// What a row of bench --lookup has beside the others' columns.
typedef struct {
    const char *text;       // its name
    bool guesses;           // decoded with them; else the row that they are compared with
    double acceptance;      // how many of the guesses were right, 0 to 1; -1: none were made
    double tokens_per_pass; // drawn
    double ratio;           // of the speeds, with guesses to without: the median of the repetitions
} RowLookup;

typedef struct {
    char test[80];
    int n_prompt, n_gen, n_depth; // n_prompt or n_gen may be 0
    int n_sequences;              // that generate together
    int n;                        // repetitions
    double seconds[MAX_REPEATS], speed[MAX_REPEATS];
    double gb;               // GB/s of decode; 0 for prefill, and with guesses
    const RowLookup *lookup; // NULL: no row of --lookup
    Profile profile;
} Row;

// What stands above the rows, for report_start.
extern const char row_csv_header[], row_md_header[], row_lookup_csv_header[];
void row_print(Bench *b, const Row *r);
