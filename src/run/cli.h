// cli: what the programs share: flags with checked values, one-line errors, clocks and memory figures.
//
// Owns the contract of DESIGN: text goes to stdout, everything else to stderr; status 0 done, 1 the input or the
// machine failed, 2 the command line was wrong. Not part of the library.
#pragma once
#include "tessera.h"

typedef struct {
    int argc, at; // next argument
    char **argv;
} Args;

Args args_start(int argc, char **argv,
                const char *usage); // also prints the usage for -h, --help and no argument at all
bool args_left(const Args *a);
const char *args_next(Args *a); // the next argument, consumed
// The value of the flag that args_next returned; a missing or malformed one ends the program with status 2.
const char *args_text(Args *a, const char *flag);
int args_int(Args *a, const char *flag, int least, int most);
uint64_t args_u64(Args *a, const char *flag);
float args_float(Args *a, const char *flag, float least, float most);
bool args_json(Args *a, const char *flag); // -o text or json
KvType args_kv(Args *a, const char *flag);
// Flags that every program over a session shares: -c -t --window --sinks --kv. True when `flag` was one.
bool args_session(Args *a, const char *flag, SessionOptions *o);

// One line on stderr, "error: ...", and exit.
_Noreturn void die(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The whole file ("-": stdin), malloc'd and terminated; ends the program with status 1 when it cannot be read.
char *read_text(const char *path, size_t *n);

double seconds(void); // monotonic clock
uint64_t peak_rss_bytes(void);
