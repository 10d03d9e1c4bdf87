// idx: see idx.h.
#include "idx.h"

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

enum { IMAGES_MAGIC = 0x803, LABELS_MAGIC = 0x801 }; // 8: unsigned bytes; 3, 1: dimensions

typedef struct {
    const char *path;
    gzFile gz;
    char *err;
    size_t errlen;
} Stream;

// Not blocking: a pipe is refused, not waited for.
static int stream_open(Stream *s, const char *path, char *err, size_t errlen) {
    *s = (Stream){.path = path, .err = err, .errlen = errlen};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail(err, errlen, "%s: %s", path, strerror(errno));
    struct stat st;
    bool regular = !fstat(fd, &st) && S_ISREG(st.st_mode);
    s->gz = regular ? gzdopen(fd, "rb") : NULL;
    if (s->gz) return 0;
    close(fd);
    return fail(err, errlen, regular ? "%s: out of memory" : "%s: expected a regular file, found another kind", path);
}

// The reason of a short or failed read; NULL: the content is over.
static const char *stream_error(const Stream *s) {
    int code;
    const char *what = gzerror(s->gz, &code);
    if (code == Z_OK || code == Z_STREAM_END) return NULL;
    return code == Z_ERRNO ? strerror(errno) : code == Z_BUF_ERROR ? "the gzip stream ends early" : what;
}

// Exactly n bytes.
static int stream_read(Stream *s, uint8_t *to, size_t n, const char *what) {
    size_t got = 0;
    while (got < n) {
        int step = gzread(s->gz, to + got, (unsigned)(n - got));
        if (step <= 0) break;
        got += (size_t)step;
    }
    if (got == n) return 0;
    const char *reason = stream_error(s);
    return fail(s->err, s->errlen, "%s: %s: expected %zu bytes, found %zu%s%s", s->path, what, n, got,
                reason ? ": " : " before the end of the file", reason ? reason : "");
}

// Nothing may follow; asking for it also makes zlib compare the checksum.
static int stream_end(Stream *s) {
    uint8_t byte;
    int got = gzread(s->gz, &byte, 1);
    if (got > 0)
        return fail(s->err, s->errlen, "%s: expected the end of the file behind the data, found more", s->path);
    const char *reason = stream_error(s);
    return reason ? fail(s->err, s->errlen, "%s: behind the data: %s", s->path, reason) : 0;
}

static int read_header(Stream *s, uint32_t magic, int n_dims, uint32_t *dims, size_t *size) {
    uint8_t b[16];
    if (stream_read(s, b, 4 * (size_t)(n_dims + 1), "header")) return -1;
    uint32_t numbers[4];
    for (int i = 0; i <= n_dims; i++) {
        numbers[i] =
            (uint32_t)b[4 * i] << 24 | (uint32_t)b[4 * i + 1] << 16 | (uint32_t)b[4 * i + 2] << 8 | b[4 * i + 3];
    }
    if (numbers[0] != magic) {
        return fail(s->err, s->errlen, "%s: magic number: expected 0x%08x, found 0x%08x", s->path, magic, numbers[0]);
    }
    uint64_t total = 1;
    for (int i = 0; i < n_dims; i++) {
        dims[i] = numbers[i + 1];
        if (dims[i] < 1) return fail(s->err, s->errlen, "%s: dimension %d: expected 1 or more, found 0", s->path, i);
        if (!mul_u64(total, dims[i], &total) || total > MAX_IDX_BYTES) {
            return fail(s->err, s->errlen, "%s: dimension %d: expected at most %d bytes in all, found more (%u)",
                        s->path, i, MAX_IDX_BYTES, dims[i]);
        }
    }
    *size = (size_t)total;
    return 0;
}

// The data (owned by the caller) and the dimensions; NULL with a line in err.
static uint8_t *read_idx(const char *path, uint32_t magic, int n_dims, uint32_t *dims, char *err, size_t errlen) {
    Stream s;
    if (stream_open(&s, path, err, errlen)) return NULL;
    size_t size = 0;
    uint8_t *data = NULL;
    int rc = read_header(&s, magic, n_dims, dims, &size);
    if (!rc) {
        data = malloc(size);
        rc = data ? 0 : fail(err, errlen, "%s: out of memory for %zu bytes", path, size);
    }
    if (!rc) rc = stream_read(&s, data, size, "data");
    if (!rc) rc = stream_end(&s);
    gzclose(s.gz);
    if (!rc) return data;
    free(data);
    return NULL;
}

int idx_read_images(IdxImages *x, const char *path, char *err, size_t errlen) {
    uint32_t dims[3] = {0};
    *x = (IdxImages){0};
    uint8_t *pixels = read_idx(path, IMAGES_MAGIC, 3, dims, err, errlen);
    if (!pixels) return -1;
    *x = (IdxImages){.n = (int)dims[0], .height = (int)dims[1], .width = (int)dims[2], .pixels = pixels};
    return 0;
}

int idx_read_labels(IdxLabels *x, const char *path, char *err, size_t errlen) {
    uint32_t dims[1] = {0};
    *x = (IdxLabels){0};
    uint8_t *labels = read_idx(path, LABELS_MAGIC, 1, dims, err, errlen);
    if (!labels) return -1;
    *x = (IdxLabels){.n = (int)dims[0], .labels = labels};
    return 0;
}

void idx_free_images(IdxImages *x) {
    free(x->pixels);
    *x = (IdxImages){0};
}

void idx_free_labels(IdxLabels *x) {
    free(x->labels);
    *x = (IdxLabels){0};
}

static int check_set(const IdxImages *images, const IdxLabels *labels, const char *const paths[2], int n_labels,
                     char *err, size_t errlen) {
    if (images->n != labels->n) {
        return fail(err, errlen, "%s: expected %d labels for the pictures of %s, found %d", paths[1], images->n,
                    paths[0], labels->n);
    }
    for (int i = 0; i < labels->n; i++) {
        if (labels->labels[i] < n_labels) continue;
        return fail(err, errlen, "%s: label %d: expected less than %d, found %d", paths[1], i, n_labels,
                    labels->labels[i]);
    }
    return 0;
}

int idx_read_set(IdxImages *images, IdxLabels *labels, const char *const paths[2], int n_labels, char *err,
                 size_t errlen) {
    *labels = (IdxLabels){0};
    int rc = idx_read_images(images, paths[0], err, errlen);
    if (!rc) rc = idx_read_labels(labels, paths[1], err, errlen);
    if (!rc) rc = check_set(images, labels, paths, n_labels, err, errlen);
    if (!rc) return 0;
    idx_free_images(images);
    idx_free_labels(labels);
    return -1;
}
