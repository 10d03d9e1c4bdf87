// fuzz_session: saved sessions whose bytes are changed, loaded into sessions that hold another text.
//
// Byte 0: which model, whether the checksum is made to fit again, and whether the file is cut; then edits, each where
// (head, text or anywhere, and a place there) and a byte. Aborts when a file that is refused changes the session or has
// no line, when one that nothing was done to is refused, and when a session that was loaded neither goes on nor says
// why it cannot.
#include "hash.h"
#include "session.h"

#include <math.h>
#include <unistd.h>

#include "fuzz.h"

enum { N_MODELS = 3, N_SAVED = 70, N_OTHER = 5, HEAD = 56, MOST_PARTS = 4096, EDIT_BYTES = 5 };

static char path[] = "/tmp/fuzz_session.XXXXXX";

static struct {
    Engine *engine;
    uint8_t *file;            // a session of N_SAVED tokens, saved
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

static void save_one(int model) {
    char err[256];
    Session *s = session_of(model, N_SAVED, 1);
    REQUIRE(!session_save(s, path, err, sizeof err));
    FILE *f = fopen(path, "rb");
    REQUIRE(f && !fseek(f, 0, SEEK_END));
    models[model].n = (size_t)ftell(f);
    models[model].file = malloc(models[model].n);
    rewind(f);
    REQUIRE(fread(models[model].file, 1, models[model].n, f) == models[model].n);
    fclose(f);
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

static void remove_file(void) {
    remove(path);
}

static void open_models(void) {
    static const char *const names[] = {"models/atlas/gqa", "models/atlas/hybrid", "models/atlas/window"};
    char err[256];
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    atexit(remove_file);
    for (int i = 0; i < N_MODELS; i++) {
        models[i].engine = engine_open(names[i], NULL, err, sizeof err);
        REQUIRE(models[i].engine);
        save_one(i);
        models[i].other = session_of(i, N_OTHER, 3);
    }
}

static void write_file(const uint8_t *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    REQUIRE(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!models[0].engine) open_models();
    if (!size) return 0;
    int model = data[0] % N_MODELS;
    bool fits = data[0] & 64, cut = data[0] & 128;
    size_t n = models[model].n, n_kept = n, n_edits = (size - 1) / EDIT_BYTES;
    uint8_t *before = malloc(n);
    memcpy(before, models[model].file, n);
    for (const uint8_t *e = data + 1; n_edits; n_edits--, e += EDIT_BYTES) {
        size_t place = (size_t)e[1] | (size_t)e[2] << 8 | (size_t)e[3] << 16;
        size_t at = e[0] % 4 == 0 ? place % HEAD : e[0] % 4 == 1 ? place % models[model].n_front : place % n;
        models[model].file[at] = e[4];
        if (cut) n_kept = place % (n + 1);
    }
    if (fits) {
        uint64_t hash = checksum(model);
        memcpy(models[model].file + n - sizeof hash, &hash, sizeof hash);
    }
    bool changed = n_kept != n || memcmp(before, models[model].file, n);
    write_file(models[model].file, n_kept);
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
    memcpy(models[model].file, before, n);
    free(before);
    return 0;
}
