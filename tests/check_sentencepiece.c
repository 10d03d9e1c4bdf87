// check_sentencepiece: tokenizer.model. One made of the tokens of a real GGUF vocabulary gives that vocabulary's known
// ids; small ones with each flag, by hand; cut and changed ones. The message is written here, field by field.
#include "ids.h"
#include "load.h"
#include "pieces.h"
#include "vocab_spm.h"

#include <stb/stb_ds.h>

#define SPM SHARED_DATA "vocab/ggml-vocab-llama-spm.gguf"

// ---- writing a message

typedef struct {
    uint8_t *at; // stb_ds array
} Proto;

static void put_varint(Proto *p, uint64_t value) {
    for (; value > 127; value >>= 7) arrput(p->at, (uint8_t)(value | 128));
    arrput(p->at, (uint8_t)value);
}

static void put_number(Proto *p, unsigned field, uint64_t value) {
    put_varint(p, field << 3);
    put_varint(p, value);
}

static void put_bytes(Proto *p, unsigned field, const void *bytes, size_t n) {
    put_varint(p, field << 3 | 2);
    put_varint(p, n);
    if (n) memcpy(arraddnptr(p->at, n), bytes, n);
}

static void put_float(Proto *p, unsigned field, float value) {
    put_varint(p, field << 3 | 5);
    memcpy(arraddnptr(p->at, 4), &value, 4);
}

// One message within another, emptied.
static void put_inner(Proto *p, unsigned field, Proto *inner) {
    put_bytes(p, field, inner->at, arrlenu(inner->at));
    arrfree(inner->at);
}

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED_PIECE, BYTE };

static void put_piece(Proto *p, const char *text, size_t n, float score, int type) {
    Proto piece = {0};
    put_bytes(&piece, 1, text, n);
    put_float(&piece, 2, score);
    if (type != NORMAL) put_number(&piece, 3, (uint64_t)type);
    put_inner(p, 1, &piece);
}

// ---- reading it

static Tokenizer *open_model(const Proto *p, char *err, size_t errlen) {
    static char path[] = "tokenizer.model";
    File f = {.path = path, .data = p->at, .size = arrlenu(p->at), .borrowed = true};
    Vocab v;
    *err = 0;
    return vocab_spm_read(&v, &f, err, errlen) ? NULL : tokenizer_new(&v, err, errlen);
}

static void expect_ids(const Proto *p, const char *text, const char *want, const char *what) {
    char err[256] = "", found[200] = "";
    int32_t *ids = NULL;
    Tokenizer *t = open_model(p, err, sizeof err);
    int n = t ? tokenizer_encode(t, text, strlen(text), TOKENIZE_BOS | TOKENIZE_SPECIAL, &ids, err, sizeof err) : -1;
    for (int i = 0; i < n; i++) snprintf(found + strlen(found), 12, "%s%d", i ? " " : "", ids[i]);
    CHECK(n >= 0 && !strcmp(found, want), "%s: '%s': expected [%s], found [%s] %s", what, text, want, found, err);
    free(ids);
    tokenizer_free(t);
}

// The tokens of a GGUF file as the trainer would have stored them, with the known ids of its sentences.
static void real_vocabulary(void) {
    SKIP_WITHOUT(SPM);
    static const int types[] = {[TOKEN_NORMAL] = NORMAL, [TOKEN_UNKNOWN] = UNKNOWN, [TOKEN_CONTROL] = CONTROL,
                                [TOKEN_USER] = USER,     [TOKEN_BYTE] = BYTE,       [TOKEN_UNUSED] = UNUSED_PIECE};
    char err[256] = "";
    File f;
    Vocab v;
    CHECK(!file_map(&f, SPM, err, sizeof err) && !load_gguf_vocab(&v, &f, 0, err, sizeof err), "%s", err);
    Proto p = {0}, trainer = {0}, normalizer = {0};
    for (ptrdiff_t id = 0; id < arrlen(v.pieces); id++) {
        const Piece *piece = &v.pieces[id];
        size_t n;
        char *text = spaces_escape(piece->text, (size_t)piece->len, &n);
        put_piece(&p, text, n, piece->score, types[piece->type]);
        free(text);
    }
    put_number(&trainer, 3, 2); // BPE
    put_number(&trainer, 35, 1);
    put_inner(&p, 2, &trainer);
    put_number(&normalizer, 4, 0); // white space is kept
    put_inner(&p, 3, &normalizer);
    Tokenizer *t = open_model(&p, err, sizeof err);
    CHECK(t, "%s", err);
    known_ids(t, SPM, false);
    if (t) CHECK(tokenizer_bos(t) == 1 && tokenizer_eos(t) == 2, "ids of the defaults");
    tokenizer_free(t);
    vocab_free(&v);
    file_unmap(&f);
    arrfree(p.at);
}

// <unk>, <s>, </s>, then "_" (U+2581), a, b, ab, _a, a token of the user.
static Proto small_model(uint64_t kind) {
    static const struct {
        const char *text;
        float score;
        int type;
    } pieces[] = {
        {"<unk>", 0, UNKNOWN}, {"<s>", 0, CONTROL},        {"</s>", 0, CONTROL}, {METASPACE, -3, NORMAL},
        {"a", -2, NORMAL},     {"b", -2.5f, NORMAL},       {"ab", -1, NORMAL},   {METASPACE "a", -2.5f, NORMAL},
        {"<user>", 0, USER},   {"unused", 0, UNUSED_PIECE}};
    Proto p = {0}, trainer = {0};
    for (int i = 0; i < N_OF(pieces); i++) {
        put_piece(&p, pieces[i].text, strlen(pieces[i].text), pieces[i].score, pieces[i].type);
    }
    if (kind) put_number(&trainer, 3, kind);
    put_inner(&p, 2, &trainer);
    return p;
}

static void flags(void) {
    static const struct {
        uint64_t kind; // 0: not said, which is unigram
        unsigned message, field;
        uint64_t value;
        const char *text, *want;
    } cases[] = {
        {1, 0, 0, 0, "ab", "1 3 6"},           // _ ab: -4; _a b: -5
        {0, 0, 0, 0, "ab", "1 3 6"},           // unigram is the default
        {2, 0, 0, 0, "ab", "1 3 6"},           // ab merges first
        {1, 0, 0, 0, "a<user>b", "1 7 8 3 5"}, // a prefix after special tokens too, as from GGUF
        {1, 0, 0, 0, "a</s>", "1 7 2"},        // a control token in the text
        {1, 0, 0, 0, "  a   b ", "1 7 3 5"},   // squeezed, as is the default
        {1, 3, 4, 0, "a  b", "1 7 3 3 5"},     // and not
        {1, 3, 4, 1, "a  b", "1 7 3 5"},
        {1, 3, 3, 0, "ab", "1 6"}, // no prefix
        {1, 3, 3, 1, "ab", "1 3 6"},
        {1, 2, 41, UINT64_MAX, "ab", "3 6 2"}, // no <s>: </s> behind, as T5 has it
        {1, 2, 42, 5, "ab", "1 3 6"},
        {1, 2, 40, 0, "ax", "1 7 0"},
        {2, 0, 0, 0, "axxb", "1 7 0 5"}, // unknown characters are one
    };
    for (int i = 0; i < N_OF(cases); i++) {
        Proto p = small_model(cases[i].kind), more = {0};
        char what[40];
        snprintf(what, sizeof what, "case %d", i);
        if (cases[i].message) {
            put_number(&more, cases[i].field, cases[i].value);
            put_inner(&p, cases[i].message, &more);
        }
        expect_ids(&p, cases[i].text, cases[i].want, what);
        arrfree(p.at);
    }
}

static void expect_refusal(const Proto *p, const char *want, const char *what) {
    char err[256];
    Tokenizer *t = open_model(p, err, sizeof err);
    CHECK(!t && !strncmp(err, "tokenizer.model: ", 17) && strstr(err, want), "%s: expected '%s' in '%s'", what, want,
          err);
    tokenizer_free(t);
}

static void refusals(void) {
    static const struct {
        uint64_t kind;
        unsigned message, field;
        uint64_t value;
        const char *want;
    } cases[] = {{3, 0, 0, 0, "expected unigram or BPE, found word"},
                 {4, 0, 0, 0, "found char"},
                 {9, 0, 0, 0, "found another"},
                 {1, 2, 24, 1, "treat_whitespace_as_suffix: expected false"},
                 {1, 1, 3, 7, "piece 10: type: expected 1 to 6, found 7"},
                 {1, 1, 3, 6, "piece 10: expected a byte token <0xHH>"}};
    for (int i = 0; i < N_OF(cases); i++) {
        Proto p = small_model(cases[i].kind), more = {0};
        if (cases[i].message) {
            put_number(&more, cases[i].field, cases[i].value);
            put_inner(&p, cases[i].message, &more);
        }
        expect_refusal(&p, cases[i].want, cases[i].want);
        arrfree(p.at);
    }
    Proto p = {0}, piece = {0};
    put_float(&piece, 2, NAN);
    put_inner(&p, 1, &piece);
    expect_refusal(&p, "piece 0: score: expected a number, found NaN", "NaN");
    arrfree(p.at);
    put_number(&p, 7, 1);
    expect_refusal(&p, "expected pieces of text, found 0 pieces", "no pieces");
    arrfree(p.at);
    put_varint(&p, 1 << 3 | 3);
    expect_refusal(&p, "at byte 0: protobuf: expected a field of type 0, 1, 2 or 5, found 3", "a group");
    arrfree(p.at);
    for (int i = 0; i < 11; i++) arrput(p.at, 0xFF);
    expect_refusal(&p, "at byte 0: protobuf: expected a number of at most 10 bytes", "a long number");
    arrfree(p.at);
    put_bytes(&piece, 1, "abc", 3);
    piece.at[1] = 9;
    put_inner(&p, 1, &piece);
    put_bytes(&p, 9, "longer", 6);
    expect_refusal(&p, "a field is longer than its message", "a text beyond its piece");
    arrfree(p.at);
    put_piece(&p, "<unk>", 5, 0, 2);
    put_piece(&p, "<s>", 3, 0, 3);
    expect_refusal(&p, "expected pieces of text, found 2 pieces and none of text", "no text");
    arrfree(p.at);
}

// Cut anywhere, it is refused, or holds whole pieces only; changed anywhere, it does not harm.
static void cut_and_changed(void) {
    Proto p = small_model(1);
    char err[256];
    size_t n = arrlenu(p.at);
    for (size_t left = 0; left < n; left++) {
        Proto less = {0};
        if (left) memcpy(arraddnptr(less.at, left), p.at, left);
        Tokenizer *t = open_model(&less, err, sizeof err);
        CHECK(t ? tokenizer_size(t) <= 10 : *err != 0, "cut to %zu: %s", left, err);
        tokenizer_free(t);
        arrfree(less.at);
    }
    for (size_t i = 0; i < 20 * n; i++) {
        uint8_t *at = &p.at[i % n], old = *at;
        *at = (uint8_t)test_u32();
        Tokenizer *t = open_model(&p, err, sizeof err);
        CHECK(t || *err, "no line");
        tokenizer_free(t);
        *at = old;
    }
    arrfree(p.at);
}

// In a folder, with tokens added beside it; and by its own name.
static void in_a_folder(void) {
    char err[512] = "";
    Vocab v;
    File f = {0};
    int32_t *ids = NULL;
    Proto p = small_model(2);
    folder_make();
    write_file("tokenizer.model", p.at, arrlenu(p.at));
    write_json("tokenizer_config.json", "{'add_bos_token':false,'add_eos_token':true,'eos_token':'<end>','added_tokens_"
                                        "decoder':{'10':{'content':'<end>','special':true},'1':{'content':'<s>',"
                                        "'special':true}}}");
    write_json("added_tokens.json", "{'<mark>':11}");
    int rc = load_vocab(&v, &f, NULL, folder, err, sizeof err);
    CHECK(!rc, "%s", err);
    Tokenizer *t = rc ? NULL : tokenizer_new(&v, err, sizeof err);
    int n = t ? tokenizer_encode(t, "ab<mark>", 8, TOKENIZE_BOS | TOKENIZE_SPECIAL, &ids, err, sizeof err) : -1;
    CHECK(n == 4 && ids[0] == 3 && ids[1] == 6 && ids[2] == 11 && ids[3] == 10, "%d ids: %s", n, err);
    if (t) CHECK(tokenizer_eos(t) == 10 && tokenizer_bos(t) == 1, "eos %d", tokenizer_eos(t));
    free(ids);
    tokenizer_free(t);
    rc = load_vocab(&v, &f, NULL, in_folder("tokenizer.model"), err, sizeof err);
    CHECK(!rc && arrlen(v.pieces) == 10, "%s", err);
    if (!rc) vocab_free(&v);
    file_unmap(&f);
    folder_remove();
    arrfree(p.at);
}

int main(void) {
    RUN(real_vocabulary);
    RUN(flags);
    RUN(refusals);
    RUN(cut_and_changed);
    RUN(in_a_folder);
    return test_report();
}
