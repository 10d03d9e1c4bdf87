// Tessera: a minimal transformer inference engine. The one public header.
//
// The rooms of src/, as in README.md, which also says which of them may include which:
//   base/             bytes and the machine: mapped files, JSON, UTF-8, random numbers, threads, the processor
//   text/             text to token ids and back: vocabularies, normalizers, patterns; knows no file format
//   compute/          numbers: stored types, matrix products, the one attention loop, the KV cache, recurrences and
//                     their states; knows shapes, no architecture
//   compute/kernels/  the inner loops, once for each instruction-set level
//   model/            what a model is: its config, families, tensors, the stack of layers; decoder, encoder,
//                     encoder-decoder
//   model/mixers/     how a layer mixes information between positions: one file for each kind of layer
//   formats/          what a container says of a model and its vocabulary: GGUF, Hugging Face folders, llama2.c
//   engine/           the types of `tessera.h`: engine, session, sampler, chat; the runner that sessions share
//   run/              the command line; the only part of `src/` that prints or exits
//
// Threads: an Engine is a model opened: immutable, and any number of threads may use it and open sessions of it. A
// Session is one timeline of text: it owns its tokens, its cache and its logits, and belongs to one thread at a time;
// sessions of one engine may compute in several threads at once (passes are computed one at a time by the threads that
// they share). TextOut, Sampler, Chat and Answer belong to one thread at a time. Calls that can fail return -1 or NULL
// and write one line into err; nothing prints, nothing exits.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct Engine Engine;
typedef struct Session Session;
typedef struct Sampler Sampler;

// ---- engine

// Open a model and its vocabulary: GGUF (of a split model the first part, -00001-of-0000N), a Hugging Face folder or a
// .safetensors file in one, llama2.c .bin (v0, v1, v2); of the families listed in MODELS.md. tokenizer NULL: the one
// inside the GGUF file or the folder; beside a .bin `<model stem>.tokenizer.bin`, then `tokenizer.bin`. It may also be
// another GGUF file, folder, tokenizer.json or tokenizer.model. NULL with a line in err on failure.
Engine *engine_open(const char *model, const char *tokenizer, char *err, size_t errlen);
void engine_close(Engine *e); // after its sessions; accepts NULL

typedef struct {
    const char *kind;   // container: "llama2.c v2", "GGUF v3", "safetensors"
    const char *family; // "llama", "qwen2", as GGUF names it
    const char *type;   // "Q8_0": the type of most of the weights' bytes
    int dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, vocab_size, max_seq_len;
    int bos_id, eos_id; // -1: none
    uint64_t n_params;
    uint64_t model_bytes; // size of the file, or of all its parts
    uint64_t token_bytes; // weight bytes read to decode one token
} EngineInfo;
EngineInfo engine_info(const Engine *e);

// What opening it has to say: a line for each guess that was made and each part that was left out, "" for none.
const char *engine_notes(const Engine *e);

// How the model's files say that tokens are to be picked (general.sampling.* of GGUF, generation_config.json).
// Negative: they do not say.
typedef struct {
    float temperature;
    int top_k;
    float top_p, min_p;
    float repeat_penalty; // 1: off
    int penalty_last_n;   // as in SamplerOptions, but 0: they do not say
    const char *source;   // where they say it; NULL: nowhere
} SamplingDefaults;
SamplingDefaults engine_sampling(const Engine *e);

// Limits of what the engine's sessions hold together; 0 and 0 at first.
//   kv_bytes: all caches; a session that needs more fails with one line. 0: no limit
//   prefix_bytes: what stays of texts when their sessions close or go back, so that session_keep and session_sync find
//     it for texts that begin alike (least recently used first to go). 0: nothing. A session with a window, its own or
//     the model's, keeps to itself; with recurrent layers, what is found ends where a copy of their states was made
void engine_limit(const Engine *e, uint64_t kv_bytes, uint64_t prefix_bytes);

typedef struct {
    uint64_t kv_bytes;              // held by all caches now; what is shared counts once
    uint64_t bytes;                 // of them and of copied states, held for later texts
    uint64_t n_found, tokens_found; // texts that found more than their session had, and how much more
} PrefixInfo;
PrefixInfo engine_prefixes(const Engine *e);

// Text to ids: as many as returned, in *ids (free() it). bos: begin with BOS. special: special-token strings such as
// "<s>" in the text become those tokens.
int engine_encode(const Engine *e, const char *text, size_t n, bool bos, bool special, int32_t **ids, char *err,
                  size_t errlen);

// Nothing follows this token: one of the model's end tokens, or BOS.
bool engine_is_end(const Engine *e, int32_t id);

// ---- session

typedef enum { KV_BF16, KV_F32, KV_Q8 } KvType;
const char *kv_type_name(KvType t); // "bf16", as --kv takes it; NULL: t is not a KvType

// Products with weights of 8 bits and fewer. PRECISION_FAST: what they are multiplied with is rounded to int8 where the
// processor has such products of their type, and for prompts some round the weights too (README.md says what that
// costs).
typedef enum { PRECISION_EXACT, PRECISION_FAST } Precision;

typedef struct {
    int n_ctx;     // context limit in tokens; 0: the model's own. The cache grows up to it, it is not allocated ahead
    int n_threads; // 0: the cores this process may use
    int window;    // attend to the last `window` tokens; 0: the model's own, -1: everything
    int n_sinks;   // with a window, also attend to the first n_sinks tokens; memory is O(window + n_sinks)
    KvType kv;     // what the cache stores
    int precision; // a Precision
} SessionOptions;

// options NULL: all zeros, the defaults. Options that mean nothing are refused by name.
Session *session_open(const Engine *e, const SessionOptions *options, char *err, size_t errlen);
void session_close(Session *s); // accepts NULL

// Make tokens[0..n) the session's text, n >= 1: keeps the longest common prefix, rewinds what differs, computes what is
// new (in blocks of tokens), and leaves the logits that follow the last token. On -1 (out of memory, context full, bad
// id, logits that are no numbers) the session keeps the prefix that it has computed so far: session_length says how
// much. The number of threads changes no bit; how the text was cut into syncs moves logits by rounding only (with an
// fp32 cache, a normalized mean squared error below 1e-10; with quantized weights, where few tokens are multiplied as
// 16-bit numbers, below 1e-7).
int session_sync(Session *s, const int32_t *tokens, int n, char *err, size_t errlen);
int session_length(const Session *s);
const float *session_logits(const Session *s); // [vocab_size], after tokens[length - 1], valid until the next sync;
                                               // NULL before the first one and after one that could compute nothing

// Called by session_sync for every newly computed position, in order, with the logits that follow it. NULL: off.
typedef void (*LogitsVisitor)(void *context, int position, const float *logits);
void session_visit(Session *s, LogitsVisitor visit, void *context);

// Called by session_sync and engine_step for every newly computed position, in order, with what the last layer gave
// there, behind the output norm: [dim], valid during the call. Its product with the output matrix are the logits,
// before a bias, a scale or a cap. NULL: off.
typedef void (*StateVisitor)(void *context, int position, const float *state);
void session_visit_states(Session *s, StateVisitor visit, void *context);

// Called by session_sync before each block of tokens that it computes (a few hundred): `done` of the n tokens of the
// text are there. Where it returns false session_sync ends with -1 and "stopped", and keeps what is there. NULL: off.
typedef bool (*SessionWatcher)(void *context, int done, int n);
void session_watch(Session *s, SessionWatcher watch, void *context);

// Keep the longest prefix of tokens[0..n) that the session holds, or that engine_limit lets it find, forget the rest of
// its text, and return how many tokens that is: n where the logits that follow them are there, else at most n - 1. What
// is left to compute are tokens + returned. Recurrent layers and windows may have to go back further than the first
// difference. Any n >= 0.
int session_keep(Session *s, const int32_t *tokens, int n);

// A second session with the same options, text and logits: what is alike stays shared until one of the two changes.
Session *session_fork(const Session *s, char *err, size_t errlen);

// The session as a file, and back: text, cache, states and logits, so that nothing is computed again. A file is loaded
// into a session of the same model, with the same kv, window and n_sinks, whose context holds the text. On -1 the
// session is as before; a file that was cut or changed is refused, and session_save leaves the old file in place where
// it fails. A symbolic link stays, what it leads to is replaced; what is no regular file is refused by both.
int session_save(const Session *s, const char *path, char *err, size_t errlen);
int session_load(Session *s, const char *path, char *err, size_t errlen);

typedef struct {
    int n_ctx, n_threads;
    uint64_t kv_bytes;           // held by the cache now; what sessions share counts in each
    uint64_t state_bytes;        // held by recurrent layers, their checkpoints included: does not grow with the text
    uint64_t memory_token_bytes; // of cache and states that the next decoded token reads
} SessionInfo;
SessionInfo session_info(const Session *s);

// ---- many sessions together

// New tokens of one session, as part of a step.
typedef struct {
    Session *session;      // of this engine, with the threads and the precision of the others; once in a step
    const int32_t *tokens; // [n] that follow its text, n >= 1: a decoded token, or some or all of a prompt
    int n;
    bool logits; // wanted after the last one, as session_logits, which is NULL otherwise; a visitor gets all
    // Out:
    int done;      // tokens that the session's text grew by: n, or fewer after a failure
    char err[200]; // why not all; "": they are
} StepSegment;

// Compute the tokens of all segments together, in as few passes as hold them (512 tokens or 64 sessions each; a
// session's watcher is asked before each). A segment that fails (its context is full, memory runs out, a bad id, its
// watcher says stop, its logits are no numbers) keeps what is done, as session_sync does, and does not disturb the
// others. Returns how many segments failed. Fast where many segments are short: each weight is read once for all.
// exact: a segment's logits have the same bits whatever is computed beside it. Those of up to 8 tokens are then what
// the tokens give one at a time, and each longer segment is a pass of its own. Otherwise neighbours move logits by
// rounding alone, as cutting a text into syncs does: with a normalized mean squared error of at most 1e-5 (1e-4 where
// the machine multiplies words of 16 bits, 5e-4 where the cache rounds to 8 bits), unless a router chooses between
// experts that were all but equal.
int engine_step(const Engine *e, StepSegment *segments, int n, bool exact);

// Add the time of each operation to *p from now on; NULL: off, the default. For tools of this project: the type is that
// of src/compute/profile.h.
typedef struct Profile Profile;
void session_profile(Session *s, Profile *p);

// ---- text out

// Ids to whole UTF-8 characters, as they arrive. Bytes that never complete come out as U+FFFD.
typedef struct TextOut TextOut;
TextOut *textout_open(const Engine *e, bool at_start); // at_start: drop the leading space that the tokenizer added
const char *textout_push(TextOut *t, int32_t id);      // text that id completes, maybe ""; valid until the next call
const char *textout_finish(TextOut *t);                // what was still incomplete
void textout_show_special(TextOut *t, bool show);      // the strings of special tokens too; off at first
void textout_close(TextOut *t);

// ---- sampler

typedef struct {
    int32_t id;
    float bias; // added to the logit; -INFINITY: never this token
} LogitBias;

// Zeros are greedy sampling with everything off.
typedef struct {
    float temperature; // 0: greedy
    int top_k;         // 0: off
    float top_p;       // 0 or 1: off
    float min_p;       // 0: off
    uint64_t seed;
    // Of the tokens in the last penalty_last_n of the text (0: 64, -1: all), as llama.cpp has it: a positive logit is
    // divided by repeat_penalty, another multiplied; then frequency_penalty times their number, and presence_penalty
    // once, are subtracted.
    float repeat_penalty; // 0 or 1: off
    float frequency_penalty, presence_penalty;
    int penalty_last_n;
    const LogitBias *bias; // [n_bias], copied by sampler_open
    int n_bias;
} SamplerOptions;

// Order: biases, penalties, top-k, top-p, min-p, then temperature. options NULL: all zeros. Options out of range are
// refused by name.
Sampler *sampler_open(const SamplerOptions *options, int vocab_size, char *err, size_t errlen);
// The text before the next pick, for the penalties; the picks after it are added by themselves.
void sampler_history(Sampler *s, const int32_t *tokens, int n);
int32_t sampler_pick(Sampler *s, const float *logits);
void sampler_close(Sampler *s); // accepts NULL

// ---- guesses of the next tokens (speculative decoding)

// Guesses what follows a text, so that one pass computes several tokens. It watches how often it is right and what
// passes cost, and guesses as much as pays; text and logits are those without it, to the bit.
typedef struct Drafter Drafter;

// What followed the same words earlier in the text. NULL with a line in err.
Drafter *drafter_lookup(char *err, size_t errlen);
// A smaller model with the same vocabulary, in a session with these options. It must outlive the drafter.
Drafter *drafter_model(const Engine *draft, const Engine *e, const SessionOptions *options, char *err, size_t errlen);
void drafter_close(Drafter *d); // accepts NULL

typedef struct {
    uint64_t n_passes;           // that decoded a token and its guesses
    uint64_t n_guessed, n_right; // tokens
} DrafterInfo;
DrafterInfo drafter_info(const Drafter *d);

// Make text[0..n) the session's text, as session_sync does, and draw the next tokens: at least one, at most `room`,
// none behind an end token. Returns their number, or -1 as session_sync. Afterwards the session holds all of them but
// the last, and the logits are those that the last was drawn from. d: with it, as many tokens as its guesses are right;
// NULL: one.
int session_draw(Session *s, const int32_t *text, int n, Sampler *sampler, Drafter *d, int32_t *drawn, int room,
                 char *err, size_t errlen);

// ---- chat

// How a model formats conversations: its chat template, in Jinja, is run on the messages. A model without a template
// gets plain "User:" and "Assistant:" lines.
typedef struct Chat Chat;
typedef enum { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL } ChatRole;

typedef struct {
    ChatRole role;
    const char *text; // n bytes of any text: none of it becomes a special token
    size_t n;
    const int32_t *ids; // for an answer: the n_ids tokens that were generated, used instead of the text; else NULL
    int n_ids;
    // A JSON object with what else the template is to see of the message: tool_calls (arguments as an object or as JSON
    // in a string), tool_call_id, name, reasoning_content, content as a list of parts; or NULL.
    const char *fields;
} ChatMessage;

typedef struct {
    const char *family; // for display: recognized by marks in the template
    bool has_template;  // the model brings one
    bool known;         // it is used; otherwise the format is plain "User:" and "Assistant:" lines
} ChatInfo;

// NULL with a line in err: the template has an error, or memory runs out. chat_close before engine_close; accepts NULL.
Chat *engine_chat(const Engine *e, char *err, size_t errlen);
// The same with this template instead of the model's own.
Chat *engine_chat_with(const Engine *e, const char *chat_template, char *err, size_t errlen);
// Sets a variable of the template (tools, enable_thinking, documents, ...) to a JSON value. Returns 0, or -1 with a
// line in err and the variable as it was.
int chat_set(Chat *c, const char *name, const char *json, char *err, size_t errlen);
void chat_close(Chat *c);
ChatInfo chat_info(const Chat *c);

// The conversation as ids (as engine_encode gives them out), what one encoding of the rendered text gives; BOS is
// there once. What the template refuses (an order of roles, a system message) is an error: -1 with its line in err.
// answer: end where the model's answer begins.
int chat_encode(const Chat *c, const ChatMessage *messages, int n, bool answer, int32_t **ids, char *err,
                size_t errlen);
// The same as text; free() it. NULL on an error.
char *chat_text(const Chat *c, const ChatMessage *messages, int n, bool answer);

// An answer as its ids come. Text is whole characters, without the frame and without white space before the answer.
typedef struct Answer Answer;

typedef struct {
    const char *text; // maybe ""; valid until the next call
    bool thought;     // the model's thinking, which is no part of the answer
    bool end;         // the answer is complete; the id belongs to the frame and is not to be kept
} AnswerPart;

Answer *answer_open(const Chat *c); // NULL when memory runs out
AnswerPart answer_push(Answer *a, int32_t id);
const char *answer_finish(Answer *a);     // what was held back, when no end came
bool answer_is_verbatim(const Answer *a); // its ids contain only the answer's text: they may be used in a ChatMessage
void answer_close(Answer *a);             // accepts NULL

// ---- constraint

// Text that must be JSON of a form: a mask over the vocabulary, token by token. Belongs to one thread at a time.
typedef struct Constraint Constraint;

// schema: a JSON Schema, or NULL for any JSON object. What cannot be enforced is refused by its keyword. chat: the text
// may end as its answers do; NULL: with the model's end tokens. NULL with a line in err.
Constraint *constraint_open(const Engine *e, const Chat *chat, const char *schema, char *err, size_t errlen);
// Free text that is JSON of the schema behind each `mark`, up to `close` ("": the JSON ends by itself), where it is
// free again; once: where it ends. Between a mark and its close the text cannot end. Control tokens that stand in
// either are read as their text, others only in free text.
// With a mark of "" `begins` counts instead, prefixes of the JSON without blanks, the last of them NULL: a text that
// begins with one of them, blanks outside of quotes aside, is JSON of the schema, one or more values, or exactly one
// (once); any other text is free. `close` is then not used. With a mark `begins` is not used and may be NULL.
typedef struct {
    const char *mark, *close;
    bool once;
    const char *const *begins;
} ConstraintMarks;
Constraint *constraint_open_marked(const Engine *e, const Chat *chat, const char *schema, const ConstraintMarks *marks,
                                   char *err, size_t errlen);
void constraint_close(Constraint *c); // accepts NULL
// The logits with -INFINITY for every token that cannot follow, valid until the next call. NULL: the vocabulary has no
// token that can.
const float *constraint_mask(Constraint *c, const float *logits);
void constraint_accept(Constraint *c, int32_t id); // the token that was picked
bool constraint_complete(const Constraint *c);     // nothing can follow

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
