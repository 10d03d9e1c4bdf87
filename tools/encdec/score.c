// score: see score.h.
#include "score.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { MAX_PHONEMES = 1000, LAST_SPECIAL = 3 };

// Vowels that differ in their last digit alone are one phoneme.
static int32_t *plain_phonemes(const G2p *m) {
    int32_t *plain = malloc(sizeof *plain * (size_t)m->model.vocab_size);
    if (!plain) return NULL;
    for (int id = 0; id < m->model.vocab_size; id++) {
        const char *text = symbols_text(&m->phonemes, id);
        size_t n = text ? strlen(text) : 0;
        plain[id] = id;
        if (n < 2 || !isdigit((unsigned char)text[n - 1])) continue;
        for (int other = 0; other < id; other++) {
            const char *rival = symbols_text(&m->phonemes, other);
            if (rival && strlen(rival) == n && isdigit((unsigned char)rival[n - 1]) && !memcmp(rival, text, n - 1)) {
                plain[id] = plain[other];
                break;
            }
        }
    }
    return plain;
}

// The symbols after the word of a line. NULL: none, or too many.
static int32_t *read_answer(const G2p *m, const char *at, const char *end) {
    int32_t *ids = NULL;
    while (at < end) {
        bool valid;
        size_t n = 1;
        if (isspace((unsigned char)*at)) {
            at++;
            continue;
        }
        if (*at == '#') break;
        if (m->phonemes.spaced) {
            while (at + n < end && !isspace((unsigned char)at[n])) n++;
        } else {
            n = utf8_length(at, &valid);
        }
        arrput(ids, symbols_find(&m->phonemes, at, n));
        at += n;
    }
    if (arrlen(ids) > MAX_PHONEMES) arrfree(ids);
    return ids;
}

typedef struct {
    char *key;
    int value;
} Index;

static int read_line(Dictionary *d, Index **index, const G2p *m, char *line, size_t n, char *err, size_t errlen) {
    char *end = line + n, *word_end = line;
    while (word_end < end && !isspace((unsigned char)*word_end)) word_end++;
    int32_t *answer = read_answer(m, word_end, end);
    if (!answer) return fail(err, errlen, "expected a word and 1 to %d phonemes", MAX_PHONEMES);
    char *paren = memchr(line, '(', (size_t)(word_end - line));
    if (paren > line && word_end[-1] == ')') word_end = paren; // a further pronunciation
    char *word = strndup(line, (size_t)(word_end - line));
    ptrdiff_t at = word ? shgeti(*index, word) : -1;
    if (word && at < 0 && !words_add(&d->words, m, word, strlen(word), err, errlen)) {
        shput(*index, word, (int)arrlen(d->answers));
        arrput(d->answers, NULL);
        at = shlen(*index) - 1;
    }
    free(word);
    if (at < 0) {
        arrfree(answer);
        return fail(err, errlen, "out of memory");
    }
    arrput(d->answers[(*index)[at].value], answer);
    return 0;
}

int dictionary_read(Dictionary *d, const G2p *m, const char *path, char *err, size_t errlen) {
    *d = (Dictionary){.plain = plain_phonemes(m)};
    File file;
    if (!d->plain) return fail(err, errlen, "out of memory");
    int rc = file_map(&file, path, err, errlen), number = 0;
    if (rc) {
        dictionary_free(d);
        return -1;
    }
    Index *index = NULL;
    sh_new_strdup(index);
    char *text = strndup((const char *)file.data, file.size), *saved = text, *line;
    if (!text) rc = fail(err, errlen, "%s: out of memory", path);
    else if (strlen(text) < file.size)
        rc = fail(err, errlen, "%s: expected text, found a byte 0 at %zu", path, strlen(text));
    while (!rc && (line = strsep(&saved, "\n"))) {
        char why[256];
        number++;
        size_t n = strcspn(line, "\r");
        if (strspn(line, " \t\r") == strlen(line) || !strncmp(line, ";;;", 3) || !strncmp(line, "# ", 2)) continue;
        if (read_line(d, &index, m, line, n, why, sizeof why))
            rc = fail(err, errlen, "%s: line %d: %s", path, number, why);
    }
    if (!rc && !arrlen(d->words))
        rc = fail(err, errlen, "%s: expected words with their pronunciations, found none", path);
    shfree(index);
    free(text);
    file_unmap(&file);
    if (rc) dictionary_free(d);
    return rc;
}

void dictionary_free(Dictionary *d) {
    for (ptrdiff_t i = 0; i < arrlen(d->answers); i++) {
        for (ptrdiff_t j = 0; j < arrlen(d->answers[i]); j++) arrfree(d->answers[i][j]);
        arrfree(d->answers[i]);
    }
    arrfree(d->answers);
    words_free(&d->words);
    free(d->plain);
    *d = (Dictionary){0};
}

// Levenshtein distance; plain NULL: stress counts.
static int distance(const int32_t *a, int n_a, const int32_t *b, int n_b, const int32_t *plain) {
    int row[MAX_PHONEMES + 1];
    for (int j = 0; j <= n_b; j++) row[j] = j;
    for (int i = 0; i < n_a; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 0; j < n_b; j++) {
            bool same = b[j] >= 0 && (plain ? plain[a[i]] == plain[b[j]] : a[i] == b[j]);
            int best = diagonal + !same;
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[n_b];
}

Rates dictionary_score(const Dictionary *d, const Decoded *out, bool stress) {
    Rates r = {.n_words = (int)arrlen(d->words)};
    for (int i = 0; i < r.n_words; i++) {
        int32_t symbols[MAX_PHONEMES];
        int n = 0, best = 0, best_length = 0;
        for (int t = 0; t < out[i].n && n < MAX_PHONEMES; t++) {
            if (out[i].ids[t] > LAST_SPECIAL) symbols[n++] = out[i].ids[t];
        }
        for (ptrdiff_t j = 0; j < arrlen(d->answers[i]); j++) {
            const int32_t *answer = d->answers[i][j];
            int length = (int)arrlen(answer), edits = distance(symbols, n, answer, length, stress ? NULL : d->plain);
            if (j && edits >= best) continue;
            best = edits;
            best_length = length;
        }
        r.edits += best;
        r.n_phonemes += best_length;
        r.wrong_words += best > 0;
    }
    return r;
}
