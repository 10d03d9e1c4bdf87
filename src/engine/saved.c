// saved: a session's text and memory as a file (session_save, session_load).
//
// Owns the format: a head, the tokens, the borders of the states' checkpoints, the logits, the memory layer by layer,
// and a checksum of all that; numbers are little-endian, as they lie in memory. A file appears complete or not at all.
// Refuses files of another model, cache type or window, and files that were cut or changed; the session is then as it
// was.
#include "session.h"

#include "file.h"
#include "hash.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT = 1, SAMPLE = 64, N_SAMPLES = 8 };

static const char magic[8] = "tessera";

typedef struct {
    char magic[8];
    uint32_t format, kv; // KvType
    uint64_t model;      // what distinguishes it and the frequencies of its positions from others
    uint64_t size;       // of the file
    int32_t window, n_sinks;
    int32_t n_tokens, n_checkpoints;
    uint32_t has_logits, vocab;
} Head;

// ---- fingerprints

// Of every tensor the name, the type, the shape and some of its bytes: reading all would take as long as the model does
// to load.
static uint64_t hash_model(const Engine *e) {
    const Weights *w = &e->model.weights;
    uint64_t hash = hash_bytes(0, e->info.family, strlen(e->info.family));
    for (size_t i = 0; i < weights_count(w); i++) {
        const Tensor *t = weights_at(w, i);
        uint64_t bytes = tensor_bytes(t), shape[] = {t->dtype, bytes, (uint64_t)tensor_count(t)};
        hash = hash_bytes(hash, shape, sizeof shape);
        for (uint64_t j = 0; j < N_SAMPLES; j++) {
            uint64_t at = bytes > SAMPLE ? (bytes - SAMPLE) / (N_SAMPLES - 1) * j : 0;
            hash = hash_bytes(hash, (const char *)t->data + at, bytes < SAMPLE ? (size_t)bytes : SAMPLE);
        }
    }
    return hash;
}

// ---- what a file holds, in order

// What is between the head and the memory.
typedef struct {
    int32_t *tokens;              // [n_tokens]
    int borders[MAX_CHECKPOINTS]; // of the states' checkpoints
    float *logits;                // [vocab], if it has them
} Front;

static bool visit_front(const Head *h, Front *f, MemoryVisitor visit, void *context) {
    return visit(context, f->tokens, sizeof *f->tokens * (size_t)h->n_tokens) &&
           visit(context, f->borders, sizeof *f->borders * (size_t)h->n_checkpoints) &&
           (!h->has_logits || visit(context, f->logits, sizeof *f->logits * h->vocab));
}

static bool count(void *context, void *bytes, size_t n) {
    (void)bytes;
    *(uint64_t *)context += n;
    return true;
}

typedef struct {
    FILE *file;
    uint64_t hash;
} Stream;

static bool put(void *context, void *bytes, size_t n) {
    Stream *s = context;
    s->hash = hash_bytes(s->hash, bytes, n);
    return !n || fwrite(bytes, 1, n, s->file) == n;
}

static bool get(void *context, void *bytes, size_t n) {
    Stream *s = context;
    bool whole = !n || fread(bytes, 1, n, s->file) == n;
    if (whole) s->hash = hash_bytes(s->hash, bytes, n);
    return whole;
}

// ---- writing

static Head head_of(const Session *s) {
    const Memory *m = &s->memory;
    Head h = {.format = FORMAT,
              .kv = s->options.kv,
              .model = hash_model(s->engine) ^ s->positions,
              .window = s->options.window,
              .n_sinks = s->options.n_sinks,
              .n_tokens = memory_length(m),
              .n_checkpoints = m->n_checkpoints,
              .has_logits = s->has_logits,
              .vocab = (uint32_t)s->engine->model.config.vocab_size};
    memcpy(h.magic, magic, sizeof magic);
    return h;
}

static uint64_t size_of(const Head *h, const Memory *m) {
    uint64_t size = sizeof *h + sizeof(uint64_t);
    Front front = {0};
    visit_front(h, &front, count, &size);
    memory_visit(m, count, &size);
    return size;
}

static bool write_all(const Session *s, FILE *file) {
    Stream to = {.file = file};
    Head h = head_of(s);
    Front front = {.tokens = s->tokens, .logits = s->logits};
    for (int i = 0; i < h.n_checkpoints; i++) front.borders[i] = s->memory.checkpoints[i].border;
    h.size = size_of(&h, &s->memory);
    return put(&to, &h, sizeof h) && visit_front(&h, &front, put, &to) && memory_visit(&s->memory, put, &to) &&
           fwrite(&to.hash, sizeof to.hash, 1, file) == 1;
}

// What the path leads to, in `target` [PATH_MAX]: a regular file, or nothing yet. Anything else is not to be replaced.
static int resolve(char *target, const char *path, char *err, size_t errlen) {
    struct stat st;
    if (lstat(path, &st)) {
        if (errno == ENOENT && snprintf(target, PATH_MAX, "%s", path) < PATH_MAX) return 0;
        return fail(err, errlen, "%s: %s", path, strerror(errno == ENOENT ? ENAMETOOLONG : errno));
    }
    if (!realpath(path, target) || stat(target, &st)) return fail(err, errlen, "%s: %s", path, strerror(errno));
    return S_ISREG(st.st_mode) ? 0 : fail(err, errlen, "%s: expected a regular file, found another kind", path);
}

// A new file beside the path, for its owner alone; NULL with errno.
static FILE *open_beside(char *name, size_t room, const char *path) {
    errno = ENAMETOOLONG;
    int fd = snprintf(name, room, "%s.XXXXXX", path) < (int)room ? mkstemp(name) : -1;
    FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!file && fd >= 0) close(fd);
    return file;
}

int session_save(const Session *s, const char *path, char *err, size_t errlen) {
    char target[PATH_MAX], name[PATH_MAX];
    if (resolve(target, path, err, errlen)) return -1;
    FILE *file = open_beside(name, sizeof name, target);
    if (!file) return fail(err, errlen, "%s: %s", path, strerror(errno));
    bool ok = write_all(s, file) && !fflush(file) && !fsync(fileno(file));
    int why = errno;
    ok &= !fclose(file);
    if (ok && !rename(name, target)) return 0;
    if (ok) why = errno;
    remove(name);
    return fail(err, errlen, "%s: %s; nothing was saved", path, strerror(why));
}

// ---- reading

// A session in the making: it replaces the one that it is read for when it is complete.
typedef struct {
    Head head;
    Front front;
    Memory memory;
} Draft;

static int check_head(const Session *s, const Head *h, const char *path, char *err, size_t errlen) {
    if (memcmp(h->magic, magic, sizeof magic) != 0) return fail(err, errlen, "%s: not a saved session", path);
    if (h->format != FORMAT)
        return fail(err, errlen, "%s: a saved session of format %u, expected %d", path, h->format, FORMAT);
    Head own = head_of(s);
    if (h->model != own.model)
        return fail(err, errlen, "%s: saved by another model, or with another scaling of its positions", path);
    if (h->kv != own.kv) {
        const char *name = kv_type_name((KvType)h->kv);
        return fail(err, errlen, "%s: keys and values are stored as %s, expected %s", path, name ? name : "?",
                    kv_type_name(s->options.kv));
    }
    if (h->window != own.window || h->n_sinks != own.n_sinks) {
        return fail(err, errlen, "%s: saved with window %d and %d sinks, expected %d and %d", path, h->window,
                    h->n_sinks, own.window, own.n_sinks);
    }
    if (h->n_tokens < 0 || h->n_checkpoints < 0 || h->n_checkpoints > MAX_CHECKPOINTS || h->vocab != own.vocab ||
        h->has_logits > 1) {
        return fail(err, errlen, "%s: damaged: its head holds numbers that cannot be", path);
    }
    if (h->n_tokens > s->n_ctx) {
        return fail(err, errlen, "%s: %d tokens do not fit in a context of %d; a larger -c makes room", path,
                    h->n_tokens, s->n_ctx);
    }
    return 0;
}

static int read_front(const Session *s, Draft *d, Stream *from, const char *path, char *err, size_t errlen) {
    Head *h = &d->head;
    struct stat st;
    if (fstat(fileno(from->file), &st) || !get(from, h, sizeof *h))
        return fail(err, errlen, "%s: not a saved session: it is shorter than %zu bytes", path, sizeof *h);
    if (check_head(s, h, path, err, errlen)) return -1;
    if (h->size != (uint64_t)st.st_size) {
        return fail(err, errlen, "%s: cut or damaged: expected %llu bytes, found %lld", path,
                    (unsigned long long)h->size, (long long)st.st_size);
    }
    d->front.tokens = malloc(sizeof *d->front.tokens * ((size_t)h->n_tokens + 1));
    d->front.logits = malloc(sizeof *d->front.logits * h->vocab);
    if (!d->front.tokens || !d->front.logits) return fail(err, errlen, "%s: out of memory", path);
    if (!visit_front(h, &d->front, get, from)) return fail(err, errlen, "%s: damaged: its text ends early", path);
    char why[120];
    if (session_check(s, d->front.tokens, h->n_tokens, why, sizeof why))
        return fail(err, errlen, "%s: damaged: %s", path, why);
    return 0;
}

static int read_memory(const Session *s, Draft *d, Stream *from, const char *path, char *err, size_t errlen) {
    const Head *h = &d->head;
    char why[200] = "";
    uint64_t hash;
    if (session_open_memory(s, &d->memory, why, sizeof why) ||
        memory_restore(&d->memory, h->n_tokens, d->front.borders, h->n_checkpoints, why, sizeof why))
        return fail(err, errlen, "%s: %s", path, why);
    if (h->size != size_of(h, &d->memory))
        return fail(err, errlen, "%s: damaged: its head says %llu bytes, its text makes %llu", path,
                    (unsigned long long)h->size, (unsigned long long)size_of(h, &d->memory));
    bool whole = memory_visit(&d->memory, get, from) && fread(&hash, sizeof hash, 1, from->file) == 1;
    if (!whole) return fail(err, errlen, "%s: cut while it was read", path);
    return hash == from->hash ? 0 : fail(err, errlen, "%s: damaged: its checksum does not fit", path);
}

static void free_draft(Draft *d) {
    memory_close(&d->memory);
    free(d->front.tokens);
    free(d->front.logits);
}

int session_load(Session *s, const char *path, char *err, size_t errlen) {
    Draft d = {0}, old;
    char target[PATH_MAX];
    if (resolve(target, path, err, errlen)) return -1;
    Stream from = {.file = fopen(target, "rb")};
    if (!from.file) return fail(err, errlen, "%s: %s", path, strerror(errno));
    int rc = read_front(s, &d, &from, path, err, errlen) || read_memory(s, &d, &from, path, err, errlen);
    fclose(from.file);
    if (!rc) {
        old = (Draft){.memory = s->memory, .front = {.tokens = s->tokens, .logits = s->logits}};
        s->memory = d.memory;
        s->tokens = d.front.tokens;
        s->logits = d.front.logits;
        s->room = d.head.n_tokens;
        s->has_logits = d.head.has_logits;
    }
    free_draft(rc ? &d : &old);
    return rc ? -1 : 0;
}
