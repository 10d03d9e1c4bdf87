// files.h: the files that tests write and read, and a folder of a test's own for them.
//
//   folder_make();
//   write_text("config.json", "{}");
//   read_it(in_folder("config.json"));
//   folder_remove(); // with all that is in it
#pragma once
#include "reference.h"

#include <dirent.h>

static char folder[64], folder_paths[64][512];

// The path of a file there; stays valid until the folder is emptied.
UNUSED static const char *in_folder(const char *name) {
    char path[sizeof *folder_paths];
    int at = 0;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
        fprintf(stderr, "%s: the path is too long\n", name);
        exit(1);
    }
    while (at < N_OF(folder_paths) - 1 && *folder_paths[at] && strcmp(folder_paths[at], path) != 0) at++;
    return strcpy(folder_paths[at], path);
}

UNUSED static void folder_make(void) {
    strcpy(folder, "/tmp/tessera.XXXXXX");
    if (mkdtemp(folder)) return;
    perror(folder);
    exit(1);
}

// Removes the files there, and the folders that are empty.
UNUSED static void folder_empty(void) {
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) remove(in_folder(e->d_name));
    }
    if (d) closedir(d);
    memset(folder_paths, 0, sizeof folder_paths);
}

// How many files there have names that begin so.
UNUSED static int count_files(const char *beginning) {
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        n += !strncmp(e->d_name, beginning, strlen(beginning));
    }
    if (d) closedir(d);
    return n;
}

UNUSED static void folder_remove(void) {
    folder_empty();
    CHECK(!rmdir(folder), "%s: not empty", folder);
}

UNUSED static void write_bytes(const char *path, const void *p, size_t n) {
    unlink(path); // a new file: some filesystems wait for the disk when an old one is replaced in place
    FILE *f = fopen(path, "wb");
    bool written = f && fwrite(p, 1, n, f) == n;
    if (f && !fclose(f) && written) return;
    perror(path);
    exit(1);
}

// A file in the folder; returns its path.
UNUSED static const char *write_file(const char *name, const void *p, size_t n) {
    const char *path = in_folder(name);
    write_bytes(path, p, n);
    return path;
}

UNUSED static const char *write_text(const char *name, const char *text) {
    return write_file(name, text, strlen(text));
}

// A copy with ' turned into ", for JSON in tables.
UNUSED static char *json_of(const char *text) {
    char *json = strdup(text);
    for (char *c = json; *c; c++) *c = *c == '\'' ? '"' : *c;
    return json;
}

UNUSED static void write_json(const char *name, const char *text) {
    char *json = json_of(text);
    write_text(name, json);
    free(json);
}

// All of a file, terminated, n bytes (NULL: not asked); nothing where it cannot be read, and the test fails.
UNUSED static char *read_file(const char *path, size_t *n) {
    struct stat st;
    FILE *f = fopen(path, "rb");
    CHECK(f, "%s: cannot be read", path);
    size_t size = f && !fstat(fileno(f), &st) ? (size_t)st.st_size : 0;
    char *text = need(size + 1);
    size_t got = f ? fread(text, 1, size, f) : 0;
    if (f) fclose(f);
    text[got] = 0;
    if (n) *n = got;
    return text;
}

// ---- texts

UNUSED static int count_of(const char *text, const char *part) {
    int n = 0;
    for (; (text = strstr(text, part)); text += strlen(part)) n++;
    return n;
}

// Tags balance, text holds no bare '<' or '&', nothing is a control character.
UNUSED static bool xml_valid(const char *s) {
    char stack[16][32];
    int depth = 0, n_tags = 0;
    while (*s) {
        if (*s == '&' && strncmp(s, "&amp;", 5) && strncmp(s, "&lt;", 4) && strncmp(s, "&gt;", 4) &&
            strncmp(s, "&quot;", 6)) {
            return false;
        }
        if ((unsigned char)*s < ' ' && *s != '\n') return false;
        if (*s++ != '<') continue;
        bool closing = *s == '/';
        s += closing;
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz");
        if (!n || n > 31) return false;
        char name[32] = {0};
        memcpy(name, s, n);
        for (s += n; *s && *s != '>'; s++) {
            if (*s == '<') return false;
            if (*s == '"' && !(s = strchr(s + 1, '"'))) return false;
        }
        if (!*s) return false;
        n_tags++;
        if (closing) {
            if (!depth || strcmp(stack[--depth], name)) return false;
        } else if (s[-1] != '/') {
            if (depth == 16) return false;
            strcpy(stack[depth++], name);
        }
    }
    return depth == 0 && n_tags > 0;
}
