// fuzz_llama2c_tokenizer: the tokenizer.bin reader on arbitrary bytes.
//
// Byte 0 and 1: the vocabulary asked for, and the form: raw bytes, or a valid tokenizer of that size (byte tokens
// and all) over which the input writes, so that the checks behind the 256 byte tokens are reached.
#include "load.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#include "fuzz.h"

static volatile uint8_t sink;

static int count_records(const File *file) {
    int n = 0;
    for (size_t at = 4; at < file->size; n++) {
        int32_t length;
        memcpy(&length, file->data + at + 4, 4);
        at += 8 + (size_t)length;
    }
    return n;
}

static void check_vocab(const Vocab *v, const File *file, int asked) {
    int n_records = count_records(file), vocab_size = asked && asked < n_records ? asked : n_records;
    REQUIRE(arrlen(v->pieces) == vocab_size && vocab_size > 0);
    REQUIRE(v->bos_id < n_records && v->eos_id < n_records && v->unk_id == 0);
    const uint8_t *end = file->data + 4; // of the piece before: the records lie in order and fill the file
    for (int id = 0; id < vocab_size; id++) {
        const Piece *p = &v->pieces[id];
        const uint8_t *text = end + 8; // of the record: a control token's frame of newlines is left out
        int frame = p->type == TOKEN_CONTROL && (const uint8_t *)p->text == text + 1 && *text == '\n';
        REQUIRE((const uint8_t *)p->text == text + frame && p->len >= 0 && !isnan(p->score));
        REQUIRE(!frame || text[p->len + 1] == '\n');
        REQUIRE((p->type == TOKEN_BYTE) == (n_records >= 259 && id >= 3 && id < 259));
        if (p->len) sink = (uint8_t)(sink + p->text[0] + p->text[p->len - 1]);
        end = text + p->len + 2 * frame;
    }
    REQUIRE(vocab_size < n_records || end == file->data + file->size);
}

static int load(uint8_t *bytes, size_t size, int vocab_size) {
    static char path[] = "fuzz.tokenizer.bin";
    char err[256] = "";
    Vocab v;
    File file = {.path = path, .data = bytes, .size = size, .borrowed = true};
    int rc = load_llama2c_tokenizer_file(&v, &file, vocab_size, err, sizeof err);
    if (!rc) {
        check_vocab(&v, &file, vocab_size);
        vocab_free(&v);
    } else {
        REQUIRE(rc == -1 && !v.pieces);
        require_line(err, "fuzz.tokenizer.bin");
    }
    return rc;
}

static size_t put_record(uint8_t *out, const char *text, int32_t len) {
    memset(out, 0, 4); // score
    memcpy(out + 4, &len, 4);
    memcpy(out + 8, text, (size_t)len);
    return 8 + (size_t)len;
}

enum { MAX_TOKENS = 259 + 64, RECORD_ROOM = 24 };
static uint8_t head[4 + 259 * RECORD_ROOM]; // max_token_length, then ids 0 to 258
static size_t head_size;

static void make_head(void) {
    head[0] = 12;
    head_size = 4;
    head_size += put_record(head + head_size, "<unk>", 5);
    head_size += put_record(head + head_size, "\n<s>\n", 5);
    head_size += put_record(head + head_size, "\n</s>\n", 6);
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        head_size += put_record(head + head_size, text, 6);
    }
}

// The 259 fixed pieces, or only three, then pieces made of the input; then at most one patch of 4 bytes.
static void try_plausible(const uint8_t *data, size_t size, int n_more, bool bytes_too) {
    uint8_t built[sizeof head + MAX_TOKENS * RECORD_ROOM];
    if (!head_size) make_head();
    size_t n = bytes_too ? head_size : 4 + 13 + 13 + 14, at = 6;
    memcpy(built, head, n);
    for (int i = 0; i < n_more; i++) {
        size_t left = at < size ? size - at : 0, len = left ? data[at] % 13u : 0;
        if (len > left) len = left;
        n += put_record(built + n, left ? (const char *)data + at : "", (int32_t)len);
        at += len + 1;
    }
    bool patched = size >= 6 && data[0];
    if (patched) memcpy(built + (data[0] * 256u + data[1]) % (n - 3), data + 2, 4);
    uint8_t *exact = malloc(n);
    memcpy(exact, built, n);
    int vocab_size = (bytes_too ? 259 : 3) + n_more;
    int rc = load(exact, n, vocab_size);
    if (!patched) REQUIRE(rc == 0);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    if (data[0] & 3) {
        try_plausible(data + 2, size - 2, data[1] & 31, (data[0] & 12) == 12);
        return 0;
    }
    uint8_t *bytes = malloc(size - 2);
    memcpy(bytes, data + 2, size - 2);
    load(bytes, size - 2, data[0] & 4 ? (int)data[1] * 2 : data[1] & 15);
    free(bytes);
    return 0;
}
