// fuzz_session: saved sessions whose bytes are changed, loaded into sessions that hold another text.
//
// Byte 0: which model, whether the checksum is made to fit again, and whether the file is cut; then edits, each where
// (head, text or anywhere, and a place there) and a byte. Aborts when a file that is refused changes the session or has
// no line, when one that nothing was done to is refused, and when a session that was loaded neither goes on nor says
// why it cannot.
#include "hash.h"
#include "session.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "fuzz.h"

enum { N_MODELS = 3, N_SAVED = 70, N_OTHER = 5, HEAD = 56, MOST_PARTS = 4096, EDIT_BYTES = 5 };

static struct {
    Engine *engine;
    char path[64];            // of a file in memory: a session of N_SAVED tokens, saved
    int fd;                   // of that file
    const uint8_t *saved;     // its bytes
    uint8_t *file;            // the same, altered by the input; equal between inputs
    size_t n, n_front;        // n_front: head, tokens, borders
    size_t parts[MOST_PARTS]; // that the checksum is made of, in order
    int n_parts;
    Session *other; // what files are loaded into: copies of it
} models[N_MODELS];

static bool add_part(void *context, void *bytes, size_t n) {
    (void)bytes;
    REQUIRE(models[*(int *)context].n_parts < MOST_PARTS);
    models[*(int *)context].parts[models[*(int *)context].n_parts++] = n;
    return true;
}

static int32_t token(int i) {
    return 5 + i * 37 % 200;
}

static Session *session_of(int model, int n, int step) {
    char err[256];
    int32_t ids[N_SAVED];
    SessionOptions o = {.n_ctx = 128, .n_threads = 1};
    Session *s = session_open(models[model].engine, &o, err, sizeof err);
    for (int i = 0; i < n; i++) ids[i] = token(step * i);
    REQUIRE(s && !session_sync(s, ids, n, err, sizeof err));
    return s;
}

static uint64_t checksum(int model) {
    uint64_t hash = 0;
    const uint8_t *at = models[model].file;
    for (int i = 0; i < models[model].n_parts; i++) {
        hash = hash_bytes(hash, at, models[model].parts[i]);
        at += models[model].parts[i];
    }
    REQUIRE(at + sizeof hash == models[model].file + models[model].n);
    return hash;
}

static uint8_t *bytes_of(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    REQUIRE(f && !fseek(f, 0, SEEK_END));
    *n = (size_t)ftell(f);
    uint8_t *bytes = malloc(*n);
    rewind(f);
    REQUIRE(fread(bytes, 1, *n, f) == *n);
    fclose(f);
    return bytes;
}

static void write_at(int model, size_t at, const void *bytes, size_t n) {
    REQUIRE(pwrite(models[model].fd, bytes, n, (off_t)at) == (ssize_t)n);
}

static void save_one(int model) {
    char err[256], *path = strcpy(models[model].path, "/dev/shm/fuzz_session.XXXXXX");
    Session *s = session_of(model, N_SAVED, 1);
    int fd = mkstemp(path);
    REQUIRE(fd >= 0 && !close(fd) && !session_save(s, path, err, sizeof err));
    models[model].saved = bytes_of(path, &models[model].n);
    models[model].file = bytes_of(path, &models[model].n);
    models[model].fd = open(path, O_WRONLY | O_CLOEXEC);
    REQUIRE(models[model].fd >= 0);
    size_t vocab = (size_t)engine_info(models[model].engine).vocab_size;
    add_part(&model, NULL, HEAD);
    add_part(&model, NULL, sizeof(int32_t) * N_SAVED);
    add_part(&model, NULL, sizeof(int) * (size_t)s->memory.n_checkpoints);
    models[model].n_front = HEAD + sizeof(int32_t) * N_SAVED + sizeof(int) * (size_t)s->memory.n_checkpoints;
    add_part(&model, NULL, sizeof(float) * vocab);
    REQUIRE(memory_visit(&s->memory, add_part, &model));
    uint64_t hash = checksum(model);
    REQUIRE(!memcmp(&hash, models[model].file + models[model].n - sizeof hash, sizeof hash));
    session_close(s);
}

static void remove_files(void) {
    for (int i = 0; i < N_MODELS; i++) remove(models[i].path);
}

static void open_models(void) {
    static const char *const names[] = {"models/atlas/gqa", "models/atlas/hybrid", "models/atlas/window"};
    char err[256];
    atexit(remove_files);
    for (int i = 0; i < N_MODELS; i++) {
        models[i].engine = engine_open(names[i], NULL, err, sizeof err);
        REQUIRE(models[i].engine);
        save_one(i);
        models[i].other = session_of(i, N_OTHER, 3);
    }
}

// A token more, of what was loaded.
static void go_on(Session *s) {
    int n = session_length(s), vocab = engine_info(s->engine).vocab_size;
    int32_t more = 7;
    StepSegment next = {.session = s, .tokens = &more, .n = 1, .logits = true};
    REQUIRE(n >= 0 && n <= 128);
    for (int i = 0; i < n; i++) REQUIRE(s->tokens[i] >= 0 && s->tokens[i] < vocab);
    engine_step(s->engine, &next, 1, false);
    REQUIRE(next.err[0] ? !session_logits(s) : session_length(s) == n + 1);
    for (int i = 0; !next.err[0] && i < vocab; i++) REQUIRE(isfinite(session_logits(s)[i]));
    session_keep(s, s->tokens, n / 2);
    REQUIRE(session_length(s) <= n / 2);
}

// Where an edit writes: in the head, in what stands before the logits, or anywhere.
static size_t place_of(int model, const uint8_t *edit) {
    size_t place = (size_t)edit[1] | (size_t)edit[2] << 8 | (size_t)edit[3] << 16, room = edit[0] % 4 == 0 ? HEAD
                                                                                          : edit[0] % 4 == 1
                                                                                              ? models[model].n_front
                                                                                              : models[model].n;
    return place % room;
}

static void put_hash(int model, const uint8_t *from) {
    size_t at = models[model].n - sizeof(uint64_t);
    memmove(models[model].file + at, from, sizeof(uint64_t));
    write_at(model, at, from, sizeof(uint64_t));
}

// The file in memory as the edits make it; *n_kept: how much of it.
static bool alter(int model, const uint8_t *edits, size_t n_edits, bool fits, bool cut, size_t *n_kept) {
    bool changed = false;
    for (const uint8_t *e = edits; e < edits + n_edits * EDIT_BYTES; e += EDIT_BYTES) {
        size_t at = place_of(model, e);
        models[model].file[at] = e[4];
        write_at(model, at, &e[4], 1);
        if (cut) *n_kept = ((size_t)e[1] | (size_t)e[2] << 8 | (size_t)e[3] << 16) % (models[model].n + 1);
    }
    if (fits) {
        uint64_t hash = checksum(model);
        put_hash(model, (const uint8_t *)&hash);
    }
    for (const uint8_t *e = edits; e < edits + n_edits * EDIT_BYTES; e += EDIT_BYTES) {
        size_t at = place_of(model, e);
        changed |= models[model].file[at] != models[model].saved[at];
    }
    if (*n_kept != models[model].n) REQUIRE(!ftruncate(models[model].fd, (off_t)*n_kept));
    return changed || *n_kept != models[model].n;
}

static void restore(int model, const uint8_t *edits, size_t n_edits, size_t n_kept) {
    const uint8_t *saved = models[model].saved;
    for (const uint8_t *e = edits; e < edits + n_edits * EDIT_BYTES; e += EDIT_BYTES) {
        size_t at = place_of(model, e);
        models[model].file[at] = saved[at];
        write_at(model, at, &saved[at], 1);
    }
    put_hash(model, saved + models[model].n - sizeof(uint64_t));
    if (n_kept != models[model].n) write_at(model, n_kept, saved + n_kept, models[model].n - n_kept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!models[0].engine) open_models();
    if (!size) return 0;
    int model = data[0] % N_MODELS;
    const char *path = models[model].path;
    size_t n = models[model].n, n_kept = n, n_edits = (size - 1) / EDIT_BYTES;
    bool changed = alter(model, data + 1, n_edits, data[0] & 64, data[0] & 128, &n_kept);
    char err[500] = "";
    Session *s = session_fork(models[model].other, err, sizeof err);
    REQUIRE(s);
    if (session_load(s, path, err, sizeof err)) {
        REQUIRE(changed && session_length(s) == N_OTHER && session_logits(s) && s->tokens[1] == token(3));
        require_line(err, path);
    } else {
        REQUIRE(n_kept == n);
        go_on(s);
    }
    session_close(s);
    restore(model, data + 1, n_edits, n_kept);
    return 0;
}
