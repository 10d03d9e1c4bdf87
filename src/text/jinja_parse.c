// jinja_parse: see jinja_parse.h.
#include "jinja_parse.h"

#include "jinja_tokens.h"

#include <string.h>

static JinjaNode *parse_expression(JinjaTokens *p);
static JinjaNode *parse_unary(JinjaTokens *p, bool filters);

// ---- nodes

static JinjaNode *node(JinjaTokens *p, JinjaNodeKind kind) {
    JinjaNode *n = jinja_alloc(p->heap, sizeof *n);
    n->kind = kind;
    n->line = p->heap->line;
    return n;
}

static void add_part(JinjaTokens *p, JinjaNode *n, const char *name, JinjaNode *part) {
    n->parts = jinja_grow(p->heap, n->parts, n->n, &n->room, sizeof *n->parts);
    n->names = jinja_grow(p->heap, n->names, n->n, &n->names_room, sizeof *n->names);
    n->names[n->n] = name;
    n->parts[n->n++] = part;
}

static void deeper(JinjaTokens *p) {
    if (++p->depth > JINJA_DEPTH / 2) jinja_fail(p->heap, "nested deeper than %d", JINJA_DEPTH / 2);
}

// ---- expressions, from the weakest operator to the strongest

static JinjaNode *binary(JinjaTokens *p, JinjaOp op, JinjaNode *a, JinjaNode *b) {
    JinjaNode *n = node(p, NODE_BINARY);
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

// The * or ** before an argument that is several; NULL: neither.
static const char *accept_star(JinjaTokens *p) {
    const char *star = jinja_is_operator(p, "*") || jinja_is_operator(p, "**") ? p->word : NULL;
    if (star) jinja_next_token(p);
    return star;
}

// Arguments up to the closing parenthesis, the opening one is consumed.
static void parse_arguments(JinjaTokens *p, JinjaNode *n) {
    while (!jinja_accept(p, ")")) {
        const char *name = accept_star(p);
        JinjaNode *value = parse_expression(p);
        if (!name && value->kind == NODE_NAME && jinja_accept(p, "=")) {
            name = value->name;
            value = parse_expression(p);
        }
        if (!name && n->n && n->names[n->n - 1])
            jinja_fail(p->heap, "an argument without a name behind those with names");
        add_part(p, n, name, value);
        if (!jinja_is_operator(p, ")")) jinja_expect(p, ",");
    }
}

static JinjaNode *parse_tuple_rest(JinjaTokens *p, JinjaNode *first) {
    JinjaNode *n = node(p, NODE_TUPLE);
    add_part(p, n, NULL, first);
    while (jinja_accept(p, ",")) {
        if (jinja_is_operator(p, ")") || p->kind == TOKEN_OF_END) break;
        add_part(p, n, NULL, parse_expression(p));
    }
    return n;
}

static JinjaNode *parse_parenthesis(JinjaTokens *p) {
    if (jinja_accept(p, ")")) return node(p, NODE_TUPLE);
    JinjaNode *n = parse_expression(p);
    if (jinja_is_operator(p, ",")) n = parse_tuple_rest(p, n);
    jinja_expect(p, ")");
    return n;
}

static JinjaNode *parse_list(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_LIST);
    while (!jinja_accept(p, "]")) {
        add_part(p, n, NULL, parse_expression(p));
        if (!jinja_is_operator(p, "]")) jinja_expect(p, ",");
    }
    return n;
}

static JinjaNode *parse_dict(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_DICT);
    while (!jinja_accept(p, "}")) {
        add_part(p, n, NULL, parse_expression(p));
        jinja_expect(p, ":");
        add_part(p, n, NULL, parse_expression(p));
        if (!jinja_is_operator(p, "}")) jinja_expect(p, ",");
    }
    return n;
}

static JinjaNode *literal(JinjaTokens *p, JinjaValue v) {
    JinjaNode *n = node(p, NODE_LITERAL);
    n->value = v;
    return n;
}

static JinjaNode *parse_value(JinjaTokens *p) {
    JinjaBuffer b = {0};
    JinjaNode *n = literal(p, p->value);
    jinja_next_token(p);
    if (n->value.kind != JINJA_STRING || p->kind != TOKEN_OF_VALUE || p->value.kind != JINJA_STRING) return n;
    jinja_append(p->heap, &b, n->value.text);
    for (; p->kind == TOKEN_OF_VALUE && p->value.kind == JINJA_STRING;
         jinja_next_token(p)) // strings side by side are one
        jinja_append(p->heap, &b, p->value.text);
    n->value = jinja_take(&b);
    n->value.text.from = NULL;
    return n;
}

static JinjaNode *parse_primary(JinjaTokens *p) {
    if (p->kind == TOKEN_OF_VALUE) return parse_value(p);
    if (p->kind == TOKEN_OF_NAME) {
        const char *name = jinja_expect_name(p);
        if (!strcmp(name, "true") || !strcmp(name, "True")) return literal(p, jinja_bool(true));
        if (!strcmp(name, "false") || !strcmp(name, "False")) return literal(p, jinja_bool(false));
        if (!strcmp(name, "none") || !strcmp(name, "None")) return literal(p, jinja_none());
        JinjaNode *n = node(p, NODE_NAME);
        n->name = name;
        return n;
    }
    if (jinja_accept(p, "(")) return parse_parenthesis(p);
    if (jinja_accept(p, "[")) return parse_list(p);
    if (jinja_accept(p, "{")) return parse_dict(p);
    jinja_fail(p->heap, "expected an expression, found '%.60s'", p->word);
}

static JinjaNode *parse_subscript(JinjaTokens *p, JinjaNode *of) {
    JinjaNode *n = node(p, NODE_INDEX), *parts[3] = {NULL};
    n->a = of;
    int colons = 0;
    while (!jinja_is_operator(p, "]")) {
        if (jinja_accept(p, ":")) {
            if (++colons > 2) jinja_fail(p->heap, "a slice has at most two colons");
        } else if (parts[colons]) jinja_expect(p, "]");
        else parts[colons] = parse_expression(p);
    }
    jinja_expect(p, "]");
    if (!colons && !parts[0]) jinja_fail(p->heap, "expected an index within []");
    n->b = parts[0];
    if (!colons) return n;
    n->kind = NODE_SLICE;
    for (int i = 0; i < 3; i++) add_part(p, n, NULL, parts[i]);
    return n;
}

static JinjaNode *parse_call(JinjaTokens *p, JinjaNode *of) {
    JinjaNode *n = node(p, NODE_CALL);
    n->a = of;
    parse_arguments(p, n);
    return n;
}

static JinjaNode *parse_postfix(JinjaTokens *p, JinjaNode *n) {
    for (int length = 0;; length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        if (jinja_accept(p, ".")) {
            JinjaNode *of = n;
            n = node(p, p->kind == TOKEN_OF_VALUE ? NODE_INDEX : NODE_MEMBER);
            n->a = of;
            if (n->kind == NODE_INDEX) n->b = parse_value(p);
            else n->name = jinja_expect_name(p);
        } else if (jinja_accept(p, "[")) n = parse_subscript(p, n);
        else if (jinja_accept(p, "(")) n = parse_call(p, n);
        else return n;
    }
}

static JinjaNode *parse_filter(JinjaTokens *p, JinjaNode *of) {
    JinjaNode *n = node(p, NODE_FILTER);
    n->a = of;
    n->name = jinja_expect_name(p);
    if (jinja_accept(p, "(")) parse_arguments(p, n);
    return n;
}

static bool begins_operand(const JinjaTokens *p) {
    static const char *const others[] = {"else", "or", "and"};
    if (p->kind == TOKEN_OF_VALUE) return true;
    if (p->kind == TOKEN_OF_OPERATOR) return strchr("[{", *p->word);
    if (p->kind != TOKEN_OF_NAME) return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (jinja_is_name(p, others[i])) return false;
    }
    return true;
}

static JinjaNode *parse_test(JinjaTokens *p, JinjaNode *of) {
    bool negated = jinja_accept(p, "not");
    JinjaNode *n = node(p, NODE_TEST), *not = node(p, NODE_NOT);
    n->a = of;
    bool in_word = jinja_is_name(p, "in");
    n->name = jinja_expect_name(p);
    if (jinja_is_name(p, "is")) jinja_fail(p->heap, "is: tests do not stand in a chain");
    if (jinja_accept(p, "(")) {
        if (in_word) add_part(p, n, NULL, parse_postfix(p, parse_parenthesis(p)));
        else parse_arguments(p, n);
    } else if (begins_operand(p)) add_part(p, n, NULL, parse_postfix(p, parse_primary(p)));
    not ->a = n;
    return negated ? not : n;
}

static JinjaNode *parse_filters(JinjaTokens *p, JinjaNode *n) {
    for (int length = 0;; length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        if (jinja_accept(p, "|")) n = parse_filter(p, n);
        else if (jinja_accept(p, "is")) n = parse_test(p, n);
        else if (jinja_accept(p, "(")) n = parse_call(p, n);
        else return n;
    }
}

static JinjaNode *parse_unary(JinjaTokens *p, bool filters) {
    JinjaNode *n;
    deeper(p);
    if (jinja_is_operator(p, "-") || jinja_is_operator(p, "+")) {
        n = node(p, jinja_is_operator(p, "-") ? NODE_NEGATE : NODE_PLUS);
        jinja_next_token(p);
        n->a = parse_unary(p, false);
    } else n = parse_primary(p);
    n = parse_postfix(p, n);
    p->depth--;
    return filters ? parse_filters(p, n) : n;
}

static JinjaNode *parse_power(JinjaTokens *p) {
    JinjaNode *n = parse_unary(p, true);
    for (int length = 0; jinja_accept(p, "**"); length++) {
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

static JinjaNode *parse_level(JinjaTokens *p, int level) {
    if (level > 2) return parse_power(p);
    JinjaNode *n = parse_level(p, level + 1);
    for (int length = 0;; length++) {
        const Operator *found = NULL;
        for (size_t i = 0; i < sizeof binary_operators / sizeof *binary_operators; i++) {
            const Operator *o = &binary_operators[i];
            if (o->level == level && jinja_is_operator(p, o->word)) found = o;
        }
        if (!found) return n;
        if (length > JINJA_DEPTH / 2) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 2);
        jinja_next_token(p);
        n = binary(p, found->op, n, parse_level(p, level + 1));
    }
}

static bool accept_comparison(JinjaTokens *p, JinjaOp *op) {
    static const Operator comparisons[] = {{"==", OP_EQUAL, 0},      {"!=", OP_UNEQUAL, 0}, {"<", OP_LESS, 0},
                                           {"<=", OP_LESS_EQUAL, 0}, {">", OP_GREATER, 0},  {">=", OP_GREATER_EQUAL, 0},
                                           {"in", OP_IN, 0}};
    for (size_t i = 0; i < sizeof comparisons / sizeof *comparisons; i++) {
        *op = comparisons[i].op;
        if (jinja_accept(p, comparisons[i].word)) return true;
    }
    *op = OP_NOT_IN;
    if (!jinja_accept(p, "not")) return false;
    jinja_expect(p, "in");
    return true;
}

static JinjaNode *parse_comparison(JinjaTokens *p) {
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

static JinjaNode *parse_not(JinjaTokens *p) {
    if (!jinja_is_name(p, "not")) return parse_comparison(p);
    JinjaNode *n = node(p, NODE_NOT);
    deeper(p);
    jinja_next_token(p);
    n->a = parse_not(p);
    p->depth--;
    return n;
}

static JinjaNode *parse_logic(JinjaTokens *p, bool or) {
    JinjaNode *n = or ? parse_logic(p, false) : parse_not(p);
    for (int length = 0; jinja_accept(p, or ? "or" : "and"); length++) {
        if (length > JINJA_DEPTH / 2) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 2);
        JinjaNode *both = node(p, or ? NODE_OR : NODE_AND);
        both->a = n;
        both->b = or ? parse_logic(p, false) : parse_not(p);
        n = both;
    }
    return n;
}

static JinjaNode *parse_without_choice(JinjaTokens *p) {
    deeper(p);
    JinjaNode *n = parse_logic(p, true);
    p->depth--;
    return n;
}

static JinjaNode *parse_expression(JinjaTokens *p) {
    deeper(p);
    JinjaNode *n = parse_logic(p, true);
    for (int length = 0; jinja_accept(p, "if"); length++) {
        if (length > JINJA_DEPTH / 4) jinja_fail(p->heap, "a chain of more than %d", JINJA_DEPTH / 4);
        JinjaNode *choice = node(p, NODE_CHOICE);
        choice->a = n;
        choice->b = parse_logic(p, true);
        if (jinja_accept(p, "else")) choice->c = parse_expression(p);
        n = choice;
    }
    p->depth--;
    return n;
}

static JinjaNode *parse_expressions(JinjaTokens *p) { // a tuple may go without parentheses
    JinjaNode *n = parse_expression(p);
    return jinja_is_operator(p, ",") ? parse_tuple_rest(p, n) : n;
}

static JinjaNode *text_node(JinjaTokens *p, size_t begin, size_t end) {
    JinjaNode *n = node(p, NODE_OUTPUT);
    n->a = literal(p, jinja_text(p->source + begin, end - begin));
    return n;
}

// ---- statements

static JinjaNode *parse_body(JinjaTokens *p, const char *ends);

// Whether the word is one of these, each between two spaces.
static bool is_among(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *at = strstr(words, word); n && at; at = strstr(at + 1, word)) {
        if (at > words && at[-1] == ' ' && at[n] == ' ') return true;
    }
    return false;
}

static JinjaNode *parse_if(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_IF);
    do {
        add_part(p, n, NULL, parse_expressions(p));
        jinja_expect_tag_end(p);
        add_part(p, n, NULL, parse_body(p, " elif else endif "));
    } while (!strcmp(p->keyword, "elif"));
    if (!strcmp(p->keyword, "else")) {
        jinja_expect_tag_end(p);
        n->c = parse_body(p, " endif ");
    }
    jinja_expect_tag_end(p);
    return n;
}

// Names, members or indices that a value is assigned to, with commas.
static JinjaNode *parse_target(JinjaTokens *p) {
    JinjaNode *n = parse_postfix(p, parse_primary(p));
    if (n->kind == NODE_INDEX) jinja_fail(p->heap, "expected a name or a member, found an index");
    if (!jinja_is_operator(p, ",")) return n;
    JinjaNode *tuple = node(p, NODE_TUPLE);
    add_part(p, tuple, NULL, n);
    while (jinja_accept(p, ",")) {
        if (jinja_is_name(p, "in") || jinja_is_operator(p, "=")) break;
        add_part(p, tuple, NULL, parse_postfix(p, parse_primary(p)));
    }
    return tuple;
}

static JinjaNode *parse_for(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_FOR);
    n->a = parse_target(p);
    jinja_expect(p, "in");
    n->b = parse_without_choice(p);
    if (jinja_is_operator(p, ",")) n->b = parse_tuple_rest(p, n->b);
    if (jinja_accept(p, "if")) n->d = parse_expression(p);
    n->recursive = jinja_accept(p, "recursive");
    jinja_expect_tag_end(p);
    p->loops++;
    n->e = parse_body(p, " else endfor ");
    p->loops--;
    if (!strcmp(p->keyword, "else")) {
        jinja_expect_tag_end(p);
        n->c = parse_body(p, " endfor ");
    }
    jinja_expect_tag_end(p);
    return n;
}

static JinjaNode *parse_set(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_SET);
    n->a = parse_target(p);
    if (jinja_accept(p, "=")) {
        n->b = parse_expressions(p);
        jinja_expect_tag_end(p);
        return n;
    }
    n->kind = NODE_SET_BLOCK;
    if (jinja_is_operator(p, "|")) n->b = parse_filters(p, NULL);
    jinja_expect_tag_end(p);
    n->e = parse_body(p, " endset ");
    jinja_expect_tag_end(p);
    return n;
}

// A body that breaks no loop around it.
static JinjaNode *parse_own_body(JinjaTokens *p, const char *ends) {
    int loops = p->loops;
    p->loops = 0;
    JinjaNode *n = parse_body(p, ends);
    p->loops = loops;
    return n;
}

static void parse_parameters(JinjaTokens *p, JinjaNode *n) {
    jinja_expect(p, "(");
    while (!jinja_accept(p, ")")) {
        const char *name = jinja_expect_name(p);
        add_part(p, n, name, jinja_accept(p, "=") ? parse_expression(p) : NULL);
        if (!jinja_is_operator(p, ")")) jinja_expect(p, ",");
    }
}

static JinjaNode *parse_macro(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_MACRO);
    n->name = jinja_expect_name(p);
    parse_parameters(p, n);
    jinja_expect_tag_end(p);
    n->e = parse_own_body(p, " endmacro ");
    jinja_expect_tag_end(p);
    return n;
}

static JinjaNode *parse_call_block(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_CALL_BLOCK);
    n->d = node(p, NODE_MACRO);
    n->d->name = "caller";
    if (jinja_is_operator(p, "(")) parse_parameters(p, n->d);
    n->b = parse_expression(p);
    if (n->b->kind != NODE_CALL) jinja_fail(p->heap, "call: expected a call");
    jinja_expect_tag_end(p);
    n->d->e = parse_own_body(p, " endcall ");
    jinja_expect_tag_end(p);
    return n;
}

static JinjaNode *parse_filter_block(JinjaTokens *p) {
    JinjaNode *n = node(p, NODE_FILTER_BLOCK);
    n->b = parse_filters(p, parse_filter(p, NULL));
    jinja_expect_tag_end(p);
    n->e = parse_body(p, " endfilter ");
    jinja_expect_tag_end(p);
    return n;
}

static JinjaNode *parse_raw(JinjaTokens *p) {
    jinja_expect_tag_end(p);
    if (p->at > 3 && !memcmp(p->source + p->at - 3, "%}\n", 3) && p->source[p->at - 4] != '-') { // stays, of raw only
        p->at--;
        p->heap->line--;
    }
    size_t begin = p->at;
    for (; p->at < p->n; jinja_advance(p, 1)) {
        if (!jinja_begins(p, "{%")) continue;
        size_t at = p->at + 2;
        while (at < p->n && (jinja_is_blank(p->source[at]) || p->source[at] == '-' || p->source[at] == '+')) at++;
        if (p->n - at < 6 || memcmp(p->source + at, "endraw", 6)) continue;
        JinjaNode *n = text_node(p, begin, jinja_text_end(p, begin, false));
        jinja_open_tag(p, false);
        jinja_next_token(p);
        jinja_expect_tag_end(p);
        return n;
    }
    jinja_fail(p->heap, "expected endraw, found the end of the template");
}

static JinjaNode *parse_jump(JinjaTokens *p, JinjaNodeKind kind) {
    JinjaNode *n = node(p, kind);
    if (!p->loops) jinja_fail(p->heap, "%s outside a loop", kind == NODE_BREAK ? "break" : "continue");
    jinja_expect_tag_end(p);
    return n;
}

static JinjaNode *parse_generation(JinjaTokens *p) { // transformers marks what the model says
    jinja_expect_tag_end(p);
    JinjaNode *n = parse_own_body(p, " endgeneration ");
    jinja_expect_tag_end(p);
    return n;
}

static JinjaNode *parse_statement(JinjaTokens *p, const char *word) {
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

static JinjaNode *parse_output(JinjaTokens *p) {
    jinja_open_tag(p, true);
    JinjaNode *n = node(p, NODE_OUTPUT);
    n->a = parse_expressions(p);
    jinja_expect_tag_end(p);
    return n;
}

// Statements up to a tag of one of these words, which is consumed: p->keyword. NULL: up to the end of the template.
static JinjaNode *parse_body(JinjaTokens *p, const char *ends) {
    JinjaNode *body = node(p, NODE_BODY);
    int line = p->heap->line;
    deeper(p);
    size_t begin = p->at;
    while (p->at < p->n) {
        char kind = p->source[p->at] == '{' && p->at + 1 < p->n ? p->source[p->at + 1] : 0;
        if (kind != '{' && kind != '%' && kind != '#') {
            jinja_advance(p, 1);
            continue;
        }
        size_t end = jinja_text_end(p, begin, kind == '{');
        if (end > begin) add_part(p, body, NULL, text_node(p, begin, end));
        if (kind == '{') add_part(p, body, NULL, parse_output(p));
        else if (kind == '#') {
            jinja_advance(p, 2);
            jinja_skip_comment(p);
        } else {
            jinja_open_tag(p, false);
            const char *word = jinja_expect_name(p);
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
    JinjaTokens p = {.heap = h, .source = copy, .n = (size_t)(to - copy), .line_starts = true};
    h->line = 1;
    return parse_body(&p, NULL);
}
