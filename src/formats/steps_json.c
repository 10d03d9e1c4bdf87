// steps_json: the steps of Hugging Face's tokenizers library, by the names of its JSON. See steps_json.h.
#include "steps_json.h"

#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

typedef struct {
    Settings *document;
    Vocab *v;
    char err[256]; // of the builders, without a location
} Steps;

// Reads one step; `last`: no other follows.
typedef void (*StepReader)(Steps *x, Settings *s, const char *type, bool last);

static bool is(const char *a, const char *b) {
    return !strcmp(a, b);
}

// Visits a step, or all steps of a Sequence, which are the array `list`.
static void step_visit(Steps *x, Settings *s, const char *list, bool last, StepReader read) {
    const char *type = settings_string(s, "type", NULL);
    if (!is(type, "Sequence")) {
        read(x, s, type, last);
        return;
    }
    json_t *steps = json_object_get(s->object, list);
    if (!json_is_array(steps)) settings_fail(s, list, "expected an array of steps");
    for (size_t i = 0, n = json_array_size(steps); i < n && !x->document->failed; i++) {
        Settings inner = {.object = json_array_get(steps, i), .up = s, .name = list};
        if (!json_is_object(inner.object)) settings_fail(s, list, "expected objects");
        else step_visit(x, &inner, list, last && i + 1 == n, read);
    }
}

static void steps_visit(Steps *x, const char *key, const char *list, StepReader read) {
    Settings s = settings_object(x->document, key);
    if (s.object && !x->document->failed) step_visit(x, &s, list, true, read);
}

static void refuse(Settings *s, const char *type) {
    settings_fail(s, "type", "expected a supported type, found '%.40s'", type);
}

// {"String": ...} or {"Regex": ...}. NULL with x->err, or after a failure.
static Pattern *pattern_read(Steps *x, Settings *s) {
    Settings pattern = settings_object(s, "pattern");
    bool regex = settings_has(&pattern, "Regex");
    const char *text = settings_string(&pattern, regex ? "Regex" : "String", NULL);
    if (x->document->failed) return NULL;
    return (regex ? pattern_open : pattern_literal)(text, strlen(text), x->err, sizeof x->err);
}

// Reports the failure of a builder, unless an earlier failure of its settings was reported.
static void check(Steps *x, Settings *s, const char *key, int rc) {
    if (rc) settings_fail(s, key, "%s", x->err);
}

// ---- normalizer

// Decodes base64 into at most 3/4 as many bytes. -1: invalid.
static ptrdiff_t base64_decode(const char *text, uint8_t *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    ptrdiff_t n = 0;
    uint32_t bits = 0, n_bits = 0;
    for (; *text && *text != '='; text++) {
        const char *digit = strchr(digits, *text);
        if (!digit) return -1;
        bits = bits << 6 | (uint32_t)(digit - digits);
        n_bits += 6;
        if (n_bits < 8) continue;
        n_bits -= 8;
        out[n++] = (uint8_t)(bits >> n_bits);
    }
    return n;
}

static void charsmap_read(Steps *x, Settings *s) {
    const char *text = settings_string(s, "precompiled_charsmap", NULL);
    uint8_t *bytes = malloc(strlen(text) + 1);
    ptrdiff_t n = bytes ? base64_decode(text, bytes) : 0;
    int rc = 0;
    if (n < 0) settings_fail(s, "precompiled_charsmap", "expected base64");
    else if (n) rc = normalizer_add_charsmap(&x->v->normalizer, bytes, (size_t)n, x->err, sizeof x->err);
    check(x, s, "precompiled_charsmap", rc);
    free(bytes);
}

static int bert_read(Steps *x, Settings *s) {
    bool lowercase = settings_bool(s, "lowercase", true);
    return normalizer_add_bert(&x->v->normalizer, settings_bool(s, "clean_text", true),
                               settings_bool(s, "handle_chinese_chars", true),
                               settings_bool(s, "strip_accents", lowercase), lowercase, x->err, sizeof x->err);
}

static int strip_read(Steps *x, Settings *s) {
    Normalizer **z = &x->v->normalizer;
    int rc = 0;
    if (settings_bool(s, "strip_left", true)) rc = normalizer_add(z, NORMALIZE_STRIP_LEFT, x->err, sizeof x->err);
    if (rc || !settings_bool(s, "strip_right", true)) return rc;
    return normalizer_add(z, NORMALIZE_STRIP_RIGHT, x->err, sizeof x->err);
}

static void normalizer_read(Steps *x, Settings *s, const char *type, bool last) {
    static const struct {
        const char *type;
        NormalizerKind kind;
    } plain[] = {{"NFC", NORMALIZE_NFC},
                 {"NFD", NORMALIZE_NFD},
                 {"NFKC", NORMALIZE_NFKC},
                 {"NFKD", NORMALIZE_NFKD},
                 {"Lowercase", NORMALIZE_LOWERCASE},
                 {"StripAccents", NORMALIZE_STRIP_ACCENTS},
                 {"Nmt", NORMALIZE_NMT}};
    Normalizer **z = &x->v->normalizer;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (!is(type, plain[i].type)) continue;
        check(x, s, "type", normalizer_add(z, plain[i].kind, x->err, sizeof x->err));
        return;
    }
    if (is(type, "Prepend")) {
        const char *text = settings_string(s, "prepend", NULL);
        check(x, s, "prepend", normalizer_add_prepend(z, text, strlen(text), x->err, sizeof x->err));
    } else if (is(type, "Replace")) {
        const char *text = settings_string(s, "content", NULL);
        check(x, s, "pattern",
              normalizer_add_replace(z, pattern_read(x, s), text, strlen(text), x->err, sizeof x->err));
    } else if (is(type, "BertNormalizer")) check(x, s, "type", bert_read(x, s));
    else if (is(type, "Strip")) check(x, s, "type", strip_read(x, s));
    else if (is(type, "Precompiled")) charsmap_read(x, s);
    else if (!is(type, "ByteLevel") || !last) refuse(s, type); // ByteLevel as the last step: vocab->byte_level does it
}

// ---- pre-tokenizer

static int add_regex(Steps *x, const char *regex, SplitBehavior behavior) {
    return pretokenizer_add_regex(&x->v->pretokenizer, regex, behavior, x->err, sizeof x->err);
}

static SplitBehavior behavior_read(Settings *s, const char *fallback) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = settings_string(s, "behavior", fallback);
    for (int i = 0; i < 5; i++) {
        if (is(name, names[i])) return (SplitBehavior)i;
    }
    settings_fail(s, "behavior", "expected Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
    return SPLIT_ISOLATED;
}

static PrefixScheme scheme_read(Settings *s) {
    const char *name =
        settings_string(s, "prepend_scheme", settings_bool(s, "add_prefix_space", true) ? "always" : "never");
    if (is(name, "always")) return PREFIX_ALWAYS;
    if (is(name, "first")) return PREFIX_FIRST;
    if (!is(name, "never")) settings_fail(s, "prepend_scheme", "expected always, first or never");
    return PREFIX_NEVER;
}

static void require_string(Settings *s, const char *key, const char *want) {
    if (!is(settings_string(s, key, want), want)) settings_fail(s, key, "expected '%s', no other is supported", want);
}

static int metaspace_read(Steps *x, Settings *s) {
    require_string(s, "replacement", METASPACE);
    int rc = pretokenizer_add_prefix(&x->v->pretokenizer, scheme_read(s), true, x->err, sizeof x->err);
    return rc || !settings_bool(s, "split", true) ? rc : add_regex(x, METASPACE, SPLIT_MERGED_WITH_NEXT);
}

// A prefix space, then GPT-2's pattern. The byte-level alphabet matters only to steps that follow.
static int byte_level_read(Steps *x, Settings *s, bool last) {
    Pretokenizer **p = &x->v->pretokenizer;
    int rc = 0;
    if (settings_bool(s, "add_prefix_space", true))
        rc = pretokenizer_add_prefix(p, PREFIX_ALWAYS, false, x->err, sizeof x->err);
    if (!rc && settings_bool(s, "use_regex", true)) rc = add_regex(x, GPT2_PATTERN, SPLIT_ISOLATED);
    return rc || last ? rc : pretokenizer_add_bytes(p, x->err, sizeof x->err);
}

static int add_split(Steps *x, Pattern *pattern, SplitBehavior behavior, bool invert) {
    return pretokenizer_add_split(&x->v->pretokenizer, pattern, behavior, invert, x->err, sizeof x->err);
}

static int split_read(Steps *x, Settings *s) {
    SplitBehavior behavior = behavior_read(s, "Isolated");
    bool invert = settings_bool(s, "invert", false);
    return add_split(x, pattern_read(x, s), behavior, invert);
}

static void pretokenizer_read(Steps *x, Settings *s, const char *type, bool last) {
    static const char words[] = "\\w+|[^\\w\\s]+";
    int rc = 0;
    if (is(type, "ByteLevel")) rc = byte_level_read(x, s, last);
    else if (is(type, "Split")) rc = split_read(x, s);
    else if (is(type, "Metaspace")) rc = metaspace_read(x, s);
    else if (is(type, "Digits")) {
        rc = add_regex(x, "\\p{N}", settings_bool(s, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
    } else if (is(type, "Punctuation")) rc = add_regex(x, PUNCTUATION_PATTERN, behavior_read(s, "Isolated"));
    else if (is(type, "Whitespace")) {
        rc = add_split(x, pattern_open(words, sizeof words - 1, x->err, sizeof x->err), SPLIT_REMOVED, true);
    } else if (is(type, "WhitespaceSplit")) rc = add_regex(x, "\\s+", SPLIT_REMOVED);
    else if (is(type, "CharDelimiterSplit")) {
        const char *text = settings_string(s, "delimiter", NULL);
        rc = add_split(x, pattern_literal(text, strlen(text), x->err, sizeof x->err), SPLIT_REMOVED, false);
    } else if (is(type, "BertPreTokenizer")) rc = pretokenizer_add_bert(&x->v->pretokenizer, x->err, sizeof x->err);
    else refuse(s, type);
    check(x, s, "type", rc);
}

// ---- post-processor: the tokens around a text

static void put_id(Settings *s, int **ids, const json_t *id) {
    int64_t n;
    if (!settings_whole(id, &n) || n < 0 || n > INT32_MAX) settings_fail(s, "ids", "expected token ids");
    else arrput(*ids, (int)n);
}

static void template_read(Steps *x, Settings *s) {
    json_t *single = json_object_get(s->object, "single"), *part, *id;
    Settings specials = settings_object(s, "special_tokens");
    size_t i, k;
    int **ids = &x->v->prefix_ids;
    if (!json_is_array(single)) settings_fail(s, "single", "expected an array");
    json_array_foreach(single, i, part) {
        json_t *name = json_object_get(json_object_get(part, "SpecialToken"), "id");
        if (json_object_get(part, "Sequence")) ids = &x->v->suffix_ids;
        else if (!json_is_string(name)) settings_fail(s, "single", "expected Sequence or SpecialToken");
        else {
            Settings special = settings_object(&specials, json_string_value(name));
            json_t *list = json_object_get(special.object, "ids");
            if (!json_is_array(list)) settings_fail(&specials, json_string_value(name), "expected an array of ids");
            json_array_foreach(list, k, id) put_id(&special, ids, id);
        }
    }
}

static void postprocessor_read(Steps *x, Settings *s, const char *type, bool last) {
    (void)last;
    if (is(type, "TemplateProcessing")) template_read(x, s);
    else if (is(type, "BertProcessing") || is(type, "RobertaProcessing")) {
        put_id(s, &x->v->prefix_ids, json_array_get(json_object_get(s->object, "cls"), 1));
        put_id(s, &x->v->suffix_ids, json_array_get(json_object_get(s->object, "sep"), 1));
    } else if (!is(type, "ByteLevel")) refuse(s, type);
}

// ---- decoder

static void replace_read(Steps *x, Settings *s) {
    Settings pattern = settings_object(s, "pattern");
    require_string(&pattern, "String", METASPACE);
    require_string(s, "content", " ");
    x->v->metaspace = true;
}

static void decoder_read(Steps *x, Settings *s, const char *type, bool last) {
    (void)last;
    Vocab *v = x->v;
    if (is(type, "ByteLevel")) v->byte_level = true;
    else if (is(type, "Replace")) replace_read(x, s);
    else if (is(type, "Metaspace")) {
        require_string(s, "replacement", METASPACE);
        v->metaspace = true;
        v->drop_space_prefix = scheme_read(s) != PREFIX_NEVER;
    } else if (is(type, "Strip")) {
        require_string(s, "content", " ");
        v->drop_space_prefix = settings_int(s, "start", 0, 1, 0) == 1;
        settings_int(s, "stop", 0, 0, 0);
    } else if (is(type, "WordPiece")) {
        require_string(s, "prefix", "##");
        v->drop_space_prefix = true;
    } else if (!is(type, "ByteFallback") && !is(type, "Fuse")) refuse(s, type);
}

static void note_byte_level(Steps *x, Settings *s, const char *type, bool last) {
    (void)s;
    (void)last;
    x->v->byte_level |= is(type, "ByteLevel");
    x->v->metaspace |= is(type, "Metaspace");
}

void steps_read_decoder(Settings *document, Vocab *v) {
    Steps x = {.document = document, .v = v};
    steps_visit(&x, "decoder", "decoders", decoder_read);
    steps_visit(&x, "normalizer", "normalizers", note_byte_level);
    steps_visit(&x, "pre_tokenizer", "pretokenizers", note_byte_level);
    if (v->byte_level) v->metaspace = false;
}

void steps_read(Settings *document, Vocab *v) {
    Steps x = {.document = document, .v = v};
    steps_visit(&x, "normalizer", "normalizers", normalizer_read);
    steps_visit(&x, "pre_tokenizer", "pretokenizers", pretokenizer_read);
    steps_visit(&x, "post_processor", "processors", postprocessor_read);
}
