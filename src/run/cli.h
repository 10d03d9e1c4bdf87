// cli: what the programs share: command-line flags, one-line errors, clock and memory use.
//
// Owns the contract of all programs: text goes to stdout, everything else to stderr; exit status 0 for success, 1 for a
// failure of the input or the machine, 2 for a wrong command line. Refuses malformed values. Not part of the library.
#pragma once
#include "tessera.h"

typedef struct {
    int argc, at; // next argument
    char **argv;
} Args;

// Prints the usage and exits if the only argument is -h or --help, or there is none.
Args args_start(int argc, char **argv, const char *usage);
bool args_left(const Args *a);
const char *args_next(Args *a); // the next argument, consumed
// The value of the flag that args_next returned; a missing or malformed one ends the program with status 2.
const char *args_string(Args *a, const char *flag);
int args_int(Args *a, const char *flag, int least, int most);
uint64_t args_u64(Args *a, const char *flag);
float args_float(Args *a, const char *flag, float least, float most);
bool args_json(Args *a, const char *flag); // -o text or json
KvType args_kv(Args *a, const char *flag);
// Parses the session flags -c -t --window --sinks --kv. True if `flag` was one.
bool args_session(Args *a, const char *flag, SessionOptions *o);

// Prints "error: ..." on stderr and exits.
_Noreturn void die(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The whole file ("-": stdin), malloc'd and null-terminated; exits with status 1 if it cannot be read.
char *read_text(const char *path, size_t *n);

double seconds(void); // monotonic clock
uint64_t peak_rss_bytes(void);
