// fuzz_logits_file: saved logits from arbitrary bytes.
//
// The first byte chooses: raw bytes as the file, or a file whose counts, tokens and rows come from the input, with one
// byte written otherwise or none. Of what is read, every row lies in the file and is a distribution, or one line says
// why not; the file that nothing was done to is read, and matches its own tokens.
#include "logits_file.h"

#include "fuzz.h"

#include <math.h>
#include <string.h>

enum { FILE_MAX = 1 << 12, HEAD = 24 };

static char path[] = "fuzz.logits";

static void check_row(const LogitsFile *l, uint64_t i) {
    char err[256] = "";
    LogitsRow row;
    if (logits_row(l, i, &row, err, sizeof err)) {
        require_line(err, "fuzz.logits");
        return;
    }
    double sum = 0;
    for (int k = 0; k < l->n_vocab; k++) {
        if (row.below[k] != LOGITS_BEYOND) sum += exp(-row.step * row.below[k] - row.log_total);
    }
    REQUIRE(fabs(sum - 1) < 1e-9 && isfinite(row.nll));
}

// Whether it is read.
static bool check_file(const uint8_t *bytes, size_t size) {
    char err[256] = "";
    File f = {.path = path, .data = bytes, .size = size, .borrowed = true};
    LogitsFile l;
    if (logits_read(&l, &f, err, sizeof err)) {
        require_line(err, "fuzz.logits");
        return false;
    }
    uint64_t rows = (uint64_t)l.n_chunks * (uint64_t)logits_scored(l.n_ctx);
    for (uint64_t i = 0; i < rows; i++) check_row(&l, i);
    REQUIRE(!logits_match(&l, (const int32_t *)(const void *)(bytes + HEAD), l.n_vocab, l.n_ctx, l.n_chunks, err,
                          sizeof err));
    REQUIRE(logits_match(&l, (const int32_t *)(const void *)(bytes + HEAD), l.n_vocab + 1, l.n_ctx, l.n_chunks, err,
                         sizeof err) == -1);
    require_line(err, "fuzz.logits");
    return true;
}

// Counts from three bytes, the rest of the input over the rest of the file. Returns its size.
static size_t make_file(uint8_t *bytes, const uint8_t *data, size_t size) {
    uint32_t head[] = {1, 1 + data[0] % 20u, 4 + data[1] % 8u, 1 + data[2] % 4u};
    memcpy(bytes, "tslogits", 8);
    memcpy(bytes + 8, head, sizeof head);
    size_t n_tokens = (size_t)head[2] * head[3], rows = head[3] * (size_t)logits_scored((int)head[2]);
    size_t n = HEAD + 4 * n_tokens + rows * (8 + 2 * (size_t)head[1]);
    for (size_t i = HEAD, k = 3; i < n; i++, k++) bytes[i] = size > 3 ? data[3 + k % (size - 3)] : 0;
    for (size_t i = 0; i < n_tokens; i++) {
        uint32_t id;
        memcpy(&id, bytes + HEAD + 4 * i, sizeof id);
        id %= head[1];
        memcpy(bytes + HEAD + 4 * i, &id, sizeof id);
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t made[FILE_MAX];
    if (size < 8) return 0;
    bool raw = data[0] & 1, altered = data[0] & 2;
    size_t n = raw ? size - 1 : make_file(made, data + 5, size - 5);
    if (!raw && altered) made[(data[1] | (size_t)data[2] << 8) % n] ^= data[3] | 1;
    uint8_t *bytes = malloc(n); // of its own, so that its end is seen
    if (!bytes) return 0;
    memcpy(bytes, raw ? data + 1 : made, n);
    bool read = check_file(bytes, n);
    REQUIRE(read || raw || altered);
    free(bytes);
    return 0;
}
