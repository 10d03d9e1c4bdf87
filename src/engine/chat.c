// chat: the formats of conversations as a table, the choice of a format, messages to text and to ids. See chat.h.
//
// Templates are programs in Jinja, which are not run: a format is recognized by strings that its templates contain.
// Refuses none: an unknown template gets plain text, and chat_info says so.
//
// The formats are from the models' own templates (tokenizer_config.json of their public releases); the spacing of
// Mistral's versions is from mistral-common's documentation, gpt-oss from OpenAI's description of the harmony format.
#include "chat.h"

#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#define BOS "\1" // replaced by the text of the model's BOS token
#define EOS "\2"
#define HARMONY                                                                                                        \
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: "         \
    "2024-06\n"                                                                                                        \
    "Current date: %Y-%m-%d\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be "   \
    "included for every message.<|end|>"
#define LLAMA_3_DATES "Cutting Knowledge Date: December 2023\nToday Date: %d %b %Y\n\n"

enum {
    SYSTEM_IN_USER = 1, // the system message is inside the first user turn
    SYSTEM_ALWAYS = 2,  // a system turn even without a system message
    TRIM = 4,           // messages are stripped of white space
    DATED = 8,          // strings with % are strftime formats
    CHANNELS = 16,      // harmony's
};

typedef struct {
    const char *name;
    const char *markers[3];                         // all are in the template, with " as ' and \n as a newline
    const char *preamble;                           // at the start, NULL: nothing
    const char *system[2], *user[2], *assistant[2]; // before and after a message
    const char *prompt;                             // before a generated answer, NULL: assistant[0]
    const char *stop;                               // ends an answer, like the model's end tokens, NULL: nothing
    unsigned rules;
} ChatFormat;

// clang-format off
static const ChatFormat formats[] = { // the first whose markers are all in the template
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
    {"plain text", {""}, NULL, // the fallback
     {"", "\n\n"}, {"User: ", "\n"}, {"Assistant: ", "\n"}, "Assistant:", "\nUser:", 0},
};
// clang-format on
enum { N_FORMATS = sizeof formats / sizeof *formats };

struct Chat {
    const Tokenizer *tokenizer;
    const ChatFormat *format;
    bool has_template, begins_with_bos;
    char *system; // the default system message of the template, NULL: none
    struct tm now;
    int32_t *specials; // stb_ds array: special tokens that messages must not produce
};

// ---- the template

// A copy with " as ' and \n as a newline. NULL: out of memory.
static char *template_normalize(const char *text) {
    char *copy = strdup(text), *to = copy;
    if (!copy) return NULL;
    for (; *text; text++) {
        bool newline = text[0] == '\\' && text[1] == 'n';
        if (newline) text++;
        *to++ = newline ? '\n' : *text;
        if (*text == '"') to[-1] = '\'';
    }
    *to = 0;
    return copy;
}

static const ChatFormat *format_find(const char *template) {
    const ChatFormat *f = formats;
    for (; f < &formats[N_FORMATS - 1]; f++) {
        bool all = true;
        for (int i = 0; i < 3 && f->markers[i]; i++) all = all && strstr(template, f->markers[i]);
        if (all) break;
    }
    return f;
}

// The system message that Qwen's and SmolLM's templates add to conversations without one: a literal system turn in the
// template. -1: out of memory.
static int find_system(Chat *c, const char *template) {
    const char *before = c->format->system[0], *after = c->format->system[1];
    if (!*before || !*after || c->format->rules & SYSTEM_ALWAYS) return 0;
    for (const char *at = strstr(template, before); at; at = strstr(at, before)) {
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
    return p && piece_is(p, text);
}

static bool is_in(const Piece *p, const char *text) {
    return text && memmem(text, strlen(text), p->text, (size_t)p->len);
}

static bool is_in_format(const Piece *p, const ChatFormat *f) {
    const char *const strings[] = {f->preamble,     f->system[0],    f->system[1], f->user[0], f->user[1],
                                   f->assistant[0], f->assistant[1], f->prompt,    f->stop};
    bool found = false;
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) found = found || is_in(p, strings[i]);
    return found;
}

bool chat_ends(const Chat *c, int32_t id) {
    if (c->format->rules & CHANNELS && chat_piece_is(c, id, "<|end|>")) return false; // ends one of several channels
    return tokenizer_is_end(c->tokenizer, id) || id == tokenizer_bos(c->tokenizer) ||
           (c->format->stop && chat_piece_is(c, id, c->format->stop));
}

// All control tokens, and those USER tokens that the format uses: others are ordinary text (newlines, HTML).
static void find_specials(Chat *c) {
    for (int32_t id = 0; id < tokenizer_size(c->tokenizer); id++) {
        const Piece *p = tokenizer_piece(c->tokenizer, id);
        bool user = p->type == TOKEN_USER && p->len > 2 && (p->text[0] == '<' || p->text[0] == '[');
        bool used = user && (chat_ends(c, id) || is_in_format(p, c->format));
        if (p->len > 0 && (p->type == TOKEN_CONTROL || p->type == TOKEN_UNKNOWN || used)) arrput(c->specials, id);
    }
}

// Length in bytes of the longest special token at the start of text[n]; 0: none.
static size_t special_at(const Chat *c, const char *text, size_t n) {
    size_t longest = 0;
    for (ptrdiff_t i = 0; i < arrlen(c->specials); i++) {
        const Piece *p = tokenizer_piece(c->tokenizer, c->specials[i]);
        size_t len = (size_t)p->len;
        if (p->text[0] == text[0] && len > longest && len <= n && !memcmp(p->text, text, len)) longest = len;
    }
    return longest;
}

// ---- a Chat

Chat *chat_open(const Tokenizer *t, const char *chat_template, time_t now, char *err, size_t errlen) {
    Chat *c = calloc(1, sizeof *c);
    char *template = template_normalize(chat_template ? chat_template : "");
    if (c && template) {
        c->tokenizer = t;
        c->format = format_find(template);
        c->has_template = chat_template;
        const Piece *bos = tokenizer_piece(t, tokenizer_bos(t));
        c->begins_with_bos = strstr(template, "bos_token") || (bos && bos->len > 0 && is_in(bos, template));
        if (!strstr(template, "strftime_now")) now = 1721952000; // 26 Jul 2024, as in Llama 3.1's template
        gmtime_r(&now, &c->now);
        find_specials(c);
    }
    if (!c || !template || find_system(c, template)) {
        chat_close(c);
        c = NULL;
        fail(err, errlen, "chat: out of memory");
    }
    free(template);
    return c;
}

void chat_close(Chat *c) {
    if (!c) return;
    free(c->system);
    arrfree(c->specials);
    free(c);
}

ChatInfo chat_info(const Chat *c) {
    bool known = c->format != &formats[N_FORMATS - 1];
    return (ChatInfo){.family = c->format->name, .has_template = c->has_template, .known = known};
}

const Tokenizer *chat_tokenizer(const Chat *c) {
    return c->tokenizer;
}

const char *chat_stop(const Chat *c) {
    return c->format->stop;
}

bool chat_has_channels(const Chat *c) {
    return c->format->rules & CHANNELS;
}

bool chat_starts_thinking(const Chat *c) {
    return c->format->prompt && strstr(c->format->prompt, "<think>");
}

// ---- messages to text

typedef struct {
    size_t begin, end;          // in the text
    const ChatMessage *message; // its ids go here, begin == end; NULL: this is the text of a message
} MessageSpan;

typedef struct {
    const Chat *chat;
    char *text;         // stb_ds arrays
    MessageSpan *spans; // of the messages, in order; the text between them is the format's
} Draft;

static void put_bytes(Draft *d, const char *text, size_t n) {
    if (n) memcpy(arraddnptr(d->text, n), text, n);
}

static void put_piece(Draft *d, int id) {
    const Piece *p = tokenizer_piece(d->chat->tokenizer, id);
    if (p && p->len > 0) put_bytes(d, p->text, (size_t)p->len);
}

static void put_format(Draft *d, const char *format) {
    char dated[512];
    if (d->chat->format->rules & DATED && strchr(format, '%')) {
        strftime(dated, sizeof dated, format, &d->chat->now);
        format = dated;
    }
    const Tokenizer *t = d->chat->tokenizer;
    for (; *format; format++) {
        if (*format == *BOS) put_piece(d, tokenizer_bos(t));
        else if (*format == *EOS) put_piece(d, tokenizer_eos(t));
        else arrput(d->text, *format);
    }
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_message(Draft *d, const ChatMessage *m) {
    const char *text = m->text;
    size_t n = m->n;
    if (d->chat->format->rules & TRIM) {
        for (; n && is_space(text[0]); n--) text++;
        while (n && is_space(text[n - 1])) n--;
    }
    MessageSpan s = {.begin = arrlenu(d->text)};
    put_bytes(d, text, n);
    s.end = arrlenu(d->text);
    arrput(d->spans, s);
}

static void put_turn(Draft *d, const char *const around[2], const ChatMessage *m) {
    put_format(d, around[0]);
    put_message(d, m);
    put_format(d, around[1]);
}

static const char *answer_prompt(const ChatFormat *f) {
    return f->prompt ? f->prompt : f->assistant[0];
}

static void put_ids(Draft *d, const ChatMessage *m) {
    const ChatFormat *f = d->chat->format;
    put_format(d, answer_prompt(f));
    MessageSpan s = {arrlenu(d->text), arrlenu(d->text), m};
    arrput(d->spans, s);
    put_format(d, f->assistant[1]);
}

// Writes everything before the first user turn. Returns the system message if it belongs inside that turn, or NULL.
static const ChatMessage *put_start(Draft *d, const ChatMessage *system) {
    const Chat *c = d->chat;
    const ChatFormat *f = c->format;
    if (c->begins_with_bos && f->user[0][0] != *BOS) put_format(d, BOS);
    if (f->preamble) put_format(d, f->preamble);
    if (f->rules & SYSTEM_IN_USER) return system;
    if (system) put_turn(d, f->system, system);
    return NULL;
}

static Draft draft_make(const Chat *c, const ChatMessage *messages, int n, bool answer) {
    Draft d = {.chat = c};
    const ChatFormat *f = c->format;
    ChatMessage own = {CHAT_SYSTEM, c->system ? c->system : "", c->system ? strlen(c->system) : 0, NULL, 0};
    const ChatMessage *system = c->system || f->rules & SYSTEM_ALWAYS ? &own : NULL;
    int first = n && messages[0].role == CHAT_SYSTEM;
    system = put_start(&d, first ? &messages[0] : system);
    for (int i = first; i < n; i++) {
        const ChatMessage *m = &messages[i];
        if (m->role == CHAT_SYSTEM) put_turn(&d, f->system, m);
        else if (m->role == CHAT_ASSISTANT && m->ids) put_ids(&d, m);
        else if (m->role == CHAT_ASSISTANT) put_turn(&d, f->assistant, m);
        else {
            put_format(&d, f->user[0]);
            if (system) put_turn(&d, f->system, system);
            system = NULL;
            put_message(&d, m);
            put_format(&d, f->user[1]);
        }
    }
    if (answer) put_format(&d, answer_prompt(f));
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
    size_t encoded; // bytes of the text that are already encoded
    char *err;
    size_t errlen;
} ChatEncoder;

static int encode_until(ChatEncoder *x, size_t end, unsigned flags) {
    const Draft *d = x->draft;
    const Tokenizer *t = d->chat->tokenizer;
    const Piece *bos = tokenizer_piece(t, tokenizer_bos(t));
    bool has_bos = bos && bos->len > 0 && (size_t)bos->len <= end && !memcmp(d->text, bos->text, (size_t)bos->len);
    if (end == x->encoded) return 0;
    if (x->encoded) flags |= TOKENIZE_INSIDE;
    else if (!has_bos) flags |= TOKENIZE_BOS;
    int32_t *ids;
    int n = tokenizer_encode(t, d->text + x->encoded, end - x->encoded, flags, &ids, x->err, x->errlen);
    if (n < 0) return -1;
    if (n) memcpy(arraddnptr(x->ids, n), ids, (size_t)n * sizeof *ids);
    free(ids);
    x->encoded = end;
    return 0;
}

// A message is encoded together with the format around it, so that merges across its borders are those of the whole
// text. Only the texts of special tokens within it are encoded separately, as ordinary text.
static int encode_span(ChatEncoder *x, const MessageSpan *s) {
    const Draft *d = x->draft;
    if (s->message) {
        if (encode_until(x, s->begin, TOKENIZE_SPECIAL)) return -1;
        memcpy(arraddnptr(x->ids, s->message->n_ids), s->message->ids, sizeof *x->ids * (size_t)s->message->n_ids);
        return 0;
    }
    for (size_t i = s->begin, len; i < s->end; i += len ? len : 1) {
        len = special_at(d->chat, d->text + i, s->end - i);
        if (len && (encode_until(x, i, TOKENIZE_SPECIAL) || encode_until(x, i + len, TOKENIZE_PLAIN))) return -1;
    }
    return 0;
}

int chat_encode(const Chat *c, const ChatMessage *messages, int n, bool answer, int32_t **ids, char *err,
                size_t errlen) {
    Draft d = draft_make(c, messages, n, answer);
    ChatEncoder x = {.draft = &d, .err = err, .errlen = errlen};
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
