// vocab_merges: the vocabulary of vocab.json and merges.txt, as GPT-2 and its kin were first published.
//
// Owns what such a folder leaves unsaid: byte-level BPE, split as the named class does. It becomes the tokenizer.json
// that would have been written, which vocab_json reads. Refuses what that refuses. Called by vocab_folder.
#include "vocab_merges.h"

#include "file.h"
#include "vocab_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The classes of transformers whose pattern is not GPT-2's.
static const struct {
    const char *name, *steps; // normalizer and pre_tokenizer
} classes[] = {
    {"GPT2Tokenizer", NULL},
    {"GPTNeoXTokenizer", NULL},
    {"Qwen2Tokenizer",
     "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
     "\"Split\","
     "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
     " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\"}"
     ","
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"},
};
static const char gpt2_steps[] = "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";

// The class that tokenizer_config.json names, or its pattern as a guess.
static const char *find_steps(const char *folder, Notes *notes) {
    char path[4096], name[80] = "", err[16];
    Settings s;
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    if (!access(path, R_OK) && !settings_read(&s, path, err, sizeof err)) {
        snprintf(name, sizeof name, "%s", settings_string(&s, "tokenizer_class", ""));
        settings_free(&s);
    }
    size_t n = strlen(name);
    if (n > 4 && !strcmp(name + n - 4, "Fast")) name[n - 4] = 0;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (!strcmp(name, classes[i].name)) return classes[i].steps ? classes[i].steps : gpt2_steps;
    }
    note(notes, "vocab.json and merges.txt do not say how texts are split: a guess, GPT-2's%s%s",
         *name ? ", for the class " : "", name);
    return gpt2_steps;
}

static void put_string(FILE *f, const char *text, size_t n) {
    fputc('"', f);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') fputc('\\', f);
        if (c < ' ') fprintf(f, "\\u%04x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

// A string for each line but the first that says the version.
static void put_merges(FILE *f, const File *file) {
    const char *at = (const char *)file->data, *end = at + file->size;
    bool first = true;
    for (const char *next; at < end; at = next) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((newline ? newline : end) - at);
        next = newline ? newline + 1 : end;
        if (n && at[n - 1] == '\r') n--;
        if (!n || (n >= 8 && !memcmp(at, "#version", 8))) continue;
        if (!first) fputc(',', f);
        put_string(f, at, n);
        first = false;
    }
}

static char *document(const File *vocab, const File *merges, const char *steps, size_t *n) {
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    if (!f) return NULL;
    fprintf(f, "{%s,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":", steps);
    fwrite(vocab->data, 1, vocab->size, f);
    fputs(",\"merges\":[", f);
    put_merges(f, merges);
    fputs("]}}", f);
    bool written = !ferror(f);
    if (!fclose(f) && written) return text;
    free(text);
    return NULL;
}

static int read_document(Vocab *v, char *path, const char *text, size_t n, json_t *added, char *err, size_t errlen) {
    if (!text) return fail(err, errlen, "%s: out of memory", path);
    const File whole = {.path = path, .data = (const uint8_t *)text, .size = n, .borrowed = true};
    return vocab_json_read_with(v, &whole, added, err, errlen);
}

int vocab_merges_read(Vocab *v, const char *folder, json_t *added, char *err, size_t errlen) {
    char path[4096], *text;
    size_t n = 0;
    File vocab, merges;
    Notes notes = {0};
    snprintf(path, sizeof path, "%s/vocab.json", folder);
    if (file_map(&vocab, path, err, errlen)) return -1;
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    int rc = file_map(&merges, path, err, errlen);
    if (!rc) {
        text = document(&vocab, &merges, find_steps(folder, &notes), &n);
        rc = read_document(v, vocab.path, text, n, added, err, errlen);
        if (!rc) notes_append(&v->notes, &notes);
        free(text);
        file_unmap(&merges);
    }
    file_unmap(&vocab);
    return rc;
}
