// options: see options.h. The meaning of the sampling flags is that of llama.cpp's documentation.
#include "options.h"

#include "cli.h"
#include "habits.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <stb/stb_ds.h>

enum { DEFAULT_NEW = 256, UNTIL_FULL = -2, UNSET = INT_MIN, DEFAULT_PARALLEL = 8, MOST_PARALLEL = 1024 };

// What the flags write to before it is put together.
typedef struct {
    Options *o;
    const char *text, *file; // of the prompt
    int last_n;
    bool escapes;
    CacheTypes cache;
} Raw;

// ---- values of their own kinds

static void take_stop(void *to, const char *flag, const char *value) {
    Options *o = to;
    if (!*value) die(2, "%s: expected text that ends the generation, found ''", flag);
    arrput(o->stops, value);
}

// "ID+BIAS" or "ID-BIAS"; the bias may be "inf" behind a minus.
static void take_bias(void *to, const char *flag, const char *value) {
    Options *o = to;
    char *end;
    long id = strtol(value, &end, 10);
    double bias = 0;
    bool sound = end > value && id >= 0 && id <= INT_MAX && (*end == '+' || *end == '-') && end[1] != '+' &&
                 end[1] != '-' && cli_number(end + 1, &bias) && (isfinite(bias) || *end == '-');
    if (!sound) die(2, "%s: expected an id, a sign and a number, such as 15043+1 or 2-inf, found '%s'", flag, value);
    LogitBias b = {.id = (int32_t)id, .bias = (float)(*end == '-' ? -bias : bias)};
    arrput(o->bias, b);
}

static void take_variables(void *to, const char *flag, const char *value) {
    json_t **variables = to, *object = json_loads(value, 0, NULL);
    if (!json_is_object(object))
        die(2, "%s: expected a JSON object such as {\"enable_thinking\": false}, found '%s'", flag, value);
    json_decref(*variables);
    *variables = object;
}

// llama2.c's flag of a prompt, and alone llama.cpp's for a conversation.
static void take_prompt(void *to, const char *flag, const char *value) {
    if (!value) die(2, "%s: expected a prompt behind it; a conversation is --chat", flag);
    *(const char **)to = value;
}

// A file, or Jinja; llama.cpp also knows templates by their names.
static void take_template(void *to, const char *flag, const char *value) {
    Options *o = to;
    o->chat_template = value;
    o->template_is_text = strstr(value, "{%") || strstr(value, "{{");
    if (!o->template_is_text && access(value, F_OK) && !strpbrk(value, "./"))
        die(2, "%s: there are no templates by name here, such as '%s'; expected a file, or Jinja", flag, value);
}

// A file, or the schema itself; llama.cpp's -j has no file.
static void take_schema(void *to, const char *flag, const char *value) {
    Options *o = to;
    (void)flag;
    o->constrained = true;
    free(o->schema);
    o->schema = *value == '{' ? strdup(value) : read_text(value, NULL);
}

static void take_neutral(void *to, const char *flag, const char *value) {
    double neutral = *(const double *)to, found;
    if (!cli_number(value, &found) || found != neutral)
        die(2, "%s: there is no such sampler here; expected %g, which turns it off, found '%s'", flag, neutral, value);
}

static char *copy_text(const char *text, size_t n) {
    char *copy = malloc(n + 1);
    if (!copy) die(1, "out of memory for %zu bytes of text", n);
    memcpy(copy, text, n);
    copy[n] = 0;
    return copy;
}

static int hex_digits(const char *at, const char *end, int *value) {
    int n = 0;
    for (*value = 0; n < 2 && at + n < end; n++) {
        const char *digits = "0123456789abcdef", *found = strchr(digits, at[n] | 0x20);
        if (!at[n] || !found) break;
        *value = *value * 16 + (int)(found - digits);
    }
    return n;
}

// Replaces \n \r \t \' \" \\ and \xHH in place, leaves other backslashes; returns the new length.
static size_t unescape(char *text, size_t n) {
    static const char from[] = "nrt'\"\\", to[] = "\n\r\t'\"\\";
    char *out = text;
    for (const char *at = text, *end = text + n; at < end;) {
        const char *found = *at == '\\' && at + 1 < end && at[1] ? strchr(from, at[1]) : NULL;
        int value, digits = *at == '\\' && at + 1 < end && at[1] == 'x' ? hex_digits(at + 2, end, &value) : 0;
        if (digits) {
            *out++ = (char)value;
            at += 2 + digits;
        } else if (found) {
            *out++ = to[found - from];
            at += 2;
        } else *out++ = *at++;
    }
    *out = 0;
    return (size_t)(out - text);
}

// ---- the table

static int parse_flags(Raw *raw, int argc, char **argv) {
    static const double zero = 0, one = 1, minus_one = -1;
    Options *o = raw->o;
    SamplerOptions *s = &o->sampler;
    bool ignored = false;
    const Flag flags[] = {
        MODEL_FLAG(&o->model),
        {"-p --prompt", "TEXT", "prompt (default: stdin if it is no terminal, else start from BOS)",
         TAKES_STRING(&raw->text)},
        {"-i", "[TEXT]", NULL, TAKES_CALL(&raw->text, take_prompt)},
        {"-f --file | -bf --binary-file", "FILE",
         "read the prompt from a file, - for stdin; one newline at its end is dropped", TAKES_STRING(&raw->file)},
        {"-e --escape | --escapes", NULL, "\\n \\r \\t \\' \\\" \\\\ \\xHH in the prompt stand for those characters",
         SETS(&raw->escapes)},
        {"-n --n-predict --predict | --max-tokens", "N",
         "tokens to generate, -1 until the end or a full context (default: 256); in a chat, per answer (default: -1)",
         TAKES_INT(&o->n_new, UNTIL_FULL, MOST_CONTEXT)},
        {"-c --ctx-size | --n-ctx --context", "N",
         "context limit; the KV cache grows up to it (default or 0: the model's own)",
         TAKES_INT(&o->session.n_ctx, 0, MOST_CONTEXT)},
        {"-t --threads", "N", "threads (default: the cores this process may use)",
         TAKES_INT(&o->session.n_threads, 1, 256), .words = "--temp"},
        WINDOW_FLAGS(&o->session),
        PRECISION_FLAG(&o->session),
        {"--session | --prompt-cache", "FILE",
         "what was read and generated: loaded if the file is there, saved at the end; texts that begin alike go on "
         "from "
         "it",
         TAKES_STRING(&o->saved)},
        TOKENIZER_FLAG(&o->tokenizer),
        {"--lookup", NULL, "guess the next tokens from the earlier text: faster where it repeats itself, the same text",
         SETS(&o->lookup)},
        {"--draft | -md --model-draft", "MODEL", "guess the next tokens with a smaller model of the same vocabulary",
         TAKES_STRING(&o->draft)},
        {.help = "chat", .kind = FLAG_HEADING},
        {"--chat -cnv --conversation", NULL,
         "interactive chat with the model's chat template; -p or -f is the first message", SETS(&o->chat)},
        {"--system -sys | --system-prompt", "TEXT", "system message of the chat (default: the template's own, if any)",
         TAKES_STRING(&o->system)},
        {"-st --single-turn", NULL, "end after the first answer", SETS(&o->single_turn)},
        {"--chat-template --chat-template-file", "FILE",
         "a Jinja template instead of the model's own: a file, or the template itself", TAKES_CALL(o, take_template)},
        {"--chat-template-kwargs", "JSON", "variables of the template, such as {\"enable_thinking\": false}",
         TAKES_CALL(&o->template_variables, take_variables)},
        {"--reasoning-budget", "N", "0: as {\"enable_thinking\": false}, -1: as the template has it",
         TAKES_INT(&o->reasoning_budget, -1, 0)},
        {.help = "sampling, in this order", .kind = FLAG_HEADING},
        {"--logit-bias", "ID+BIAS", "add BIAS to the logit of a token, such as 15043+1 or 2-inf; may be repeated",
         TAKES_CALL(o, take_bias)},
        {"--ignore-eos", NULL, "never sample an end token", SETS(&o->ignore_eos)},
        {"--repeat-penalty", "X",
         "divide the logits of repeated tokens by X, multiply negative ones (default: as the model says, or 1, off)",
         TAKES_FLOAT(&s->repeat_penalty, 0.01, 100)},
        {"--frequency-penalty", "X", "subtract X for each time that a token is there (default: 0)",
         TAKES_FLOAT(&s->frequency_penalty, -100, 100)},
        {"--presence-penalty", "X", "subtract X if a token is there (default: 0)",
         TAKES_FLOAT(&s->presence_penalty, -100, 100)},
        {"--repeat-last-n", "N", "tokens that the penalties look back, 0 for none, -1 for all (default: 64)",
         TAKES_INT(&raw->last_n, -1, MOST_CONTEXT)},
        {"--top-k", "N", "sample from the N most likely tokens, 0 for all (default: 40)",
         TAKES_INT(&s->top_k, 0, 1 << 24), .words = "--top-p"},
        {"--top-p", "X", "nucleus sampling: the most likely tokens with total probability X (default: 0.95)",
         TAKES_FLOAT(&s->top_p, 0, 1)},
        {"--min-p", "X", "minimum probability, relative to the most likely token (default: 0.05)",
         TAKES_FLOAT(&s->min_p, 0, 1)},
        {"--temp | --temperature", "X", "temperature, 0 for greedy sampling (default: as the model says, or 0.8)",
         TAKES_FLOAT(&s->temperature, 0, 100)},
        {"-s --seed", "N",
         "seed; the same seed gives the same text with any number of threads (default or -1: from the clock)",
         TAKES_SEED(&s->seed)},
        {.help = "output", .kind = FLAG_HEADING},
        {"--json-schema -jf --json-schema-file | -j", "FILE",
         "the text is JSON that this JSON Schema accepts: a file, or the schema itself", TAKES_CALL(o, take_schema)},
        {"-r --stop --reverse-prompt", "TEXT", "end before this text, which is not printed; may be repeated",
         TAKES_CALL(o, take_stop)},
        {"--special -sp", NULL, "special tokens: parsed in the prompt, printed in the text", SETS(&o->special)},
        {"--no-display-prompt", NULL, "print only what is generated", SETS(&o->hide_prompt)},
        FORMAT_FLAG(&o->format, "text json jsonl",
                    "text, json: one object at the end, or jsonl: each line is a prompt, an object for each "
                    "(default: text)"),
        {"--parallel -np", "N", "with -o jsonl: prompts at a time (default: 8)",
         TAKES_INT(&o->parallel, 1, MOST_PARALLEL)},
        {"-q --quiet | --no-perf --log-disable", NULL, "no statistics", SETS(&o->quiet)},
        {"--no-escape | --display-prompt --perf", NULL, NULL, SETS(&ignored)}, // what holds here anyway
        {"-co --color --colors", "[on|off|auto]", NULL, FLAG_NOTE, .words = "text has no colors"},
        {"-no-cnv --no-conversation", NULL, NULL, FLAG_NOTE, .words = "text is continued unless --chat"},
        {"--keep", "N", NULL, FLAG_NOTE, .words = "a full context ends the text; see --sinks"},
        {"--no-context-shift --context-shift", NULL, NULL, FLAG_NOTE, .words = "the context is never shifted"},
        {"--simple-io", NULL, NULL, FLAG_NOTE, .words = "output is always plain"},
        {"--jinja --no-jinja", NULL, NULL, FLAG_NOTE, .words = "the chat template is found by the model"},
        {"-mli --multiline-input", NULL, NULL, FLAG_NOTE, .words = "text between \"\"\" has several lines"},
        {"--reasoning-format", "X", NULL, FLAG_NOTE, .words = "thinking is shown apart from the answer"},
        {"--prompt-cache-all", NULL, NULL, FLAG_NOTE, .words = "a session is saved whole"},
        {"--prompt-cache-ro", NULL, NULL, FLAG_REFUSED, .words = "--session saves what it has loaded"},
        {"--draft-n --draft-max --draft-min --draft-p-min -cd -ngld -devd", "X", NULL, FLAG_NOTE,
         .words = "as much is drafted as pays"},
        {"--mirostat-ent --mirostat-lr --xtc-threshold --dry-base --dry-allowed-length --dry-penalty-last-n "
         "--dry-sequence-breaker --dynatemp-exp",
         "X", NULL, FLAG_NOTE, .words = "of samplers that are not here"},
        {"--mirostat --xtc-probability --dry-multiplier --dynatemp-range", "N", NULL,
         TAKES_CALL((double *)(uintptr_t)&zero, take_neutral)},
        {"--typical --typical-p", "N", NULL, TAKES_CALL((double *)(uintptr_t)&one, take_neutral)},
        {"--top-nsigma --top-n-sigma", "N", NULL, TAKES_CALL((double *)(uintptr_t)&minus_one, take_neutral)},
        MACHINE_HABITS,
        CACHE_TYPE_FLAGS(&raw->cache),
        MODEL_HABITS,
        HABIT_REFUSED("--samplers --sampler-seq --sampling-seq", "X",
                      "the samplers and their order are fixed; --top-k 0, --top-p 1, --min-p 0 turn one off"),
        HABIT_REFUSED("--grammar --grammar-file", "X",
                      "expected a JSON Schema, --json-schema; there are no other grammars here"),
        HABIT_REFUSED("--mmproj --image --audio", "X", "text only; for pictures see build/vit"),
        HABIT_REFUSED("--interactive --interactive-first -if --instruct -ins -cml --chatml", NULL,
                      "a conversation is --chat"),
        HABIT_REFUSED("--in-prefix --in-suffix", "X", "turns are framed by the chat template; see --chat-template"),
    };
    const Program program = {"./run", "MODEL [-p \"prompt\"] [options]", NULL, flags, sizeof flags / sizeof *flags};
    int n = cli_parse(&program, argc, argv), at = 0;
    if (!o->model && n) o->model = argv[at++];
    if (!o->model) die(2, "no model: expected ./run MODEL -p \"prompt\"");
    if (at < n)
        die(2, "%s: a second model; expected one, found %s first. A prompt stands after -p: -p \"%s\"", argv[at],
            o->model, argv[at]);
    return 0;
}

// ---- the whole

static void check(const Raw *raw) {
    const Options *o = raw->o;
    if (raw->text && raw->file) die(2, "-p and -f: expected one prompt, found both");
    cli_check_session(&o->session);
    if (o->chat && o->constrained) die(2, "--json-schema: expected without --chat");
    if (o->chat && o->format) die(2, "-o json: expected without --chat");
    if (o->parallel && o->format != FORMAT_JSONL) die(2, "--parallel: expected with -o jsonl, whose lines are prompts");
    const char *guesses = o->lookup ? "--lookup" : o->draft ? "--draft" : NULL;
    if (o->lookup && o->draft) die(2, "--lookup and --draft: expected one, found both");
    if (guesses && o->format == FORMAT_JSONL) die(2, "%s: expected without -o jsonl", guesses);
    if (guesses && o->constrained) die(2, "%s: expected without --json-schema", guesses);
    if (o->saved && o->format == FORMAT_JSONL) die(2, "--session: expected without -o jsonl");
    if (o->constrained && o->format == FORMAT_JSONL) die(2, "--json-schema: expected without -o jsonl");
    double number;
    if (raw->text && *raw->text && cli_number(raw->text, &number))
        fprintf(stderr, "hint: the prompt is \"%s\"; for nucleus sampling use --top-p %s\n", raw->text, raw->text);
}

// Each line a prompt, without its end.
static void split_prompts(Options *o) {
    char *end = o->prompt + o->n_prompt;
    for (char *at = o->prompt, *next; at && at <= end; at = next + 1) {
        next = memchr(at, '\n', (size_t)(end - at));
        if (!next) next = end;
        Line line = {at, (size_t)(next - at)};
        if (line.n && at[line.n - 1] == '\r') line.n--;
        at[line.n] = 0;
        arrput(o->lines, line);
    }
    if (!o->lines) die(2, "-o jsonl: expected prompts, a line each, in -f FILE or on stdin");
}

// The prompt: of -p, of -f without its last newline, or of stdin where that is no terminal.
static void read_prompt(const Raw *raw) {
    Options *o = raw->o;
    const char *file = raw->file;
    if (raw->text) {
        o->n_prompt = strlen(raw->text);
        o->prompt = copy_text(raw->text, o->n_prompt);
    } else if (!file && !o->chat && !isatty(STDIN_FILENO)) file = "-";
    if (file) {
        o->prompt = read_text(file, &o->n_prompt);
        if (o->n_prompt && o->prompt[o->n_prompt - 1] == '\n') o->prompt[--o->n_prompt] = 0;
    }
    if (o->format == FORMAT_JSONL) split_prompts(o);
    if (!raw->escapes) return;
    for (ptrdiff_t i = 0; i < arrlen(o->lines); i++) o->lines[i].n = unescape(o->lines[i].text, o->lines[i].n);
    if (o->prompt && !o->lines) o->n_prompt = unescape(o->prompt, o->n_prompt);
}

static void unescape_others(Options *o) {
    for (ptrdiff_t i = 0; i < arrlen(o->stops); i++) {
        char *text = copy_text(o->stops[i], strlen(o->stops[i]));
        unescape(text, strlen(text));
        o->stops[i] = text; // for the life of the program
    }
    if (!o->system) return;
    char *text = copy_text(o->system, strlen(o->system));
    unescape(text, strlen(text));
    o->system = text;
}

Options options_parse(int argc, char **argv) {
    Options o = {.n_new = UNSET,
                 .reasoning_budget = -1,
                 .sampler = {.temperature = -1, .top_k = -1, .top_p = -1, .min_p = -1, .repeat_penalty = -1}};
    Raw raw = {.o = &o, .last_n = UNSET};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    o.sampler.seed = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    parse_flags(&raw, argc, argv);
    o.chat |= o.system || o.chat_template || o.template_variables || o.single_turn; // they mean nothing else
    cli_cache_types(&raw.cache, &o.session.kv);
    check(&raw);
    if (raw.escapes) unescape_others(&o);
    read_prompt(&raw);
    if (o.n_new == UNTIL_FULL) o.n_new = -1; // the context is never shifted, so both end with it
    if (!o.parallel) o.parallel = DEFAULT_PARALLEL;
    if (o.n_new == UNSET) o.n_new = o.chat ? -1 : DEFAULT_NEW;
    if (o.sampler.top_p == 0) o.sampler.top_p = FLT_MIN; // the most likely token alone; 0 is the library's "off"
    o.sampler.penalty_last_n = raw.last_n == UNSET ? 0 : raw.last_n;
    if (!raw.last_n) o.sampler.repeat_penalty = 1;
    if (!raw.last_n) o.sampler.frequency_penalty = o.sampler.presence_penalty = 0;
    return o;
}

void options_bind(Options *o, const Engine *e) {
    int n = o->ignore_eos ? engine_info(e).vocab_size : 0;
    for (int32_t id = 0; id < n; id++) {
        LogitBias b = {.id = id, .bias = -INFINITY};
        if (engine_is_end(e, id)) arrput(o->bias, b);
    }
    o->sampler.bias = o->bias;
    o->sampler.n_bias = (int)arrlen(o->bias);
}

void options_free(Options *o) {
    free(o->prompt);
    arrfree(o->lines);
    free(o->schema);
    arrfree(o->stops);
    json_decref(o->template_variables);
    arrfree(o->bias);
}
