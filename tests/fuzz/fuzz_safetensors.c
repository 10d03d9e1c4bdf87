// fuzz_safetensors: the safetensors reader and the settings on arbitrary bytes.
//
// The first byte chooses: raw bytes as the file; the input as a header of the right length, over some data; or a header
// made from the input, of tensors that tile the data, which is then patched in one place. What the reader says is
// compared with the rules written here a second time: a file within them must load, any other must not. Of a loaded
// file every tensor must lie inside the file or in a copy, aligned, as long as its dtype and shape say.
#include "load.h"
#include "settings.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

#include "fuzz.h"

enum { DATA_MAX = 1 << 12, HEADER_MAX = 4096, N_TENSORS = 6, N_NAMES = 8 };

static const struct {
    const char *name;
    DType dtype;
    unsigned bytes;
} known[] = {
    {"F32", DTYPE_F32, 4},      {"F16", DTYPE_F16, 2},       {"BF16", DTYPE_BF16, 2},     {"F64", DTYPE_OTHER, 8},
    {"I64", DTYPE_INTEGER, 8},  {"I32", DTYPE_INTEGER, 4},   {"I16", DTYPE_INTEGER, 2},   {"I8", DTYPE_INTEGER, 1},
    {"U64", DTYPE_INTEGER, 8},  {"U32", DTYPE_INTEGER, 4},   {"U16", DTYPE_INTEGER, 2},   {"U8", DTYPE_U8, 1},
    {"BOOL", DTYPE_INTEGER, 1}, {"F8_E4M3", DTYPE_OTHER, 1}, {"F8_E5M2", DTYPE_OTHER, 1},
};
enum { N_KNOWN = sizeof known / sizeof *known };

static volatile uint8_t sink;

// -- the rules again

typedef enum { BAD, GOOD, EITHER } Verdict; // EITHER: dims that wrap beside a 0

typedef struct {
    int kind; // in known
    int n_dims;
    int64_t dims[MAX_DIMS];
    uint64_t begin, end;
} Extent;

static Verdict read_extent(Extent *e, const json_t *entry) {
    const json_t *shape = json_object_get(entry, "shape"), *at = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    for (e->kind = 0; dtype && e->kind < N_KNOWN && strcmp(dtype, known[e->kind].name) != 0;) e->kind++;
    if (!dtype || e->kind == N_KNOWN || !json_is_array(shape) || json_array_size(shape) > MAX_DIMS) return BAD;
    __uint128_t bytes = known[e->kind].bytes;
    bool wraps = false, zero = false;
    e->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < e->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || (e->dims[i] = json_integer_value(dim)) < 0) return BAD;
        zero |= !e->dims[i];
        bytes *= (uint64_t)e->dims[i];
        wraps |= bytes > UINT64_MAX;
        if (wraps) bytes = 1;
    }
    if (json_array_size(at) != 2) return BAD;
    for (int i = 0; i < 2; i++) {
        const json_t *offset = json_array_get(at, (size_t)i);
        if (!json_is_integer(offset) || json_integer_value(offset) < 0) return BAD;
        *(i ? &e->end : &e->begin) = (uint64_t)json_integer_value(offset);
    }
    if (wraps) return zero ? EITHER : BAD;
    return e->begin <= e->end && e->end - e->begin == bytes ? GOOD : BAD;
}

// Each of the n data bytes belongs to one tensor; one without bytes stands between two, or at an end.
static bool tiles(const Extent *all, int n_all, uint64_t n) {
    uint8_t *owners = calloc(1, n + 1), *inside = calloc(1, n + 1); // of the byte; of the place before it
    bool ok = true;
    for (int i = 0; i < n_all; i++) {
        ok = ok && all[i].end <= n;
        for (uint64_t at = all[i].begin; ok && at < all[i].end; at++) {
            ok = !owners[at]++;
            inside[at] |= at > all[i].begin;
        }
    }
    for (int i = 0; i < n_all; i++) ok = ok && !(all[i].begin == all[i].end && inside[all[i].begin]);
    for (uint64_t at = 0; at < n; at++) ok = ok && owners[at];
    free(owners);
    free(inside);
    return ok;
}

static Verdict judge(const json_t *header, uint64_t n_data) {
    if (!json_is_object(header)) return BAD;
    Extent *all = NULL;
    Verdict verdict = GOOD;
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)header, name, entry) {
        if (!strcmp(name, "__metadata__")) continue;
        Extent e;
        Verdict one = read_extent(&e, entry);
        if (one != GOOD && verdict != BAD) verdict = one;
        arrput(all, e);
    }
    if (verdict == GOOD && !tiles(all, (int)arrlen(all), n_data)) verdict = BAD;
    arrfree(all);
    return verdict;
}

// -- what was loaded

static void check_place(const Weights *w, const Tensor *t, const uint8_t *in_file, uint64_t bytes) {
    bool copied = false;
    for (ptrdiff_t i = 0; i < arrlen(w->copies); i++) copied |= t->data == w->copies[i];
    REQUIRE(copied || t->data == in_file);
    REQUIRE(!memcmp(t->data, in_file, bytes));
    const uint8_t *b = t->data;
    sink = (uint8_t)(sink + b[0] + b[bytes - 1]);
}

static void check_lookups(Weights *w, const char *name, const Tensor *t) {
    char err[300];
    int64_t other[MAX_DIMS + 1] = {1, 1, 1, 1, 1};
    memcpy(other, t->shape, sizeof t->shape);
    REQUIRE(weights_get_shape(w, name, DTYPE_BIT(t->dtype), t->shape, t->n_dims, err, sizeof err) == t);
    REQUIRE(!weights_get_shape(w, name, ~DTYPE_BIT(t->dtype), t->shape, t->n_dims, err, sizeof err));
    require_line(err, "fuzz.safetensors");
    REQUIRE(!weights_get_shape(w, name, ~0u, other, t->n_dims + 1, err, sizeof err));
    require_line(err, "fuzz.safetensors");
    other[t->n_dims - 1]++;
    REQUIRE(!weights_floats(w, name, other, t->n_dims, err, sizeof err));
    require_line(err, "fuzz.safetensors");
    const float *v = weights_floats(w, name, t->shape, t->n_dims, err, sizeof err);
    REQUIRE(!v == (t->dtype >= DTYPE_INTEGER || t->dtype == DTYPE_U8));
    if (!v) return;
    REQUIRE((uintptr_t)v % sizeof *v == 0);
    uint8_t last[sizeof *v];
    memcpy(last, v + tensor_count(t) - 1, sizeof last);
    sink = (uint8_t)(sink + last[0]);
}

static void check_loaded(Weights *w, const json_t *header, const uint8_t *data) {
    const char *name;
    json_t *entry;
    size_t n = 0;
    json_object_foreach((json_t *)(uintptr_t)header, name, entry) {
        Extent e;
        if (!strcmp(name, "__metadata__") || read_extent(&e, entry) != GOOD || e.begin == e.end) continue;
        const Tensor *t = weights_find(w, name);
        REQUIRE(t && t->dtype == known[e.kind].dtype && t->n_dims == (e.n_dims ? e.n_dims : 1));
        for (int i = 0; i < t->n_dims; i++) REQUIRE(t->shape[i] == (e.n_dims ? e.dims[i] : 1));
        REQUIRE((uint64_t)tensor_count(t) * known[e.kind].bytes == e.end - e.begin);
        REQUIRE(t->dtype >= DTYPE_INTEGER || (uintptr_t)t->data % known[e.kind].bytes == 0);
        check_place(w, t, data + e.begin, e.end - e.begin);
        check_lookups(w, name, t);
        n++;
    }
    size_t n_found = 0; // those without values may be left out
    for (size_t i = 0; i < weights_count(w); i++) n_found += tensor_count(weights_at(w, i)) > 0;
    REQUIRE(n == n_found);
}

static int load_into(Weights *w, const uint8_t *bytes, size_t n) {
    static char path[] = "fuzz.safetensors";
    char err[256] = "";
    File file = {.path = path, .data = bytes, .size = n, .borrowed = true};
    int rc = load_safetensors_file(w, &file, err, sizeof err);
    REQUIRE(!file.data && !file.path && !file.size);
    if (!rc) return 0;
    REQUIRE(rc == -1 && !w->files && !w->table && !w->copies);
    require_line(err, "fuzz.safetensors");
    return rc;
}

static int load(const uint8_t *bytes, size_t n) {
    uint64_t n_header = 0;
    if (n >= 8) memcpy(&n_header, bytes, 8);
    bool whole = n >= 8 && n_header <= n - 8;
    const uint8_t *data = whole ? bytes + 8 + n_header : NULL;
    json_t *header = whole ? json_loadb((const char *)bytes + 8, n_header, JSON_REJECT_DUPLICATES, NULL) : NULL;
    Verdict verdict = whole ? judge(header, n - 8 - n_header) : BAD;
    Weights w = {0};
    int rc = load_into(&w, bytes, n);
    REQUIRE(verdict == EITHER || (rc == 0) == (verdict == GOOD));
    if (!rc) check_loaded(&w, header, data);
    if (!rc && n % 4 == 0) { // the same names again: nothing may be left of either
        bool any = weights_count(&w) > 0;
        REQUIRE(load_into(&w, bytes, n) == (any ? -1 : 0));
    }
    weights_free(&w);
    json_decref(header);
    return rc;
}

// -- settings

static void ask_settings(const char *text, size_t n) {
    char err[256] = "";
    Settings s;
    if (settings_parse(&s, "fuzz.safetensors", text, n, err, sizeof err)) {
        REQUIRE(!s.object);
        require_line(err, "fuzz.safetensors");
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach(s.object, key, value) {
        double three[3], number = settings_number(&s, key, -1, 1e6, 7);
        int least = settings_int(&s, key, 3, 1000, 0);
        REQUIRE((least >= 3 && least <= 1000) || s.failed);
        REQUIRE(number >= -1 && number <= 1e6);
        sink = (uint8_t)(sink + *settings_string(&s, key, NULL) + settings_bool(&s, key, false));
        settings_numbers(&s, key, 3, three);
        Settings inner = settings_object(&s, key);
        settings_int(&inner, "dtype", 0, 9, -1);
        if (s.failed || inner.failed) require_line(err, "fuzz.safetensors");
    }
    settings_free(&s);
}

// -- a header from the input

// What a patch puts in place of a number.
// clang-format off
static const char *const odd_numbers[] = {"-1", "0", "1", "2", "4", "8", "3.0", "\"1\"", "null", "[]", "4294967296",
    "2147483648", "65536", "4611686018427387904", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "1e3", "true", "1,1", "", "-0"};
// clang-format on
enum { N_ODD = sizeof odd_numbers / sizeof *odd_numbers };

typedef struct {
    char text[HEADER_MAX];
    size_t n;
    int numbers, patched; // how many were written; which one is odd
    const char *odd;
} Header;

static void put(Header *h, const char *text) {
    size_t n = strlen(text);
    if (h->n + n > HEADER_MAX) return;
    memcpy(h->text + h->n, text, n);
    h->n += n;
}

static void put_number(Header *h, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    put(h, h->numbers++ == h->patched ? h->odd : text);
}

typedef struct {
    unsigned name, kind, n_dims, dims[MAX_DIMS + 1];
    bool unknown; // its dtype
    uint64_t begin, bytes;
} Made;

static Made next_made(Input *in, unsigned name, unsigned most_dims, uint64_t begin) {
    static const uint8_t sizes[16] = {1, 2, 3, 4, 5, 7, 0, 1, 2, 8, 1, 3, 16, 2, 9, 6};
    Made m = {.name = name % N_NAMES, .kind = next(in, N_KNOWN - 1), .n_dims = next(in, most_dims), .begin = begin};
    m.bytes = known[m.kind].bytes;
    for (unsigned i = 0; i < m.n_dims; i++) {
        m.dims[i] = sizes[next(in, 15)];
        if (m.bytes * m.dims[i] > 512) m.dims[i] = 1;
        m.bytes *= m.dims[i];
    }
    return m;
}

static void put_made(Header *h, const Made *m) {
    static const char *const names[N_NAMES] = {"a", "b.weight", "c\\n\\u0007", "", "\\u00e9", "__META__", "f", "g"};
    put(h, h->n > 1 ? ",\"" : "\"");
    put(h, names[m->name]);
    put(h, "\":{\"dtype\":\"");
    put(h, known[m->kind].name);
    put(h, m->unknown ? "?\",\"shape\":[" : "\",\"shape\":[");
    for (unsigned i = 0; i < m->n_dims; i++) {
        put(h, i ? "," : "");
        put_number(h, m->dims[i]);
    }
    put(h, "],\"data_offsets\":[");
    put_number(h, m->begin);
    put(h, ",");
    put_number(h, m->begin + m->bytes);
    put(h, "]}");
}

// What is wrong with the file; below NUMBER: nothing.
typedef enum { NUMBER = 7, TWICE, DTYPE, DIMS, MOVED, GAP, BIT, MORE, LESS, LENGTH, N_PATCHES } Patch;

static void try_plausible(const uint8_t *data, size_t size) {
    Input in = {data, data + size};
    unsigned n_made = next(&in, N_TENSORS), patch = next(&in, N_PATCHES - 1), place = next(&in, 255);
    unsigned which = n_made ? place % n_made : 0, by = place / N_TENSORS, first = next(&in, N_NAMES - 1);
    Header h = {.patched = patch == NUMBER ? (int)place % 40 : -1, .odd = odd_numbers[next(&in, N_ODD - 1)]};
    unsigned form = next(&in, 15), turn = next(&in, 15);
    uint64_t at = 0, n_data = 0;
    Made made[N_TENSORS];
    for (unsigned i = 0; i < n_made; i++) {
        bool here = i == which;
        Made *m = &made[i];
        *m = next_made(&in, first + i - (here && patch == TWICE), MAX_DIMS + (here && patch == DIMS), at);
        m->unknown = here && patch == DTYPE;
        if (here && patch == GAP) m->begin = at += by % 9; // a hole before it
        at += m->bytes;
        if (here && patch == MOVED) m->begin += by % 17 - 8ull; // a hole here, an overlap there
        if (m->begin > DATA_MAX) m->begin = 0;
        if (m->begin + m->bytes > n_data) n_data = m->begin + m->bytes;
    }
    put(&h, form & 8 ? "{\"__metadata__\":{\"format\":\"pt\"}" : "{");
    for (unsigned i = 0; i < n_made; i++) put_made(&h, &made[(turn & 8 ? n_made - 1 - i : i + turn) % n_made]);
    put(&h, "}");
    for (unsigned i = 0; i < form % 8; i++) put(&h, " ");
    if (patch == BIT) h.text[place % h.n] ^= (char)(1 << first);
    uint64_t length = h.n + (patch == LENGTH ? place - 128ull : 0);
    size_t less = patch == LESS ? place % (n_data + 1) : 0,
           n = 8 + h.n + n_data + (patch == MORE ? place % 9 : 0) - less;
    uint8_t *bytes = calloc(1, n);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, h.text, h.n);
    for (size_t i = 8 + h.n; i < n; i++) bytes[i] = in.at < in.end ? *in.at++ : (uint8_t)i;
    int rc = load(bytes, n);
    REQUIRE(!rc || patch >= NUMBER); // by its making, whatever the rules above say of it
    free(bytes);
}

// The input as a header, n_data bytes behind it.
static void try_text(const uint8_t *text, size_t size, size_t n_data) {
    uint64_t length = size;
    uint8_t *bytes = calloc(1, 8 + size + n_data);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, text, size);
    ask_settings((const char *)bytes + 8, size);
    load(bytes, 8 + size + n_data);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > DATA_MAX) return 0;
    unsigned mode = data[0] & 7;
    if (mode > 2) {
        try_plausible(data + 1, size - 1);
    } else if (mode) {
        try_text(data + 2, size - 2, data[1]);
    } else {
        uint8_t *bytes = malloc(size - 1);
        memcpy(bytes, data + 1, size - 1);
        load(bytes, size - 1);
        free(bytes);
    }
    return 0;
}
