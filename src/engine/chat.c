// chat: see chat.h and tessera.h. What a family's turns are made of, as a table; which family a template belongs to;
// messages to text, and to ids.
//
// Templates are programs in Jinja. This reads none: a family is recognised by texts that its templates hold, and its
// frame is a row of the table. Refuses nothing: a template that no row knows gets plain text, and chat_info says so.
//
// Frames are from the models' own templates (tokenizer_config.json of their public releases); the spacing of Mistral's
// versions from mistral-common's documentation, gpt-oss from OpenAI's description of the harmony format.
#include "chat.h"

#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define BOS "\1" // in a frame: the text of the model's BOS token
#define EOS "\2"
#define HARMONY                                                                                                        \
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: "         \
    "2024-06\n"                                                                                                        \
    "Current date: %Y-%m-%d\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be "   \
    "included for every message.<|end|>"
#define LLAMA_3_DATES "Cutting Knowledge Date: December 2023\nToday Date: %d %b %Y\n\n"

enum {
    SYSTEM_IN_USER = 1, // the system text stands inside the first user turn
    SYSTEM_ALWAYS = 2,  // also without a text
    TRIM = 4,           // messages lose the white space around them
    DATED = 8,          // frames are strftime formats
    CHANNELS = 16,
};

typedef struct {
    const char *name;
    const char *marks[3];                           // all in the template, where " is read as ' and \n as a newline
    const char *preamble;                           // before everything, NULL: nothing
    const char *system[2], *user[2], *assistant[2]; // before and after the text
    const char *prompt;                             // where an answer is generated, NULL: assistant[0]
    const char *stop;                               // what ends an answer beside the model's end tokens, NULL: nothing
    unsigned rules;
} Family;

// clang-format off
static const Family families[] = { // the first whose marks are all there
    {"gpt-oss", {"<|start|>", "<|channel|>"}, HARMONY,
     {"<|start|>developer<|message|># Instructions\n\n", "<|end|>"}, {"<|start|>user<|message|>", "<|end|>"},
     {"<|start|>assistant<|channel|>final<|message|>", "<|end|>"}, "<|start|>assistant", "<|return|>", DATED | CHANNELS},
    {"Phi-4", {"<|im_start|>", "<|im_sep|>"}, NULL,
     {"<|im_start|>system<|im_sep|>", "<|im_end|>"}, {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
     {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"}, NULL, "<|im_end|>", 0},
    {"SmolVLM", {"<|im_start|>", "<end_of_utterance>", "'User: '"}, "<|im_start|>",
     {"", "\n\n"}, {"User: ", "<end_of_utterance>\n"},
     {"Assistant: ", "<end_of_utterance>\n"}, "Assistant:", "<end_of_utterance>", 0},
    {"ChatML that thinks first", {"<|im_start|>assistant\n<think>\n'"}, NULL,
     {"<|im_start|>system\n", "<|im_end|>\n"}, {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"}, "<|im_start|>assistant\n<think>\n", "<|im_end|>", 0},
    {"ChatML", {"<|im_start|>"}, NULL,
     {"<|im_start|>system\n", "<|im_end|>\n"}, {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"}, NULL, "<|im_end|>", 0},
    {"Llama 3.1", {"<|start_header_id|>", "Cutting Knowledge Date: December 2023"}, NULL,
     {"<|start_header_id|>system<|end_header_id|>\n\n" LLAMA_3_DATES, "<|eot_id|>"},
     {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"}, NULL, "<|eot_id|>",
     DATED | SYSTEM_ALWAYS | TRIM},
    {"Llama 3", {"<|start_header_id|>"}, NULL,
     {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"}, NULL, "<|eot_id|>", TRIM},
    {"Gemma", {"<start_of_turn>"}, NULL,
     {"", "\n\n"}, {"<start_of_turn>user\n", "<end_of_turn>\n"},
     {"<start_of_turn>model\n", "<end_of_turn>\n"}, NULL, "<end_of_turn>", SYSTEM_IN_USER | TRIM},
    {"Llama 2", {"[INST]", "<<SYS>>", "bos_token + '[INST]"}, NULL,
     {"<<SYS>>\n", "\n<</SYS>>\n\n"}, {BOS "[INST] ", " [/INST]"},
     {" ", " " EOS}, "", NULL, SYSTEM_IN_USER | TRIM},
    {"Llama 2, one BOS", {"[INST]", "<<SYS>>"}, NULL,
     {"<<SYS>>\n", "\n<</SYS>>\n\n"}, {"[INST] ", " [/INST]"},
     {" ", " " EOS}, "", NULL, SYSTEM_IN_USER | TRIM},
    {"Mistral v7", {"[SYSTEM_PROMPT]", "'[INST] '"}, NULL,
     {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, {"[INST] ", "[/INST]"}, {" ", EOS}, "", NULL, 0},
    {"Mistral v7-tekken", {"[SYSTEM_PROMPT]", "'[INST]'"}, NULL,
     {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, {"[INST]", "[/INST]"}, {"", EOS}, NULL, NULL, 0},
    {"Mistral v1", {"' [INST] '", "' [/INST]'"}, NULL,
     {"", "\n\n"}, {" [INST] ", " [/INST]"}, {" ", EOS}, "", NULL, SYSTEM_IN_USER},
    {"Mistral before v1", {"'[INST] '", "' [/INST]'"}, NULL,
     {"", "\n\n"}, {"[INST] ", " [/INST]"}, {"", EOS}, NULL, NULL, SYSTEM_IN_USER},
    {"Mistral v3", {"'[INST] '", "'[/INST]'"}, NULL,
     {"", "\n\n"}, {"[INST] ", "[/INST]"}, {" ", EOS}, "", NULL, SYSTEM_IN_USER},
    {"Mistral v3-tekken", {"'[INST]'", "'[/INST]'"}, NULL,
     {"", "\n\n"}, {"[INST]", "[/INST]"}, {"", EOS}, NULL, NULL, SYSTEM_IN_USER},
    {"Phi-4-mini", {"<|end|>", "'|>' + message['content'] + '<|end|>'"}, NULL,
     {"<|system|>", "<|end|>"}, {"<|user|>", "<|end|>"}, {"<|assistant|>", "<|end|>"}, NULL, "<|end|>", 0},
    {"Phi-3", {"<|end|>", "<|assistant|>"}, NULL,
     {"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"},
     {"<|assistant|>\n", "<|end|>\n"}, NULL, "<|end|>", 0},
    {"Zephyr", {"<|assistant|>", "'<|user|>\n' + message['content'] + eos_token"}, NULL,
     {"<|system|>\n", EOS "\n"}, {"<|user|>\n", EOS "\n"}, {"<|assistant|>\n", EOS "\n"}, NULL, NULL, 0},
    {"DeepSeek R1", {"<｜User｜>", "'<｜Assistant｜><think>\n'"}, NULL,
     {"", ""}, {"<｜User｜>", ""}, {"<｜Assistant｜>", EOS}, "<｜Assistant｜><think>\n", NULL, 0},
    {"DeepSeek V3", {"<｜User｜>", "<｜Assistant｜>"}, NULL,
     {"", ""}, {"<｜User｜>", ""}, {"<｜Assistant｜>", EOS}, NULL, NULL, 0},
    {"DeepSeek", {"'User: '", "'Assistant: ' + message['content'] + eos_token"}, NULL,
     {"", "\n\n"}, {"User: ", "\n\n"}, {"Assistant: ", EOS}, "Assistant:", NULL, 0},
    {"plain text", {""}, NULL, // of no model: every template has its mark
     {"", "\n\n"}, {"User: ", "\n"}, {"Assistant: ", "\n"}, "Assistant:", "\nUser:", 0},
};
// clang-format on
enum { N_FAMILIES = sizeof families / sizeof *families };

struct Chat {
    const Tokenizer *tokenizer;
    const Family *family;
    bool has_template, begins_with_bos;
    char *system; // the template's own system message, NULL: none
    struct tm now;
    int32_t *marks; // stb_ds array: the special tokens that no message may bring in
};

// ---- the template

// A copy in which quotes and newlines are written one way. NULL: out of memory.
static char *template_normal(const char *text) {
    char *copy = malloc(strlen(text) + 1), *to = copy;
    for (; copy && *text; text++) {
        bool newline = text[0] == '\\' && text[1] == 'n';
        *to++ = newline ? '\n' : *text == '"' ? '\'' : *text;
        text += newline;
    }
    if (copy) *to = 0;
    return copy;
}

static const Family *family_find(const char *normal) {
    const Family *f = families;
    for (; f < &families[N_FAMILIES - 1]; f++) {
        bool all = true;
        for (int i = 0; i < 3 && f->marks[i]; i++) all = all && strstr(normal, f->marks[i]);
        if (all) break;
    }
    return f;
}

// A system turn that the template writes out, as Qwen's and SmolLM's do for conversations without one: its text in one
// string with its frame. 0, or -1 when memory runs out.
static int find_system(Chat *c, const char *normal) {
    const char *before = c->family->system[0], *after = c->family->system[1];
    if (!*before || !*after || c->family->rules & SYSTEM_ALWAYS) return 0;
    for (const char *at = normal; (at = strstr(at, before));) {
        at += strlen(before);
        const char *end = strstr(at, after);
        if (!end || end == at || memchr(at, '\'', (size_t)(end - at))) continue;
        c->system = strndup(at, (size_t)(end - at));
        return c->system ? 0 : -1;
    }
    return 0;
}

// ---- special tokens

bool chat_piece_is(const Chat *c, int32_t id, const char *text) {
    const Piece *p = tokenizer_piece(c->tokenizer, id);
    return p && (size_t)p->len == strlen(text) && !memcmp(p->text, text, (size_t)p->len);
}

static bool in_frame(const Piece *p, const char *frame) {
    return frame && memmem(frame, strlen(frame), p->text, (size_t)p->len);
}

static bool in_family(const Piece *p, const Family *f) {
    const char *const frames[] = {f->preamble,     f->system[0],    f->system[1], f->user[0], f->user[1],
                                  f->assistant[0], f->assistant[1], f->prompt,    f->stop};
    bool found = false;
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) found = found || in_frame(p, frames[i]);
    return found;
}

bool chat_ends(const Chat *c, int32_t id) {
    if (c->family->rules & CHANNELS && chat_piece_is(c, id, "<|end|>")) return false; // of a channel; another follows
    return tokenizer_is_end(c->tokenizer, id) || id == tokenizer_bos(c->tokenizer) ||
           (c->family->stop && chat_piece_is(c, id, c->family->stop));
}

// Every control token, and of the tokens that texts may hold (newlines and HTML in some vocabularies) the frame's.
static void find_marks(Chat *c) {
    for (int32_t id = 0; id < tokenizer_size(c->tokenizer); id++) {
        const Piece *p = tokenizer_piece(c->tokenizer, id);
        bool user = p->type == TOKEN_USER && p->len > 2 && (p->text[0] == '<' || p->text[0] == '[');
        bool ours = user && (chat_ends(c, id) || in_family(p, c->family));
        if (p->len > 0 && (p->type == TOKEN_CONTROL || p->type == TOKEN_UNKNOWN || ours)) arrput(c->marks, id);
    }
}

// The longest mark at the start of the text: its bytes, 0: none.
static size_t mark_at(const Chat *c, const char *text, size_t n) {
    size_t longest = 0;
    for (ptrdiff_t i = 0; i < arrlen(c->marks); i++) {
        const Piece *p = tokenizer_piece(c->tokenizer, c->marks[i]);
        size_t len = (size_t)p->len;
        if (p->text[0] == text[0] && len > longest && len <= n && !memcmp(p->text, text, len)) longest = len;
    }
    return longest;
}

// ---- a Chat

Chat *chat_open(const Tokenizer *t, const char *chat_template, time_t now, char *err, size_t errlen) {
    Chat *c = calloc(1, sizeof *c);
    char *normal = template_normal(chat_template ? chat_template : "");
    if (c && normal) {
        c->tokenizer = t;
        c->family = family_find(normal);
        c->has_template = chat_template;
        const Piece *bos = tokenizer_piece(t, tokenizer_bos(t));
        c->begins_with_bos = strstr(normal, "bos_token") || (bos && bos->len > 0 && in_frame(bos, normal));
        if (!strstr(normal, "strftime_now")) now = 1721952000; // 26 Jul 2024, the date in Llama 3.1's template
        gmtime_r(&now, &c->now);
        find_marks(c);
    }
    if (!c || !normal || find_system(c, normal)) {
        chat_close(c);
        c = NULL;
        fail(err, errlen, "chat: out of memory");
    }
    free(normal);
    return c;
}

void chat_close(Chat *c) {
    if (!c) return;
    free(c->system);
    arrfree(c->marks);
    free(c);
}

ChatInfo chat_info(const Chat *c) {
    return (ChatInfo){
        .family = c->family->name,
        .has_template = c->has_template,
        .known = c->family != &families[N_FAMILIES - 1],
    };
}

const Tokenizer *chat_tokenizer(const Chat *c) {
    return c->tokenizer;
}

const char *chat_stop(const Chat *c) {
    return c->family->stop;
}

bool chat_has_channels(const Chat *c) {
    return c->family->rules & CHANNELS;
}

bool chat_starts_thinking(const Chat *c) {
    return c->family->prompt && strstr(c->family->prompt, "<think>");
}

// ---- messages to text

typedef struct {
    size_t begin, end;          // in the text
    const ChatMessage *message; // whose ids stand here, NULL: they are the text's
} Span;

typedef struct {
    const Chat *chat;
    char *text;  // stb_ds arrays
    Span *spans; // what is not the frame's own, in order
} Draft;

static void put_bytes(Draft *d, const char *text, size_t n) {
    if (n) memcpy(arraddnptr(d->text, n), text, n);
}

static void put_frame(Draft *d, const char *frame) {
    char dated[512];
    if (d->chat->family->rules & DATED && strchr(frame, '%')) {
        strftime(dated, sizeof dated, frame, &d->chat->now);
        frame = dated;
    }
    for (; *frame; frame++) {
        const Tokenizer *t = d->chat->tokenizer;
        if (*frame != *BOS && *frame != *EOS) arrput(d->text, *frame);
        else {
            const Piece *p = tokenizer_piece(t, *frame == *BOS ? tokenizer_bos(t) : tokenizer_eos(t));
            if (p && p->len > 0) put_bytes(d, p->text, (size_t)p->len);
        }
    }
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_message(Draft *d, const ChatMessage *m) {
    const char *text = m->text;
    size_t n = m->n;
    if (d->chat->family->rules & TRIM) {
        for (; n && is_space(text[0]); n--) text++;
        while (n && is_space(text[n - 1])) n--;
    }
    Span s = {.begin = arrlenu(d->text)};
    put_bytes(d, text, n);
    s.end = arrlenu(d->text);
    arrput(d->spans, s);
}

static void put_turn(Draft *d, const char *const frame[2], const ChatMessage *m) {
    put_frame(d, frame[0]);
    put_message(d, m);
    put_frame(d, frame[1]);
}

static const char *answer_prompt(const Family *f) {
    return f->prompt ? f->prompt : f->assistant[0];
}

static void put_ids(Draft *d, const ChatMessage *m) {
    const Family *f = d->chat->family;
    put_frame(d, answer_prompt(f));
    Span s = {arrlenu(d->text), arrlenu(d->text), m};
    arrput(d->spans, s);
    put_frame(d, f->assistant[1]);
}

// Everything before the first turn. Returns the system message that belongs inside it, NULL: none.
static const ChatMessage *put_start(Draft *d, const ChatMessage *system) {
    const Chat *c = d->chat;
    const Family *f = c->family;
    if (c->begins_with_bos && f->user[0][0] != *BOS) put_frame(d, BOS);
    if (f->preamble) put_frame(d, f->preamble);
    if (f->rules & SYSTEM_IN_USER) return system;
    if (system) put_turn(d, f->system, system);
    return NULL;
}

static Draft draft_make(const Chat *c, const ChatMessage *messages, int n, bool answer) {
    Draft d = {.chat = c};
    const Family *f = c->family;
    ChatMessage own = {CHAT_SYSTEM, c->system ? c->system : "", c->system ? strlen(c->system) : 0, NULL, 0};
    const ChatMessage *system = c->system || f->rules & SYSTEM_ALWAYS ? &own : NULL;
    if (n && messages[0].role == CHAT_SYSTEM) system = messages++, n--;
    system = put_start(&d, system);
    for (int i = 0; i < n; i++) {
        const ChatMessage *m = &messages[i];
        if (m->role == CHAT_SYSTEM) put_turn(&d, f->system, m);
        else if (m->role == CHAT_ASSISTANT && m->ids) put_ids(&d, m);
        else if (m->role == CHAT_ASSISTANT) put_turn(&d, f->assistant, m);
        else {
            put_frame(&d, f->user[0]);
            if (system) put_turn(&d, f->system, system);
            system = NULL;
            put_message(&d, m);
            put_frame(&d, f->user[1]);
        }
    }
    if (answer) put_frame(&d, answer_prompt(f));
    return d;
}

static void draft_free(Draft *d) {
    arrfree(d->text);
    arrfree(d->spans);
}

char *chat_text(const Chat *c, const ChatMessage *messages, int n, bool answer) {
    Draft d = draft_make(c, messages, n, answer);
    char *text = strndup(d.text ? d.text : "", arrlenu(d.text));
    draft_free(&d);
    return text;
}

// ---- text to ids

typedef struct {
    const Draft *draft;
    int32_t *ids;   // stb_ds array
    size_t encoded; // bytes of the text that are ids already
    char *err;
    size_t errlen;
} Encoding;

static int encode_until(Encoding *x, size_t end, unsigned flags) {
    const Draft *d = x->draft;
    const Piece *bos = tokenizer_piece(d->chat->tokenizer, tokenizer_bos(d->chat->tokenizer));
    bool has_bos = bos && bos->len > 0 && (size_t)bos->len <= end && !memcmp(d->text, bos->text, (size_t)bos->len);
    if (end == x->encoded) return 0;
    flags |= x->encoded ? TOKENIZE_INSIDE : has_bos ? 0u : TOKENIZE_BOS;
    int32_t *ids;
    int n =
        tokenizer_encode(d->chat->tokenizer, d->text + x->encoded, end - x->encoded, flags, &ids, x->err, x->errlen);
    if (n < 0) return -1;
    if (n) memcpy(arraddnptr(x->ids, n), ids, (size_t)n * sizeof *ids);
    free(ids);
    x->encoded = end;
    return 0;
}

// A message is encoded together with the frame around it, so that merges across its borders are those of the rendered
// text; only where it spells a mark is that mark cut out, to be encoded as the ordinary text that it is.
static int encode_span(Encoding *x, const Span *s) {
    const Draft *d = x->draft;
    if (s->message) {
        if (encode_until(x, s->begin, TOKENIZE_SPECIAL)) return -1;
        memcpy(arraddnptr(x->ids, s->message->n_ids), s->message->ids, sizeof *x->ids * (size_t)s->message->n_ids);
        return 0;
    }
    for (size_t i = s->begin, len; i < s->end; i += len ? len : 1) {
        len = mark_at(d->chat, d->text + i, s->end - i);
        if (len && (encode_until(x, i, TOKENIZE_SPECIAL) || encode_until(x, i + len, TOKENIZE_PLAIN))) return -1;
    }
    return 0;
}

int chat_encode(const Chat *c, const ChatMessage *messages, int n, bool answer, int32_t **ids, char *err,
                size_t errlen) {
    Draft d = draft_make(c, messages, n, answer);
    Encoding x = {.draft = &d, .err = err, .errlen = errlen};
    int rc = 0;
    for (ptrdiff_t i = 0; !rc && i < arrlen(d.spans); i++) rc = encode_span(&x, &d.spans[i]);
    if (!rc) rc = encode_until(&x, arrlenu(d.text), TOKENIZE_SPECIAL);
    int n_ids = (int)arrlen(x.ids);
    *ids = rc ? NULL : malloc(((size_t)n_ids + 1) * sizeof **ids);
    if (*ids) memcpy(*ids, x.ids, (size_t)n_ids * sizeof **ids);
    else if (!rc) rc = fail(err, errlen, "chat: out of memory for %d tokens", n_ids);
    arrfree(x.ids);
    draft_free(&d);
    return rc ? -1 : n_ids;
}
