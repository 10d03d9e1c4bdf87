// jinja_tokens: see jinja_tokens.h.
#include "jinja_tokens.h"

#include "utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---- characters

bool jinja_begins(const JinjaTokens *p, const char *word) {
    size_t n = strlen(word);
    return p->n - p->at >= n && !memcmp(p->source + p->at, word, n);
}

void jinja_advance(JinjaTokens *p, size_t n) {
    for (; n; n--) p->heap->line += p->source[p->at++] == '\n';
}

bool jinja_is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

// What a - in a tag removes: white space of any alphabet.
static void skip_space(JinjaTokens *p) {
    uint32_t c;
    while (p->at < p->n) {
        size_t n = (size_t)utf8_decode(p->source + p->at, p->n - p->at, &c);
        if (!jinja_is_space(c)) return;
        jinja_advance(p, n);
    }
}

static const char *copy_word(JinjaTokens *p, const char *text, size_t n) {
    return memcpy(jinja_alloc(p->heap, n + 1), text, n);
}

// ---- tokens within a tag

static void put_code(JinjaBuffer *b, JinjaHeap *h, uint32_t code) {
    char out[4];
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = 0xFFFD;
    jinja_append(h, b, (JinjaText){out, NULL, (size_t)utf8_encode(code, out)});
}

static uint32_t read_digits(JinjaTokens *p, int most, int base) {
    uint32_t code = 0;
    for (int i = 0; i < most && p->at < p->n; i++) {
        char c = p->source[p->at];
        int digit = isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 32) - 'a' + 10 : 99;
        if (digit >= base) break;
        code = code * (uint32_t)base + (uint32_t)digit;
        jinja_advance(p, 1);
    }
    return code;
}

static void read_escape(JinjaTokens *p, JinjaBuffer *b) {
    static const char from[] = "ntrbfva\\'\"", to[] = "\n\t\r\b\f\v\a\\'\"";
    char c = p->source[p->at];
    const char *simple = c ? strchr(from, c) : NULL;
    if (c == '\n') jinja_advance(p, 1);
    else if (simple) {
        jinja_append(p->heap, b, (JinjaText){to + (simple - from), NULL, 1});
        jinja_advance(p, 1);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        jinja_advance(p, 1);
        uint32_t code = read_digits(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
        if (code >= 0xD800 && code < 0xDC00 && jinja_begins(p, "\\u")) {
            jinja_advance(p, 2);
            code = 0x10000 + ((code - 0xD800) << 10) + ((read_digits(p, 4, 16) - 0xDC00) & 0x3FF);
        }
        put_code(b, p->heap, code);
    } else if (c >= '0' && c <= '7') put_code(b, p->heap, read_digits(p, 3, 8));
    else jinja_append_word(p->heap, b, "\\");
}

static JinjaValue read_string(JinjaTokens *p) {
    JinjaBuffer b = {0};
    char quote = p->source[p->at];
    int line = p->heap->line;
    jinja_advance(p, 1);
    while (p->at < p->n && p->source[p->at] != quote) {
        if (p->source[p->at] == '\\' && p->at + 1 < p->n) {
            jinja_advance(p, 1);
            read_escape(p, &b);
            continue;
        }
        jinja_append(p->heap, &b, (JinjaText){p->source + p->at, NULL, 1});
        jinja_advance(p, 1);
    }
    if (p->at == p->n) {
        p->heap->line = line;
        jinja_fail(p->heap, "a string without its closing %c", quote);
    }
    jinja_advance(p, 1);
    JinjaValue v = jinja_take(&b);
    v.text.from = NULL;
    return v;
}

// 0x, 0o and 0b, which are consumed.
static int read_base(JinjaTokens *p) {
    static const char letters[] = "xXoObB";
    char c = jinja_begins(p, "0") && p->n - p->at > 2 ? p->source[p->at + 1] : 0;
    const char *letter = c ? strchr(letters, c) : NULL;
    if (!letter) return 10;
    jinja_advance(p, 2);
    return letter < letters + 2 ? 16 : letter < letters + 4 ? 8 : 2;
}

static JinjaValue read_number(JinjaTokens *p) {
    char digits[64];
    size_t n = 0;
    bool real = false;
    int base = read_base(p);
    while (p->at < p->n && n < sizeof digits - 1) {
        char c = p->source[p->at], next = p->at + 1 < p->n ? p->source[p->at + 1] : 0;
        bool point = c == '.' && !real && isdigit((unsigned char)next);
        bool power = (c == 'e' || c == 'E') && (isdigit((unsigned char)next) || next == '-' || next == '+');
        bool sign = (c == '-' || c == '+') && n && (digits[n - 1] | 32) == 'e';
        bool digit = base == 16 ? isxdigit((unsigned char)c) : isdigit((unsigned char)c);
        if (base != 10) point = power = sign = false;
        if (!digit && !point && !power && !sign && c != '_') break;
        real = real || point || power;
        if (c != '_') digits[n++] = c;
        jinja_advance(p, 1);
    }
    digits[n] = 0;
    if (real) return jinja_real(strtod(digits, NULL));
    errno = 0;
    long long value = strtoll(digits, NULL, base);
    if (errno) jinja_fail(p->heap, "%s is no integer of 64 bits", digits);
    return jinja_int(value);
}

// The end of the tag, with the white space behind it that the tag removes.
static bool read_tag_end(JinjaTokens *p) {
    const char *end = p->variable ? "}}" : "%}";
    char c = p->source[p->at];
    bool sign = (c == '-' || (c == '+' && !p->variable)) && p->n - p->at > 2;
    if (p->nested || memcmp(p->source + p->at + sign, end, p->n - p->at - sign < 2 ? 0 : 2) || p->n - p->at < 2)
        return false;
    jinja_advance(p, sign ? 3 : 2);
    size_t from = p->at;
    if (c == '-') skip_space(p);
    else if (!p->variable && !sign && jinja_begins(p, "\n")) jinja_advance(p, 1);
    p->line_starts = p->at > from && p->source[p->at - 1] == '\n';
    return true;
}

static bool is_letter(char c) {
    return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
}

void jinja_next_token(JinjaTokens *p) {
    static const char *const operators[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "<", ">",
                                            "=",  "~",  "|",  ".",  ",",  ":",  "(", ")", "[", "]", "{", "}"};
    jinja_step(p->heap, 1);
    while (p->at < p->n && jinja_is_blank(p->source[p->at])) jinja_advance(p, 1);
    if (p->at == p->n) jinja_fail(p->heap, "the template ends within a tag");
    char c = p->source[p->at];
    if (read_tag_end(p)) {
        p->kind = TOKEN_OF_END;
        p->word = "the end of the tag";
        return;
    }
    if (c == '\'' || c == '"' || isdigit((unsigned char)c)) {
        p->kind = TOKEN_OF_VALUE;
        p->word = c == '\'' || c == '"' ? "a string" : "a number";
        p->value = isdigit((unsigned char)c) ? read_number(p) : read_string(p);
        return;
    }
    if (is_letter(c)) {
        size_t from = p->at;
        while (p->at < p->n && is_letter(p->source[p->at])) jinja_advance(p, 1);
        p->kind = TOKEN_OF_NAME;
        p->word = copy_word(p, p->source + from, p->at - from);
        return;
    }
    p->kind = TOKEN_OF_OPERATOR;
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!jinja_begins(p, operators[i])) continue;
        p->word = operators[i];
        jinja_advance(p, strlen(p->word));
        p->nested += strchr("([{", *p->word) && p->word[0] ? 1 : 0;
        p->nested -= strchr(")]}", *p->word) ? 1 : 0;
        return;
    }
    jinja_fail(p->heap, "unexpected character '%c'", c >= ' ' && c < 127 ? c : '?');
}

bool jinja_is_operator(const JinjaTokens *p, const char *word) {
    return p->kind == TOKEN_OF_OPERATOR && !strcmp(p->word, word);
}

bool jinja_is_name(const JinjaTokens *p, const char *word) {
    return p->kind == TOKEN_OF_NAME && !strcmp(p->word, word);
}

bool jinja_accept(JinjaTokens *p, const char *word) {
    bool found = jinja_is_operator(p, word) || jinja_is_name(p, word);
    if (found) jinja_next_token(p);
    return found;
}

void jinja_expect(JinjaTokens *p, const char *word) {
    if (!jinja_accept(p, word)) jinja_fail(p->heap, "expected '%s', found '%.60s'", word, p->word);
}

const char *jinja_expect_name(JinjaTokens *p) {
    if (p->kind != TOKEN_OF_NAME) jinja_fail(p->heap, "expected a name, found '%.60s'", p->word);
    const char *name = p->word;
    jinja_next_token(p);
    return name;
}

// ---- text between tags

size_t jinja_text_end(const JinjaTokens *p, size_t begin, bool variable) {
    size_t end = p->at, line = p->at;
    char sign = p->at + 2 < p->n ? p->source[p->at + 2] : 0;
    if (sign == '-') {
        for (uint32_t c; end > begin;) {
            size_t len = (size_t)utf8_decode_before(p->source, end, &c);
            if (len > end - begin || !jinja_is_space(c)) break;
            end -= len;
        }
        return end;
    }
    if (variable || sign == '+') return end;
    while (line > begin && jinja_is_blank(p->source[line - 1]) && p->source[line - 1] != '\n') line--;
    bool at_start = line > begin ? p->source[line - 1] == '\n' : p->line_starts;
    return at_start ? line : end;
}

void jinja_skip_comment(JinjaTokens *p) {
    int line = p->heap->line;
    while (p->at < p->n && !jinja_begins(p, "#}")) jinja_advance(p, 1);
    if (p->at == p->n) {
        p->heap->line = line;
        jinja_fail(p->heap, "a comment without its #}");
    }
    char sign = p->source[p->at - 1];
    jinja_advance(p, 2);
    size_t from = p->at;
    if (sign == '-') skip_space(p);
    else if (sign != '+' && jinja_begins(p, "\n")) jinja_advance(p, 1);
    p->line_starts = p->at > from && p->source[p->at - 1] == '\n';
}

void jinja_expect_tag_end(JinjaTokens *p) {
    if (p->kind != TOKEN_OF_END) jinja_fail(p->heap, "expected the end of the tag, found '%.60s'", p->word);
}

void jinja_open_tag(JinjaTokens *p, bool variable) {
    jinja_advance(p, 2);
    if (p->at < p->n && (p->source[p->at] == '-' || (p->source[p->at] == '+' && !variable))) jinja_advance(p, 1);
    p->variable = variable;
    p->nested = 0;
    jinja_next_token(p);
}
