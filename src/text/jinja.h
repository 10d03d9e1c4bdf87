// jinja: chat templates, run as programs.
//
// Owns the evaluator of the part of Jinja that chat templates use (as Hugging Face's libraries set it up), with
// strings that know which bytes the template wrote. Refuses, with the line of the template: syntax and filters it does
// not know, what the template itself refuses (raise_exception), and more steps, depth or memory than the limits.
// Called by chat.c.
#pragma once
#include "jinja_value.h"

#include <time.h>

typedef struct Jinja Jinja; // a parsed template

Jinja *jinja_open(const char *source, size_t n, char *err, size_t errlen);
void jinja_close(Jinja *j); // accepts NULL

typedef struct {
    void (*fill)(JinjaHeap *h, JinjaDict *variables, const void *from); // sets the variables; may fail by jinja_fail
    const void *from;
    struct tm now; // strftime_now's
    size_t memory; // most bytes; 0: JINJA_MEMORY
    long steps;    // 0: JINJA_STEPS
} JinjaInput;

enum { JINJA_MEMORY = 512 << 20, JINJA_STEPS = 20000000 };

typedef struct {
    char *text;    // malloc'd, n bytes and a zero
    uint8_t *from; // within the same allocation: 0 where the template wrote the byte
    size_t n;
} JinjaOutput;

// 0, or -1 with a line in err.
int jinja_render(const Jinja *j, const JinjaInput *in, JinjaOutput *out, char *err, size_t errlen);
