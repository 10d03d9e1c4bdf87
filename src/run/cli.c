// cli: see cli.h.
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_NAME = 64, HELP_COLUMN = 26, HELP_WIDTH = 118 };

_Noreturn void die(int status, const char *fmt, ...) {
    fflush(stdout);
    fputs("error: ", stderr);
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(status);
}

// ---- names

// The next name of a flag, without the bar; false at the end. *listed: before the bar.
static bool next_name(const char **at, char name[MAX_NAME], bool *listed) {
    *at += strspn(*at, " ");
    if (**at == '|') {
        *listed = false;
        *at += 1 + strspn(*at + 1, " ");
    }
    size_t n = strcspn(*at, " ");
    snprintf(name, MAX_NAME, "%.*s", (int)n, *at);
    *at += n;
    return n > 0;
}

static bool has_name(const Flag *f, const char *wanted, size_t n) {
    char name[MAX_NAME];
    bool listed = true;
    const char *at = f->names ? f->names : "";
    while (next_name(&at, name, &listed)) {
        if (strlen(name) == n && !memcmp(name, wanted, n)) return true;
    }
    return false;
}

// In a long name "_" is "-", as llama.cpp has it.
static const Flag *find_flag(const Program *p, const char *name, size_t n) {
    char dashed[MAX_NAME];
    snprintf(dashed, sizeof dashed, "%.*s", (int)n, name);
    if (n >= sizeof dashed) return NULL;
    for (char *c = dashed + 2; name[0] == '-' && name[1] == '-' && c < dashed + n; c++) {
        if (*c == '_') *c = '-';
    }
    for (int i = 0; i < p->n_flags; i++) {
        if (has_name(&p->flags[i], dashed, n)) return &p->flags[i];
    }
    return NULL;
}

// Levenshtein's distance of two names.
static int name_distance(const char *a, const char *b) {
    int row[MAX_NAME + 1], n = (int)strlen(b);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

// How unlike two names are, without their dashes; a beginning of the other is alike.
static int unlike(const char *typed, const char *name) {
    typed += strspn(typed, "-");
    name += strspn(name, "-");
    size_t a = strlen(typed), b = strlen(name), shorter = a < b ? a : b;
    if (shorter >= 3 && !strncmp(typed, name, shorter)) return 1;
    return name_distance(typed, name);
}

_Noreturn static void refuse_flag(const Program *p, const char *flag) {
    char typed[MAX_NAME], name[MAX_NAME], nearest[MAX_NAME] = "";
    snprintf(typed, sizeof typed, "%.*s", (int)strcspn(flag, "="), flag);
    int length = (int)strlen(typed + strspn(typed, "-")), best = length / 3 + 1;
    for (int i = 0; length > 1 && i < p->n_flags; i++) {
        bool listed = true;
        const char *at = p->flags[i].names ? p->flags[i].names : "";
        while (next_name(&at, name, &listed)) {
            int distance = name[1] == '-' || name[2] ? unlike(typed, name) : best;
            if (distance >= best) continue;
            best = distance;
            strcpy(nearest, name);
        }
    }
    if (*nearest) die(2, "%s: unknown flag; did you mean %s? %s --help lists all", flag, nearest, p->name);
    die(2, "%s: unknown flag; %s --help lists them", flag, p->name);
}

// ---- help

// Prints text from column `at`, wrapped, as the second column.
static void print_wrapped(FILE *out, const char *text, int at) {
    while (*text) {
        size_t n = strlen(text), room = HELP_WIDTH - HELP_COLUMN;
        for (size_t end = room; n > room && end > 0; end--) {
            if (text[end] == ' ') n = end;
            if (text[end] == ' ') break;
        }
        fprintf(out, "%*s%.*s\n", HELP_COLUMN - at, "", (int)n, text);
        text += n + strspn(text + n, " ");
        at = 0;
    }
}

static void print_flag(FILE *out, const Flag *f) {
    char name[MAX_NAME], head[256] = "  ";
    bool listed = true;
    const char *at = f->names;
    size_t n = 2;
    while (next_name(&at, name, &listed) && listed) {
        n += (size_t)snprintf(head + n, sizeof head - n, "%s%s", n > 2 ? ", " : "", name);
    }
    if (f->value) n += (size_t)snprintf(head + n, sizeof head - n, " %s", f->value);
    fputs(head, out);
    bool fits = n + 2 <= HELP_COLUMN;
    if (!fits) fputc('\n', out);
    print_wrapped(out, f->help, fits ? (int)n : 0);
}

// The names of the flags without effect, as one paragraph.
static void print_notes(FILE *out, const Program *p) {
    char list[2048] = "", name[MAX_NAME];
    size_t n = 0;
    for (int i = 0; i < p->n_flags; i++) {
        const char *at = p->flags[i].names;
        bool listed = true;
        if (p->flags[i].kind == FLAG_NOTE && next_name(&at, name, &listed) && n < sizeof list) {
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? " " : "", name);
        }
    }
    if (!n) return;
    fputs("Accepted for llama.cpp's command lines, without effect here:\n", out);
    print_wrapped(out, list, 0);
}

static void print_help(FILE *out, const Program *p) {
    fprintf(out, "usage: %s %s\n%s", p->name, p->usage, p->about ? p->about : "");
    for (int i = 0; i < p->n_flags; i++) {
        const Flag *f = &p->flags[i];
        if (f->kind == FLAG_HEADING) fprintf(out, "%s:\n", f->help);
        else if (f->help) print_flag(out, f);
    }
    print_wrapped(out, "this help (also --version)", fprintf(out, "  -h, --help"));
    print_notes(out, p);
}

static bool asks_help(const char *arg) {
    return !strcmp(arg, "-h") || !strcmp(arg, "--help");
}

static void answer_questions(const Program *p, int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        bool help = asks_help(argv[i]), version = !strcmp(argv[i], "--version");
        if (help) print_help(stdout, p);
        if (version) puts("tessera " TESSERA_VERSION);
        if ((help || version) && fflush(stdout)) die(1, "stdout: the help could not be written");
        if (help || version) exit(0);
    }
    if (argc >= 2) return;
    print_help(stderr, p);
    exit(2);
}

// ---- values

bool cli_number(const char *text, double *value) {
    char *end;
    *value = strtod(text, &end);
    return end != text && !*end && !isnan(*value);
}

bool cli_integer(const char *text, long long *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return end != text && !*end && !errno;
}

static void take_int(const Flag *f, const char *flag, const char *text) {
    long long v;
    double fraction;
    if (cli_integer(text, &v) && (double)v >= f->least && (double)v <= f->most) {
        *(int *)f->to = (int)v;
        return;
    }
    bool meant = f->words && cli_number(text, &fraction) && fraction != floor(fraction);
    die(2, "%s: expected an integer from %d to %d, found '%s'%s%s%s%s%s", flag, (int)f->least, (int)f->most, text,
        meant ? "; did you mean " : "", meant ? f->words : "", meant ? " " : "", meant ? text : "", meant ? "?" : "");
}

static void take_float(const Flag *f, const char *flag, const char *text) {
    char *end;
    float v = strtof(text, &end);
    if (end == text || *end || !((double)v >= f->least && (double)v <= f->most)) {
        die(2, "%s: expected a number from %g to %g, found '%s'", flag, f->least, f->most, text);
    }
    *(float *)f->to = v;
}

static void take_seed(const Flag *f, const char *flag, const char *text) {
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (!strcmp(text, "-1")) return;
    if (end == text || *end || errno || strchr(text, '-'))
        die(2, "%s: expected a non-negative integer (-1: from the clock), found '%s'", flag, text);
    *(uint64_t *)f->to = v;
}

// "text json": "text or json".
static void list_words(const char *words, char *list, size_t size) {
    size_t n = 0;
    for (const char *at = words; *at && n < size;) {
        size_t length = strcspn(at, " ");
        bool last = !at[length];
        n += (size_t)snprintf(list + n, size - n, "%s%.*s", at == words ? "" : last ? " or " : ", ", (int)length, at);
        at += length + !last;
    }
}

static void take_choice(const Flag *f, const char *flag, const char *text) {
    char list[256] = "";
    int i = 0;
    for (const char *at = f->words; *at; i++) {
        size_t n = strcspn(at, " ");
        if (strlen(text) == n && !memcmp(at, text, n)) {
            *(int *)f->to = i;
            return;
        }
        at += n + strspn(at + n, " ");
    }
    list_words(f->words, list, sizeof list);
    die(2, "%s: expected %s, found '%s'", flag, list, text);
}

void cli_take_kv(void *to, const char *flag, const char *value) {
    for (KvType t = KV_BF16; kv_type_name(t); t++) {
        if (strcmp(value, kv_type_name(t)) != 0) continue;
        *(KvType *)to = t;
        return;
    }
    die(2, "%s: expected bf16, f32 or q8, found '%s'", flag, value);
}

static KvType cache_type(const char *flag, const char *name) {
    static const struct {
        const char *name;
        KvType type;
    } types[] = {{"f16", KV_BF16}, {"bf16", KV_BF16}, {"f32", KV_F32}, {"q8_0", KV_Q8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!strcmp(name, types[i].name)) return types[i].type;
    }
    die(2, "%s: expected f16, bf16, f32 or q8_0, found '%s'", flag, name);
}

bool cli_cache_types(const CacheTypes *c, KvType *kv) {
    if (!c->keys && !c->values) return false;
    const char *keys = c->keys ? c->keys : "f16", *values = c->values ? c->values : "f16";
    *kv = cache_type("-ctk", keys);
    if (*kv != cache_type("-ctv", values)) {
        die(2, "%s: keys are %s and values %s, but both are stored as one type; use --kv bf16, f32 or q8",
            c->keys ? "-ctk" : "-ctv", keys, values);
    }
    if (!strcmp(keys, "f16")) fputs("note: -ctk f16: values of 16 bits are stored as bf16\n", stderr);
    return true;
}

void cli_check_session(const SessionOptions *o) {
    if (o->n_sinks && !o->window) die(2, "--sinks: needs --window");
}

// ---- the line

typedef struct {
    const Program *program;
    int argc, at; // next argument
    char **argv;
    const char *equals; // the value behind "=" of the current flag, or NULL
    char notes[1024];   // what the flags without effect say
} Line;

static const char *next_value(Line *l, const char *flag) {
    const char *value = l->equals;
    l->equals = NULL;
    if (value) return value;
    if (l->at == l->argc) die(2, "%s: expected a value, found the end of the command line", flag);
    return l->argv[l->at++];
}

// Whether a value that may be absent is there: one of [a|b], of [FILE] what does not begin with a dash.
static bool value_follows(const Line *l, const char *value) {
    if (l->equals) return true;
    if (l->at == l->argc) return false;
    const char *next = l->argv[l->at];
    if (!strchr(value, '|')) return *next != '-';
    for (const char *at = value + 1; *at;) {
        size_t n = strcspn(at, "|]");
        if (strlen(next) == n && !memcmp(at, next, n)) return true;
        at += n + 1;
    }
    return false;
}

// Adds what a flag without effect has to say, once for all its names.
static void add_note(Line *l, const Flag *f, const char *flag) {
    size_t n = strlen(l->notes);
    if (strstr(l->notes, f->words)) return;
    snprintf(l->notes + n, sizeof l->notes - n, "%s%s (%s)", n ? ", " : "", flag, f->words);
}

static void take_value(const Flag *f, const char *flag, const char *value, int i) {
    switch (f->kind) {
    case FLAG_INT: take_int(f, flag, value); break;
    case FLAG_FLOAT: take_float(f, flag, value); break;
    case FLAG_SEED: take_seed(f, flag, value); break;
    case FLAG_STRING: ((const char **)f->to)[i] = value; break;
    case FLAG_CHOICE: take_choice(f, flag, value); break;
    case FLAG_CALL: f->take(f->to, flag, value); break;
    default: break;
    }
}

static int count_values(const char *value) {
    int n = value != NULL;
    for (const char *at = value ? value : ""; (at = strchr(at, ' ')); at++) n++;
    return n;
}

static void take_flag(Line *l, const Flag *f, const char *flag) {
    bool optional = f->value && *f->value == '[';
    if (f->kind == FLAG_REFUSED) die(2, "%s: %s", flag, f->words);
    if (f->kind == FLAG_SET) *(bool *)f->to = true;
    if (f->kind == FLAG_NOTE) add_note(l, f, flag);
    if (optional && !value_follows(l, f->value)) {
        if (f->kind == FLAG_CALL) f->take(f->to, flag, NULL);
        return;
    }
    int n = count_values(f->value);
    for (int i = 0; i < n; i++) take_value(f, flag, next_value(l, flag), i);
    if (l->equals) die(2, "%s: expected no value, found '%s'", flag, l->equals);
}

// The flag that an argument is, as "--name" or "--name=value".
static void take_argument(Line *l, const char *arg) {
    size_t n = strlen(arg);
    const char *equals = strchr(arg, '=');
    const Flag *f = find_flag(l->program, arg, n);
    if (!f && equals) {
        n = (size_t)(equals - arg);
        f = find_flag(l->program, arg, n);
        l->equals = equals + 1;
    }
    if (!f) refuse_flag(l->program, arg);
    char name[MAX_NAME];
    snprintf(name, sizeof name, "%.*s", (int)n, arg);
    take_flag(l, f, name);
}

int cli_parse(const Program *p, int argc, char **argv) {
    int n = 0;
    Line l = {.program = p, .argc = argc, .at = 1, .argv = argv};
    bool flags = true;
    answer_questions(p, argc, argv);
    while (l.at < argc) {
        char *arg = argv[l.at++];
        if (flags && !strcmp(arg, "--")) flags = false;
        else if (flags && *arg == '-' && arg[1]) take_argument(&l, arg);
        else argv[n++] = arg; // its place has been read
    }
    if (*l.notes) fprintf(stderr, "note: without effect here: %s\n", l.notes);
    return n;
}

void cli_exactly(const Program *p, int argc, char **argv, const char **rest, int n) {
    int found = cli_parse(p, argc, argv);
    if (found > n) die(2, "%s: expected %s, found %d arguments", argv[n], p->usage, found);
    if (found < n) die(2, "expected %s, found %d argument%s", p->usage, found, found == 1 ? "" : "s");
    for (int i = 0; i < n; i++) rest[i] = argv[i];
}

void cli_one_model(const Program *p, int argc, char **argv, const char **model) {
    int n = cli_parse(p, argc, argv), at = 0;
    if (!*model && n) *model = argv[at++];
    if (!*model) die(2, "no model: expected %s %s", p->name, p->usage);
    if (at < n) die(2, "%s: a second model; expected one, found %s first", argv[at], *model);
}

void tell_notes(const char *lines) {
    for (const char *end; (end = strchr(lines, '\n')); lines = end + 1) {
        fprintf(stderr, "note: %.*s\n", (int)(end - lines), lines);
    }
}

static size_t clean(char *text, size_t n) {
    size_t from = n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3) ? 3 : 0, to = 0;
    for (; from < n; from++) {
        if (text[from] != '\r' || from + 1 == n || text[from + 1] != '\n') text[to++] = text[from];
    }
    text[to] = 0;
    return to;
}

char *read_bytes(const char *path, size_t *n) {
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    if (!f) die(1, "%s: %s", path, strerror(errno));
    size_t room = 1 << 16, length = 0, got;
    char *text = malloc(room);
    while (text && (got = fread(text + length, 1, room - length - 1, f)) > 0) {
        length += got;
        if (room - length > 1) continue;
        char *more = realloc(text, room *= 2);
        if (!more) free(text);
        text = more;
    }
    if (!text) die(1, "%s: out of memory after %zu bytes", path, length);
    if (ferror(f)) die(1, "%s: %s", path, strerror(errno));
    if (f != stdin) fclose(f);
    text[length] = 0;
    *n = length;
    return text;
}

char *read_text(const char *path, size_t *n) {
    char *text = read_bytes(path, n);
    *n = clean(text, *n);
    return text;
}

double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

uint64_t peak_rss_bytes(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)u.ru_maxrss * 1024;
}
