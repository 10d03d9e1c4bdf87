// session: the implementation of tessera.h's Session, for the files of this room.
#pragma once
#include "engine.h"

struct Session {
    const Engine *engine;
    SessionOptions options; // as given
    Runner *runner;
    Memory memory;
    uint64_t positions; // hash of the frequencies of rotary positions
    int window;         // that every layer has or is narrowed to; 0: some layer sees everything
    int n_ctx;
    int32_t *tokens; // [room], the text that the memory holds
    int room;
    float *logits;   // [vocab]
    bool has_logits; // they follow the last token
    LogitsVisitor visit;
    void *visit_context;
    StateVisitor visit_states;
    void *states_context;
    SessionWatcher watch;
    void *watch_context;
    int bad_logits; // position whose logits are no numbers; -1: none
    Profile *profile;
};

// Are all of them ids of the vocabulary? -1 with a line in err.
int session_check(const Session *s, const int32_t *tokens, int n, char *err, size_t errlen);
// Room for a text of n tokens.
int session_reserve_tokens(Session *s, int n, char *err, size_t errlen);
// An empty memory as the session's own.
int session_open_memory(const Session *s, Memory *m, char *err, size_t errlen);
// Room for n more tokens, in its text and its memory; what is kept for later texts makes way.
int session_reserve(Session *s, int n, char *err, size_t errlen);
// Notes the first position whose logits are no numbers; false: there was one. session_fail_bad: -1 and a line for it.
bool session_check_logits(Session *s, int position, const float *logits);
int session_fail_bad(const Session *s, char *err, size_t errlen);
// What prefixes.h is to keep: all of the text, or after n new tokens the blocks that have become full.
void session_publish(Session *s);
void session_publish_new(Session *s, int n, bool all);
