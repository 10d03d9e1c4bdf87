// jinja_value: the values of chat templates, and the bounded memory that they live in.
//
// Owns strings that know for each byte whether the template or its input wrote it, lists, dictionaries, their order,
// equality, and spelling as Python spells them. Refuses, by a long jump to the program's entry, more memory or steps
// than the limits, and values nested too deep. Called by the other jinja files.
#pragma once
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct JinjaBlock JinjaBlock;

// Everything is allocated from here and freed at once. A failure jumps to `out` with a message.
typedef struct {
    JinjaBlock *blocks;
    size_t used, most; // bytes
    long steps;        // still allowed
    int line;          // of the template, for messages; 0: none
    jmp_buf out;
    char message[400];
} JinjaHeap;

_Noreturn void jinja_fail(JinjaHeap *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *jinja_alloc(JinjaHeap *h, size_t bytes);                                  // zeroed
void *jinja_grow(JinjaHeap *h, void *old, size_t n, size_t *room, size_t size); // room for one item more
void jinja_step(JinjaHeap *h, size_t n);
void jinja_heap_free(JinjaHeap *h);

typedef enum {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_DICT,
    JINJA_NAMESPACE, // a dictionary whose members can be set
    JINJA_CALLABLE,
    JINJA_LOOP,
} JinjaKind;

typedef struct {
    const char *text;    // [n], not terminated
    const uint8_t *from; // [n], 0: the template's byte; NULL: all are the template's
    size_t n;
} JinjaText;

typedef struct JinjaValue JinjaValue;
typedef struct JinjaCallable JinjaCallable; // jinja.c's
typedef struct JinjaLoop JinjaLoop;

typedef struct {
    JinjaValue *items;
    size_t n, room;
    bool tuple; // spelled otherwise, and equal to no list
} JinjaList;

typedef struct {
    JinjaValue *keys, *values; // in order of insertion
    size_t n, room, value_room;
} JinjaDict;

struct JinjaValue {
    JinjaKind kind;
    union {
        bool truth;
        int64_t integer;
        double real;
        JinjaText text;
        JinjaList *list;
        JinjaDict *dict; // also of a namespace
        JinjaCallable *callable;
        JinjaLoop *loop;
        const char *name; // of what is undefined, or NULL
    };
};

JinjaValue jinja_none(void);
JinjaValue jinja_bool(bool b);
JinjaValue jinja_int(int64_t i);
JinjaValue jinja_real(double d);
JinjaValue jinja_text(const char *text, size_t n);                // borrowed, the template's
JinjaValue jinja_word(const char *text);                          // the same, terminated
JinjaValue jinja_input(JinjaHeap *h, const char *text, size_t n); // copied, the input's
JinjaValue jinja_slice(JinjaValue s, size_t begin, size_t end);
JinjaValue jinja_list(JinjaHeap *h);
JinjaValue jinja_dict(JinjaHeap *h);
void jinja_push(JinjaHeap *h, JinjaList *l, JinjaValue v);
void jinja_put(JinjaHeap *h, JinjaDict *d, JinjaValue key, JinjaValue v);
void jinja_put_word(JinjaHeap *h, JinjaDict *d, const char *key, JinjaValue v);
JinjaValue *jinja_find(JinjaHeap *h, const JinjaDict *d, JinjaValue key); // NULL: not there
JinjaValue *jinja_find_word(JinjaHeap *h, const JinjaDict *d, const char *key);

enum { JINJA_VALUE_DEPTH = 200 }; // of lists and mappings in one another

void jinja_step_over(JinjaHeap *h, JinjaValue v); // the steps of one pass over it
bool jinja_is_space(uint32_t code);               // as Python's str.isspace()
bool jinja_is_word(JinjaValue v, const char *word);
bool jinja_is_number(JinjaValue v); // int, float or bool
double jinja_number(JinjaValue v);
bool jinja_true(JinjaValue v);
bool jinja_equal(JinjaHeap *h, JinjaValue a, JinjaValue b);
int jinja_compare(JinjaHeap *h, JinjaValue a, JinjaValue b);
const char *jinja_kind_name(JinjaValue v);

// Text that is put together piece by piece.
typedef struct {
    char *text;
    uint8_t *from;
    size_t n, room, from_room;
} JinjaBuffer;

void jinja_reserve(JinjaHeap *h, JinjaBuffer *b, size_t room); // bytes in all
void jinja_append(JinjaHeap *h, JinjaBuffer *b, JinjaText t);
void jinja_append_word(JinjaHeap *h, JinjaBuffer *b, const char *word);
JinjaValue jinja_take(const JinjaBuffer *b);

void jinja_print(JinjaHeap *h, JinjaBuffer *b, JinjaValue v); // as Python's str()
