// logits_file: see logits_file.h.
#include "logits_file.h"

#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char magic[] = "tslogits";

enum { VERSION = 1, MAGIC_BYTES = sizeof magic - 1, HEAD_BYTES = MAGIC_BYTES + 4 * 4, ROW_HEAD = 2 * 4 };

double logits_nll(const float *logits, int n, int target, double *log_total) {
    double max = logits[0], sum = 0;
    for (int i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++) sum += exp(logits[i] - max);
    *log_total = log(sum) + max;
    return *log_total - logits[target];
}

static uint64_t row_bytes(int n_vocab) {
    return ROW_HEAD + 2 * (uint64_t)n_vocab;
}

// A count from `least` to INT32_MAX.
static int read_count(Cursor *c, const char *what, int least) {
    uint64_t at = c->pos;
    uint32_t v = cursor_u32(c, what);
    if (!c->failed && (v < (uint32_t)least || v > INT32_MAX)) {
        cursor_fail(c, at, "%s: expected %d to %d, found %u", what, least, INT32_MAX, v);
    }
    return c->failed ? 0 : (int)v;
}

// Sets rows_at; false unless the file ends with the last row.
static bool sizes_fit(LogitsFile *l) {
    uint64_t tokens, rows, end;
    bool fits = mul_u64((uint64_t)l->n_ctx * 4, (uint64_t)l->n_chunks, &tokens) &&
                mul_u64(row_bytes(l->n_vocab), (uint64_t)logits_scored(l->n_ctx), &rows) &&
                mul_u64(rows, (uint64_t)l->n_chunks, &rows) && add_u64(l->tokens_at, tokens, &l->rows_at) &&
                add_u64(l->rows_at, rows, &end);
    return fits && end == l->file->size;
}

static int32_t token_at(const LogitsFile *l, uint64_t i) {
    int32_t id;
    memcpy(&id, l->file->data + l->tokens_at + 4 * i, sizeof id);
    return id;
}

int logits_read(LogitsFile *l, const File *f, char *err, size_t errlen) {
    Cursor c = cursor_at(f, 0, err, errlen);
    LogitsFile r = {.file = f};
    const uint8_t *name = cursor_bytes(&c, MAGIC_BYTES, "magic");
    if (name && memcmp(name, magic, MAGIC_BYTES)) cursor_fail(&c, 0, "expected saved logits ('%s')", magic);
    uint32_t version = cursor_u32(&c, "version");
    if (version != VERSION) cursor_fail(&c, c.pos - 4, "version: expected %d, found %u", VERSION, version);
    r.n_vocab = read_count(&c, "vocabulary", 1);
    r.n_ctx = read_count(&c, "tokens of a chunk", 4);
    r.n_chunks = read_count(&c, "chunks", 1);
    r.tokens_at = c.pos;
    if (!c.failed && !sizes_fit(&r)) {
        cursor_fail(&c, c.pos, "expected %d chunks of %d tokens over a vocabulary of %d, found a file of %zu bytes",
                    r.n_chunks, r.n_ctx, r.n_vocab, f->size);
    }
    for (uint64_t i = 0; !c.failed && i < (uint64_t)r.n_chunks * (uint64_t)r.n_ctx; i++) {
        int32_t id = token_at(&r, i);
        if (id >= 0 && id < r.n_vocab) continue;
        cursor_fail(&c, r.tokens_at + 4 * i, "token: expected an id below %d, found %d", r.n_vocab, id);
    }
    *l = c.failed ? (LogitsFile){0} : r;
    return c.failed ? -1 : 0;
}

int logits_match(const LogitsFile *l, const int32_t *tokens, int n_vocab, int n_ctx, int n_chunks, char *err,
                 size_t errlen) {
    const char *path = l->file->path;
    if (l->n_vocab != n_vocab)
        return fail(err, errlen, "%s: vocabulary: expected the model's %d, found %d", path, n_vocab, l->n_vocab);
    if (l->n_ctx != n_ctx) {
        return fail(err, errlen, "%s: tokens of a chunk: expected %d, found %d; -c %d compares", path, n_ctx, l->n_ctx,
                    l->n_ctx);
    }
    if (l->n_chunks != n_chunks)
        return fail(err, errlen, "%s: chunks: expected the text's %d, found %d", path, n_chunks, l->n_chunks);
    for (uint64_t i = 0; i < (uint64_t)n_chunks * (uint64_t)n_ctx; i++) {
        if (token_at(l, i) == tokens[i]) continue;
        return fail(err, errlen, "%s: token %llu: expected the text's %d, found %d", path, (unsigned long long)i,
                    tokens[i], token_at(l, i));
    }
    return 0;
}

int logits_row(const LogitsFile *l, uint64_t row, LogitsRow *out, char *err, size_t errlen) {
    Cursor c = cursor_at(l->file, l->rows_at + row * row_bytes(l->n_vocab), err, errlen);
    uint64_t at = c.pos;
    LogitsRow r = {.step = cursor_f32(&c, "step"), .nll = cursor_f32(&c, "nll")};
    r.below = (const uint16_t *)(const void *)cursor_bytes(&c, 2 * (uint64_t)l->n_vocab, "row"); // at an even offset
    if (!c.failed && !(r.step >= 0 && r.step <= LOGITS_SPAN))
        cursor_fail(&c, at, "step: expected 0 to %d nats, found %g", LOGITS_SPAN, r.step);
    if (!c.failed && !(r.nll >= 0 && r.nll < INFINITY))
        cursor_fail(&c, at + 4, "nll: expected a number from 0, found %g", r.nll);
    double sum = 0;
    if (c.failed) return -1;
    for (int i = 0; i < l->n_vocab; i++) {
        if (r.below[i] != LOGITS_BEYOND) sum += exp(-r.step * r.below[i]);
    }
    if (!(sum >= 1)) {
        cursor_fail(&c, at, "row: expected a most likely token (0), found none");
        return -1;
    }
    r.log_total = log(sum);
    *out = r;
    return 0;
}

_Noreturn static void give_up(LogitsWriter *w) {
    die(1, "%s: %s%s", w->out.path, strerror(errno), outfile_fate(&w->out));
}

static void put(LogitsWriter *w, const void *data, size_t n) {
    if (fwrite(data, 1, n, w->out.file) != n) give_up(w);
}

LogitsWriter logits_writer(const char *path, const int32_t *tokens, int n_vocab, int n_ctx, int n_chunks) {
    LogitsWriter w = {.n_vocab = n_vocab};
    char err[512];
    w.below = malloc(sizeof *w.below * (size_t)n_vocab);
    if (!w.below) die(1, "%s: out of memory", path);
    if (outfile_open(&w.out, path, err, sizeof err)) die(1, "%s", err);
    put(&w, magic, MAGIC_BYTES);
    put(&w, (uint32_t[]){VERSION, (uint32_t)n_vocab, (uint32_t)n_ctx, (uint32_t)n_chunks}, 4 * sizeof(uint32_t));
    put(&w, tokens, sizeof *tokens * (size_t)n_ctx * (size_t)n_chunks);
    return w;
}

void logits_put(LogitsWriter *w, const float *logits, double nll) {
    float max = logits[0];
    for (int i = 1; i < w->n_vocab; i++) max = logits[i] > max ? logits[i] : max;
    double span = 0; // nats between the most and the least likely represented token
    for (int i = 0; i < w->n_vocab; i++) {
        double below = (double)max - logits[i];
        if (below > span && below <= LOGITS_SPAN) span = below;
    }
    float step = (float)(span / (LOGITS_BEYOND - 1));
    for (int i = 0; i < w->n_vocab; i++) {
        double below = (double)max - logits[i];
        double steps = step > 0 ? below / step + 0.5 : 0;
        if (steps > LOGITS_BEYOND - 1) steps = LOGITS_BEYOND - 1; // step may have been rounded down
        w->below[i] = below > span ? LOGITS_BEYOND : (uint16_t)steps;
    }
    put(w, (float[]){step, (float)nll}, ROW_HEAD);
    put(w, w->below, sizeof *w->below * (size_t)w->n_vocab);
}

void logits_finish(LogitsWriter *w) {
    char err[512];
    if (outfile_finish(&w->out, err, sizeof err)) die(1, "%s", err);
    free(w->below);
    w->below = NULL;
}

void logits_abandon(LogitsWriter *w) {
    outfile_abandon(&w->out);
    free(w->below);
    w->below = NULL;
}
