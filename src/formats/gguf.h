// gguf: the container GGUF v2 and v3: settings, and tensors in place.
//
// Owns the container's rules. Refuses what the file cannot hold before a pointer is made: counts, lengths, products and
// ends beyond it; names twice; tensors that do not follow one another, each aligned. Called by load_gguf (a model) and
// vocab_gguf (its vocabulary). Source: github.com/ggml-org/ggml, docs/gguf.md.
#pragma once
#include "weights.h"

enum { GGUF_MAX_NAME = 64 };

// The types of settings, by their numbers in the file.
typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    N_GGUF_TYPES
} GgufType;

typedef struct {
    GgufType type; // of an array: of its elements
    bool is_array;
    uint64_t count, at; // elements; byte offset of the first
} GgufValue;

// One tensor of the header.
typedef struct {
    char name[GGUF_MAX_NAME + 1];
    Tensor tensor;
    uint64_t at, offset, bytes; // where the offset is stored; its value; the bytes of the data
} GgufInfo;

typedef struct {
    char *key;
    GgufValue value;
} GgufPair;

// A header that was read. After the first failure (in.failed) every call returns zeros and err holds the message, so
// callers may check once at the end of a group.
typedef struct {
    File file; // someone else's
    Cursor in;
    uint32_t version;
    uint64_t alignment;
    GgufPair *pairs; // stb_ds string map
    GgufInfo *infos; // stb_ds array
} Gguf;

bool file_is_gguf(const File *file); // begins with its magic

// Read the header of an opened file, which must outlive it. -1 with a line in err; gguf_free in any case.
int gguf_read(Gguf *g, const File *file, char *err, size_t errlen);
void gguf_free(Gguf *g);

// ---- settings

static const double GGUF_NEEDED = -1e300; // as the value of what is absent: it must be there

#define GGUF_WHOLE_TYPES                                                                                               \
    (1u << GGUF_U8 | 1u << GGUF_I8 | 1u << GGUF_U16 | 1u << GGUF_I16 | 1u << GGUF_U32 | 1u << GGUF_I32 |               \
     1u << GGUF_U64 | 1u << GGUF_I64)

const char *gguf_type_name(GgufType type);
const GgufValue *gguf_get_value(Gguf *g, const char *key, bool needed); // NULL: absent
// A value of one of these types (bits), the cursor at it; NULL when it is absent, or after a failure.
const GgufValue *gguf_open(Gguf *g, const char *key, bool needed, bool is_array, unsigned mask, const char *wanted);
bool gguf_is_array(Gguf *g, const char *key); // present, and an array
// An array of exactly n integers in least..most, or of bools (least 0, most 1), into `values`.
void gguf_get_wholes(Gguf *g, const char *key, int least, int most, int n, int *values);
int64_t gguf_get_whole(Gguf *g, const char *key, int64_t least, int64_t most, double absent);
float gguf_get_float(Gguf *g, const char *key, double absent);
double gguf_get_number(Gguf *g, const char *key); // an integer or a real number, which must be there
bool gguf_get_bool(Gguf *g, const char *key, bool absent);
// n bytes, not terminated; NULL when it is absent.
const char *gguf_get_text(Gguf *g, const char *key, bool needed, uint64_t *n);
// The text must be `want`; what else it may be in other files, nothing here computes.
void gguf_need_text(Gguf *g, const char *key, const char *want, bool needed);

// ---- at the cursor

const char *gguf_read_string(Cursor *in, uint64_t *n, const char *what); // not terminated
int64_t gguf_read_whole(Cursor *in, GgufType type);                      // what fits no int64 becomes its largest
void gguf_skip(Cursor *in, const char *key, GgufType type, uint64_t count);
