// callreader: tells calls of tools from the text of an answer, as it comes.
//
// Owns the bytes that may be of a call: they are given out as text where they turn out to be none (no JSON object, or
// not with the name of a tool). Refuses nothing. Called by choice.c.
#pragma once
#include "toolform.h"

// What is new of a call.
typedef struct {
    int index;       // of the calls of the answer
    char *name;      // malloc'd: the call begins; NULL: it goes on
    char id[10];     // with the name
    char *arguments; // stb_ds array, not terminated: more of the JSON of its arguments
} CallPart;
void callparts_free(CallPart *list); // a stb_ds array

typedef struct CallReader CallReader;

// names: of the tools, a stb_ds array; it and the form outlive the reader. NULL: out of memory.
CallReader *callreader_open(const ToolForm *form, char *const *names);
void callreader_close(CallReader *r); // accepts NULL

// Text of the answer, in whole characters. Returns what of it, and of what was held back, belongs to no call; valid
// until the next call.
const char *callreader_push(CallReader *r, const char *text);
const char *callreader_finish(CallReader *r); // the text ends here
CallPart *callreader_take(CallReader *r);     // what is new since the last time: a stb_ds array, the caller's
int callreader_complete(const CallReader *r); // calls that are complete
int callreader_begun(const CallReader *r);    // calls whose name is known
