// vocab_rwkv: the vocabulary of RWKV's text file, a token on each line: its id, its text or bytes as Python prints
// them, and the number of bytes.
//
//     257 '\t\t' 2
//     65 b'\xc3' 1
// Owns the reader of these lines. Refuses ids that do not count up from 1, and a text of another length than the line
// says. Called by vocab_folder.
#include "vocab_rwkv.h"

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

// A literal between its quotes. bytes: an escape is a byte; else a character, which becomes UTF-8.
typedef struct {
    const char *at, *end;
    bool bytes;
} Literal;

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// n hexadecimal digits; -1: there are fewer.
static int64_t read_hex(Literal *l, int n) {
    int64_t value = 0;
    for (int i = 0; i < n; i++) {
        int digit = l->at < l->end ? hex_value(*l->at++) : -1;
        if (digit < 0) return -1;
        value = 16 * value + digit;
    }
    return value;
}

// What stands behind a backslash: its value, as a byte or a character; -1: nothing that Python prints.
static int64_t read_escape(Literal *l) {
    static const char letters[] = "tnr\\'\"", values[] = "\t\n\r\\'\"";
    char c = l->at < l->end ? *l->at++ : 0;
    const char *letter = c ? strchr(letters, c) : NULL;
    if (letter) return values[letter - letters];
    if (c == 'x') return read_hex(l, 2);
    if (c == 'u' && !l->bytes) return read_hex(l, 4);
    return c == 'U' && !l->bytes ? read_hex(l, 8) : -1;
}

// Appends the literal's bytes to `to`, which has room for as many as its characters. Returns how many; -1: malformed.
static int read_literal(Literal *l, char *to) {
    int n = 0;
    while (l->at < l->end) {
        char c = *l->at++;
        if (c != '\\') {
            to[n++] = c;
            continue;
        }
        int64_t value = read_escape(l);
        if (value < 0 || value > 0x10FFFF) return -1;
        if (l->bytes) to[n++] = (char)value;
        else n += utf8_encode((uint32_t)value, to + n);
    }
    return n;
}

// One line into the next piece; the texts are at *to. False: malformed.
static bool read_line(Vocab *v, const char *line, const char *end, char **to) {
    char *behind_id, *behind_length;
    const char *last = memrchr(line, ' ', (size_t)(end - line));
    long id = strtol(line, &behind_id, 10);
    if (!last || behind_id >= last || *behind_id != ' ' || id != arrlen(v->pieces)) return false;
    Literal l = {.at = behind_id + 1, .end = last, .bytes = behind_id[1] == 'b'};
    l.at += l.bytes;
    if (l.end - l.at < 3 || (*l.at != '\'' && *l.at != '"') || l.end[-1] != *l.at) return false;
    l.at++;
    l.end--;
    int n = read_literal(&l, *to);
    long length = strtol(last + 1, &behind_length, 10);
    if (n < 1 || n != length || behind_length != end) return false;
    arrput(v->pieces, ((Piece){.text = *to, .len = n}));
    *to += n;
    return true;
}

static int read_lines(Vocab *v, const File *file, char *to, char *err, size_t errlen) {
    const char *at = (const char *)file->data, *stop = at + file->size;
    for (int number = 1; at < stop; number++) {
        const char *end = memchr(at, '\n', (size_t)(stop - at));
        if (!end) return fail(err, errlen, "%s: line %d: expected a line break at the end", file->path, number);
        const char *text_end = end > at && end[-1] == '\r' ? end - 1 : end;
        if (!read_line(v, at, text_end, &to)) {
            int shown = text_end - at < 40 ? (int)(text_end - at) : 40;
            return fail(err, errlen,
                        "%s: line %d: expected token %d, its text in quotes and its length in bytes, found '%.*s'",
                        file->path, number, (int)arrlen(v->pieces), shown, at);
        }
        at = end + 1;
    }
    return 0;
}

int vocab_rwkv_read(Vocab *v, const File *file, const char *end, char *err, size_t errlen) {
    *v = (Vocab){.kind = VOCAB_GREEDY, .byte_level = true, .bos_id = -1, .eos_id = 0, .unk_id = -1, .no_bos = true};
    size_t n = strlen(end);
    v->text = malloc(n + file->size + 1);
    if (!v->text) return fail(err, errlen, "%s: out of memory", file->path);
    memcpy(v->text, end, n);
    arrput(v->pieces, ((Piece){.text = v->text, .len = (int)n, .type = TOKEN_CONTROL}));
    if (!read_lines(v, file, v->text + n, err, errlen)) return 0;
    vocab_free(v);
    return -1;
}
