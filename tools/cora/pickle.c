// pickle: see pickle.h. The opcodes are those of Python's Lib/pickletools.py.
#include "pickle.h"

#include <string.h>

enum { MAX_MARKS = 64, MAX_MEMO = 1 << 16, MAX_LISTS = 20000 }; // lists may be nested: freeing them is recursive

typedef struct {
    Cursor at;
    json_t *stack, *memo;
    size_t marks[MAX_MARKS]; // sizes of the stack
    int n_marks, n_lists;
    uint64_t opcode; // where the one at hand is
} Pickle;

// How many values stand behind the last mark, which is taken away.
static size_t since_mark(Pickle *p) {
    size_t size = json_array_size(p->stack);
    if (!p->n_marks) cursor_fail(&p->at, p->opcode, "expected a mark before, found none");
    else if (size < p->marks[--p->n_marks]) cursor_fail(&p->at, p->opcode, "expected values behind the mark");
    return p->at.failed ? 0 : size - p->marks[p->n_marks];
}

static void push(Pickle *p, json_t *value) {
    if (!value || json_array_append_new(p->stack, value)) cursor_fail(&p->at, p->opcode, "out of memory for a value");
}

static json_t *list_new(Pickle *p) {
    if (p->n_lists++ == MAX_LISTS) cursor_fail(&p->at, p->opcode, "expected at most %d lists", MAX_LISTS);
    return json_array();
}

// The last n values go to the end of `list`, or of the value before them where it is NULL.
static void take(Pickle *p, size_t n, json_t *list) {
    size_t size = json_array_size(p->stack), needed = n + (list ? 0 : 1);
    if (size < needed) cursor_fail(&p->at, p->opcode, "expected %zu values, found %zu", needed, size);
    if (p->at.failed) {
        json_decref(list);
        return;
    }
    json_t *to = list ? list : json_array_get(p->stack, size - n - 1);
    for (size_t i = size - n; i < size; i++) {
        if (!json_array_append(to, json_array_get(p->stack, i))) continue;
        cursor_fail(&p->at, p->opcode, "expected a list to add to, found another value");
        break;
    }
    for (size_t i = 0; i < n; i++) json_array_remove(p->stack, size - i - 1);
    if (list) push(p, list);
}

static void put(Pickle *p, uint32_t index) {
    size_t size = json_array_size(p->stack);
    if (!size || index >= MAX_MEMO) cursor_fail(&p->at, p->opcode, "expected a value to keep below %d", MAX_MEMO);
    while (!p->at.failed && json_array_size(p->memo) <= index) json_array_append_new(p->memo, json_null());
    if (!p->at.failed) json_array_set(p->memo, index, json_array_get(p->stack, size - 1));
}

static void get(Pickle *p, uint32_t index) {
    json_t *kept = json_array_get(p->memo, index);
    if (!kept) cursor_fail(&p->at, p->opcode, "expected a value that was kept, found number %u", index);
    else push(p, json_incref(kept));
}

static void text(Pickle *p, uint64_t n) {
    const uint8_t *bytes = cursor_bytes(&p->at, n, "a string");
    if (bytes) push(p, json_stringn_nocheck((const char *)bytes, (size_t)n));
}

// "module\nname\n"
static void name(Pickle *p) {
    const File *f = p->at.file;
    uint64_t n = 0;
    for (int lines = 0; p->at.pos + n < f->size && lines < 2; n++) lines += f->data[p->at.pos + n] == '\n';
    text(p, n);
}

static void run(Pickle *p, uint8_t opcode) {
    switch (opcode) {
    case 0x80:
        if (cursor_u8(&p->at, "the protocol") != 2) cursor_fail(&p->at, p->opcode, "expected protocol 2");
        break;
    case 'c': name(p); break;
    case 'U': text(p, cursor_u8(&p->at, "a length")); break;
    case 'T': text(p, cursor_u32(&p->at, "a length")); break;
    case 'K': push(p, json_integer(cursor_u8(&p->at, "a number"))); break;
    case 'M': {
        const uint8_t *bytes = cursor_bytes(&p->at, 2, "a number");
        if (bytes) push(p, json_integer(bytes[0] | bytes[1] << 8));
        break;
    }
    case 'J': push(p, json_integer(cursor_i32(&p->at, "a number"))); break;
    case 'N': push(p, json_null()); break;
    case 0x88: push(p, json_true()); break;
    case 0x89: push(p, json_false()); break;
    case ')':
    case ']':
    case '}': push(p, list_new(p)); break;
    case '(':
        if (p->n_marks == MAX_MARKS) cursor_fail(&p->at, p->opcode, "expected at most %d marks", MAX_MARKS);
        else p->marks[p->n_marks++] = json_array_size(p->stack);
        break;
    case 0x85:
    case 0x86:
    case 0x87: take(p, opcode - 0x84u, list_new(p)); break; // tuples
    case 't': take(p, since_mark(p), list_new(p)); break;
    case 'R':
    case 0x81: take(p, 2, list_new(p)); break; // a call, a new object: name and arguments
    case 'a':
    case 'b': take(p, 1, NULL); break; // one more element, an object's state
    case 'e':
    case 'u': take(p, since_mark(p), NULL); break;
    case 'q': put(p, cursor_u8(&p->at, "a place")); break;
    case 'r': put(p, cursor_u32(&p->at, "a place")); break;
    case 'h': get(p, cursor_u8(&p->at, "a place")); break;
    case 'j': get(p, cursor_u32(&p->at, "a place")); break;
    default: cursor_fail(&p->at, p->opcode, "expected an opcode of lists and arrays, found 0x%02x", opcode);
    }
}

json_t *pickle_read(const File *f, char *err, size_t errlen) {
    Pickle p = {.at = cursor_at(f, 0, err, errlen), .stack = json_array(), .memo = json_array()};
    uint8_t opcode = 0;
    while (!p.at.failed && opcode != '.') {
        p.opcode = p.at.pos;
        opcode = cursor_u8(&p.at, "an opcode");
        if (!p.at.failed && opcode != '.') run(&p, opcode);
    }
    size_t size = json_array_size(p.stack);
    if (!p.at.failed && size != 1) cursor_fail(&p.at, p.opcode, "expected one value at the end, found %zu", size);
    json_t *value = p.at.failed ? NULL : json_incref(json_array_get(p.stack, 0));
    json_decref(p.stack);
    json_decref(p.memo);
    return value;
}
