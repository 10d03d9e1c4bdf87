// fuzz_vocab_spm: tokenizer.model from arbitrary bytes, and a text through what it makes.
//
// Byte 0: the input itself, or a sound model over which the input writes: pairs of a place and a byte; then, behind a
// 0xFF as a place, a text. Aborts when what loads is not as Vocab promises, and when ids are not of the vocabulary.
#include "textstream.h"
#include "vocab_spm.h"

#include <math.h>

#include <stb/stb_ds.h>

#include "fuzz.h"

// <unk>, </s>, U+2581, a, U+2581 a, <0x41>, a token of the user; then a trainer and a normalizer.
static const char sound[] = "\x0A\x0E\x0A\x05<unk>\x15\0\0\0\0\x18\2"
                            "\x0A\x0D\x0A\4</s>\x15\0\0\0\0\x18\3"
                            "\x0A\x0A\x0A\3\xE2\x96\x81\x15\0\0\x40\xC0"
                            "\x0A\x08\x0A\1a\x15\0\0\0\xC0"
                            "\x0A\x0B\x0A\4\xE2\x96\x81"
                            "a\x15\0\0\x80\xBF"
                            "\x0A\x0F\x0A\6<0x41>\x15\0\0\0\0\x18\6"
                            "\x0A\x0B\x0A\2[x\x15\0\0\0\0\x18\4"
                            "\x12\x0B\x18\2\xC0\2\0\xC8\2\1\xD0\2\1"
                            "\x1A\x04\x18\1\x20\0";

static volatile int sink;

static void check_vocab(const Vocab *v) {
    int n = (int)arrlen(v->pieces);
    REQUIRE(n > 0 && v->bos_id < n && v->eos_id < n && v->unk_id < n);
    REQUIRE(v->kind == VOCAB_UNIGRAM || v->kind == VOCAB_SCORE_BPE);
    for (int id = 0; id < n; id++) {
        const Piece *p = &v->pieces[id];
        REQUIRE(p->len >= 0 && p->text && !isnan(p->score) && p->type <= TOKEN_UNUSED);
        REQUIRE(p->type != TOKEN_BYTE || piece_byte(p) >= 0);
        if (p->len) sink = p->text[0] + p->text[p->len - 1];
    }
}

static void encode(Vocab *v, const char *text, size_t n) {
    char err[256];
    int32_t *ids = NULL;
    Tokenizer *t = tokenizer_new(v, err, sizeof err);
    REQUIRE(t);
    int n_ids = tokenizer_encode(t, text, n, TOKENIZE_BOS, &ids, err, sizeof err);
    for (int i = 0; i < n_ids; i++) REQUIRE(ids[i] >= 0 && ids[i] < tokenizer_size(t));
    free(ids);
    tokenizer_free(t);
}

static void try_model(const uint8_t *bytes, size_t n, const char *text, size_t n_text) {
    static char path[] = "fuzz.tokenizer.model";
    char err[256] = "";
    Vocab v;
    File file = {.path = path, .data = bytes, .size = n, .borrowed = true};
    file_is_sentencepiece(&file);
    int rc = vocab_spm_read(&v, &file, err, sizeof err);
    if (rc) {
        REQUIRE(rc == -1 && !v.pieces && !v.text);
        require_line(err, path);
        return;
    }
    check_vocab(&v);
    encode(&v, text, n_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input in = {data, data + size};
    bool raw = next(&in, 1);
    size_t left = (size_t)(in.end - in.at), n = raw ? left : sizeof sound - 1;
    uint8_t *bytes = malloc(n + 1);
    REQUIRE(bytes);
    memcpy(bytes, raw ? in.at : (const uint8_t *)sound, n);
    while (!raw && in.at < in.end && *in.at != 0xFF) {
        unsigned place = next(&in, 254);
        bytes[place % n] = (uint8_t)next(&in, 255);
    }
    if (!raw && in.at < in.end) in.at++;
    try_model(bytes, n, (const char *)in.at, (size_t)(in.end - in.at));
    free(bytes);
    return 0;
}
