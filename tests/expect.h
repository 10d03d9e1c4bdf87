// expect.h: what a call that failed leaves behind: -1, everything empty, and one line that names the file and the
// place.
#pragma once
#include "reference.h"

UNUSED static bool all_zero(const void *p, size_t n) {
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) {
        if (b[i]) return false;
    }
    return true;
}

UNUSED static bool printable_line(const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < ' ' || *c == 0x7f) return false;
    }
    return *text;
}

// One line that begins with the path (or one inside it), then holds `want`.
UNUSED static void expect_line(const char *err, const char *path, const char *want, const char *what) {
    size_t n = strlen(path);
    CHECK(printable_line(err), "%s: expected one line, found '%s'", what, err);
    CHECK(!strncmp(err, path, n) && (err[n] == ':' || err[n] == '/'),
          "%s: expected a line that begins with %s, found '%s'", what, path, err);
    CHECK(strlen(err) > n && strstr(err + n, want), "%s: expected '%s' in '%s'", what, want, err);
}

// One line that holds the name of the file and `want`.
UNUSED static void expect_named(const char *err, const char *file, const char *want, const char *what) {
    CHECK(printable_line(err) && strstr(err, file) && strstr(err, want), "%s: expected '%s' and '%s' in '%s'", what,
          file, want, err);
}

// rc is -1, the n bytes at `left` are zeros, and expect_line. False where the call did not fail: the caller frees.
UNUSED static bool expect_failed(int rc, const void *left, size_t n, const char *err, const char *path,
                                 const char *want, const char *what) {
    CHECK(rc == -1, "%s: expected a failure, got %d", what, rc);
    if (rc != -1) return false;
    expect_line(err, path, want, what);
    CHECK(all_zero(left, n), "%s: not left empty", what);
    return true;
}
