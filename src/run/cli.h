// cli: what the programs share: a table of flags that both parses and prints --help, one-line errors, clock and memory
// use.
//
// Owns the contract of all programs: text goes to stdout, everything else to stderr; exit status 0 for success, 1 for a
// failure of the input or the machine, 2 for a wrong command line; -h, --help and --version anywhere on the line.
// Refuses unknown flags, naming the nearest one, and malformed values. Not part of the library. (getopt_long and argp
// read -ngl as three flags, and know no ranges.)
#pragma once
#include "tessera.h"

typedef enum {
    FLAG_HEADING, // no flag: a heading of --help
    FLAG_SET,     // bool *to becomes true
    FLAG_INT,     // int *to, least..most
    FLAG_FLOAT,   // float *to, least..most
    FLAG_SEED,    // uint64_t *to; -1 leaves it
    FLAG_STRING,  // const char *to[], one for each word of `value`
    FLAG_CHOICE,  // int *to: which of the words
    FLAG_CALL,    // take(to, flag, value), which may die
    FLAG_NOTE,    // accepted without effect; words: what holds here
    FLAG_REFUSED, // words: what to use instead
} FlagKind;

typedef struct {
    const char *names; // "-n --n-predict | --predict": --help lists those before the bar
    const char
        *value; // "N", "IMAGES LABELS", NULL: none, "[FILE]": may be absent, "[on|off]": absent unless one of these
    const char *help; // NULL: not listed
    FlagKind kind;
    void *to;
    double least, most;
    const char *words; // of FLAG_INT: the flag to name where a decimal fraction stands instead
    void (*take)(void *to, const char *flag, const char *value);
} Flag;

// The rest of a row, with the type of the target checked.
#define CLI_TYPED(type, p) (1 ? (p) : (type *)0)
#define TAKES_INT(p, from, upto) FLAG_INT, .to = CLI_TYPED(int, p), .least = (from), .most = (upto)
#define TAKES_FLOAT(p, from, upto) FLAG_FLOAT, .to = CLI_TYPED(float, p), .least = (from), .most = (upto)
#define TAKES_SEED(p) FLAG_SEED, .to = CLI_TYPED(uint64_t, p)
#define TAKES_STRING(p) FLAG_STRING, .to = CLI_TYPED(const char *, p)
#define TAKES_CHOICE(p, list) FLAG_CHOICE, .to = CLI_TYPED(int, p), .words = (list)
#define TAKES_CALL(p, f) FLAG_CALL, .to = (p), .take = (f)
#define SETS(p) FLAG_SET, .to = CLI_TYPED(bool, p)

typedef struct {
    const char *name;  // "./run"
    const char *usage; // what follows it: "MODEL [options]"
    const char *about; // lines of --help before the flags, each with its newline; or NULL
    const Flag *flags;
    int n_flags;
} Program;

// Parses the command line: fills what the flags point to, and moves the other arguments to argv[0..returned). Ends the
// program for --help and --version (0), and for a wrong line (2).
int cli_parse(const Program *p, int argc, char **argv);
// The same for a program with exactly n arguments.
void cli_exactly(const Program *p, int argc, char **argv, const char **rest, int n);
// The same for a program with one model, of -m or the only other argument, which it leaves in *model.
void cli_one_model(const Program *p, int argc, char **argv, const char **model);

// Rows of flags that several programs have.
#define MODEL_FLAG(p)                                                                                                  \
    { "-m --model", "MODEL", "the model (or without a flag)", TAKES_STRING(p) }
#define THREADS_FLAG(p)                                                                                                \
    { "-t --threads", "N", "threads (default: the cores this process may use)", TAKES_INT(p, 1, 256) }
#define TOKENIZER_FLAG(p)                                                                                              \
    {                                                                                                                  \
        "-z --tokenizer", "FILE",                                                                                      \
            "tokenizer (default: from the model; for .bin, <model stem>.tokenizer.bin or tokenizer.bin)",              \
            TAKES_STRING(p)                                                                                            \
    }
#define QUIET_FLAG(p)                                                                                                  \
    { "-q --quiet", NULL, "no statistics", SETS(p) }
#define FORMAT_FLAG(p, list, text)                                                                                     \
    { "-o --output", "FORMAT", text, TAKES_CHOICE(p, list) }
enum { MOST_CONTEXT = 1 << 28 };
#define SPAN_FLAGS(o)                                                                                                  \
    {"--window", "W", "attend to the last W tokens only: memory O(W + S)", TAKES_INT(&(o)->window, 1, MOST_CONTEXT)},  \
    {                                                                                                                  \
        "--sinks", "S", "with --window: attend to the first S tokens too", TAKES_INT(&(o)->n_sinks, 0, MOST_CONTEXT)   \
    }
#define PRECISION_FLAG(o)                                                                                              \
    {                                                                                                                  \
        "--precision", "HOW", "exact, or fast: products in int8 with weights of 8 bits and fewer (default: exact)",    \
            TAKES_CHOICE(&(o)->precision, "exact fast")                                                                \
    }
#define KV_HELP "type of the KV cache: bf16, f32 or q8 (default: bf16)"
#define WINDOW_FLAGS(o)                                                                                                \
    SPAN_FLAGS(o), {                                                                                                   \
        "--kv", "TYPE", KV_HELP, TAKES_CALL(&(o)->kv, cli_take_kv)                                                     \
    }
void cli_take_kv(void *to, const char *flag, const char *value);
// llama.cpp's flags for the same: one type for keys and one for values, which must be equal here.
typedef struct {
    const char *keys, *values; // NULL: not given
} CacheTypes;
#define CACHE_TYPE_FLAGS(c)                                                                                            \
    {"-ctk --cache-type-k", "TYPE", NULL, TAKES_STRING(&(c)->keys)}, {                                                 \
        "-ctv --cache-type-v", "TYPE", NULL, TAKES_STRING(&(c)->values)                                                \
    }
// Leaves *kv where none is given; returns whether one is.
bool cli_cache_types(const CacheTypes *c, KvType *kv);
void cli_check_session(const SessionOptions *o); // --sinks without --window is a wrong line

// For a FLAG_CALL: a whole decimal number, false where `text` is none.
bool cli_number(const char *text, double *value);
bool cli_integer(const char *text, long long *value);

// Prints "error: ..." on stderr and exits.
_Noreturn void die(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Each line as "note: ..." on stderr.
void tell_notes(const char *lines);

// The whole file ("-": stdin) as text: without a byte order mark, each CR LF as LF. malloc'd and null-terminated; exits
// with status 1 if it cannot be read.
char *read_text(const char *path, size_t *n);

char *read_bytes(const char *path, size_t *n); // the same, as it is

double seconds(void); // monotonic clock
uint64_t peak_rss_bytes(void);
