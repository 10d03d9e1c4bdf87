// fuzz_chat: any text in templates of several kinds, any text as a template, any ids as an answer.
//
// Byte 0 chooses the template (the last choice: the bytes themselves, up to a zero), byte 1 the type of the marks and
// whether there is a prefix space. The rest is what is said, a message's fields, and the ids of an answer. Aborts when
// a text brings a special token into the conversation, when fields are refused by more than a line, or when an answer's
// text is not terminated whole characters.
#include "chat.h"
#include "utf8.h"

#include "../make_marked.h"
#include "fuzz.h"

#define LOOP "{% for m in messages %}"
#define END "{% endfor %}"
// clang-format off
static const char *const templates[] = {
    LOOP "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" END,
    LOOP "{{ '<|' + m.role + '|>' + m.content | trim + '<|end|>' }}" END,
    LOOP "<start_of_turn>{{ m['content'].split('<|')[-1] }}" END,
    LOOP "{% if m.role == 'user' %}[INST]{{ m.content | upper }}[/INST]{% else %}{{ m.content[1:] }}{% endif %}" END,
    "{% set ns = namespace(t='') %}" LOOP "{% set ns.t = ns.t ~ m.content %}" END "<|start|>{{ ns.t | replace('<', '<|') }}",
    LOOP "<|channel|>{{ m | tojson }}" END,
    LOOP "{{ m.content ~ '<|im_start|>assistant\n<think>\n' }}" END,
    "{% macro say(x) %}<|im_start|>{{ x }}{% endmacro %}" LOOP "{{ say(m.content) | indent }}" END};
// clang-format on
static const char *const marks[] = {
    "<|im_start|>",    "<|im_end|>",    "<|user|>", "<|end|>",    "<|assistant|>", "<|system|>",
    "<start_of_turn>", "<end_of_turn>", "[INST]",   "[/INST]",    "<|start|>",     "<|message|>",
    "<|channel|>",     "<think>",       "</think>", "<|return|>",
};
enum { N_TEMPLATES = sizeof templates / sizeof *templates, N_MARKS = sizeof marks / sizeof *marks };

// Those that inputs share, made when they are first asked for.
static struct {
    Tokenizer *tokenizer;
    Chat *chats[N_TEMPLATES];
    int marks[N_TEMPLATES]; // of a conversation that says "x"
} kinds[4];

static Tokenizer *make_tokenizer(unsigned kind) {
    static const char *const words[] = {" ", "<", "|", "i", "m", "im", "<|", "|>", "<|im", "\n", "\n\n", " ["};
    return make_marked(words, sizeof words / sizeof *words, marks, N_MARKS, kind & 2 ? TOKEN_USER : TOKEN_CONTROL,
                       kind & 1);
}

// The control tokens of a conversation that says this text three times, and ChatML's marks of any type.
static int count_marks(const Chat *c, const char *text, size_t n, bool chatml) {
    int32_t *ids;
    ChatMessage m[] = {{CHAT_SYSTEM, text, n, NULL, 0, NULL},
                       {CHAT_USER, text, n, NULL, 0, NULL},
                       {CHAT_ASSISTANT, text, n, NULL, 0, NULL}};
    int n_ids = chat_encode(c, m, 3, true, &ids, NULL, 0), count = 0;
    if (n_ids < 0) return -1;
    for (int i = 0; i < n_ids; i++) {
        const Piece *p = tokenizer_piece(chat_tokenizer(c), ids[i]);
        REQUIRE(p);
        bool mark = chat_piece_is(c, ids[i], "<|im_start|>") || chat_piece_is(c, ids[i], "<|im_end|>");
        count += p->type == TOKEN_CONTROL || (chatml && mark);
    }
    free(ids);
    return count;
}

static void try_fields(const Chat *c, const char *json) {
    char err[500] = "";
    int32_t *ids;
    ChatMessage m = {.role = CHAT_ASSISTANT, .text = "x", .n = 1, .fields = json};
    if (chat_encode(c, &m, 1, true, &ids, err, sizeof err) >= 0) free(ids);
    else REQUIRE(*err && !strpbrk(err, "\r\n"));
}

static void check_text(const char *text) {
    for (int n = (int)strlen(text), len; n; text += len, n -= len) {
        len = utf8_unit(text, n);
        REQUIRE(len > 1 || (unsigned char)*text < 0x80);
    }
}

static void answer_with(const Chat *c, const uint8_t *data, size_t size) {
    Answer *a = answer_open(c);
    REQUIRE(a);
    bool end = false;
    for (size_t i = 0; i < size && !end; i++) {
        AnswerPart part = answer_push(a, data[i] + (data[i] & 1 ? 256 : 0) - 16);
        check_text(part.text);
        end = part.end;
    }
    check_text(answer_finish(a));
    answer_close(a);
}

static Chat *shared_chat(unsigned kind, unsigned choice) {
    Chat **c = &kinds[kind].chats[choice];
    if (*c) return *c;
    *c = chat_open(kinds[kind].tokenizer, templates[choice], 0, NULL, 0);
    REQUIRE(*c);
    kinds[kind].marks[choice] = count_marks(*c, "x", 1, !choice);
    REQUIRE(kinds[kind].marks[choice] >= 0);
    return *c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    unsigned choice = data[0] % (N_TEMPLATES + 1), kind = data[1] & 3;
    bool own = choice == N_TEMPLATES;
    char *text = malloc(size - 1);
    REQUIRE(text);
    memcpy(text, data + 2, size - 2);
    text[size - 2] = 0;
    if (!kinds[kind].tokenizer) kinds[kind].tokenizer = make_tokenizer(kind);
    REQUIRE(kinds[kind].tokenizer);
    Chat *c = own ? chat_open(kinds[kind].tokenizer, text, 0, NULL, 0) : shared_chat(kind, choice);
    int marked = c ? count_marks(c, text, size - 2, !choice) : 0;
    if (!own) REQUIRE(marked == kinds[kind].marks[choice]);
    if (c) try_fields(c, text);
    if (c) answer_with(c, data + 2, size - 2);
    if (own) chat_close(c);
    free(text);
    return 0;
}
