// facts: see facts.h.
#include "facts.h"

#include "cli.h"

#include <string.h>

extern const char facts_begin[], facts_end[];
__asm__(".section .rodata\n"
        ".global facts_begin, facts_end\n"
        "facts_begin: .incbin \"tools/atlas/facts.json\"\n"
        "facts_end: .byte 0\n"
        ".previous\n");

json_t *facts_all(void) {
    static json_t *all;
    json_error_t error;
    size_t size = (size_t)(facts_end - facts_begin);
    if (!all && !(all = json_loadb(facts_begin, size, JSON_REJECT_DUPLICATES, &error))) {
        die(1, "facts.json: line %d: %s", error.line, error.text);
    }
    return all;
}

json_t *facts_of(const Mechanism *m) {
    size_t i;
    json_t *o;
    json_array_foreach(facts_all(), i, o) {
        const char *name = json_string_value(json_object_get(o, "name"));
        if (name && !strcmp(name, m->name)) return o;
    }
    die(1, "facts.json: expected %s, found no object of this name", m->name);
}

const char *fact(const Mechanism *m, const char *key) {
    return json_string_value(json_object_get(facts_of(m), key));
}
