// symbols: see symbols.h.
#include "symbols.h"

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

size_t utf8_length(const char *text, bool *valid) {
    int n = utf8_unit(text, 4); // the terminator ends it: it follows nothing
    *valid = n == utf8_lead((unsigned char)text[0]);
    return (size_t)n;
}

static void put(Symbols *y, Settings *s, const char *key, const char *text, size_t n, int64_t id) {
    if (id < 0 || id >= y->n_ids) {
        settings_fail(s, key, "id: expected 0 to %d, found %lld", y->n_ids - 1, (long long)id);
    } else if (y->by_id[id]) {
        settings_fail(s, key, "id %lld: expected once, found for '%s' and '%.*s'", (long long)id, y->by_id[id], (int)n,
                      text);
    } else if (!(y->by_id[id] = strndup(text, n))) {
        settings_fail(s, key, "out of memory");
    }
}

static void read_object(Symbols *y, Settings *s, const char *key, int n_special) {
    Settings table = settings_object(s, key);
    const char *symbol;
    json_t *id;
    int64_t n;
    y->spaced = true;
    json_object_foreach(table.object, symbol, id) {
        if (!settings_whole(id, &n) || !*symbol) {
            settings_fail(s, key, "expected an integer for each symbol, found another value for '%.40s'", symbol);
        } else if (n >= n_special) {
            put(y, s, key, symbol, strlen(symbol), n);
        }
        if (s->failed) return;
    }
}

static void read_string(Symbols *y, Settings *s, const char *key, int n_special) {
    const char *text = settings_string(s, key, NULL);
    bool valid;
    for (int id = 0; *text && !s->failed; id++) {
        size_t n = utf8_length(text, &valid);
        if (id >= n_special) put(y, s, key, text, n, id);
        text += n;
    }
}

int symbols_load(Symbols *y, Settings *s, const char *object_key, const char *string_key, int vocab_size,
                 int n_special) {
    *y = (Symbols){.by_id = calloc((size_t)vocab_size, sizeof *y->by_id), .n_ids = vocab_size};
    if (!y->by_id) settings_fail(s, object_key, "out of memory");
    else if (settings_has(s, object_key)) read_object(y, s, object_key, n_special);
    else if (settings_has(s, string_key)) read_string(y, s, string_key, n_special);
    else settings_fail(s, object_key, "expected it, or %s: the model's symbols, not found", string_key);
    return s->failed ? -1 : 0;
}

void symbols_free(Symbols *y) {
    if (!y->by_id) return;
    for (int id = 0; id < y->n_ids; id++) free(y->by_id[id]);
    free(y->by_id);
    *y = (Symbols){0};
}

int symbols_find(const Symbols *y, const char *text, size_t n) {
    for (int id = 0; id < y->n_ids; id++) { // a few dozen
        const char *symbol = y->by_id[id];
        if (symbol && !strncmp(symbol, text, n) && !symbol[n]) return id;
    }
    return -1;
}

const char *symbols_text(const Symbols *y, int id) {
    return id >= 0 && id < y->n_ids ? y->by_id[id] : NULL;
}
