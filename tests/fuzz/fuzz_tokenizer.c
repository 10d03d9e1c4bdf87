// fuzz_tokenizer: any vocabulary, any text, any ids.
//
// Byte 0 says which parts the vocabulary has and how to encode, byte 1 how many pieces follow: a header byte
// (length, type), a score byte and the text of each. The rest is the text. Aborts when the ids are not a finished
// encoding of the text, when text makes a token it must not, or when decoding gives anything but valid UTF-8.
#include "textstream.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#include "../utf8_rules.h"
#include "fuzz.h"

enum { HAS_PREFIX = 1, HAS_BYTES = 2, HAS_UNKNOWN = 4, WITH_SPECIAL = 8, WITH_BOS = 16 };

static char byte_text[256][8];

static void put_piece(Vocab *v, const char *text, int len, float score, TokenType type) {
    Piece p = {.text = text, .len = len, .score = score, .type = type};
    arrput(v->pieces, p);
}

// Types: mostly NORMAL. Scores: few values, so that ties are common, and all that is special about floats.
static void read_vocab(Vocab *v, const uint8_t **data, size_t *size, unsigned parts, unsigned n_pieces) {
    static const float scores[] = {0, -0.0f, -1, -1, -2, 3, -1e9f, 1e30f, NAN, INFINITY, -INFINITY, 1e-40f};
    arrsetcap(v->pieces, 320);
    put_piece(v, "<unk>", 5, 0, TOKEN_UNKNOWN);
    put_piece(v, "<s>", 3, 0, TOKEN_CONTROL);
    for (int b = 0; (parts & HAS_BYTES) && b < 256; b++) {
        if (!byte_text[b][0]) snprintf(byte_text[b], sizeof byte_text[b], "<0x%02X>", (unsigned)b);
        put_piece(v, byte_text[b], 6, 0, TOKEN_BYTE);
    }
    for (unsigned i = 0; i < n_pieces && *size >= 2; i++) {
        uint8_t header = (*data)[0], score = (*data)[1];
        *data += 2, *size -= 2;
        int len = header & 7;
        if ((size_t)len > *size) len = (int)*size;
        TokenType type = header >> 3 == 31   ? TOKEN_CONTROL
                         : header >> 3 == 30 ? TOKEN_BYTE
                         : header >> 3 == 29 ? TOKEN_UNKNOWN
                                             : TOKEN_NORMAL;
        put_piece(v, (const char *)*data, len, scores[score % 12], type);
        *data += len, *size -= (size_t)len;
    }
}

static size_t raw_bytes(const Piece *p, char *out) {
    if (p->type == TOKEN_BYTE) {
        REQUIRE(p->len == 6);
        char text[7] = "";
        memcpy(text, p->text, 6);
        out[0] = (char)strtoul(text + 1, NULL, 16);
        return 1;
    }
    memcpy(out, p->text, (size_t)p->len);
    return (size_t)p->len;
}

static int find_normal(const Tokenizer *t, const char *text, size_t len) {
    for (int id = 0; id < tokenizer_size(t); id++) {
        const Piece *p = tokenizer_piece(t, id);
        if (p->type == TOKEN_NORMAL && (size_t)p->len == len && !memcmp(p->text, text, len)) return id;
    }
    return -1;
}

// The bytes of the ids are the text, no two neighbours make a piece (unless something between them was dropped),
// and only text tokens came out.
static void check_ids(const Tokenizer *t, unsigned parts, const int32_t *ids, int n, const char *text, size_t size) {
    size_t n_raw = 0, last = 0;
    char *raw = malloc(8 * (size_t)n + 8);
    bool prefix = (parts & HAS_PREFIX) && size;
    for (int i = 0; i < n; i++) {
        const Piece *p = tokenizer_piece(t, ids[i]);
        REQUIRE(p);
        bool bos = i == 0 && (parts & WITH_BOS) && ids[i] == 1;
        if (bos) continue;
        REQUIRE(p->type != TOKEN_CONTROL || (parts & WITH_SPECIAL));
        REQUIRE(p->type != TOKEN_UNKNOWN || (parts & WITH_SPECIAL) || ((parts & HAS_UNKNOWN) && !(parts & HAS_BYTES)));
        size_t len = raw_bytes(p, raw + n_raw);
        bool both = i && (parts & (HAS_BYTES | HAS_UNKNOWN)) && p->type == TOKEN_NORMAL &&
                    tokenizer_piece(t, ids[i - 1])->type == TOKEN_NORMAL;
        int pair = both && n_raw < 64 ? find_normal(t, raw + last, n_raw + len - last) : -1;
        REQUIRE(pair < 0 || isnan(tokenizer_piece(t, pair)->score));
        last = n_raw;
        n_raw += len;
    }
    if ((parts & HAS_BYTES) && !(parts & WITH_SPECIAL)) {
        REQUIRE(n_raw == size + prefix && (!prefix || raw[0] == ' '));
        REQUIRE(!size || !memcmp(raw + prefix, text, size));
    }
    free(raw);
}

static size_t decode(const Tokenizer *t, const int32_t *ids, int n, char **out) {
    size_t room = textstream_room(t), n_out = 0;
    *out = malloc(((size_t)n + 1) * room);
    TextStream stream = textstream_start(t, true);
    for (int i = 0; i <= n; i++) {
        size_t k = i < n ? textstream_push(&stream, ids[i], *out + n_out) : textstream_finish(&stream, *out + n_out);
        REQUIRE(k <= room && ref_valid(*out + n_out, k));
        n_out += k;
    }
    return n_out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    unsigned parts = data[0], n_pieces = data[1] % 32;
    data += 2, size -= 2;
    Vocab v = {.bos_id = 1, .eos_id = -1, .unk_id = parts & HAS_UNKNOWN ? 0 : -1};
    v.add_space_prefix = parts & HAS_PREFIX;
    read_vocab(&v, &data, &size, parts, n_pieces);
    Tokenizer *t = tokenizer_new(&v, NULL, 0);
    REQUIRE(t);

    const char *text = (const char *)data;
    unsigned flags = (parts & WITH_BOS ? TOKENIZE_BOS : 0u) | (parts & WITH_SPECIAL ? TOKENIZE_SPECIAL : 0u);
    int32_t *ids;
    int n = tokenizer_encode(t, text, size, flags, &ids, NULL, 0);
    REQUIRE(n >= 0);
    check_ids(t, parts, ids, n, text, size);

    char *out;
    size_t n_out = decode(t, ids, n, &out);
    bool exact = (parts & HAS_BYTES) && !(parts & WITH_SPECIAL) && ref_valid(text, size);
    REQUIRE(!exact || (n_out == size && (!size || !memcmp(out, text, size))));
    free(out);
    free(ids);

    int32_t *any = malloc((size + 1) * sizeof *any);
    for (size_t i = 0; i < size; i++) any[i] = (int32_t)(data[i] * 3u % (unsigned)(tokenizer_size(t) + 2)) - 1;
    decode(t, any, (int)size, &out);
    free(out);
    free(any);
    tokenizer_free(t);
    return 0;
}
