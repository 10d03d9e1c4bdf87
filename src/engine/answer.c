// answer: splits the generated ids into thoughts and the answer proper, as they arrive. See tessera.h.
//
// Owns the recognition of thoughts: between <think> and </think>, where these are single tokens, or in a channel other
// than "final". Refuses nothing: without such tokens everything is the answer. Called by
// programs that show conversations.
#include "bytes.h"
#include "chat.h"
#include "textstream.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

typedef enum { IN_ANSWER, IN_THOUGHT, IN_CHANNEL_NAME, BETWEEN_CHANNELS } AnswerState;

struct Answer {
    const Chat *chat;
    TextStream stream;
    AnswerState state;
    bool started, verbatim;
    char name[32]; // of the channel
    char *piece;   // [textstream_room]
    char *held;    // stb_ds array: text that may be the beginning of the stop text
    char *out;     // stb_ds array, terminated: the result of the last call
};

Answer *answer_open(const Chat *c) {
    Answer *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    a->chat = c;
    a->stream = textstream_start(chat_tokenizer(c), false);
    a->piece = malloc(textstream_room(chat_tokenizer(c)) + 1);
    if (chat_has_channels(c)) a->state = BETWEEN_CHANNELS;
    else if (chat_starts_thinking(c)) a->state = IN_THOUGHT;
    a->verbatim = a->state != IN_THOUGHT;
    if (a->piece) return a;
    answer_close(a);
    return NULL;
}

void answer_close(Answer *a) {
    if (!a) return;
    free(a->piece);
    arrfree(a->held);
    arrfree(a->out);
    free(a);
}

bool answer_is_verbatim(const Answer *a) {
    return a->verbatim;
}

static void release(Answer *a, size_t n) {
    bytes_append(&a->out, a->held, n);
    if (n) arrdeln(a->held, 0, n);
}

// Length of the longest prefix of the stop text that the held text ends with.
static size_t stop_prefix(const Answer *a, const char *stop) {
    size_t n = arrlenu(a->held), most = strlen(stop) - 1;
    for (size_t len = most < n ? most : n; len; len--) {
        if (!memcmp(a->held + n - len, stop, len)) return len;
    }
    return 0;
}

// Appends text to the answer. True when it contains the stop text.
static bool answer_put(Answer *a, const char *text, size_t n) {
    const char *stop = chat_stop(a->chat);
    for (; !a->started && n && (*text == ' ' || *text == '\n'); n--) text++;
    bytes_append(&a->held, text, n);
    a->started |= n > 0;
    const char *found = stop && n ? memmem(a->held, arrlenu(a->held), stop, strlen(stop)) : NULL;
    if (!found) {
        release(a, arrlenu(a->held) - (stop ? stop_prefix(a, stop) : 0));
        return false;
    }
    release(a, (size_t)(found - a->held));
    arrsetlen(a->held, 0);
    a->verbatim = false;
    return true;
}

// Whether the id is a marker between the parts of an answer, which then changes the state.
static bool marker_take(Answer *a, int32_t id) {
    const Chat *c = a->chat;
    if (chat_has_channels(c)) {
        if (chat_piece_is(c, id, "<|channel|>")) {
            a->state = IN_CHANNEL_NAME;
            a->name[0] = 0;
        } else if (chat_piece_is(c, id, "<|message|>")) {
            a->state = !strcmp(a->name, "final") ? IN_ANSWER : IN_THOUGHT;
            a->verbatim &= a->state == IN_ANSWER;
        } else if (chat_piece_is(c, id, "<|start|>") || chat_piece_is(c, id, "<|end|>")) a->state = BETWEEN_CHANNELS;
        else return false;
        return true;
    }
    bool opens = chat_piece_is(c, id, "<think>"), closes = chat_piece_is(c, id, "</think>");
    if (!opens && !closes) return false;
    a->state = opens ? IN_THOUGHT : IN_ANSWER;
    a->verbatim = a->started = false;
    return true;
}

static AnswerPart part(Answer *a, bool end) {
    arrput(a->out, 0);
    return (AnswerPart){.text = a->out, .thought = a->state == IN_THOUGHT, .end = end};
}

AnswerPart answer_push(Answer *a, int32_t id) {
    arrsetlen(a->out, 0);
    if (chat_ends(a->chat, id)) {
        release(a, arrlenu(a->held));
        return part(a, true);
    }
    if (marker_take(a, id)) return part(a, false);
    size_t n = textstream_push(&a->stream, id, a->piece);
    if (a->state == IN_ANSWER) return part(a, answer_put(a, a->piece, n));
    a->piece[n] = 0;
    if (a->state == IN_CHANNEL_NAME) strncat(a->name, a->piece, sizeof a->name - 1 - strlen(a->name));
    if (a->state == IN_THOUGHT) bytes_append(&a->out, a->piece, n);
    return part(a, false);
}

const char *answer_finish(Answer *a) {
    arrsetlen(a->out, 0);
    release(a, arrlenu(a->held));
    size_t n = textstream_finish(&a->stream, a->piece);
    if (a->state == IN_ANSWER) bytes_append(&a->out, a->piece, n);
    return part(a, true).text;
}
