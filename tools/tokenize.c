// tokenize: text to token ids, and back.
//
// Owns only the command line; load_vocab finds and reads the vocabulary. The model itself is not read: a GGUF with
// only a vocabulary, a folder with only tokenizer.json, or a tokenizer.bin is enough.
#include "cli.h"

#include "load.h"
#include "textstream.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Tokenizer *tokenizer;
    unsigned flags;
    bool as_list, count;
} Job;

static void print_ids(const Job *j, const char *text, size_t n) {
    char err[512];
    int32_t *ids;
    int n_ids = tokenizer_encode(j->tokenizer, text, n, j->flags, &ids, err, sizeof err);
    if (n_ids < 0) die(1, "%s", err);
    if (j->as_list) putchar('[');
    for (int i = 0; i < n_ids; i++) printf("%s%d", !i ? "" : j->as_list ? ", " : " ", ids[i]);
    puts(j->as_list ? "]" : "");
    if (j->count) printf("Total number of tokens: %d\n", n_ids);
    free(ids);
}

static void print_texts(const Job *j, const char *text, size_t n, const char *separator) {
    size_t n_separator = separator ? strlen(separator) : 0;
    bool any = false;
    const char *end;
    while (n_separator && (end = memmem(text, n, separator, n_separator))) {
        size_t len = (size_t)(end - text);
        print_ids(j, text, len);
        text = end + n_separator;
        n -= len + n_separator;
        any = true;
    }
    if (n || !any) print_ids(j, text, n);
}

static void print_decoded(const Job *j, const char *text) {
    char *out = malloc(textstream_room(j->tokenizer)), *end;
    if (!out) die(1, "out of memory");
    TextStream stream = textstream_start(j->tokenizer, true);
    for (text += strspn(text, " \t\r\n"); *text; text = end + strspn(end, " \t\r\n")) {
        errno = 0;
        long id = strtol(text, &end, 10);
        bool valid = end > text && !errno && (!*end || strchr(" \t\r\n", *end));
        if (!valid) die(1, "expected ids, found '%.20s'", text);
        if (id < 0 || id >= tokenizer_size(j->tokenizer)) {
            die(1, "expected ids from 0 to %d, found %ld", tokenizer_size(j->tokenizer) - 1, id);
        }
        fwrite(out, 1, textstream_push(&stream, (int)id, out), stdout);
    }
    fwrite(out, 1, textstream_finish(&stream, out), stdout);
    free(out);
}

int main(int argc, char **argv) {
    static const char *path, *text, *file, *separator;
    static bool decode, no_special, no_bos, as_list, count, ignored;
    char err[512];
    const Flag flags[] = {
        MODEL_FLAG(&path),
        {"-p --prompt", "TEXT", "the text", TAKES_STRING(&text)},
        {"-f --file", "FILE", "read the text from a file, - for stdin (default: stdin)", TAKES_STRING(&file)},
        {"--separator", "TEXT", "split the input at this string and print a line of ids for each part",
         TAKES_STRING(&separator)},
        {"--no-special | --no-parse-special", NULL, "do not parse special tokens such as \"<s>\" in the text",
         SETS(&no_special)},
        {"--no-bos", NULL, "do not add BOS, EOS and other special tokens", SETS(&no_bos)},
        {"--decode", NULL, "convert ids to text", SETS(&decode)},
        {"--ids", NULL, "ids as a list of Python: [1, 2]", SETS(&as_list)},
        {"--show-count", NULL, "their number too", SETS(&count)},
        {"--stdin --log-disable --no-escape", NULL, NULL, SETS(&ignored)}, // what holds here anyway
    };
    const Program program = {"build/tokenize", "MODEL [options]",
                             "  MODEL: a .gguf, a Hugging Face folder, tokenizer.json or tokenizer.bin\n", flags,
                             sizeof flags / sizeof *flags};
    cli_one_model(&program, argc, argv, &path);
    Job j = {.flags = (no_bos ? 0 : TOKENIZE_BOS) | (no_special ? 0 : TOKENIZE_SPECIAL)};
    j.as_list = as_list;
    j.count = count;
    if (text && file) die(2, "-p and -f: expected one, found both");
    file_guard_shrinking();
    Vocab vocab;
    File mapped;
    if (load_vocab(&vocab, &mapped, NULL, path, err, sizeof err)) die(1, "%s", err);
    j.tokenizer = tokenizer_new(&vocab, err, sizeof err);
    if (!j.tokenizer) die(1, "%s", err);
    tell_notes(tokenizer_notes(j.tokenizer)->text);
    size_t n = text ? strlen(text) : 0;
    char *read = text ? NULL : (file ? read_text : read_bytes)(file ? file : "-", &n);
    if (decode) print_decoded(&j, text ? text : read);
    else print_texts(&j, text ? text : read, n, separator);
    free(read);
    tokenizer_free(j.tokenizer);
    file_unmap(&mapped);
    return 0;
}
