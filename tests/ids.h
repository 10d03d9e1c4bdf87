// ids.h: what texts become and what ids say, for the checks of tokenizers.
#pragma once
#include "files.h"
#include "textstream.h"

UNUSED static void same_ids(const Tokenizer *t, const char *text, size_t n, unsigned flags, const int *want,
                            int n_want) {
    char err[256] = "", found[600] = "";
    int32_t *ids;
    int n_ids = tokenizer_encode(t, text, n, flags, &ids, err, sizeof err);
    bool same = n_ids == n_want;
    for (int i = 0; i < n_ids && i < n_want; i++) same &= ids[i] == want[i];
    for (int i = 0; i < n_ids && i < 40; i++) snprintf(found + strlen(found), 14, " %d", ids[i]);
    CHECK(same, "'%.*s': expected %d ids (%d ...), found %d:%s %s", (int)n, text, n_want, n_want ? want[0] : -1, n_ids,
          found, err);
    free(ids);
}

UNUSED static void text_ids(const Tokenizer *t, const char *text, unsigned flags, const int *want, int n) {
    same_ids(t, text, strlen(text), flags, want, n);
}

UNUSED static size_t decode_ids(const Tokenizer *t, const int32_t *ids, int n, char **out) {
    size_t room = textstream_room(t), n_out = 0;
    *out = need(((size_t)n + 1) * room);
    TextStream s = textstream_start(t, true);
    for (int i = 0; i < n; i++) n_out += textstream_push(&s, ids[i], *out + n_out);
    return n_out + textstream_finish(&s, *out + n_out);
}

// The known ids of each sentence, a line each; the sentences end with a mark.
UNUSED static void known_ids(const Tokenizer *t, const char *vocab, bool comes_back) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[256];
    snprintf(path, sizeof path, "%s.inp", vocab);
    char *inputs = read_file(path, NULL), *in = inputs;
    snprintf(path, sizeof path, "%s.out", vocab);
    char *outputs = read_file(path, NULL), *line = outputs;
    int n_cases = 0;
    for (char *end; t && (end = strchr(line, '\n')); line = end + 1, n_cases++) {
        int want[400], n_want = 0;
        char *in_end = strstr(in, mark), *back;
        size_t n = in_end ? (size_t)(in_end - in) : strlen(in);
        for (char *p = line, *next; strtol(p, &next, 10), next > p && next <= end && n_want < 400; p = next) {
            want[n_want++] = (int)strtol(p, NULL, 10);
        }
        same_ids(t, in, n, 0, want, n_want);
        size_t n_back = decode_ids(t, want, n_want, &back);
        CHECK(!comes_back || (n_back == n && !memcmp(back, in, n)), "%s: case %d came back as '%.*s'", vocab, n_cases,
              (int)n_back, back);
        free(back);
        in = in_end ? in_end + strlen(mark) : in + n;
    }
    CHECK(n_cases == 46, "%s: %d cases", vocab, n_cases);
    free(inputs);
    free(outputs);
}
