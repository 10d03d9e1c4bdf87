// bad.h: malformed inputs as tables, tests/bad/*.txt, and what each of them must end in.
//
//   [base]                              the sound input that the rows below it change
//   change | part of the message        what the failure's line must hold; "^" in front: right behind the file's name
//   name | change | part .. part        a name for what the change does not tell; several parts, in this order
//   change ~ change | @: part           several inputs that end in one message; @: what the first edit changes
//   key = :: 0 ~ 1 ~ 2 | part           three inputs, all of which begin so
//
// A change is in the notation of its reader, edits with "; " between. ' stands for ", <0a> for a byte and <9*ab> for
// nine times ab. Words of a message stand in one row; where there are several inputs they share the words.
#pragma once
#include "../expect.h"
#include "../files.h"

#include <jansson.h>

typedef struct {
    const char *table, *base, *name, *change, *want;
    char place[400]; // what the first edit of the change is about
    size_t n_change; // bytes of the change, which may hold NUL
    int line, variant;
    char what[200]; // for messages of a check
} Bad;

static const char *bad_seeds; // a folder: inputs are written there, and not tried
static int bad_tried;

// ---- the notation

UNUSED static char *bad_bytes(const char *text, size_t n_text, size_t *n);

// Reads <0a> or <9*ab> at `at` into f; the bytes of the notation, or 0 where it is none.
static size_t put_marked(FILE *f, const char *at) {
    char *star;
    long times = strtol(at + 1, &star, 10);
    size_t n = 1, n_more, depth = 1;
    for (; at[n] && depth; n++) depth += (size_t)(at[n] == '<') - (size_t)(at[n] == '>');
    if (star > at + 1 && *star == '*' && !depth) {
        char *more = bad_bytes(star + 1, (size_t)(at + n - star - 2), &n_more);
        for (; times > 0; times--) fwrite(more, 1, n_more, f);
        free(more);
        return n;
    }
    if (strspn(at + 1, "0123456789abcdef") != 2 || at[3] != '>') return 0;
    fputc((int)strtol(at + 1, NULL, 16), f);
    return 4;
}

// The bytes that the notation stands for: terminated, free them.
UNUSED static char *bad_bytes(const char *text, size_t n_text, size_t *n) {
    char *out;
    FILE *f = open_memstream(&out, n);
    for (size_t at = 0, used; at < n_text; at += used) {
        used = text[at] == '<' ? put_marked(f, text + at) : 0;
        if (!used) used = (size_t)(fputc(text[at] == '\'' ? '"' : text[at], f) != EOF);
    }
    fclose(f);
    return out;
}

// The next of the parts between `mark`, NULL behind the last; *rest is what follows.
UNUSED static char *bad_part(char **rest, const char *mark) {
    char *part = *rest, *end = part ? strstr(part, mark) : NULL;
    *rest = end ? end + strlen(mark) : NULL;
    if (end) *end = 0;
    return part;
}

// The edit "VERB REST": its rest, or NULL for another verb.
UNUSED static char *bad_verb(char *edit, const char *verb) {
    size_t n = strlen(verb);
    return !strncmp(edit, verb, n) && edit[n] == ' ' ? edit + n + 1 : NULL;
}

// A JSON object with the edits "KEY = ANY TEXT" and "drop KEY"; "= ANY TEXT" is all of it. Free it.
UNUSED static char *bad_json(const char *object, const char *change, size_t n_change, size_t *n) {
    char *text, *copy = memcpy(need(n_change + 1), change, n_change + 1), *rest = copy;
    FILE *f = open_memstream(&text, n), *more = NULL;
    char *added;
    size_t n_added;
    if (*change == '=') {
        fwrite(change + 2, 1, n_change > 2 ? n_change - 2 : 0, f);
        fclose(f);
        free(copy);
        return text;
    }
    json_t *o = json_loads(object, 0, NULL);
    more = open_memstream(&added, &n_added);
    for (char *edit = bad_part(&rest, "; "); edit; edit = bad_part(&rest, "; ")) {
        char *value = edit, *key = bad_part(&value, " = "), *dropped = value ? NULL : bad_verb(edit, "drop");
        CHECK(o && (value || dropped), "a row asks to '%s'", edit);
        CHECK(!dropped || json_object_get(o, dropped), "no %s to drop", dropped);
        json_object_del(o, dropped ? dropped : key);
        if (value) fprintf(more, ",\"%s\":%s", key, value);
    }
    fclose(more);
    char *kept = json_dumps(o, JSON_COMPACT);
    fprintf(f, "%.*s%s}", (int)strlen(kept) - 1, kept, added + (strlen(kept) == 2 && *added));
    fclose(f);
    json_decref(o);
    free(kept);
    free(added);
    free(copy);
    return text;
}

// A copy of n bytes with the edits "AT:SIZE = NUMBER", "more N" (zeros behind) and "cut N" (what is left): free it.
UNUSED static uint8_t *bad_patched(const void *bytes, size_t *n, const char *change) {
    char *copy = strdup(change), *rest = copy;
    uint8_t *p = memcpy(calloc(1, *n + 8192), bytes, *n);
    for (char *edit = bad_part(&rest, "; "); edit && *edit; edit = bad_part(&rest, "; ")) {
        unsigned long at, size;
        long long value;
        char *more = bad_verb(edit, "more"), *cut = bad_verb(edit, "cut");
        if (more) *n += strtoul(more, NULL, 0);
        else if (cut) *n = strtoul(cut, NULL, 0);
        else if (sscanf(edit, "%lu:%lu = %lli", &at, &size, &value) == 3) memcpy(p + at, &value, size);
        else CHECK(false, "a row asks to '%s'", edit);
    }
    free(copy);
    uint8_t *exact = memcpy(need(*n), p, *n); // so that a sanitizer sees its end
    free(p);
    return exact;
}

// ---- the rows

// KEY of "KEY = VALUE", NAME of "VERB NAME ...", of "field WHICH NAME ...", "twin OTHER NAME" and "tensor ['NAME' ...".
static void find_place(Bad *b, const char *change) {
    char edit[400], *rest = edit, *value = edit;
    const char *end = strstr(change, "; ");
    snprintf(edit, sizeof edit, "%.*s", end ? (int)(end - change) : (int)strlen(change), change);
    char *key = bad_part(&value, " = "), *tensor = bad_verb(edit, "tensor"), *name = key;
    if (tensor) name = strtok(tensor, "['");
    else if (!value) {
        char *verb = bad_part(&rest, " ");
        name = bad_part(&rest, " ");
        if (!strcmp(verb, "field") || !strcmp(verb, "twin")) name = bad_part(&rest, " ");
    }
    snprintf(b->place, sizeof b->place, "%s", name ? name : "");
}

static void try_variants(Bad *b, char *changes, void (*attempt)(const Bad *)) {
    char *rest = changes, *before = bad_part(&rest, " :: ");
    if (!rest) rest = before, before = "";
    b->variant = 0;
    for (char *one = bad_part(&rest, " ~ "); one; one = bad_part(&rest, " ~ ")) {
        char *whole = need(strlen(before) + strlen(one) + 2);
        sprintf(whole, "%s%s%s", before, *before ? " " : "", one);
        b->variant++;
        char *bytes = bad_bytes(whole, strlen(whole), &b->n_change);
        b->change = bytes;
        find_place(b, whole);
        snprintf(b->what, sizeof b->what, "tests/bad/%s.txt:%d: %s: %.100s", b->table, b->line, b->name, whole);
        // An emulator reads the same bytes slowly: every third there.
        if (!emulated() || bad_tried % 3 == 0) attempt(b);
        free(bytes);
        free(whole);
        bad_tried++;
    }
}

// Every input of a table.
UNUSED static void each_bad(const char *table, void (*attempt)(const Bad *)) {
    char path[100], *base = strdup("");
    snprintf(path, sizeof path, "tests/bad/%s.txt", table);
    char *text = read_file(path, NULL), *rest = text;
    Bad b = {.table = table};
    int n_before = bad_tried;
    for (char *line = bad_part(&rest, "\n"); line; line = bad_part(&rest, "\n")) {
        size_t n = strlen(line);
        b.line++;
        if (!n || *line == '#') continue;
        if (*line == '[') {
            free(base);
            base = bad_bytes(line + 1, n - 2, &n);
            continue;
        }
        char *want = line, *name = bad_part(&want, " | "), *changes = bad_part(&want, " | ");
        CHECK(changes, "%s:%d: expected CHANGE | MESSAGE", path, b.line);
        if (!changes) continue;
        b.base = base;
        b.name = want ? name : base;
        b.want = want ? want : changes;
        if (!want) changes = name;
        try_variants(&b, changes, attempt);
    }
    CHECK(bad_tried > n_before, "%s: no rows", path);
    if (!bad_seeds) printf("    %s: %d inputs\n", path, bad_tried - n_before);
    free(base);
    free(text);
}

// The input as the file DIR/TABLE/LINE-VARIANT, behind the bytes by which its fuzzer knows whole files.
UNUSED static void bad_seed(const Bad *b, const char *mode, size_t n_mode, const void *bytes, size_t n) {
    char path[512];
    mkdir(bad_seeds, 0777);
    snprintf(path, sizeof path, "%s/%s", bad_seeds, b->table);
    mkdir(path, 0777);
    snprintf(path + strlen(path), sizeof path - strlen(path), "/%d-%d", b->line, b->variant);
    char *all = need(n_mode + n);
    memcpy(all, mode, n_mode);
    memcpy(all + n_mode, bytes, n);
    write_bytes(path, all, n_mode + n);
    free(all);
}

// Does err hold the parts of what a row expects, in their order? path: what it begins with.
static bool holds_parts(const char *err, const char *path, const Bad *b) {
    char *copy = strdup(b->want), *rest = copy, words[1000];
    const char *at = err + strnlen(err, strlen(path)), *found = at;
    for (char *part = bad_part(&rest, " .. "); part && found; part = bad_part(&rest, " .. ")) {
        bool anchored = *part == '^';
        char *behind = part + anchored, *before = bad_part(&behind, "@");
        snprintf(words, sizeof words, "%s%s%s", before, behind ? b->place : "", behind ? behind : "");
        found = strstr(at, words);
        if (anchored && found != at) found = NULL;
        if (found) at = found + strlen(words);
    }
    free(copy);
    return found;
}

// The call failed: -1, n bytes at `left` are zeros, and one line that begins with the path and holds what the row says.
// False where it did not, and the caller has something to free.
UNUSED static bool bad_refused(const Bad *b, int rc, const void *left, size_t n, const char *err, const char *path) {
    if (getenv("BAD_PRINT")) fprintf(stderr, "@@%s\t%d\t%s\n", b->table, b->line, err + strnlen(err, strlen(path)));
    if (!expect_failed(rc, left, n, err, path, "", b->what)) return false;
    CHECK(holds_parts(err, path, b), "%s: expected '%s' (@ is %s) in '%s'", b->what, b->want, b->place, err);
    return true;
}
