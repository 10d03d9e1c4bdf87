// answer: what a model says, told from what it thinks and from its frame, as the ids come. See tessera.h.
//
// Thinking is what stands between <think> and </think>, where these are tokens of their own, or in a channel that is
// not "final". Refuses nothing: an answer in no such form is all text.
#include "chat.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

typedef enum { SAYS, THINKS, NAMES_CHANNEL, BETWEEN_CHANNELS } AnswerState;

struct Answer {
    const Chat *chat;
    TextStream stream;
    AnswerState state;
    bool started, verbatim;
    char name[32]; // of the channel
    char *piece;   // [textstream_room]
    char *held;    // stb_ds array: text that may yet turn out to be white space before the answer, or its stop text
    char *out;     // stb_ds array, terminated: what the last call returned
};

Answer *answer_open(const Chat *c) {
    Answer *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    a->chat = c;
    a->stream = textstream_start(chat_tokenizer(c), false);
    a->piece = malloc(textstream_room(chat_tokenizer(c)) + 1);
    a->state = chat_has_channels(c) ? BETWEEN_CHANNELS : chat_starts_thinking(c) ? THINKS : SAYS;
    a->verbatim = a->state != THINKS;
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
    if (n) memcpy(arraddnptr(a->out, n), a->held, n);
    if (n) arrdeln(a->held, 0, n);
}

// Bytes at the end of what is held that may be the beginning of the stop text.
static size_t stop_begun(const Answer *a, const char *stop) {
    size_t n = arrlenu(a->held), most = strlen(stop) - 1;
    for (size_t len = most < n ? most : n; len; len--) {
        if (!memcmp(a->held + n - len, stop, len)) return len;
    }
    return 0;
}

// Adds text of the answer. True when its stop text is complete.
static bool say(Answer *a, const char *text, size_t n) {
    const char *stop = chat_stop(a->chat);
    while (!a->started && n && (*text == ' ' || *text == '\n')) text++, n--;
    if (n) memcpy(arraddnptr(a->held, n), text, n);
    a->started |= n > 0;
    const char *found = stop && n ? memmem(a->held, arrlenu(a->held), stop, strlen(stop)) : NULL;
    if (!found) {
        release(a, arrlenu(a->held) - (stop ? stop_begun(a, stop) : 0));
        return false;
    }
    release(a, (size_t)(found - a->held));
    arrsetlen(a->held, 0);
    a->verbatim = false;
    return true;
}

// The id is one of the marks that part an answer: takes it in.
static bool mark(Answer *a, int32_t id) {
    const Chat *c = a->chat;
    if (chat_has_channels(c)) {
        if (chat_piece_is(c, id, "<|channel|>")) {
            a->state = NAMES_CHANNEL;
            a->name[0] = 0;
        } else if (chat_piece_is(c, id, "<|message|>")) {
            a->state = !strcmp(a->name, "final") ? SAYS : THINKS;
            a->verbatim &= a->state == SAYS;
        } else if (chat_piece_is(c, id, "<|start|>") || chat_piece_is(c, id, "<|end|>")) a->state = BETWEEN_CHANNELS;
        else return false;
        return true;
    }
    bool opens = chat_piece_is(c, id, "<think>"), closes = chat_piece_is(c, id, "</think>");
    if (!opens && !closes) return false;
    a->state = opens ? THINKS : SAYS;
    a->verbatim = a->started = false;
    return true;
}

static AnswerPart part(Answer *a, bool end) {
    arrput(a->out, 0);
    return (AnswerPart){.text = a->out, .thought = a->state == THINKS, .end = end};
}

AnswerPart answer_push(Answer *a, int32_t id) {
    arrsetlen(a->out, 0);
    if (chat_ends(a->chat, id)) {
        release(a, arrlenu(a->held));
        return part(a, true);
    }
    if (mark(a, id)) return part(a, false);
    size_t n = textstream_push(&a->stream, id, a->piece);
    if (a->state == SAYS) return part(a, say(a, a->piece, n));
    a->piece[n] = 0;
    if (a->state == NAMES_CHANNEL) strncat(a->name, a->piece, sizeof a->name - 1 - strlen(a->name));
    if (a->state == THINKS && n) memcpy(arraddnptr(a->out, n), a->piece, n);
    return part(a, false);
}

const char *answer_finish(Answer *a) {
    arrsetlen(a->out, 0);
    release(a, arrlenu(a->held));
    size_t n = textstream_finish(&a->stream, a->piece);
    if (n && a->state == SAYS) memcpy(arraddnptr(a->out, n), a->piece, n);
    return part(a, true).text;
}
