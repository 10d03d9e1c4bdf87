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

Args args_start(int argc, char **argv, const char *usage) {
    bool help = argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"));
    if (help || argc < 2) {
        fputs(usage, help ? stdout : stderr);
        exit(help ? 0 : 2);
    }
    return (Args){.argc = argc, .at = 1, .argv = argv};
}

bool args_left(const Args *a) {
    return a->at < a->argc;
}

const char *args_next(Args *a) {
    return a->argv[a->at++];
}

const char *args_string(Args *a, const char *flag) {
    if (!args_left(a)) die(2, "%s: expected a value, found the end of the command line", flag);
    return args_next(a);
}

int args_int(Args *a, const char *flag, int least, int most) {
    const char *text = args_string(a, flag);
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (end == text || *end || errno || v < least || v > most) {
        die(2, "%s: expected an integer from %d to %d, found '%s'", flag, least, most, text);
    }
    return (int)v;
}

uint64_t args_u64(Args *a, const char *flag) {
    const char *text = args_string(a, flag);
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (end == text || *end || errno || strchr(text, '-'))
        die(2, "%s: expected a non-negative integer, found '%s'", flag, text);
    return v;
}

float args_float(Args *a, const char *flag, float least, float most) {
    const char *text = args_string(a, flag);
    char *end;
    float v = strtof(text, &end);
    if (end == text || *end || !(v >= least && v <= most)) {
        die(2, "%s: expected a number from %g to %g, found '%s'", flag, (double)least, (double)most, text);
    }
    return v;
}

bool args_json(Args *a, const char *flag) {
    const char *text = args_string(a, flag);
    if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0)
        die(2, "%s: expected text or json, found '%s'", flag, text);
    return *text == 'j';
}

KvType args_kv(Args *a, const char *flag) {
    const char *text = args_string(a, flag);
    for (KvType t = KV_BF16; kv_type_name(t); t++) {
        if (!strcmp(text, kv_type_name(t))) return t;
    }
    die(2, "%s: expected bf16, f32 or q8, found '%s'", flag, text);
}

bool args_session(Args *a, const char *flag, SessionOptions *o) {
    enum { MOST = 1 << 28 };
    if (!strcmp(flag, "-c")) o->n_ctx = args_int(a, flag, 1, MOST);
    else if (!strcmp(flag, "-t")) o->n_threads = args_int(a, flag, 1, 256);
    else if (!strcmp(flag, "--window")) o->window = args_int(a, flag, 1, MOST);
    else if (!strcmp(flag, "--sinks")) o->n_sinks = args_int(a, flag, 0, MOST);
    else if (!strcmp(flag, "--kv")) o->kv = args_kv(a, flag);
    else return false;
    return true;
}

char *read_text(const char *path, size_t *n) {
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
