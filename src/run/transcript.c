// transcript: see transcript.h.
#include "transcript.h"

#include "file.h"
#include "outfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

static const char *const heads[] = {
    [CHAT_SYSTEM] = "System: ", [CHAT_USER] = "User: ", [CHAT_ASSISTANT] = "Assistant: "};
enum { N_ROLES = sizeof heads / sizeof *heads };

// The role that a line begins with; N_ROLES: none.
static int role_at(const char *line, const char *end) {
    for (int role = 0; role < N_ROLES; role++) {
        size_t n = strlen(heads[role]);
        if ((size_t)(end - line) >= n && !memcmp(line, heads[role], n)) return role;
    }
    return N_ROLES;
}

// Whether a line is backslashes, then a role.
static bool looks_like_head(const char *line, const char *end) {
    while (line < end && *line == '\\') line++;
    return role_at(line, end) < N_ROLES;
}

static void put_message(FILE *f, const ChatMessage *m) {
    const char *end = m->text + m->n;
    fputs(heads[m->role], f);
    for (const char *line = m->text; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line)), *next = newline ? newline + 1 : end;
        if (line > m->text && looks_like_head(line, end)) fputc('\\', f);
        fwrite(line, 1, (size_t)(next - line), f);
        line = next;
    }
    fputs("\n\n", f);
}

int transcript_save(const char *path, const ChatMessage *messages, int n, char *err, size_t errlen) {
    OutFile out;
    if (outfile_open(&out, path, err, errlen)) return -1;
    for (int i = 0; i < n; i++) put_message(out.file, &messages[i]);
    return outfile_finish(&out, err, errlen);
}

void transcript_free(ChatMessage *messages) {
    for (ptrdiff_t i = 0; i < arrlen(messages); i++) {
        free((char *)(uintptr_t)messages[i].text);
        free((int32_t *)(uintptr_t)messages[i].ids);
    }
    arrfree(messages);
}

// Appends the message text[0..n) without the backslashes that put_message added. False: out of memory.
static bool add_message(ChatMessage **messages, ChatRole role, const char *text, size_t n) {
    char *copy = malloc(n + 1), *out = copy;
    if (!copy) return false;
    for (const char *line = text, *end = text + n; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line)), *next = newline ? newline + 1 : end;
        if (line > text && *line == '\\' && looks_like_head(line, end)) line++;
        memcpy(out, line, (size_t)(next - line));
        out += next - line;
        line = next;
    }
    *out = 0;
    ChatMessage m = {.role = role, .text = copy, .n = (size_t)(out - copy)};
    arrput(*messages, m);
    return true;
}

// The role that may follow: a system message first, then turns.
static bool may_follow(const ChatMessage *messages, int role) {
    ptrdiff_t n = arrlen(messages);
    bool user = !n || messages[n - 1].role != CHAT_USER;
    return role == CHAT_SYSTEM ? n == 0 : role == (user ? CHAT_USER : CHAT_ASSISTANT);
}

static int parse(const char *path, const char *text, size_t n, ChatMessage **messages, char *err, size_t errlen) {
    const char *at = text, *end = text + n;
    int line_number = 1;
    while (at < end) {
        int role = role_at(at, end);
        if (role == N_ROLES || !may_follow(*messages, role)) {
            const char *expected = *messages && arrlast(*messages).role == CHAT_USER ? "'Assistant: '" : "'User: '";
            return fail(err, errlen, "%s: line %d: expected %s, found '%.*s'", path, line_number, expected,
                        (int)strcspn(at, "\n") > 40 ? 40 : (int)strcspn(at, "\n"), at);
        }
        const char *begin = at + strlen(heads[role]);
        do {
            const char *newline = memchr(at, '\n', (size_t)(end - at));
            at = newline ? newline + 1 : end;
            line_number++;
        } while (at < end && role_at(at, end) == N_ROLES);
        const char *last = at;
        for (int i = 0; i < 2 && last > begin && last[-1] == '\n'; i++) last--;
        if (!add_message(messages, (ChatRole)role, begin, last > begin ? (size_t)(last - begin) : 0))
            return fail(err, errlen, "%s: out of memory", path);
    }
    if (!*messages || arrlast(*messages).role != CHAT_USER) return 0;
    return fail(err, errlen, "%s: line %d: expected 'Assistant: ', found the end", path, line_number);
}

int transcript_load(const char *path, ChatMessage **messages, char *err, size_t errlen) {
    File file;
    *messages = NULL;
    if (file_map(&file, path, err, errlen)) return -1;
    char *text = malloc(file.size + 1);
    if (text) memcpy(text, file.data, file.size);
    if (text) text[file.size] = 0;
    size_t n = file.size;
    file_unmap(&file);
    if (!text) return fail(err, errlen, "%s: out of memory", path);
    int rc = parse(path, text, n, messages, err, errlen);
    free(text);
    if (rc) transcript_free(*messages);
    if (rc) *messages = NULL;
    return rc;
}
