// jinja_parse: see jinja_parse.h.
#include "jinja_parse.h"

#include "utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { TOKEN_OF_NAME, TOKEN_OF_VALUE, TOKEN_OF_OPERATOR, TOKEN_OF_END } TokenKind;

typedef struct {
    JinjaHeap *heap;
    const char *source, *keyword; // keyword: of the tag that ended a body
    size_t at, n;
    TokenKind kind;   // of the token that comes next
    const char *word; // its name or operator, terminated
    JinjaValue value;
    int nested, depth, loops;
    bool variable;    // inside {{ }}
    bool line_starts; // the text that follows begins a line
} Parser;

static JinjaNode *parse_expression(Parser *p);
static JinjaNode *parse_unary(Parser *p, bool filters);

// ---- characters

static bool begins(const Parser *p, const char *word) {
    size_t n = strlen(word);
    return p->n - p->at >= n && !memcmp(p->source + p->at, word, n);
}

static void advance(Parser *p, size_t n) {
    for (; n; n--) p->heap->line += p->source[p->at++] == '\n';
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

// What a - in a tag removes: white space of any alphabet.
static void skip_space(Parser *p) {
    uint32_t c;
    while (p->at < p->n) {
        size_t n = (size_t)utf8_decode(p->source + p->at, p->n - p->at, &c);
        if (!jinja_is_space(c)) return;
        advance(p, n);
    }
}

static const char *copy_word(Parser *p, const char *text, size_t n) {
    return memcpy(jinja_alloc(p->heap, n + 1), text, n);
}

// ---- tokens within a tag

static void put_code(JinjaBuffer *b, JinjaHeap *h, uint32_t code) {
    char out[4];
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = 0xFFFD;
    jinja_append(h, b, (JinjaText){out, NULL, (size_t)utf8_encode(code, out)});
}

static uint32_t read_digits(Parser *p, int most, int base) {
    uint32_t code = 0;
    for (int i = 0; i < most && p->at < p->n; i++) {
        char c = p->source[p->at];
        int digit = isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 32) - 'a' + 10 : 99;
        if (digit >= base) break;
        code = code * (uint32_t)base + (uint32_t)digit;
        advance(p, 1);
    }
    return code;
}

static void read_escape(Parser *p, JinjaBuffer *b) {
    static const char from[] = "ntrbfva\\'\"", to[] = "\n\t\r\b\f\v\a\\'\"";
    char c = p->source[p->at];
    const char *simple = c ? strchr(from, c) : NULL;
    if (c == '\n') advance(p, 1);
    else if (simple) {
        jinja_append(p->heap, b, (JinjaText){to + (simple - from), NULL, 1});
        advance(p, 1);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        advance(p, 1);
        uint32_t code = read_digits(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
        if (code >= 0xD800 && code < 0xDC00 && begins(p, "\\u")) {
            advance(p, 2);
            code = 0x10000 + ((code - 0xD800) << 10) + ((read_digits(p, 4, 16) - 0xDC00) & 0x3FF);
        }
        put_code(b, p->heap, code);
    } else if (c >= '0' && c <= '7') put_code(b, p->heap, read_digits(p, 3, 8));
    else jinja_append_word(p->heap, b, "\\");
}

static JinjaValue read_string(Parser *p) {
    JinjaBuffer b = {0};
    char quote = p->source[p->at];
    int line = p->heap->line;
    advance(p, 1);
    while (p->at < p->n && p->source[p->at] != quote) {
        if (p->source[p->at] == '\\' && p->at + 1 < p->n) {
            advance(p, 1);
            read_escape(p, &b);
            continue;
        }
        jinja_append(p->heap, &b, (JinjaText){p->source + p->at, NULL, 1});
        advance(p, 1);
    }
    if (p->at == p->n) {
        p->heap->line = line;
        jinja_fail(p->heap, "a string without its closing %c", quote);
    }
    advance(p, 1);
    JinjaValue v = jinja_take(&b);
    v.text.from = NULL;
    return v;
}

// 0x, 0o and 0b, which are consumed.
static int read_base(Parser *p) {
    static const char letters[] = "xXoObB";
    char c = begins(p, "0") && p->n - p->at > 2 ? p->source[p->at + 1] : 0;
    const char *letter = c ? strchr(letters, c) : NULL;
    if (!letter) return 10;
    advance(p, 2);
    return letter < letters + 2 ? 16 : letter < letters + 4 ? 8 : 2;
}

static JinjaValue read_number(Parser *p) {
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
        advance(p, 1);
    }
    digits[n] = 0;
    if (real) return jinja_real(strtod(digits, NULL));
    errno = 0;
    long long value = strtoll(digits, NULL, base);
    if (errno) jinja_fail(p->heap, "%s is no integer of 64 bits", digits);
    return jinja_int(value);
}

// The end of the tag, with the white space behind it that the tag removes.
static bool read_tag_end(Parser *p) {
    const char *end = p->variable ? "}}" : "%}";
    char c = p->source[p->at];
    bool sign = (c == '-' || (c == '+' && !p->variable)) && p->n - p->at > 2;
    if (p->nested || memcmp(p->source + p->at + sign, end, p->n - p->at - sign < 2 ? 0 : 2) || p->n - p->at < 2)
        return false;
    advance(p, sign ? 3 : 2);
    size_t from = p->at;
    if (c == '-') skip_space(p);
    else if (!p->variable && !sign && begins(p, "\n")) advance(p, 1);
    p->line_starts = p->at > from && p->source[p->at - 1] == '\n';
    return true;
}

static bool is_letter(char c) {
    return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
}

static void next_token(Parser *p) {
    static const char *const operators[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "<", ">",
                                            "=",  "~",  "|",  ".",  ",",  ":",  "(", ")", "[", "]", "{", "}"};
    jinja_step(p->heap, 1);
    while (p->at < p->n && is_blank(p->source[p->at])) advance(p, 1);
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
        while (p->at < p->n && is_letter(p->source[p->at])) advance(p, 1);
        p->kind = TOKEN_OF_NAME;
        p->word = copy_word(p, p->source + from, p->at - from);
        return;
    }
    p->kind = TOKEN_OF_OPERATOR;
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!begins(p, operators[i])) continue;
        p->word = operators[i];
        advance(p, strlen(p->word));
        p->nested += strchr("([{", *p->word) && p->word[0] ? 1 : 0;
        p->nested -= strchr(")]}", *p->word) ? 1 : 0;
        return;
    }
    jinja_fail(p->heap, "unexpected character '%c'", c >= ' ' && c < 127 ? c : '?');
}

static bool is_operator(const Parser *p, const char *word) {
    return p->kind == TOKEN_OF_OPERATOR && !strcmp(p->word, word);
}

static bool is_name(const Parser *p, const char *word) {
    return p->kind == TOKEN_OF_NAME && !strcmp(p->word, word);
}

static bool accept(Parser *p, const char *word) {
    bool found = is_operator(p, word) || is_name(p, word);
    if (found) next_token(p);
    return found;
}

static void expect(Parser *p, const char *word) {
    if (!accept(p, word)) jinja_fail(p->heap, "expected '%s', found '%.60s'", word, p->word);
}

static const char *expect_name(Parser *p) {
    if (p->kind != TOKEN_OF_NAME) jinja_fail(p->heap, "expected a name, found '%.60s'", p->word);
    const char *name = p->word;
    next_token(p);
    return name;
}

// ---- nodes

static JinjaNode *node(Parser *p, JinjaNodeKind kind) {
    JinjaNode *n = jinja_alloc(p->heap, sizeof *n);
    n->kind = kind;
    n->line = p->heap->line;
    return n;
}

static void add_part(Parser *p, JinjaNode *n, const char *name, JinjaNode *part) {
    n->parts = jinja_grow(p->heap, n->parts, n->n, &n->room, sizeof *n->parts);
    n->names = jinja_grow(p->heap, n->names, n->n, &n->names_room, sizeof *n->names);
    n->names[n->n] = name;
    n->parts[n->n++] = part;
}

static void deeper(Parser *p) {
    if (++p->depth > JINJA_DEPTH / 2) jinja_fail(p->heap, "nested deeper than %d", JINJA_DEPTH / 2);
}

// ---- expressions, from the weakest operator to the strongest

static JinjaNode *binary(Parser *p, JinjaOp op, JinjaNode *a, JinjaNode *b) {
    JinjaNode *n = node(p, NODE_BINARY);
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

// The * or ** before an argument that is several; NULL: neither.
static const char *accept_star(Parser *p) {
    const char *star = is_operator(p, "*") || is_operator(p, "**") ? p->word : NULL;
    if (star) next_token(p);
    return star;
}

// Arguments up to the closing parenthesis, the opening one is consumed.
static void parse_arguments(Parser *p, JinjaNode *n) {
    while (!accept(p, ")")) {
        const char *name = accept_star(p);
        JinjaNode *value = parse_expression(p);
        if (!name && value->kind == NODE_NAME && accept(p, "=")) {
            name = value->name;
            value = parse_expression(p);
        }
        if (!name && n->n && n->names[n->n - 1])
            jinja_fail(p->heap, "an argument without a name behind those with names");
        add_part(p, n, name, value);
        if (!is_operator(p, ")")) expect(p, ",");
    }
}

static JinjaNode *parse_tuple_rest(Parser *p, JinjaNode *first) {
    JinjaNode *n = node(p, NODE_TUPLE);
    add_part(p, n, NULL, first);
    while (accept(p, ",")) {
        if (is_operator(p, ")") || p->kind == TOKEN_OF_END) break;
        add_part(p, n, NULL, parse_expression(p));
    }
    return n;
}

static JinjaNode *parse_parenthesis(Parser *p) {
    if (accept(p, ")")) return node(p, NODE_TUPLE);
    JinjaNode *n = parse_expression(p);
    if (is_operator(p, ",")) n = parse_tuple_rest(p, n);
    expect(p, ")");
    return n;
}

static JinjaNode *parse_list(Parser *p) {
    JinjaNode *n = node(p, NODE_LIST);
    while (!accept(p, "]")) {
        add_part(p, n, NULL, parse_expression(p));
        if (!is_operator(p, "]")) expect(p, ",");
    }
    return n;
}

static JinjaNode *parse_dict(Parser *p) {
    JinjaNode *n = node(p, NODE_DICT);
    while (!accept(p, "}")) {
        add_part(p, n, NULL, parse_expression(p));
        expect(p, ":");
        add_part(p, n, NULL, parse_expression(p));
        if (!is_operator(p, "}")) expect(p, ",");
    }
    return n;
}

static JinjaNode *literal(Parser *p, JinjaValue v) {
    JinjaNode *n = node(p, NODE_LITERAL);
    n->value = v;
    return n;
}

static JinjaNode *parse_value(Parser *p) {
    JinjaBuffer b = {0};
    JinjaNode *n = literal(p, p->value);
    next_token(p);
    if (n->value.kind != JINJA_STRING || p->kind != TOKEN_OF_VALUE || p->value.kind != JINJA_STRING) return n;
    jinja_append(p->heap, &b, n->value.text);
    for (; p->kind == TOKEN_OF_VALUE && p->value.kind == JINJA_STRING; next_token(p)) // strings side by side are one
        jinja_append(p->heap, &b, p->value.text);
    n->value = jinja_take(&b);
    n->value.text.from = NULL;
    return n;
}

static JinjaNode *parse_primary(Parser *p) {
    if (p->kind == TOKEN_OF_VALUE) return parse_value(p);
    if (p->kind == TOKEN_OF_NAME) {
        const char *name = expect_name(p);
        if (!strcmp(name, "true") || !strcmp(name, "True")) return literal(p, jinja_bool(true));
        if (!strcmp(name, "false") || !strcmp(name, "False")) return literal(p, jinja_bool(false));
        if (!strcmp(name, "none") || !strcmp(name, "None")) return literal(p, jinja_none());
        JinjaNode *n = node(p, NODE_NAME);
        n->name = name;
        return n;
    }
    if (accept(p, "(")) return parse_parenthesis(p);
    if (accept(p, "[")) return parse_list(p);
    if (accept(p, "{")) return parse_dict(p);
    jinja_fail(p->heap, "expected an expression, found '%.60s'", p->word);
}

static JinjaNode *parse_subscript(Parser *p, JinjaNode *of) {
    JinjaNode *n = node(p, NODE_INDEX), *parts[3] = {NULL};
    n->a = of;
    int colons = 0;
    while (!is_operator(p, "]")) {
        if (accept(p, ":")) {
            if (++colons > 2) jinja_fail(p->heap, "a slice has at most two colons");
        } else if (parts[colons]) expect(p, "]");
        else parts[colons] = parse_expression(p);
    }
    expect(p, "]");
    if (!colons && !parts[0]) jinja_fail(p->heap, "expected an index within []");
    n->b = parts[0];
    if (!colons) return n;
    n->kind = NODE_SLICE;
    for (int i = 0; i < 3; i++) add_part(p, n, NULL, parts[i]);
    return n;
}

static JinjaNode *parse_call(Parser *p, JinjaNode *of) {
    JinjaNode *n = node(p, NODE_CALL);
    n->a = of;
    parse_arguments(p, n);
    return n;
}

static JinjaNode *parse_postfix(Parser *p, JinjaNode *n) {
    for (int length = 0;; length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        if (accept(p, ".")) {
            JinjaNode *of = n;
            n = node(p, p->kind == TOKEN_OF_VALUE ? NODE_INDEX : NODE_MEMBER);
            n->a = of;
            if (n->kind == NODE_INDEX) n->b = parse_value(p);
            else n->name = expect_name(p);
        } else if (accept(p, "[")) n = parse_subscript(p, n);
        else if (accept(p, "(")) n = parse_call(p, n);
        else return n;
    }
}

static JinjaNode *parse_filter(Parser *p, JinjaNode *of) {
    JinjaNode *n = node(p, NODE_FILTER);
    n->a = of;
    n->name = expect_name(p);
    if (accept(p, "(")) parse_arguments(p, n);
    return n;
}

static bool begins_operand(const Parser *p) {
    static const char *const others[] = {"else", "or", "and"};
    if (p->kind == TOKEN_OF_VALUE) return true;
    if (p->kind == TOKEN_OF_OPERATOR) return strchr("[{", *p->word);
    if (p->kind != TOKEN_OF_NAME) return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (is_name(p, others[i])) return false;
    }
    return true;
}

static JinjaNode *parse_test(Parser *p, JinjaNode *of) {
    bool negated = accept(p, "not");
    JinjaNode *n = node(p, NODE_TEST), *not = node(p, NODE_NOT);
    n->a = of;
    bool in_word = is_name(p, "in");
    n->name = expect_name(p);
    if (is_name(p, "is")) jinja_fail(p->heap, "is: tests do not stand in a chain");
    if (accept(p, "(")) {
        if (in_word) add_part(p, n, NULL, parse_postfix(p, parse_parenthesis(p)));
        else parse_arguments(p, n);
    } else if (begins_operand(p)) add_part(p, n, NULL, parse_postfix(p, parse_primary(p)));
    not ->a = n;
    return negated ? not : n;
}

static JinjaNode *parse_filters(Parser *p, JinjaNode *n) {
    for (int length = 0;; length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        if (accept(p, "|")) n = parse_filter(p, n);
        else if (accept(p, "is")) n = parse_test(p, n);
        else if (accept(p, "(")) n = parse_call(p, n);
        else return n;
    }
}

static JinjaNode *parse_unary(Parser *p, bool filters) {
    JinjaNode *n;
    deeper(p);
    if (is_operator(p, "-") || is_operator(p, "+")) {
        n = node(p, is_operator(p, "-") ? NODE_NEGATE : NODE_PLUS);
        next_token(p);
        n->a = parse_unary(p, false);
    } else n = parse_primary(p);
    n = parse_postfix(p, n);
    p->depth--;
    return filters ? parse_filters(p, n) : n;
}

static JinjaNode *parse_power(Parser *p) {
    JinjaNode *n = parse_unary(p, true);
    for (int length = 0; accept(p, "**"); length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        n = binary(p, OP_POWER, n, parse_unary(p, true));
    }
    return n;
}

typedef struct {
    const char *word;
    JinjaOp op;
    int level;
} Operator;

// Left-associative operators, weakest level first.
static const Operator binary_operators[] = {{"+", OP_ADD, 0},      {"-", OP_SUBTRACT, 0}, {"~", OP_JOIN, 1},
                                            {"*", OP_MULTIPLY, 2}, {"/", OP_DIVIDE, 2},   {"//", OP_FLOOR, 2},
                                            {"%", OP_MODULO, 2}};

static JinjaNode *parse_level(Parser *p, int level) {
    if (level > 2) return parse_power(p);
    JinjaNode *n = parse_level(p, level + 1);
    for (int length = 0;; length++) {
        const Operator *found = NULL;
        for (size_t i = 0; i < sizeof binary_operators / sizeof *binary_operators; i++) {
            const Operator *o = &binary_operators[i];
            if (o->level == level && is_operator(p, o->word)) found = o;
        }
        if (!found) return n;
        if (length > JINJA_DEPTH / 2) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 2);
        next_token(p);
        n = binary(p, found->op, n, parse_level(p, level + 1));
    }
}

static bool accept_comparison(Parser *p, JinjaOp *op) {
    static const Operator comparisons[] = {{"==", OP_EQUAL, 0},      {"!=", OP_UNEQUAL, 0}, {"<", OP_LESS, 0},
                                           {"<=", OP_LESS_EQUAL, 0}, {">", OP_GREATER, 0},  {">=", OP_GREATER_EQUAL, 0},
                                           {"in", OP_IN, 0}};
    for (size_t i = 0; i < sizeof comparisons / sizeof *comparisons; i++) {
        *op = comparisons[i].op;
        if (accept(p, comparisons[i].word)) return true;
    }
    *op = OP_NOT_IN;
    if (!accept(p, "not")) return false;
    expect(p, "in");
    return true;
}

static JinjaNode *parse_comparison(Parser *p) {
    JinjaNode *left = parse_level(p, 0), *all = NULL;
    JinjaOp op;
    for (int length = 0; accept_comparison(p, &op); length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        JinjaNode *right = parse_level(p, 0), *one = binary(p, op, left, right);
        left = right; // a < b < c: a < b and b < c
        if (all) {
            JinjaNode *both = node(p, NODE_AND);
            both->a = all;
            both->b = one;
            one = both;
        }
        all = one;
    }
    return all ? all : left;
}

static JinjaNode *parse_not(Parser *p) {
    if (!is_name(p, "not")) return parse_comparison(p);
    JinjaNode *n = node(p, NODE_NOT);
    deeper(p);
    next_token(p);
    n->a = parse_not(p);
    p->depth--;
    return n;
}

static JinjaNode *parse_logic(Parser *p, bool or) {
    JinjaNode *n = or ? parse_logic(p, false) : parse_not(p);
    for (int length = 0; accept(p, or ? "or" : "and"); length++) {
        if (length > JINJA_DEPTH / 2) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 2);
        JinjaNode *both = node(p, or ? NODE_OR : NODE_AND);
        both->a = n;
        both->b = or ? parse_logic(p, false) : parse_not(p);
        n = both;
    }
    return n;
}

static JinjaNode *parse_without_choice(Parser *p) {
    deeper(p);
    JinjaNode *n = parse_logic(p, true);
    p->depth--;
    return n;
}

static JinjaNode *parse_expression(Parser *p) {
    deeper(p);
    JinjaNode *n = parse_logic(p, true);
    for (int length = 0; accept(p, "if"); length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        JinjaNode *choice = node(p, NODE_CHOICE);
        choice->a = n;
        choice->b = parse_logic(p, true);
        if (accept(p, "else")) choice->c = parse_expression(p);
        n = choice;
    }
    p->depth--;
    return n;
}

static JinjaNode *parse_expressions(Parser *p) { // a tuple may go without parentheses
    JinjaNode *n = parse_expression(p);
    return is_operator(p, ",") ? parse_tuple_rest(p, n) : n;
}

// ---- text between tags

static JinjaNode *text_node(Parser *p, size_t begin, size_t end) {
    JinjaNode *n = node(p, NODE_OUTPUT);
    n->a = literal(p, jinja_text(p->source + begin, end - begin));
    return n;
}

// The end of the text before a tag at p->at, without the white space that the tag removes.
static size_t text_end(const Parser *p, size_t begin, bool variable) {
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
    while (line > begin && is_blank(p->source[line - 1]) && p->source[line - 1] != '\n') line--;
    bool at_start = line > begin ? p->source[line - 1] == '\n' : p->line_starts;
    return at_start ? line : end;
}

static void skip_comment(Parser *p) {
    int line = p->heap->line;
    while (p->at < p->n && !begins(p, "#}")) advance(p, 1);
    if (p->at == p->n) {
        p->heap->line = line;
        jinja_fail(p->heap, "a comment without its #}");
    }
    char sign = p->source[p->at - 1];
    advance(p, 2);
    size_t from = p->at;
    if (sign == '-') skip_space(p);
    else if (sign != '+' && begins(p, "\n")) advance(p, 1);
    p->line_starts = p->at > from && p->source[p->at - 1] == '\n';
}

static void expect_tag_end(Parser *p) {
    if (p->kind != TOKEN_OF_END) jinja_fail(p->heap, "expected the end of the tag, found '%.60s'", p->word);
}

static void open_tag(Parser *p, bool variable) {
    advance(p, 2);
    if (p->at < p->n && (p->source[p->at] == '-' || (p->source[p->at] == '+' && !variable))) advance(p, 1);
    p->variable = variable;
    p->nested = 0;
    next_token(p);
}

// ---- statements

static JinjaNode *parse_body(Parser *p, const char *ends);

// Whether the word is one of these, each between two spaces.
static bool is_among(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *at = strstr(words, word); n && at; at = strstr(at + 1, word)) {
        if (at > words && at[-1] == ' ' && at[n] == ' ') return true;
    }
    return false;
}

static JinjaNode *parse_if(Parser *p) {
    JinjaNode *n = node(p, NODE_IF);
    do {
        add_part(p, n, NULL, parse_expressions(p));
        expect_tag_end(p);
        add_part(p, n, NULL, parse_body(p, " elif else endif "));
    } while (!strcmp(p->keyword, "elif"));
    if (!strcmp(p->keyword, "else")) {
        expect_tag_end(p);
        n->c = parse_body(p, " endif ");
    }
    expect_tag_end(p);
    return n;
}

// Names, members or indices that a value is assigned to, with commas.
static JinjaNode *parse_target(Parser *p) {
    JinjaNode *n = parse_postfix(p, parse_primary(p));
    if (n->kind == NODE_INDEX) jinja_fail(p->heap, "expected a name or a member, found an index");
    if (!is_operator(p, ",")) return n;
    JinjaNode *tuple = node(p, NODE_TUPLE);
    add_part(p, tuple, NULL, n);
    while (accept(p, ",")) {
        if (is_name(p, "in") || is_operator(p, "=")) break;
        add_part(p, tuple, NULL, parse_postfix(p, parse_primary(p)));
    }
    return tuple;
}

static JinjaNode *parse_for(Parser *p) {
    JinjaNode *n = node(p, NODE_FOR);
    n->a = parse_target(p);
    expect(p, "in");
    n->b = parse_without_choice(p);
    if (is_operator(p, ",")) n->b = parse_tuple_rest(p, n->b);
    if (accept(p, "if")) n->d = parse_expression(p);
    n->recursive = accept(p, "recursive");
    expect_tag_end(p);
    p->loops++;
    n->e = parse_body(p, " else endfor ");
    p->loops--;
    if (!strcmp(p->keyword, "else")) {
        expect_tag_end(p);
        n->c = parse_body(p, " endfor ");
    }
    expect_tag_end(p);
    return n;
}

static JinjaNode *parse_set(Parser *p) {
    JinjaNode *n = node(p, NODE_SET);
    n->a = parse_target(p);
    if (accept(p, "=")) {
        n->b = parse_expressions(p);
        expect_tag_end(p);
        return n;
    }
    n->kind = NODE_SET_BLOCK;
    if (is_operator(p, "|")) n->b = parse_filters(p, NULL);
    expect_tag_end(p);
    n->e = parse_body(p, " endset ");
    expect_tag_end(p);
    return n;
}

// A body that breaks no loop around it.
static JinjaNode *parse_own_body(Parser *p, const char *ends) {
    int loops = p->loops;
    p->loops = 0;
    JinjaNode *n = parse_body(p, ends);
    p->loops = loops;
    return n;
}

static void parse_parameters(Parser *p, JinjaNode *n) {
    expect(p, "(");
    while (!accept(p, ")")) {
        const char *name = expect_name(p);
        add_part(p, n, name, accept(p, "=") ? parse_expression(p) : NULL);
        if (!is_operator(p, ")")) expect(p, ",");
    }
}

static JinjaNode *parse_macro(Parser *p) {
    JinjaNode *n = node(p, NODE_MACRO);
    n->name = expect_name(p);
    parse_parameters(p, n);
    expect_tag_end(p);
    n->e = parse_own_body(p, " endmacro ");
    expect_tag_end(p);
    return n;
}

static JinjaNode *parse_call_block(Parser *p) {
    JinjaNode *n = node(p, NODE_CALL_BLOCK);
    n->d = node(p, NODE_MACRO);
    n->d->name = "caller";
    if (is_operator(p, "(")) parse_parameters(p, n->d);
    n->b = parse_expression(p);
    if (n->b->kind != NODE_CALL) jinja_fail(p->heap, "call: expected a call");
    expect_tag_end(p);
    n->d->e = parse_own_body(p, " endcall ");
    expect_tag_end(p);
    return n;
}

static JinjaNode *parse_filter_block(Parser *p) {
    JinjaNode *n = node(p, NODE_FILTER_BLOCK);
    n->b = parse_filters(p, parse_filter(p, NULL));
    expect_tag_end(p);
    n->e = parse_body(p, " endfilter ");
    expect_tag_end(p);
    return n;
}

static JinjaNode *parse_raw(Parser *p) {
    expect_tag_end(p);
    if (p->at > 3 && !memcmp(p->source + p->at - 3, "%}\n", 3) && p->source[p->at - 4] != '-') { // stays, of raw only
        p->at--;
        p->heap->line--;
    }
    size_t begin = p->at;
    for (; p->at < p->n; advance(p, 1)) {
        if (!begins(p, "{%")) continue;
        size_t at = p->at + 2;
        while (at < p->n && (is_blank(p->source[at]) || p->source[at] == '-' || p->source[at] == '+')) at++;
        if (p->n - at < 6 || memcmp(p->source + at, "endraw", 6)) continue;
        JinjaNode *n = text_node(p, begin, text_end(p, begin, false));
        open_tag(p, false);
        next_token(p);
        expect_tag_end(p);
        return n;
    }
    jinja_fail(p->heap, "expected endraw, found the end of the template");
}

static JinjaNode *parse_jump(Parser *p, JinjaNodeKind kind) {
    JinjaNode *n = node(p, kind);
    if (!p->loops) jinja_fail(p->heap, "%s outside a loop", kind == NODE_BREAK ? "break" : "continue");
    expect_tag_end(p);
    return n;
}

static JinjaNode *parse_generation(Parser *p) { // transformers marks what the model says
    expect_tag_end(p);
    JinjaNode *n = parse_own_body(p, " endgeneration ");
    expect_tag_end(p);
    return n;
}

static JinjaNode *parse_statement(Parser *p, const char *word) {
    if (!strcmp(word, "if")) return parse_if(p);
    if (!strcmp(word, "for")) return parse_for(p);
    if (!strcmp(word, "set")) return parse_set(p);
    if (!strcmp(word, "macro")) return parse_macro(p);
    if (!strcmp(word, "call")) return parse_call_block(p);
    if (!strcmp(word, "filter")) return parse_filter_block(p);
    if (!strcmp(word, "raw")) return parse_raw(p);
    if (!strcmp(word, "generation")) return parse_generation(p);
    if (!strcmp(word, "break")) return parse_jump(p, NODE_BREAK);
    if (!strcmp(word, "continue")) return parse_jump(p, NODE_CONTINUE);
    jinja_fail(p->heap, "unknown statement '%.60s'", word);
}

static JinjaNode *parse_output(Parser *p) {
    open_tag(p, true);
    JinjaNode *n = node(p, NODE_OUTPUT);
    n->a = parse_expressions(p);
    expect_tag_end(p);
    return n;
}

// Statements up to a tag of one of these words, which is consumed: p->keyword. NULL: up to the end of the template.
static JinjaNode *parse_body(Parser *p, const char *ends) {
    JinjaNode *body = node(p, NODE_BODY);
    int line = p->heap->line;
    deeper(p);
    size_t begin = p->at;
    while (p->at < p->n) {
        char kind = p->source[p->at] == '{' && p->at + 1 < p->n ? p->source[p->at + 1] : 0;
        if (kind != '{' && kind != '%' && kind != '#') {
            advance(p, 1);
            continue;
        }
        size_t end = text_end(p, begin, kind == '{');
        if (end > begin) add_part(p, body, NULL, text_node(p, begin, end));
        if (kind == '{') add_part(p, body, NULL, parse_output(p));
        else if (kind == '#') {
            advance(p, 2);
            skip_comment(p);
        } else {
            open_tag(p, false);
            const char *word = expect_name(p);
            p->keyword = word;
            if (ends && is_among(ends, word)) {
                p->depth--;
                return body;
            }
            add_part(p, body, NULL, parse_statement(p, word));
        }
        begin = p->at;
    }
    if (ends) {
        p->heap->line = line;
        jinja_fail(p->heap, "expected one of%sand found the end of the template", ends);
    }
    if (p->n > begin) add_part(p, body, NULL, text_node(p, begin, p->n));
    p->depth--;
    return body;
}

JinjaNode *jinja_parse(JinjaHeap *h, const char *source, size_t n) {
    char *copy = jinja_alloc(h, n + 1), *to = copy;
    for (size_t i = 0; i < n; i++) { // lines end with \n
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n') continue;
        *to++ = source[i] == '\r' ? '\n' : source[i];
    }
    if (to > copy && to[-1] == '\n') to--;
    Parser p = {.heap = h, .source = copy, .n = (size_t)(to - copy), .line_starts = true};
    h->line = 1;
    return parse_body(&p, NULL);
}
