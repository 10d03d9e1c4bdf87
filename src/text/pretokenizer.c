// pretokenizer: the steps, each on the spans of the one before. See pretokenizer.h.
#include "pretokenizer.h"

#include "file.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

enum { MAX_STEPS = 64, METASPACE_BYTES = sizeof METASPACE - 1 };

typedef enum { STEP_SPLIT, STEP_PREFIX, STEP_BYTES } StepKind;

typedef struct {
    StepKind kind;
    Pattern *pattern;
    SplitBehavior behavior;
    bool invert, metaspace;
    PrefixScheme scheme;
} PretokenizerStep;

struct Pretokenizer {
    PretokenizerStep *steps; // stb_ds array
};

// ---- building

static int step_add(Pretokenizer **p, PretokenizerStep step, char *err, size_t errlen) {
    if (!*p) *p = calloc(1, sizeof **p);
    if (!*p || arrlen((*p)->steps) == MAX_STEPS) {
        pattern_close(step.pattern);
        if (*p) return fail(err, errlen, "pre-tokenizer: expected at most %d steps", MAX_STEPS);
        return fail(err, errlen, "pre-tokenizer: out of memory");
    }
    arrput((*p)->steps, step);
    return 0;
}

int pretokenizer_add_split(Pretokenizer **p, Pattern *pattern, SplitBehavior behavior, bool invert, char *err,
                           size_t errlen) {
    if (!pattern) return -1;
    return step_add(p, (PretokenizerStep){.pattern = pattern, .behavior = behavior, .invert = invert}, err, errlen);
}

int pretokenizer_add_prefix(Pretokenizer **p, PrefixScheme scheme, bool metaspace, char *err, size_t errlen) {
    return step_add(p, (PretokenizerStep){.kind = STEP_PREFIX, .scheme = scheme, .metaspace = metaspace}, err, errlen);
}

int pretokenizer_add_bytes(Pretokenizer **p, char *err, size_t errlen) {
    return step_add(p, (PretokenizerStep){.kind = STEP_BYTES}, err, errlen);
}

int pretokenizer_add_regex(Pretokenizer **p, const char *regex, SplitBehavior behavior, char *err, size_t errlen) {
    return pretokenizer_add_split(p, pattern_open(regex, strlen(regex), err, errlen), behavior, false, err, errlen);
}

int pretokenizer_add_bert(Pretokenizer **p, char *err, size_t errlen) {
    int rc = pretokenizer_add_regex(p, "\\s+", SPLIT_REMOVED, err, errlen);
    return rc ? rc : pretokenizer_add_regex(p, PUNCTUATION_PATTERN, SPLIT_ISOLATED, err, errlen);
}

void pretokenizer_free(Pretokenizer *p) {
    if (!p) return;
    for (ptrdiff_t i = 0; i < arrlen(p->steps); i++) pattern_close(p->steps[i].pattern);
    arrfree(p->steps);
    free(p);
}

// ---- the byte-level alphabet

static bool maps_to_itself(uint32_t c) {
    return (c >= '!' && c <= '~') || (c >= 0xA1 && c <= 0xFF && c != 0xAD);
}

// The other bytes in order: 0 to 32, 127 to 160, 173.
uint32_t byte_character(unsigned char byte) {
    if (maps_to_itself(byte)) return byte;
    if (byte <= 32) return 0x100u + byte;
    return byte <= 160 ? 0x100u + 33 + byte - 127 : 0x100u + 67;
}

int character_byte(uint32_t c) {
    if (maps_to_itself(c)) return (int)c;
    if (c < 0x100 || c > 0x100 + 67) return -1;
    if (c <= 0x100 + 32) return (int)c - 0x100;
    return c < 0x100 + 67 ? (int)c - 0x100 - 33 + 127 : 173;
}

int bytes_of_characters(const char *text, size_t n, char *out) {
    int n_out = 0;
    for (size_t i = 0; i < n; n_out++) {
        uint32_t c;
        i += (size_t)utf8_decode(text + i, n - i, &c);
        int byte = character_byte(c);
        if (byte < 0) return -1;
        if (out) out[n_out] = (char)byte;
    }
    return n_out;
}

// ---- running

typedef struct {
    const Pretokenizer *p;
    Matcher *matcher;
    PretokenVisitor visit;
    void *context;
} Run;

typedef struct {
    const char *text;
    size_t n;
    bool begins, in_bytes; // at the beginning of the whole text; in the byte-level alphabet
} Span;

static int steps_run(const Run *r, ptrdiff_t step, Span span);

static int pretoken_visit(const Run *r, Span span) {
    if (!span.n) return 0;
    if (!span.in_bytes) return r->visit(r->context, span.text, span.n);
    char *bytes = malloc(span.n);
    int n = bytes ? bytes_of_characters(span.text, span.n, bytes) : -1;
    int rc = n < 0 ? -1 : r->visit(r->context, bytes, (size_t)n);
    free(bytes);
    return rc;
}

// A part of the span being split: a match, or the text between two matches.
typedef struct {
    size_t begin, end;
    bool matches;
} SplitPart;

static bool parts_join(SplitBehavior b, const SplitPart *left, const SplitPart *right) {
    if (b == SPLIT_CONTIGUOUS) return left->matches == right->matches;
    if (b == SPLIT_MERGED_WITH_PREVIOUS) return !left->matches && right->matches;
    return b == SPLIT_MERGED_WITH_NEXT && left->matches && !right->matches;
}

static int part_finish(const Run *r, ptrdiff_t step, Span span, const SplitPart *c) {
    if (c->begin == c->end || (c->matches && r->p->steps[step].behavior == SPLIT_REMOVED)) return 0;
    Span out = {span.text + c->begin, c->end - c->begin, span.begins && !c->begin, span.in_bytes};
    return steps_run(r, step + 1, out);
}

// `held` is the last part so far, which the next one may join.
static int part_add(const Run *r, ptrdiff_t step, Span span, SplitPart *held, SplitPart next) {
    const PretokenizerStep *s = &r->p->steps[step];
    next.matches ^= s->invert;
    if (held->begin < held->end && next.begin < next.end && parts_join(s->behavior, held, &next)) {
        held->end = next.end;
        held->matches = next.matches;
        return 0;
    }
    int rc = part_finish(r, step, span, held);
    *held = next;
    return rc;
}

// An empty match splits, too, unless it is where the previous match ended.
static int split_run(const Run *r, ptrdiff_t step, Span span) {
    SplitPart held = {0};
    size_t done = 0, from = 0, begin, end, matched = SIZE_MAX;
    int rc = 0, found = 0;
    while (!rc && from <= span.n) {
        found = matcher_find(r->matcher, r->p->steps[step].pattern, span.text, span.n, from, &begin, &end);
        if (found <= 0) break;
        if (begin < end || begin != matched) {
            if (done < begin) rc = part_add(r, step, span, &held, (SplitPart){done, begin, false});
            if (!rc) rc = part_add(r, step, span, &held, (SplitPart){begin, end, true});
            done = matched = end;
        }
        from = match_next(span.text, span.n, begin, end);
    }
    if (!rc && found < 0) return -1;
    if (!rc && done < span.n) rc = part_add(r, step, span, &held, (SplitPart){done, span.n, false});
    return rc ? rc : part_finish(r, step, span, &held);
}

static bool begins_with(Span s, const char *text, size_t n) {
    return s.n >= n && !memcmp(s.text, text, n);
}

static int prefix_run(const Run *r, ptrdiff_t step, Span span) {
    const PretokenizerStep *s = &r->p->steps[step];
    bool adds = s->scheme == PREFIX_ALWAYS || (s->scheme == PREFIX_FIRST && span.begins);
    if (begins_with(span, " ", 1) || (s->metaspace && begins_with(span, METASPACE, METASPACE_BYTES))) adds = false;
    if (!s->metaspace && !adds) return steps_run(r, step + 1, span);
    char *copy = malloc(METASPACE_BYTES * (span.n + 1)), *to = copy;
    if (!copy) return -1;
    const char *space = s->metaspace ? METASPACE : " ";
    if (adds) to = mempcpy(to, space, strlen(space));
    for (size_t i = 0; i < span.n; i++) {
        if (span.text[i] == ' ') to = mempcpy(to, space, strlen(space));
        else *to++ = span.text[i];
    }
    int rc = steps_run(r, step + 1, (Span){copy, (size_t)(to - copy), span.begins, span.in_bytes});
    free(copy);
    return rc;
}

static int bytes_run(const Run *r, ptrdiff_t step, Span span) {
    if (span.in_bytes) return -1; // the alphabet applied twice: no vocabulary uses that
    char *copy = malloc(2 * span.n);
    if (!copy) return -1;
    size_t n = 0;
    for (size_t i = 0; i < span.n; i++) n += (size_t)utf8_encode(byte_character((unsigned char)span.text[i]), copy + n);
    int rc = steps_run(r, step + 1, (Span){copy, n, span.begins, true});
    free(copy);
    return rc;
}

static int steps_run(const Run *r, ptrdiff_t step, Span span) {
    if (!span.n) return 0;
    if (step == arrlen(r->p->steps)) return pretoken_visit(r, span);
    switch (r->p->steps[step].kind) {
    case STEP_PREFIX: return prefix_run(r, step, span);
    case STEP_BYTES: return bytes_run(r, step, span);
    default: return split_run(r, step, span);
    }
}

int pretokenizer_run(const Pretokenizer *p, Matcher *m, const char *text, size_t n, bool begins, PretokenVisitor visit,
                     void *context) {
    Run r = {p, m, visit, context};
    int rc = 0;
    for (size_t i = 0, end; i < n && !rc; i = end) {
        bool valid = utf8_run(text + i, n - i, &end);
        end += i;
        if (valid) rc = steps_run(&r, 0, (Span){text + i, end - i, begins && !i, false});
        else rc = visit(context, text + i, end - i);
    }
    return rc;
}
