// logits_file: the token distributions that a model predicted for a text, saved to compare other models with. Called by
// perplexity.
//
// Owns the format, little-endian:
//   char magic[8] = "tslogits"; u32 version = 1, n_vocab, n_ctx, n_chunks
//   i32 tokens[n_chunks][n_ctx]                                      the model's input
//   { f32 step, nll; u16 below[n_vocab] } [n_chunks][n_ctx - 1 - n_ctx / 2]
// A row is the prediction after one of the positions n_ctx / 2 .. n_ctx - 2 of a chunk: log p(i) is -step * below[i]
// minus the logarithm of the row's sum; below is 0 for the most likely token, and 65535 means p = 0. nll is that of the
// actual next token, before rounding. Refuses a file whose size does not match its counts, ids outside the vocabulary
// and rows that are not a distribution.
#pragma once
#include "file.h"
#include "outfile.h"

#include <stdio.h>

// A row takes 2 n_vocab + 8 bytes, half of fp32: 64 KB for a vocabulary of 32,000. Because rows are normalized again,
// only the square of the rounding error enters a KL divergence: at most step^2 / 8, 3e-8 nats.
enum {
    LOGITS_SPAN = 32,       // nats below the most likely token that are represented: e^-32 = 1e-14
    LOGITS_BEYOND = 0xffff, // p = 0: further below
};

// Scored positions of a chunk, from n_ctx / 2 on. n_ctx >= 4.
static inline int logits_scored(int n_ctx) {
    return n_ctx - 1 - n_ctx / 2;
}

// -log p of the token `target` given logits[n]; log_total: the logarithm of the sum of their exponentials.
double logits_nll(const float *logits, int n, int target, double *log_total);

typedef struct {
    const File *file;
    int n_vocab, n_ctx, n_chunks;
    uint64_t tokens_at, rows_at; // byte offsets
} LogitsFile;

typedef struct {
    double step, nll, log_total; // log p(i) = -step * below[i] - log_total
    const uint16_t *below;       // [n_vocab], in the mapping
} LogitsRow;

// Both return 0, or -1 with one line in err. The caller owns the file and must keep it mapped.
int logits_read(LogitsFile *l, const File *f, char *err, size_t errlen);
int logits_row(const LogitsFile *l, uint64_t row, LogitsRow *out, char *err, size_t errlen);

// Checks that the file is of these tokens [n_chunks][n_ctx]. -1 with one line in err if not.
int logits_match(const LogitsFile *l, const int32_t *tokens, int n_vocab, int n_ctx, int n_chunks, char *err,
                 size_t errlen);

typedef struct {
    OutFile out;
    uint16_t *below; // [n_vocab]
    int n_vocab;
} LogitsWriter;

LogitsWriter logits_writer(const char *path, const int32_t *tokens, int n_vocab, int n_ctx, int n_chunks);
void logits_put(LogitsWriter *w, const float *logits, double nll); // the next row
void logits_finish(LogitsWriter *w);
void logits_abandon(LogitsWriter *w); // instead of finishing: leaves nothing
