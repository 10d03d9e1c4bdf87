// vocab_spm: the vocabulary of a SentencePiece model, tokenizer.model.
//
// Owns the parts of its protobuf message that say what a text becomes: pieces, the kind of model, special ids, and the
// normalizer's flags. Refuses a message that is cut or does not end where it says, the kinds "word" and "char", and
// white space as a suffix. Called by vocab_folder and load_vocab.
// Source: github.com/google/sentencepiece, src/sentencepiece_model.proto; protobuf.dev, "Encoding".
#include "vocab_spm.h"

#include "pieces.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include <stb/stb_ds.h>

enum { MAX_PIECES = 1 << 24, DEFAULT_UNK = 0, DEFAULT_BOS = 1, DEFAULT_EOS = 2 };

// The wire types of protobuf.
typedef enum { WIRE_VARINT = 0, WIRE_8_BYTES = 1, WIRE_BYTES = 2, WIRE_4_BYTES = 5 } Wire;

// A message within the file, read field by field.
typedef struct {
    Cursor *in;
    uint64_t end;
} Message;

typedef struct {
    unsigned number;
    Wire wire;
    uint64_t value; // of a varint
    uint64_t at, n; // of bytes: where they begin, and how many
    float real;     // of 4 bytes
} ProtoField;

typedef struct {
    Vocab *v;
    Cursor in;
    int unk_id, bos_id, eos_id; // as the trainer has them
    uint64_t model_type;        // 1 unigram, 2 BPE, 3 word, 4 char
    bool byte_fallback, suffix; // white space as a suffix
    bool dummy_prefix, squeeze;
    uint64_t charsmap, n_charsmap;
} SpmReader;

static uint64_t read_varint(Cursor *in) {
    uint64_t value = 0, at = in->pos;
    for (int shift = 0; shift < 64 && !in->failed; shift += 7) {
        uint8_t b = cursor_u8(in, "protobuf: number");
        value |= (uint64_t)(b & 0x7F) << shift;
        if (!(b & 0x80)) return value;
    }
    cursor_fail(in, at, "protobuf: expected a number of at most 10 bytes");
    return 0;
}

// The next field of a message; false at its end, or after a failure.
static bool next_field(Message *m, ProtoField *f) {
    Cursor *in = m->in;
    uint64_t at = in->pos;
    if (in->failed || at >= m->end) return false;
    uint64_t key = read_varint(in);
    *f = (ProtoField){.number = (unsigned)(key >> 3 & 0x1FFFFFFF), .wire = (Wire)(key & 7)};
    if (f->wire == WIRE_VARINT) f->value = read_varint(in);
    else if (f->wire == WIRE_8_BYTES) cursor_bytes(in, 8, "protobuf: number");
    else if (f->wire == WIRE_4_BYTES) f->real = cursor_f32(in, "protobuf: number");
    else if (f->wire == WIRE_BYTES) {
        f->n = read_varint(in);
        f->at = in->pos;
        cursor_bytes(in, f->n, "protobuf: bytes");
    } else cursor_fail(in, at, "protobuf: expected a field of type 0, 1, 2 or 5, found %d", (int)f->wire);
    if (!in->failed && in->pos > m->end) cursor_fail(in, at, "protobuf: a field is longer than its message");
    return !in->failed;
}

// The message that a field holds; the cursor must return to what it was.
static Message open_message(SpmReader *x, const ProtoField *f) {
    x->in.pos = f->at;
    return (Message){.in = &x->in, .end = f->at + f->n};
}

// The number of a field, or its bits as a signed number: ids may be -1.
static int field_id(const ProtoField *f) {
    int64_t value = (int64_t)f->value;
    return value < -1 || value > INT_MAX ? -1 : (int)value;
}

// ---- pieces

static void read_piece(SpmReader *x, const ProtoField *piece) {
    static const TokenType types[] = {TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL,
                                      TOKEN_USER,   TOKEN_UNUSED, TOKEN_BYTE}; // 1 to 6
    Message m = open_message(x, piece);
    ProtoField f;
    Piece p = {.text = ""};
    uint64_t type = 1;
    int id = (int)arrlen(x->v->pieces);
    while (next_field(&m, &f)) {
        if (f.number == 1 && f.wire == WIRE_BYTES && f.n <= INT_MAX) {
            p.text = (const char *)x->in.file->data + f.at;
            p.len = (int)f.n;
        } else if (f.number == 2 && f.wire == WIRE_4_BYTES) p.score = f.real;
        else if (f.number == 3 && f.wire == WIRE_VARINT) type = f.value;
    }
    if (type < 1 || type > 6)
        cursor_fail(&x->in, piece->at, "piece %d: type: expected 1 to 6, found %llu", id, (unsigned long long)type);
    if (isnan(p.score)) cursor_fail(&x->in, piece->at, "piece %d: score: expected a number, found NaN", id);
    if (id >= MAX_PIECES) cursor_fail(&x->in, piece->at, "expected at most %d pieces", MAX_PIECES);
    if (x->in.failed) return;
    p.type = types[type];
    if (p.type == TOKEN_BYTE && piece_byte(&p) < 0) {
        cursor_fail(&x->in, piece->at, "piece %d: expected a byte token <0xHH>, found '%.*s'", id,
                    p.len < 40 ? p.len : 40, p.text);
    }
    arrput(x->v->pieces, p);
}

// ---- the trainer's and the normalizer's settings

static void read_trainer(SpmReader *x, const ProtoField *trainer) {
    Message m = open_message(x, trainer);
    ProtoField f;
    while (next_field(&m, &f)) {
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == 3) x->model_type = f.value;
        else if (f.number == 24) x->suffix = f.value != 0;
        else if (f.number == 35) x->byte_fallback = f.value != 0;
        else if (f.number == 40) x->unk_id = field_id(&f);
        else if (f.number == 41) x->bos_id = field_id(&f);
        else if (f.number == 42) x->eos_id = field_id(&f);
    }
}

static void read_normalizer(SpmReader *x, const ProtoField *normalizer) {
    Message m = open_message(x, normalizer);
    ProtoField f;
    while (next_field(&m, &f)) {
        if (f.number == 2 && f.wire == WIRE_BYTES) {
            x->charsmap = f.at;
            x->n_charsmap = f.n;
        } else if (f.number == 3 && f.wire == WIRE_VARINT) x->dummy_prefix = f.value != 0;
        else if (f.number == 4 && f.wire == WIRE_VARINT) x->squeeze = f.value != 0;
    }
}

static void read_message(SpmReader *x) {
    Message m = {.in = &x->in, .end = x->in.file->size};
    ProtoField f;
    while (next_field(&m, &f)) {
        uint64_t behind = x->in.pos;
        if (f.wire != WIRE_BYTES) continue;
        if (f.number == 1) read_piece(x, &f);
        else if (f.number == 2) read_trainer(x, &f);
        else if (f.number == 3) read_normalizer(x, &f);
        x->in.pos = behind;
    }
}

// ---- the vocabulary

static int known_id(const Vocab *v, int id) {
    return id < arrlen(v->pieces) ? id : -1;
}

static void set_model(SpmReader *x) {
    static const char *const names[] = {"0", "unigram", "BPE", "word", "char"};
    Vocab *v = x->v;
    uint64_t type = x->model_type;
    bool known = type == 1 || type == 2;
    if (!known) {
        cursor_fail(&x->in, 0, "trainer_spec.model_type: expected unigram or BPE, found %s",
                    type < 5 ? names[type] : "another");
    }
    if (x->suffix) cursor_fail(&x->in, 0, "trainer_spec.treat_whitespace_as_suffix: expected false");
    ptrdiff_t n_text = 0;
    for (ptrdiff_t i = 0; i < arrlen(v->pieces); i++)
        n_text += piece_is_ordinary(&v->pieces[i]) || v->pieces[i].type == TOKEN_BYTE;
    if (!n_text) {
        cursor_fail(&x->in, 0, "not a SentencePiece model: expected pieces of text, found %td pieces and none of text",
                    arrlen(v->pieces));
    }
    v->kind = type == 2 ? VOCAB_SCORE_BPE : VOCAB_UNIGRAM;
    v->metaspace = v->fuse_unk = true;
    v->add_space_prefix = x->dummy_prefix;
    v->unk_id = known_id(v, x->unk_id);
    v->bos_id = known_id(v, x->bos_id);
    v->eos_id = known_id(v, x->eos_id);
    v->no_bos = v->bos_id < 0;
    if (!v->no_bos) arrput(v->prefix_ids, v->bos_id);
    else if (v->eos_id >= 0) arrput(v->suffix_ids, v->eos_id); // as T5 does
}

// Texts of their own, with spaces.
static void keep_texts(SpmReader *x) {
    Vocab *v = x->v;
    uint64_t bytes = 1;
    for (ptrdiff_t id = 0; id < arrlen(v->pieces); id++) bytes += (uint64_t)v->pieces[id].len;
    char *to = v->text = malloc(bytes); // at most the file's size
    if (!to) cursor_fail(&x->in, 0, "out of memory for the pieces");
    for (ptrdiff_t id = 0; id < arrlen(v->pieces) && to; id++) {
        Piece *p = &v->pieces[id];
        p->len = (int)spaces_unescape(to, p->text, (size_t)p->len);
        p->text = to;
        to += p->len;
    }
}

static void set_normalizer(SpmReader *x) {
    char what[256] = "";
    Normalizer **z = &x->v->normalizer;
    int rc = 0;
    if (x->n_charsmap) {
        const uint8_t *map = x->in.file->data + x->charsmap;
        rc = normalizer_add_charsmap(z, map, x->n_charsmap, what, sizeof what);
    }
    if (!rc && x->squeeze) rc = normalizer_add(z, NORMALIZE_SQUEEZE, what, sizeof what);
    if (rc) cursor_fail(&x->in, x->charsmap, "normalizer_spec: %s", what);
}

bool file_is_sentencepiece(const File *file) {
    Cursor in = cursor_at(file, 0, NULL, 0);
    Message m = {.in = &in, .end = file->size};
    ProtoField f, piece;
    if (!next_field(&m, &f) || f.number != 1 || f.wire != WIRE_BYTES || f.n < 2) return false;
    in.pos = f.at;
    m.end = f.at + f.n;
    return next_field(&m, &piece) && piece.number == 1 && piece.wire == WIRE_BYTES;
}

int vocab_spm_read(Vocab *v, const File *file, char *err, size_t errlen) {
    *v = (Vocab){.bos_id = -1, .eos_id = -1, .unk_id = -1};
    SpmReader x = {.v = v,
                   .in = cursor_at(file, 0, err, errlen),
                   .unk_id = DEFAULT_UNK,
                   .bos_id = DEFAULT_BOS,
                   .eos_id = DEFAULT_EOS,
                   .model_type = 1,
                   .dummy_prefix = true,
                   .squeeze = true};
    read_message(&x);
    if (!x.in.failed) set_model(&x);
    if (!x.in.failed) keep_texts(&x);
    if (!x.in.failed) set_normalizer(&x);
    if (!x.in.failed) return 0;
    vocab_free(v);
    return -1;
}
