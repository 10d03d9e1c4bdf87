// check_safetensors: the safetensors reader and the lookups by shape. Good files of every dtype and alignment, written
// here; shards; real files; every truncation. Malformed headers and indexes are in bad/safetensors.txt and
// bad/shard_index.txt.
//
// Every file is read twice: mapped, and from memory of exactly its size, where a sanitizer sees each byte too far.
// In the tables below JSON is written with ' for ".
#include "expect.h"
#include "files.h"
#include "load.h"

#include <stb/stb_ds.h>

#define ST in_folder("st.safetensors")

// -- writing

// Length, header, n_data bytes 0, 1, 2, ...: malloc'd, *n bytes.
static uint8_t *file_of(const char *header, size_t n_header, size_t n_data, size_t *n) {
    uint64_t length = n_header;
    uint8_t *file = malloc(*n = 8 + n_header + n_data);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) file[8 + n_header + i] = (uint8_t)i;
    return file;
}

// -- expecting failures

static void expect_refused(int rc, Weights *w, const char *err, const char *path, const char *want, const char *what) {
    expect_failed(rc, w, sizeof *w, err, path, want, what);
    weights_free(w); // harmless after a failure
}

// A path that must not load; the message begins with `at`.
static void expect_bad_path(const char *path, const char *at, const char *want, const char *what) {
    char err[512] = "";
    Weights w;
    memset(&w, 0xAA, sizeof w);
    int rc = load_safetensors(&w, path, err, sizeof err);
    expect_refused(rc, &w, err, at, want, what);
}

static int load_memory(Weights *w, const uint8_t *bytes, size_t n, uint8_t **exact, char *err, size_t errlen) {
    static char path[] = "memory.safetensors";
    *exact = malloc(n);
    if (n) memcpy(*exact, bytes, n);
    File file = {.path = path, .data = *exact, .size = n, .borrowed = true};
    int rc = load_safetensors_file(w, &file, err, errlen);
    CHECK(all_zero(&file, sizeof file), "the file was not taken over");
    return rc;
}

static void expect_bad_memory(const uint8_t *bytes, size_t n, const char *want, const char *what) {
    char err[512] = "";
    Weights w = {0};
    uint8_t *exact;
    int rc = load_memory(&w, bytes, n, &exact, err, sizeof err);
    expect_refused(rc, &w, err, "memory.safetensors", want, what);
    free(exact);
}

static void expect_bad(const uint8_t *bytes, size_t n, const char *want, const char *what) {
    write_bytes(ST, bytes, n);
    expect_bad_path(ST, ST, want, what);
    expect_bad_memory(bytes, n, want, what);
}

// -- good files

typedef struct {
    const char *name, *dtype;
    int n_dims;
    int64_t shape[MAX_DIMS];
} Spec;

// Every dtype; the single bytes move what follows off its alignment.
// clang-format off
static const Spec mixed[] = {
    {"first.weight", "F32", 2, {3, 5}}, {"half", "F16", 1, {13}}, {"scalar", "F32", 0, {0}},
    {"empty first", "I64", 1, {0}}, {"brain", "BF16", 3, {2, 3, 2}}, {"flag", "BOOL", 1, {1}},
    {"conv.weight", "F32", 4, {2, 3, 2, 2}}, {"", "F16", 4, {3, 1, 2, 2}}, {"empty", "F32", 1, {0}},
    {"empty.too", "BF16", 3, {4, 0, 2}}, {"ids", "I64", 2, {2, 3}}, {"byte", "U8", 0, {0}},
    {"scalar.half", "F16", 0, {0}}, {"scalar.brain", "BF16", 0, {0}}, {"f64", "F64", 1, {2}}, {"i32", "I32", 1, {3}},
    {"i16", "I16", 1, {3}}, {"i8", "I8", 1, {5}}, {"u64", "U64", 1, {1}}, {"u32", "U32", 1, {1}},
    {"u16", "U16", 1, {1}}, {"e4m3", "F8_E4M3", 2, {1, 3}}, {"e5m2", "F8_E5M2", 1, {3}}, {"last", "BF16", 2, {1, 7}},
    {"very last", "F32", 1, {2}}, {"empty last", "F16", 2, {0, 3}},
};
// clang-format on

enum { N_MIXED = N_OF(mixed) };
_Static_assert(N_MIXED % 5, "good_of steps through it by 5");

static size_t value_bytes(const char *dtype) {
    if (strstr(dtype, "64")) return 8;
    if (strstr(dtype, "32")) return 4;
    return strstr(dtype, "16") ? 2 : 1; // I8, U8, BOOL, F8
}

static int64_t spec_count(const Spec *s) {
    int64_t n = 1;
    for (int i = 0; i < s->n_dims; i++) n *= s->shape[i];
    return n;
}

typedef struct {
    uint16_t bits;
    float value;
} Half;

static const Half f16_values[] = {
    {0x3c00, 1},           {0xc000, -2},        {0x0000, 0},     {0x8000, -0.0f},  {0x0001, 0x1p-24f},
    {0x83ff, -0x3ffp-24f}, {0x0400, 0x1p-14f},  {0x7bff, 65504}, {0xfbff, -65504}, {0x3555, 0.333251953125f},
    {0x7c00, INFINITY},    {0xfc00, -INFINITY}, {0x7e00, NAN},
};
static const Half bf16_values[] = {
    {0x3f80, 1},           {0xc000, -2},        {0x0000, 0},           {0x8000, -0.0f},        {0x0001, 0x1p-133f},
    {0x807f, -0x7fp-133f}, {0x0080, 0x1p-126f}, {0x7f7f, 0x1.fep127f}, {0xff7f, -0x1.fep127f}, {0x3eab, 0x1.56p-2f},
    {0x7f80, INFINITY},    {0xff80, -INFINITY}, {0x7fc0, NAN},
};

static const Half *half_of(const char *dtype, int64_t i) {
    return strcmp(dtype, "F16") == 0 ? &f16_values[i % N_OF(f16_values)] : &bf16_values[i % N_OF(bf16_values)];
}

static bool is_half(const char *dtype) {
    return !strcmp(dtype, "F16") || !strcmp(dtype, "BF16");
}

static float f32_value(int tensor, int64_t i) {
    return (float)(tensor * 1000 + (int)i) / 7 - 500;
}

// Value i of tensor number t, as it lies in the file.
static void put_value(uint8_t *out, int t, int64_t i) {
    const char *dtype = mixed[t].dtype;
    size_t n = value_bytes(dtype);
    float f = f32_value(t, i);
    if (!strcmp(dtype, "F32")) memcpy(out, &f, sizeof f);
    else if (is_half(dtype)) memcpy(out, &half_of(dtype, i)->bits, sizeof(uint16_t));
    else
        for (size_t k = 0; k < n; k++) out[k] = (uint8_t)(t * 31 + (int)i * 7 + (int)k);
}

typedef struct {
    uint8_t *bytes; // malloc'd
    size_t n, data_at;
    size_t begin[N_MIXED]; // of each tensor's data, from the start of the file
} Good;

// The mixed tensors, their data beginning at `phase` beyond a multiple of 8; the header names them in one of 3 orders.
static Good good_of(int phase, int order) {
    char header[8192];
    size_t end = 0, n = 0, at[N_MIXED + 1] = {0};
    for (int t = 0; t < N_MIXED; t++) {
        at[t + 1] = at[t] + (size_t)spec_count(&mixed[t]) * value_bytes(mixed[t].dtype);
    }
    end = at[N_MIXED];
    header[n++] = '{';
    for (int i = 0; i < N_MIXED; i++) {
        int t = order == 0 ? i : order == 1 ? N_MIXED - 1 - i : (i * 5 + 3) % N_MIXED;
        const Spec *s = &mixed[t];
        if (i == order * 7) n += (size_t)sprintf(header + n, "\"__metadata__\": {\"format\": \"pt\"},\n");
        n += (size_t)sprintf(header + n, "\"%s\":{\"dtype\":\"%s\",\"shape\":[", s->name, s->dtype);
        for (int d = 0; d < s->n_dims; d++) n += (size_t)sprintf(header + n, "%s%d", d ? "," : "", (int)s->shape[d]);
        n += (size_t)sprintf(header + n, "],\"data_offsets\":[%zu,%zu]}%s", at[t], at[t + 1],
                             i + 1 < N_MIXED ? "," : "}");
    }
    while ((8 + n) % 8 != (size_t)phase) header[n++] = ' ';
    Good g = {.data_at = 8 + n};
    g.bytes = file_of(header, n, end, &g.n);
    for (int t = 0; t < N_MIXED; t++) {
        g.begin[t] = g.data_at + at[t];
        for (int64_t i = 0; i < spec_count(&mixed[t]); i++) {
            put_value(g.bytes + g.begin[t] + (size_t)i * value_bytes(mixed[t].dtype), t, i);
        }
    }
    return g;
}

static bool same_float(float a, float b) {
    return isnan(b) ? isnan(a) : !memcmp(&a, &b, sizeof a);
}

// weights_floats of a tensor: the values, where they should lie.
static void check_floats(Weights *w, const Spec *s, int t, const Tensor *tensor) {
    char err[256] = "";
    size_t n_copies = arrlenu(w->copies);
    const float *v = weights_floats(w, s->name, tensor->shape, tensor->n_dims, err, sizeof err);
    NEED(v, "%s", err);
    bool in_place = !is_half(s->dtype);
    CHECK(in_place ? v == tensor->data : v != tensor->data, "'%s': in the wrong place", s->name);
    CHECK(arrlenu(w->copies) == n_copies + !in_place, "'%s': %d copies", s->name, (int)arrlen(w->copies));
    for (int64_t i = 0; i < spec_count(s); i++) {
        float want = in_place ? f32_value(t, i) : half_of(s->dtype, i)->value;
        CHECK(same_float(v[i], want), "'%s'[%d] = %.9g, expected %.9g", s->name, (int)i, (double)v[i], (double)want);
    }
}

static void check_good_tensor(Weights *w, const Good *g, int t, int *n_copies) {
    const Spec *s = &mixed[t];
    const Tensor *found = weights_find(w, s->name);
    size_t bytes = value_bytes(s->dtype), n = (size_t)spec_count(s);
    if (!n) return;
    NEED(found, "'%s' is missing", s->name);
    bool f32 = !strcmp(s->dtype, "F32"), is_float = f32 || is_half(s->dtype);
    DType dtype = f32                                                         ? DTYPE_F32
                  : !strcmp(s->dtype, "F16")                                  ? DTYPE_F16
                  : is_float                                                  ? DTYPE_BF16
                  : !strcmp(s->dtype, "U8")                                   ? DTYPE_U8
                  : strchr("IUB", *s->dtype) && strcmp(s->dtype, "BF16") != 0 ? DTYPE_INTEGER
                                                                              : DTYPE_OTHER;
    CHECK(found->dtype == dtype, "'%s': dtype %d, expected %d", s->name, (int)found->dtype, (int)dtype);
    CHECK(found->n_dims == (s->n_dims ? s->n_dims : 1), "'%s': %d dims", s->name, found->n_dims);
    for (int d = 0; d < found->n_dims; d++) {
        CHECK(found->shape[d] == (s->n_dims ? s->shape[d] : 1), "'%s': shape[%d]", s->name, d);
    }
    CHECK(tensor_count(found) == (int64_t)n, "'%s': %lld values", s->name, (long long)tensor_count(found));
    if (is_float) CHECK(tensor_bytes(found) == n * bytes, "'%s': %d bytes", s->name, (int)tensor_bytes(found));
    const uint8_t *in_file = w->files[0].data + g->begin[t];
    bool copied = is_float && g->begin[t] % bytes != 0;
    *n_copies += copied;
    CHECK(copied ? found->data != in_file : found->data == in_file, "'%s': in the wrong place", s->name);
    CHECK(!is_float || (uintptr_t)found->data % bytes == 0, "'%s': not aligned", s->name);
    CHECK(!memcmp(found->data, g->bytes + g->begin[t], n * bytes), "'%s': wrong values", s->name);
}

static void check_good(Weights *w, const Good *g) {
    int n_copies = 0, n_tensors = 0;
    for (int t = 0; t < N_MIXED; t++) {
        check_good_tensor(w, g, t, &n_copies);
        n_tensors += spec_count(&mixed[t]) > 0;
    }
    CHECK(arrlen(w->copies) == n_copies && n_copies > 0, "%d copies, expected %d", (int)arrlen(w->copies), n_copies);
    int n_found = 0; // those without values may be left out
    for (size_t i = 0; i < weights_count(w); i++) n_found += tensor_count(weights_at(w, i)) > 0;
    CHECK(n_found == n_tensors, "%d tensors, expected %d", n_found, n_tensors);
    for (int t = 0; t < N_MIXED; t++) {
        const Tensor *found = weights_find(w, mixed[t].name);
        if (found && found->dtype < DTYPE_U8 && tensor_count(found) > 0) check_floats(w, &mixed[t], t, found);
    }
}

static void test_good_files(void) {
    for (int i = 0; i < 24; i++) {
        Good g = good_of(i % 8, i / 8);
        char err[512] = "";
        Weights w;
        uint8_t *exact;
        write_bytes(ST, g.bytes, g.n);
        int rc = load_safetensors(&w, ST, err, sizeof err);
        CHECK(!rc, "phase %d: %s", i % 8, err);
        if (!rc) check_good(&w, &g);
        weights_free(&w);
        memset(&w, 0, sizeof w);
        rc = load_memory(&w, g.bytes, g.n, &exact, err, sizeof err);
        CHECK(!rc, "phase %d: %s", i % 8, err);
        if (!rc) check_good(&w, &g);
        weights_free(&w);
        CHECK(all_zero(&w, sizeof w), "weights_free left something");
        free(exact);
        free(g.bytes);
    }
}

#define ENTRY(name, dtype, shape, offsets) "'" name "':{'dtype':" dtype ",'shape':" shape ",'data_offsets':" offsets "}"
#define ONE(dtype, shape, offsets) "{" ENTRY("t", dtype, shape, offsets) "}"
#define BYTES(name, begin, end, n) ENTRY(name, "'U8'", "[" #n "]", "[" #begin "," #end "]")

// Forms of a header that are allowed, each with one tensor `name` of n_data bytes (NULL: none).
static const struct {
    const char *header, *name;
    int n_data;
} good_headers[] = {
    {"{}", NULL, 0},
    {"{}      ", NULL, 0},
    {"{'__metadata__':{}}", NULL, 0},
    {"{'__metadata__':{'a':'b','c':'d'}}", NULL, 0},
    {"{" BYTES("e", 0, 0, 0) "}", NULL, 0},
    {"{" BYTES("e", 0, 0, 0) "," BYTES("f", 0, 0, 0) "}", NULL, 0},
    {"{" BYTES("e", 3, 3, 0) "," BYTES("t", 0, 3, 3) "," BYTES("f", 0, 0, 0) "}", "t", 3},
    {"{ \t'x' : {'shape' : [ 2 ,1 ] , 'data_offsets':[0 , 2],\r\n 'dtype':'U8' } }\n", "x", 2},
    {"{'x':{'shape':[],'dtype':'F32','data_offsets':[0,4]}}", "x", 4},
    {"{" BYTES("", 0, 1, 1) "}", "", 1},
    {"{" BYTES("a\\u0001\\nb", 0, 1, 1) "}", "a\001\nb", 1},
    {"{" BYTES("\\u00e9\\ud83d\\ude00", 0, 1, 1) "}", "\xc3\xa9\xf0\x9f\x98\x80", 1},
    {"{" BYTES("__metadata", 0, 1, 1) "}", "__metadata", 1},
};

static void test_good_headers(void) {
    for (int i = 0; i < N_OF(good_headers); i++) {
        char *header = json_of(good_headers[i].header), err[512] = "";
        const char *name = good_headers[i].name;
        size_t n;
        uint8_t *bytes = file_of(header, strlen(header), (size_t)good_headers[i].n_data, &n), *exact;
        Weights w = {0};
        int rc = load_memory(&w, bytes, n, &exact, err, sizeof err);
        CHECK(!rc, "%s: %s", good_headers[i].header, err);
        const Tensor *t = name ? weights_find(&w, name) : NULL;
        CHECK(rc || !name ||
                  (t && !memcmp(t->data, bytes + n - good_headers[i].n_data, (size_t)good_headers[i].n_data)),
              "%s: '%s' is missing or wrong", good_headers[i].header, name);
        weights_free(&w);
        free(bytes);
        free(exact);
        free(header);
    }
}

// Many tensors, and a name longer than any message.
static void test_many_tensors(void) {
    enum { N = 3000, ROOM = 100 * N + 10000 };
    char *header = calloc(1, ROOM), *name = calloc(1, 6000), err[512] = "";
    memset(name, 'x', 5999);
    size_t n = 0, size;
    n += (size_t)sprintf(header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}", name);
    for (int i = 0; i < N; i++) { // in an order of their own, from byte 1
        int k = (i * 7 + 5) % N;
        n +=
            (size_t)sprintf(header + n, ",\"blk.%d.weight\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                            k, 1 + 2 * k, 3 + 2 * k);
    }
    header[n++] = '}';
    uint8_t *bytes = file_of(header, n, 2 * N + 1, &size), *exact;
    Weights w = {0};
    CHECK(!load_memory(&w, bytes, size, &exact, err, sizeof err), "%s", err);
    CHECK(weights_count(&w) == N + 1 && weights_find(&w, name), "%d tensors", (int)weights_count(&w));
    for (int i = 0; i < N; i++) {
        char key[40];
        sprintf(key, "blk.%d.weight", i);
        const Tensor *t = weights_find(&w, key);
        CHECK(t && t->data == exact + 8 + n + 1 + 2 * i, "%s", key);
    }
    const int64_t one[] = {2};
    CHECK(!weights_get_shape(&w, name, ~0u, one, 1, err, sizeof err), "shape [2]");
    CHECK(printable_line(err) && !strncmp(err, "memory.safetensors: tensor xxx", 30), "'%s'", err);
    weights_free(&w);
    expect_bad(bytes, size - 1, "the file is too short", "many tensors");
    free(bytes);
    free(exact);

    free(header);
    free(name);
}

// Two files into one table; the second may not repeat the first, and then nothing is left of either.
static void test_joined_files(void) {
    char *a = json_of("{" BYTES("a", 0, 2, 2) "}"), *b = json_of("{" ENTRY("b", "'F32'", "[1]", "[1,5]") "," //
                                                                 BYTES("c", 0, 1, 1) "}");
    size_t n_a, n_b;
    uint8_t *file_a = file_of(a, strlen(a), 2, &n_a), *file_b = file_of(b, strlen(b), 5, &n_b), *exact[3];
    char err[512] = "";
    Weights w = {0};
    CHECK(!load_memory(&w, file_a, n_a, &exact[0], err, sizeof err), "%s", err);
    CHECK(!load_memory(&w, file_b, n_b, &exact[1], err, sizeof err), "%s", err);
    CHECK(weights_count(&w) == 3 && weights_find(&w, "a") && weights_find(&w, "b") && weights_find(&w, "c"), "%d",
          (int)weights_count(&w));
    int rc = load_memory(&w, file_a, n_a, &exact[2], err, sizeof err);
    expect_refused(rc, &w, err, "memory.safetensors", "tensor a: expected once, found twice", "the same file again");
    for (int i = 0; i < 3; i++) free(exact[i]);
    free(file_a);
    free(file_b);
    free(a);
    free(b);
}

// -- every truncation

static void test_truncated_files(void) {
    for (int phase = 0; phase < 8; phase += 3) {
        Good g = good_of(phase, phase % 3);
        write_bytes(ST, g.bytes, g.n);
        for (size_t n = g.n - 1; n > 0; n--) {
            char what[64];
            snprintf(what, sizeof what, "cut to %zu of %zu", n, g.n);
            CHECK(!truncate(ST, (off_t)n), "%s", what);
            expect_bad_path(ST, ST, "expected", what);
            expect_bad_memory(g.bytes, n, "expected", what);
        }
        CHECK(!truncate(ST, 0), "truncate");
        expect_bad_path(ST, ST, "the file is empty", "an empty file");
        expect_bad_memory(g.bytes, 0, "header length: expected", "an empty file");
        free(g.bytes);
    }
}

// -- hostile files

// A header as long as may be, and longer, with as many bytes, which no disk holds.
static void test_longest_headers(void) {
    for (uint64_t length = 100000000; length <= 100000001; length++) {
        write_bytes(ST, &length, 8);
        CHECK(!truncate(ST, (off_t)length + 8), "truncate");
        expect_bad_path(ST, ST, length > 100000000 ? "expected at most 100000000" : "not JSON", "zeros to the cap");
    }
    unlink(ST);
}

// One byte of a good file changed: whatever comes of it is clean.
static void test_changed_bytes(void) {
    Good g = good_of(4, 2);
    int n_bad = 0;
    for (size_t at = 0; at < g.data_at; at++) {
        char err[512] = "";
        Weights w = {0};
        uint8_t old = g.bytes[at], *exact;
        g.bytes[at] = (uint8_t)(at % 2 ? old ^ 1u << test_u32() % 8 : test_u32());
        if (load_memory(&w, g.bytes, g.n, &exact, err, sizeof err)) {
            n_bad++;
            expect_line(err, "memory.safetensors", "", "a changed byte");
            CHECK(all_zero(&w, sizeof w), "byte %d: not left empty", (int)at);
        }
        for (size_t i = 0; i < weights_count(&w); i++) {
            const Tensor *t = weights_at(&w, i);
            CHECK(t->n_dims >= 1 && t->n_dims <= MAX_DIMS && tensor_count(t) <= (int64_t)g.n, "byte %d", (int)at);
        }
        weights_free(&w);
        free(exact);
        g.bytes[at] = old;
    }
    CHECK(n_bad > (int)g.data_at / 4, "%d of %d failed", n_bad, (int)g.data_at);
    free(g.bytes);
}

// -- folders

// A file with tensors of one byte; names end at NULL. The bytes count from `first`.
static void write_shard(const char *file, const char *const *names, int first) {
    char header[1000] = "{";
    int n = 0;
    size_t size;
    for (; names[n]; n++) {
        sprintf(header + strlen(header), "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                n ? "," : "", names[n], n, n + 1);
    }
    strcat(header, "}");
    uint8_t *bytes = file_of(header, strlen(header), (size_t)n, &size);
    for (int i = 0; i < n; i++) bytes[size - (size_t)n + (size_t)i] = (uint8_t)(first + i);
    write_file(file, bytes, size);
    free(bytes);
}

#define INDEX "model.safetensors.index.json"

// The good folder: a and b in one shard, c in another, d in a third.
static void make_shards(void) {
    folder_empty();
    write_shard("1.safetensors", (const char *const[]){"a", "b", NULL}, 10);
    write_shard("2.safetensors", (const char *const[]){"c", NULL}, 20);
    write_shard("three", (const char *const[]){"d", NULL}, 30);
}

// Loads, and holds exactly these tensors with these bytes.
static void expect_tensors(const char *path, const char *names, const uint8_t *values, const char *what) {
    char err[512] = "";
    Weights w;
    NEED(!load_safetensors(&w, path, err, sizeof err), "%s: %s", what, err);
    CHECK(weights_count(&w) == strlen(names), "%s: %d tensors, expected %s", what, (int)weights_count(&w), names);
    for (int i = 0; names[i]; i++) {
        const Tensor *t = weights_find(&w, (char[]){names[i], 0});
        CHECK(t && *(const uint8_t *)t->data == values[i], "%s: %c is missing or wrong", what, names[i]);
    }
    weights_free(&w);
}

static void test_shards(void) {
    static const char *const good[] = {
        "{'weight_map':{'a':'1.safetensors','b':'1.safetensors','c':'2.safetensors','d':'three'}}",
        "{'metadata':{'total_size':4},'weight_map':{'d':'three','b':'1.safetensors','c':'2.safetensors',"
        "'a':'1.safetensors'}}",
    };
    make_shards();
    for (int i = 0; i < N_OF(good); i++) {
        write_json(INDEX, good[i]);
        expect_tensors(folder, "abcd", (const uint8_t[]){10, 11, 20, 30}, "shards");
    }
    expect_tensors(in_folder(""), "abcd", (const uint8_t[]){10, 11, 20, 30}, "a slash behind the folder");
    expect_tensors(in_folder("2.safetensors"), "c", (const uint8_t[]){20}, "one shard by its name");
    expect_tensors(in_folder("three"), "d", (const uint8_t[]){30}, "a name of another kind");
    write_shard("model.safetensors", (const char *const[]){"z", NULL}, 99);
    expect_tensors(folder, "z", (const uint8_t[]){99}, "model.safetensors comes first");
    write_file("model.safetensors", "?", 1);
    expect_bad_path(folder, in_folder("model.safetensors"), "header length: expected 4 bytes",
                    "a bad model.safetensors");
}

// Of a shard, the tensors that the index names, each from the file that it names; the last of a repeated key.
static void test_shards_that_differ(void) {
    static const struct {
        const char *index, *names;
        uint8_t values[4];
    } cases[] = {
        {"{'weight_map':{'a':'1.safetensors','c':'2.safetensors'}}", "ac", {10, 20}},
        {"{'weight_map':{'a':'1.safetensors','b':'1.safetensors','x':'2.safetensors','y\\n':'three'}}", "ab", {10, 11}},
        {"{'weight_map':{'a':'1.safetensors','e':'again'}}", "ae", {10, 41}},
        {"{'weight_map':{'a':'again','b':'1.safetensors'}}", "ab", {40, 11}},
        {"{'weight_map':{'a':'three'},'weight_map':{'d':'three'}}", "d", {30}},
        {"{'weight_map':{'d':'1.safetensors','d':'three'}}", "d", {30}},
        {"{'metadata':{'total_size':1e999},'weight_map':{'d':'three'}}", "d", {30}},
    };
    make_shards();
    write_shard("again", (const char *const[]){"a", "e", NULL}, 40);
    for (int i = 0; i < N_OF(cases); i++) {
        write_json(INDEX, cases[i].index);
        expect_tensors(folder, cases[i].names, cases[i].values, cases[i].index);
    }
}

// An empty tensor that the index names.
static void test_index_of_nothing(void) {
    make_shards();
    char *header = json_of("{" ENTRY("n", "'F32'", "[0]", "[0,0]") "," BYTES("x", 0, 1, 1) "}");
    size_t n;
    uint8_t *bytes = file_of(header, strlen(header), 1, &n);
    bytes[n - 1] = 50;
    write_file("2.safetensors", bytes, n);
    write_json(INDEX, "{'weight_map':{'n':'2.safetensors','x':'2.safetensors'}}");
    char err[512] = "";
    Weights w;
    CHECK(!load_safetensors(&w, folder, err, sizeof err), "an empty tensor that the index names: %s", err);
    CHECK(weights_find(&w, "x"), "x");
    weights_free(&w);
    free(bytes);
    free(header);
}

static void test_folders(void) {
    folder_empty();
    expect_bad_path(folder, folder, "expected model.safetensors", "an empty folder");
    write_shard("other.safetensors", (const char *const[]){"o", NULL}, 1);
    expect_tensors(folder, "o", (const uint8_t[]){1}, "the only .safetensors");
    write_shard("another.safetensors", (const char *const[]){"p", NULL}, 2);
    expect_bad_path(folder, folder, "expected model.safetensors", "two .safetensors of other names");
    CHECK(!mkdir(in_folder("model.safetensors"), 0777), "mkdir");
    expect_bad_path(folder, in_folder("model.safetensors"), "found a directory", "a folder called model.safetensors");
    folder_remove();
    expect_bad_path(folder, folder, "No such file or directory", "no folder");
    folder_make();
    write_text("st.safetensors", "");
    const char *below = in_folder("st.safetensors/x");
    expect_bad_path(below, below, "Not a directory", "a file as folder");
    expect_bad_path("", "", "", "no name");
}

// -- lookups

// An empty tensor may have dimensions whose product without the 0 fits nothing.
static void test_huge_and_empty(void) {
    char *header = json_of("{" ENTRY("n", "'I8'", "[4611686018427387904,2,0]", "[0,0]") "}"), err[512] = "";
    size_t n;
    uint8_t *bytes = file_of(header, strlen(header), 0, &n);
    Weights w;
    write_bytes(ST, bytes, n);
    bool loaded = !load_safetensors(&w, ST, err, sizeof err);
    const Tensor *t = loaded ? weights_find(&w, "n") : NULL;
    CHECK(t && tensor_count(t) == 0 && tensor_bytes(t) == 0, "%s", err);
    if (loaded) weights_free(&w);
    free(bytes);
    free(header);
}

static void test_lookup(void) {
    Good g = good_of(0, 0);
    write_bytes(ST, g.bytes, g.n);
    Weights w;
    char err[512] = "";
    CHECK(!load_safetensors(&w, ST, err, sizeof err), "%s", err);
    static const struct {
        const char *name, *want; // NULL: found
        unsigned mask;
        int n_dims;
        int64_t shape[5];
    } cases[] = {
        {"conv.weight", NULL, DTYPE_FLOATS, 4, {2, 3, 2, 2}},
        {"conv.half", "tensor conv.half: expected, not found", DTYPE_FLOATS, 4, {3, 1, 2, 2}},
        {"", NULL, DTYPE_BIT(DTYPE_F16), 4, {3, 1, 2, 2}},
        {"scalar", NULL, DTYPE_BIT(DTYPE_F32), 1, {1}},
        {"half", NULL, DTYPE_FLOATS, 1, {13}},
        {"ids", NULL, DTYPE_BIT(DTYPE_INTEGER), 2, {2, 3}},
        {"conv.weight", "expected shape [2, 3, 2, 3], found [2, 3, 2, 2]", DTYPE_FLOATS, 4, {2, 3, 2, 3}},
        {"conv.weight", "expected shape [2, 3, 4], found [2, 3, 2, 2]", DTYPE_FLOATS, 3, {2, 3, 4}},
        {"conv.weight", "expected shape [2, 3, 2], found [2, 3, 2, 2]", DTYPE_FLOATS, 3, {2, 3, 2}},
        {"conv.weight", "expected shape [24], found [2, 3, 2, 2]", DTYPE_FLOATS, 1, {24}},
        {"conv.weight", "expected shape [2, 3, 2, 2, 1], found [2, 3, 2, 2]", DTYPE_FLOATS, 5, {2, 3, 2, 2, 1}},
        {"scalar", "found [1]", DTYPE_FLOATS, 2, {1, 1}},
        {"half", "expected shape [13, 1], found [13]", DTYPE_FLOATS, 2, {13, 1}},
        {"half", "expected shape [-13], found [13]", DTYPE_FLOATS, 1, {-13}},
        {"half", "expected shape [9223372036854775807], found [13]", DTYPE_FLOATS, 1, {INT64_MAX}},
        {"half", "dtype F16 cannot be used here", DTYPE_BIT(DTYPE_F32) | DTYPE_BIT(DTYPE_BF16), 1, {13}},
        {"brain", "dtype BF16 cannot be used here", DTYPE_BIT(DTYPE_F16), 3, {2, 3, 2}},
        {"scalar", "dtype F32 cannot be used here", DTYPE_BIT(DTYPE_I8G), 1, {1}},
        {"ids", "tensor ids: dtype", DTYPE_ANY, 2, {2, 3}},
        {"ids", "tensor ids: dtype", DTYPE_FLOATS, 2, {2, 3}},
        {"empty", "tensor empty: expected shape [1], found [0]", DTYPE_FLOATS, 1, {1}},
        {"first", "tensor first: expected, not found", DTYPE_FLOATS, 2, {3, 5}},
        {"a\nb", "tensor a?b: expected, not found", DTYPE_FLOATS, 2, {3, 5}},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        const Tensor *t =
            weights_get_shape(&w, cases[i].name, cases[i].mask, cases[i].shape, cases[i].n_dims, err, sizeof err);
        CHECK(!t == !!cases[i].want, "%s: %s", cases[i].name, t ? "found" : err);
        CHECK(!t || t == weights_find(&w, cases[i].name), "%s", cases[i].name);
        if (!t && cases[i].want) expect_line(err, ST, cases[i].want, cases[i].name);
        size_t n_copies = arrlenu(w.copies);
        if (!cases[i].want || cases[i].mask != DTYPE_FLOATS) continue;
        CHECK(!weights_floats(&w, cases[i].name, cases[i].shape, cases[i].n_dims, err, sizeof err), "%s",
              cases[i].name);
        expect_line(err, ST, cases[i].want, "weights_floats");
        CHECK(arrlenu(w.copies) == n_copies, "%s: a copy for nothing", cases[i].name);
    }
    CHECK(weights_get(&w, "first.weight", DTYPE_FLOATS, 3, 5, err, sizeof err), "%s", err);
    CHECK(weights_get(&w, "half", DTYPE_FLOATS, 13, 0, err, sizeof err), "%s", err);
    CHECK(!weights_get(&w, "brain", DTYPE_FLOATS, 6, 2, NULL, 0), "NULL");
    CHECK(!weights_floats(&w, "none", (int64_t[]){1}, 1, NULL, 0), "NULL");
    weights_free(&w);
    CHECK(!weights_get_shape(&w, "half", DTYPE_FLOATS, (int64_t[]){13}, 1, err, sizeof err) && printable_line(err),
          "'%s'", err);
    CHECK(!weights_count(&w) && !weights_find(&w, "half"), "found in an empty table");
    free(g.bytes);
}

// -- real files

typedef struct {
    const char *name;
    int64_t rows, cols;
    double first, last, sum; // by another reader
} Known;

static void check_known(Weights *w, const Known *k) {
    char err[512] = "";
    const float *v = weights_floats(w, k->name, (int64_t[]){k->rows, k->cols}, k->cols ? 2 : 1, err, sizeof err);
    NEED(v, "%s", err);
    int64_t n = k->rows * (k->cols ? k->cols : 1);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)v[i];
    CHECK(fabs((double)v[0] - k->first) < 1e-8 && fabs((double)v[n - 1] - k->last) < 1e-8 && fabs(sum - k->sum) < 1e-6,
          "%s: %.9g ... %.9g, sum %.12g", k->name, (double)v[0], (double)v[n - 1], sum);
}

static void check_real(const char *path, const char *config_key, const char *config_text, int n_tensors, int n_values,
                       const Known *known, int n_known) {
    char err[512] = "";
    Weights w;
    Settings config;
    CHECK(!load_config(&config, path, err, sizeof err), "%s", err);
    CHECK(!strcmp(settings_string(&config, config_key, ""), config_text), "%s: %s", config_key, err);
    settings_free(&config);
    NEED(!load_safetensors(&w, path, err, sizeof err), "%s", err);
    int64_t n = 0;
    for (size_t i = 0; i < weights_count(&w); i++) n += tensor_count(weights_at(&w, i));
    CHECK((int)weights_count(&w) == n_tensors && n == n_values && !w.copies, "%d tensors, %d values",
          (int)weights_count(&w), (int)n);
    for (int i = 0; i < n_known; i++) check_known(&w, &known[i]);
    weights_free(&w);
}

#define BART SHARED_DATA "g2p-bart-us/us_bart.safetensors"
#define STORIES SHARED_DATA "tinystories-656k-hf"

static void test_real_bart(void) {
    static const Known known[] = {
        {"model.shared.weight", 63, 128, 0.150926784, -0.0988545045, -46.4040772005},
        {"final_logits_bias", 1, 63, 0, 0, 0},
        {"model.decoder.layers.0.fc2.weight", 128, 1024, 0.0339385159, -0.13750422, 214.347164798},
    };
    SKIP_WITHOUT(BART);
    check_real(BART, "model_type", "bart", 50, 751551, known, N_OF(known));
    check_real(SHARED_DATA "g2p-bart-us", "activation_function", "gelu", 50, 751551, known, N_OF(known));
}

static void test_real_stories(void) {
    static const Known known[] = {
        {"model.embed_tokens.weight", 2048, 128, -0.68359375, -0.421875, 2512.83446681},
        {"model.norm.weight", 128, 0, 0.640625, 0.8359375, 83.9956054688},
        {"model.layers.1.mlp.down_proj.weight", 128, 384, -0.17578125, -0.137695312, -41.5252017975},
    };
    SKIP_WITHOUT(STORIES "/model.safetensors");
    check_real(STORIES, "hidden_act", "silu", 20, 656000, known, N_OF(known));
    check_real(STORIES "/model.safetensors", "torch_dtype", "bfloat16", 20, 656000, known, N_OF(known));
    expect_bad_path(STORIES "/tokenizer.json", STORIES "/tokenizer.json", "not a safetensors file", "a tokenizer");
}

int main(void) {
    folder_make();
    RUN(test_good_files);
    RUN(test_good_headers);
    RUN(test_many_tensors);
    RUN(test_joined_files);
    RUN(test_truncated_files);
    RUN(test_longest_headers);
    RUN(test_changed_bytes);
    RUN(test_shards);
    RUN(test_shards_that_differ);
    RUN(test_index_of_nothing);
    RUN(test_folders);
    RUN(test_huge_and_empty);
    RUN(test_lookup);
    RUN(test_real_bart);
    RUN(test_real_stories);
    folder_remove();
    return test_report();
}
