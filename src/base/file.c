// file: see file.h.
#define _POSIX_C_SOURCE 200809L
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int fail(char *err, size_t errlen, const char *fmt, ...) {
    if (err && errlen) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err, errlen, fmt, args);
        va_end(args);
        for (char *c = err; *c; c++) {
            if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?'; // names from files must not break the line
        }
    }
    return -1;
}

bool mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

bool add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

int file_map(File *f, const char *path, char *err, size_t errlen) {
    memset(f, 0, sizeof *f);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail(err, errlen, "%s: %s", path, strerror(errno));
    struct stat st;
    int rc = -1;
    if (fstat(fd, &st)) {
        fail(err, errlen, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        fail(err, errlen, "%s: expected a regular file, found a %s", path,
             S_ISDIR(st.st_mode) ? "directory" : "device or pipe");
    } else if (st.st_size == 0) {
        fail(err, errlen, "%s: the file is empty", path);
    } else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            fail(err, errlen, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size, strerror(errno));
        } else {
            madvise(p, (size_t)st.st_size, MADV_HUGEPAGE); // where it can be had: fewer misses of the TLB
            *f = (File){.path = strdup(path), .data = p, .size = (size_t)st.st_size};
            rc = f->path ? 0 : fail(err, errlen, "%s: out of memory", path);
            if (rc) file_unmap(f);
        }
    }
    close(fd);
    return rc;
}

void file_unmap(File *f) {
    if (!f->borrowed) {
        if (f->data) munmap((void *)(uintptr_t)f->data, f->size);
        free(f->path);
    }
    memset(f, 0, sizeof *f);
}

static void on_bus_error(int sig) {
    (void)sig;
    static const char msg[] = "\nerror: a mapped file became shorter, or could not be read, while it was in use\n";
    if (write(STDERR_FILENO, msg, sizeof msg - 1) < 0) _exit(1);
    _exit(1);
}

bool file_same(const char *a, const char *b) {
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void file_guard_shrinking(void) {
    struct sigaction sa = {.sa_handler = on_bus_error};
    sigaction(SIGBUS, &sa, NULL);
}

Cursor cursor_at(const File *f, uint64_t pos, char *err, size_t errlen) {
    return (Cursor){.file = f, .pos = pos, .err = err, .errlen = errlen};
}

void cursor_fail(Cursor *c, uint64_t at, const char *fmt, ...) {
    if (c->failed) return;
    c->failed = true;
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    fail(c->err, c->errlen, "%s: at byte %llu: %s", c->file->path, (unsigned long long)at, what);
}

const uint8_t *cursor_bytes(Cursor *c, uint64_t n, const char *what) {
    uint64_t size = c->file->size, left = c->pos <= size ? size - c->pos : 0;
    if (c->failed) return NULL;
    if (n > left) {
        cursor_fail(c, c->pos, "%s: expected %llu bytes, found %llu before the end of the file", what,
                    (unsigned long long)n, (unsigned long long)left);
        return NULL;
    }
    const uint8_t *p = c->file->data + c->pos;
    c->pos += n;
    return p;
}

uint8_t cursor_u8(Cursor *c, const char *what) {
    const uint8_t *p = cursor_bytes(c, 1, what);
    return p ? p[0] : 0;
}

uint32_t cursor_u32(Cursor *c, const char *what) {
    const uint8_t *p = cursor_bytes(c, 4, what);
    return p ? (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}

int32_t cursor_i32(Cursor *c, const char *what) {
    return (int32_t)cursor_u32(c, what);
}

uint64_t cursor_u64(Cursor *c, const char *what) {
    uint64_t lo = cursor_u32(c, what);
    return lo | (uint64_t)cursor_u32(c, what) << 32;
}

float cursor_f32(Cursor *c, const char *what) {
    uint32_t bits = cursor_u32(c, what);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
