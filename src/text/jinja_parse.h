// jinja_parse: the syntax of chat templates.
//
// Owns the parser of the part of Jinja that chat templates use. Refuses everything else with the line of the template.
// Called by jinja.c.
#pragma once
#include "jinja_value.h"

typedef enum {
    NODE_LITERAL,
    NODE_NAME,
    NODE_LIST,  // parts
    NODE_TUPLE, // parts
    NODE_DICT,  // parts: key, value, ...
    NODE_NOT,
    NODE_NEGATE,
    NODE_PLUS,
    NODE_BINARY, // a op b
    NODE_AND,
    NODE_OR,
    NODE_CHOICE, // a if b else c
    NODE_MEMBER, // a.name
    NODE_INDEX,  // a[b]
    NODE_SLICE,  // a[parts[0]:parts[1]:parts[2]], NULL: left out
    NODE_CALL,   // a(arguments)
    NODE_FILTER, // a|name(arguments); a NULL: the text of a filter block
    NODE_TEST,   // a is name(arguments)
    // statements
    NODE_BODY, // parts
    NODE_OUTPUT,
    NODE_IF,           // parts: condition, body, ...; c: else
    NODE_FOR,          // for a in b if d: body e, else c
    NODE_SET,          // a = b
    NODE_SET_BLOCK,    // a = the output of e, through the filter b
    NODE_MACRO,        // name(arguments: defaults or NULL): body e
    NODE_CALL_BLOCK,   // call (a macro in d) b: body e
    NODE_FILTER_BLOCK, // the output of e through the filter b
    NODE_BREAK,
    NODE_CONTINUE,
} JinjaNodeKind;

typedef enum {
    OP_ADD,
    OP_SUBTRACT,
    OP_MULTIPLY,
    OP_DIVIDE,
    OP_FLOOR,
    OP_MODULO,
    OP_POWER,
    OP_JOIN,
    OP_EQUAL,
    OP_UNEQUAL,
    OP_LESS,
    OP_LESS_EQUAL,
    OP_GREATER,
    OP_GREATER_EQUAL,
    OP_IN,
    OP_NOT_IN,
} JinjaOp;

typedef struct JinjaNode JinjaNode;
struct JinjaNode {
    JinjaNodeKind kind;
    JinjaOp op;
    int line;
    bool recursive;   // of a for
    const char *name; // terminated
    JinjaValue value;
    JinjaNode *a, *b, *c, *d, *e;
    JinjaNode **parts;  // also arguments and parameters
    const char **names; // of keyword arguments and parameters, NULL: positional; "*", "**": several arguments
    size_t n, room, names_room;
};

enum { JINJA_DEPTH = 400 }; // of nested expressions and statements

JinjaNode *jinja_parse(JinjaHeap *h, const char *source, size_t n);
