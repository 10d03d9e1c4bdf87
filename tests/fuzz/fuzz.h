// fuzz.h: what every fuzz target needs: its entry point, a check that aborts so that libFuzzer keeps the input, what is
// taken from the input, and the line of a failure. `make fuzz` runs them all, in the repository's root, with the flags
// that make them ten times as fast as the defaults do.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(cond)                                                                                                  \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define MAYBE_UNUSED __attribute__((unused)) static

typedef struct {
    const uint8_t *at, *end;
} Input;

// The next byte as a number up to `most`; 0 behind the end.
MAYBE_UNUSED unsigned next(Input *in, unsigned most) {
    return in->at < in->end ? *in->at++ % (most + 1) : 0;
}

// One printable line that begins with the name of the file.
MAYBE_UNUSED void require_line(const char *err, const char *path) {
    size_t n = strlen(path);
    REQUIRE(!strncmp(err, path, n) && !strncmp(err + n, ": ", 2) && err[n + 2]);
    for (const char *c = err; *c; c++) REQUIRE((unsigned char)*c >= ' ' && *c != 0x7f);
}
