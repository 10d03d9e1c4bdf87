// make_parrot.h: writes a llama2.c model that says what it was made to say, piece by piece.
//
//   Parrot p = parrot_start();
//   parrot_song(&p, "Q", "<tool", "_call>", NULL); // after a prompt that ends with Q it says <tool_call>
//   int32_t id = parrot_say(&p, pieces, n);        // after a prompt that ends with this id, the pieces
//   parrot_write(&p, "parrot.bin", "parrot.tokenizer.bin"); // in the folder of files.h; frees it
//
// Its only layer does nothing; its embeddings are one-hot, and its classifier is the table of what follows what, so
// that the next token is all but certain at temperature 0. Pieces are any bytes.
#pragma once
#include "files.h"

#include <stdarg.h>

enum { PARROT_FIRST = 259, PARROT_MOST = 2048, PARROT_CONTEXT = 2048 };

typedef struct {
    int n; // tokens
    char *pieces[PARROT_MOST];
    int next[PARROT_MOST]; // the token that follows
} Parrot;

UNUSED static Parrot parrot_start(void) {
    Parrot p = {.n = PARROT_FIRST};
    static const char *const control[] = {"<unk>", "\n<s>\n", "\n</s>\n"};
    for (int id = 0; id < PARROT_FIRST; id++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)(id - 3) & 255u);
        p.pieces[id] = strdup(id < 3 ? control[id] : name);
        p.next[id] = 2;
    }
    return p;
}

static int32_t parrot_piece(Parrot *p, const char *bytes, size_t n) {
    p->pieces[p->n] = strndup(bytes, n);
    p->next[p->n] = 2; // the end
    return p->n++;
}

// Pieces after a token of their own, whose id is returned.
UNUSED static int32_t parrot_say(Parrot *p, const char *const *pieces, int n) {
    int32_t first = parrot_piece(p, "@", 1), at = first;
    for (int i = 0; i < n; i++) {
        int32_t id = parrot_piece(p, pieces[i], strlen(pieces[i]));
        p->next[at] = id;
        at = id;
    }
    return first;
}

UNUSED static void parrot_song(Parrot *p, const char *after, ...) {
    const char *pieces[64];
    int n = 0;
    va_list args;
    va_start(args, after);
    while (n < 64 && (pieces[n] = va_arg(args, const char *))) n++;
    va_end(args);
    int32_t first = parrot_say(p, pieces, n);
    p->next[3 + (unsigned char)*after] = p->next[first];
}

static void parrot_zeros(FILE *f, size_t n) {
    for (float zero = 0; n; n--) fwrite(&zero, sizeof zero, 1, f);
}

static void parrot_ones(FILE *f, size_t n) {
    for (float one = 1; n; n--) fwrite(&one, sizeof one, 1, f);
}

// [n][dim], row i with a one at `at[i]`; at NULL: at i.
static void parrot_table(FILE *f, const Parrot *p, int dim, const int *at) {
    float *row = calloc((size_t)dim, sizeof *row);
    for (int i = 0; i < p->n; i++) {
        for (int k = 0; k < p->n; k++) row[k] = at ? at[k] == i : k == i;
        fwrite(row, sizeof *row, (size_t)dim, f);
    }
    free(row);
}

static void parrot_write_tokenizer(const Parrot *p, const char *name) {
    FILE *f = fopen(in_folder(name), "wb");
    fwrite(&(int32_t){64}, 4, 1, f);
    for (int id = 0; id < p->n; id++) {
        int32_t len = (int32_t)strlen(p->pieces[id]);
        fwrite(&(float){id < PARROT_FIRST ? 0 : (float)-id}, 4, 1, f);
        fwrite(&len, 4, 1, f);
        fwrite(p->pieces[id], 1, (size_t)len, f);
    }
    fclose(f);
}

UNUSED static void parrot_write(Parrot *p, const char *model, const char *tokenizer) {
    size_t dim = (size_t)(p->n + 31) / 32 * 32, hidden = 32;
    int32_t header[7] = {(int32_t)dim, (int32_t)hidden, 1, (int32_t)dim / 32, 1, -p->n, PARROT_CONTEXT};
    FILE *f = fopen(in_folder(model), "wb");
    fwrite(header, sizeof header, 1, f);
    parrot_table(f, p, (int)dim, NULL);
    parrot_ones(f, dim);                          // attention norm
    parrot_zeros(f, dim * dim + 2 * 32 * dim);    // queries, keys, values
    parrot_zeros(f, dim * dim);                   // attention output
    parrot_ones(f, dim);                          // feed-forward norm
    parrot_zeros(f, 3 * dim * hidden);            // feed-forward
    parrot_ones(f, dim);                          // output norm
    parrot_zeros(f, (size_t)PARROT_CONTEXT * 32); // RoPE tables that readers skip
    parrot_table(f, p, (int)dim, p->next);
    fclose(f);
    parrot_write_tokenizer(p, tokenizer);
    for (int i = 0; i < p->n; i++) free(p->pieces[i]);
}
