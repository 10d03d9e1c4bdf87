// check_tokenizer_json: tokenizer.json and what stands beside it: every kind of model, every truncation
// (malformed ones are in bad/tokenizer_json.txt), the choice of the file; and build/tokenize over them.
#include "bad/commands.h"

#include "load.h"
#include "textstream.h"
#include "vocab_json.h"

#include <stb/stb_ds.h>

// tests/fixtures/tokenizers.jsonl, a tokenizer.json a line. BPE: letters, " a" and "ab" by merges; a byte-level
// alphabet is written with U+0120 for a space.
enum { N_DOCUMENTS = 4 };

static const char *document(int i) {
    static char documents[N_DOCUMENTS][2000];
    FILE *f = **documents ? NULL : fopen("tests/fixtures/tokenizers.jsonl", "r");
    for (int k = 0; f && k < N_DOCUMENTS; k++) CHECK(fgets(documents[k], 2000, f), "tokenizers.jsonl: line %d", k + 1);
    if (f) fclose(f);
    documents[i][strcspn(documents[i], "\n")] = 0;
    return documents[i];
}
#define BPE document(0)
#define UNIGRAM document(1)
#define WORDPIECE document(2)
#define CHARACTERS document(3)

static int read_json(Vocab *v, const char *text, size_t n, char *err, size_t errlen) {
    static char path[] = "memory.json";
    uint8_t *exact = malloc(n ? n : 1); // so that a sanitizer sees a read beyond it
    memcpy(exact, text, n);
    File f = {.path = path, .data = exact, .size = n, .borrowed = true};
    int rc = vocab_json_read(v, &f, err, errlen);
    free(exact);
    return rc;
}

static Tokenizer *open_json(const char *json) {
    char err[256] = "", *text = json_of(json);
    Vocab v;
    Tokenizer *t = read_json(&v, text, strlen(text), err, sizeof err) ? NULL : tokenizer_new(&v, err, sizeof err);
    CHECK(t, "%s", err);
    free(text);
    return t;
}

static void expect(const Tokenizer *t, const char *text, unsigned flags, const char *want) {
    char err[256] = "", found[400] = "";
    int32_t *ids = NULL;
    int n = t ? tokenizer_encode(t, text, strlen(text), flags, &ids, err, sizeof err) : 0;
    for (int i = 0; i < n && i < 60; i++) snprintf(found + strlen(found), 7, i ? " %d" : "%d", ids[i]);
    CHECK(!strcmp(found, want), "'%s': expected '%s', found '%s' %s", text, want, found, err);
    free(ids);
}

static void expect_text(const Tokenizer *t, const int *ids, int n, const char *want) {
    char out[400];
    size_t n_out = 0;
    TextStream s = textstream_start(t, true);
    for (int i = 0; i < n; i++) n_out += textstream_push(&s, ids[i], out + n_out);
    n_out += textstream_finish(&s, out + n_out);
    CHECK(n_out == strlen(want) && !memcmp(out, want, n_out), "expected '%s', found '%.*s'", want, (int)n_out, out);
}

// ---- what is right

static void byte_level_bpe(void) {
    Tokenizer *t = open_json(BPE);
    CHECK(tokenizer_size(t) == 11, "%d tokens", tokenizer_size(t));
    expect(t, "ab abc a", 0, "4 6 2 5");
    expect(t, "ab", TOKENIZE_BOS, "9 4");
    expect(t, "a<s>b[x]", TOKENIZE_SPECIAL, "0 9 1 10");
    expect(t, "a[x]", 0, "0 10");
    expect(t, "\xE9", 0, "7"); // the letter stands for the byte
    expect(t, "zaz", 0, "0");  // no unknown token: nothing
    expect_text(t, (int[]){9, 5, 7, 10, 6}, 5, " a\uFFFD[x] ab");
    tokenizer_free(t);
}

static void merges_as_pairs(void) {
    char *json = json_of(BPE), *pairs = need(strlen(json) + 100), *at = strstr(json, "\"merges\"");
    snprintf(pairs, strlen(json) + 100, "%.*s%s", (int)(at - json), json,
             "\"merges\" : [ [ \"a\",\"b\" ], [\"\\u0120\",\"ab\"],[\"\\u0120\",\"\\u0061\"], [\"ab\" ,\"c\"] ] } }");
    Tokenizer *t = open_json(pairs);
    expect(t, "ab abc a", 0, "4 6 2 5");
    tokenizer_free(t);
    free(json);
    free(pairs);
}

// The unknown token may be one that no text reaches: a space, where spaces become U+2581.
static void unknown_that_no_text_reaches(void) {
    Tokenizer *t =
        open_json("{'pre_tokenizer':{'type':'Metaspace','replacement':'\u2581','prepend_scheme':'first'},"
                  "'model':{'type':'Unigram','unk_id':0,'vocab':[['< unk>',0.0],['\u2581',-2.0],['a',-1]]}}");
    expect(t, "a/", 0, "1 2 0");
    CHECK(t && tokenizer_piece(t, 0)->type == TOKEN_UNKNOWN, "its type is another");
    tokenizer_free(t);
}

static void unigram(void) {
    Tokenizer *t = open_json(UNIGRAM);
    expect(t, "ab", 0, "1 5");  // -2 - 2 against -1.25 - 3
    expect(t, "a a", 0, "3 3"); //
    expect(t,
           "a\u4E2D\u4E2D"
           "b",
           0, "3 0 4"); // unknown characters in a row are one
    expect_text(t, (int[]){3, 3, 5}, 3, "a aab");
    tokenizer_free(t);
}

static void wordpiece(void) {
    Tokenizer *t = open_json(WORDPIECE);
    expect(t, "Unwanted! un", TOKENIZE_BOS, "1 3 4 5 6 3 2");
    expect(t, "unx [SEP]", TOKENIZE_SPECIAL, "0 2");
    expect(t, "[SEP]", 0, "0 0 0");
    expect_text(t, (int[]){1, 3, 4, 5, 6, 2}, 6, "unwanted !");
    tokenizer_free(t);
}

static void characters_and_bytes(void) {
    Tokenizer *t = open_json(CHARACTERS);
    expect(t, "a ab\u00E9z", 0, "3 3 4 5 6 0");
    expect(t, "a  a", 0, "3 1 3");
    expect(t, "", 0, "");
    expect(t, "zz", 0, "1 0");
    expect(t,
           "a\u2581\u2581"
           "a",
           0, "3 7 3"); // the added token, as it is written; the prefix goes before each stretch
    expect_text(t, (int[]){3, 4, 5, 6, 7, 2}, 6, "ab\u00E9  a");
    tokenizer_free(t);
}

static void holes_are_unused(void) {
    Tokenizer *t = open_json("{'model':{'vocab':{'a':5,'b':0,'ba':2},'merges':['b a']},'added_tokens':[{'id':9,"
                             "'content':'x','special':true}]}");
    CHECK(tokenizer_size(t) == 10 && tokenizer_piece(t, 3)->type == TOKEN_UNUSED, "%d tokens", tokenizer_size(t));
    expect(t, "baa", 0, "2 5");
    expect_text(t, (int[]){3, 4, 5}, 3, "a");
    tokenizer_free(t);
}

// ---- hostile files

static void refused(const char *json, size_t n, const char *want, const char *what) {
    char err[512] = "";
    Vocab v;
    memset(&v, 0xAA, sizeof v);
    int rc = read_json(&v, json, n, err, sizeof err);
    CHECK(rc == -1 && strstr(err, want), "%.120s: expected '%s', found '%s'", what, want, err);
    CHECK(!strncmp(err, "memory.json: ", 13) && !strchr(err, '\n'), "%.120s: one line with the path: '%s'", what, err);
    static const Vocab nothing;
    CHECK(rc != -1 || !memcmp(&v, &nothing, sizeof v), "%.120s: not left empty", what);
    if (!rc) vocab_free(&v);
}

static void every_truncation(void) {
    for (int k = 0; k < N_DOCUMENTS; k++) {
        for (size_t n = 0; n < strlen(document(k)); n++) refused(document(k), n, "", "a truncated file");
    }
}

// One byte changed: the file is refused with a line, or read; then texts encode.
static void changed_bytes(void) {
    static const char odd[] = "\"\\{}[]:,0-9.eaN\xC3\x00 ";
    int n_read = 0;
    for (int k = 0; k < 8000; k++) {
        char *json = strdup(document(k % N_DOCUMENTS)), err[512] = "";
        size_t n = strlen(json);
        json[test_u32() % n] = odd[test_u32() % (sizeof odd - 1)];
        Vocab v;
        int rc = read_json(&v, json, n, err, sizeof err);
        CHECK(rc == 0 || (rc == -1 && *err && !strchr(err, '\n')), "'%s'", err);
        Tokenizer *t = rc ? NULL : tokenizer_new(&v, err, sizeof err);
        int32_t *ids = NULL;
        int n_ids = t ? tokenizer_encode(t, "ab <s>\xC3\xA9 unwanted\xFF", 19, 3, &ids, err, sizeof err) : 0;
        for (int i = 0; i < n_ids; i++) CHECK(tokenizer_piece(t, ids[i]), "id %d", ids[i]);
        CHECK(rc || n_ids >= 0, "%s", err);
        n_read += !rc;
        free(ids);
        tokenizer_free(t);
        free(json);
    }
    CHECK(n_read > 100 && n_read < 7900, "%d files read", n_read);
}

// ---- the folder

static Tokenizer *open_folder(int vocab_size, char *err, size_t errlen) {
    Vocab v;
    *err = 0;
    return load_hf_vocab(&v, folder, vocab_size, err, errlen) ? NULL : tokenizer_new(&v, err, errlen);
}

// RWKV's: Python's literals of texts and of bytes.
static void rwkv_text_file(void) {
    static const char lines[] = "1 'a' 1\n2 b'\\xe4\\xbd' 2\n3 '\\t \\n' 3\n4 '\\xe9' 2\n5 \"it's\" 4\r\n6 'a b' 3\n"
                                "7 '\\u3000\\U0001f600' 7\n8 '\\\\' 1\n9 b'\\xff' 1\n";
    static const struct {
        const char *text, *want;
    } bad[] = {{"2 'a' 1\n", "line 1: expected token 1, its text in quotes and its length in bytes, found '2 'a' 1'"},
               {"1 'a' 1\n3 'b' 1\n", "line 2: expected token 2"},
               {"1 'a' 2\n", "line 1: expected"},
               {"1 '' 0\n", "line 1: expected"},
               {"1 'a\" 1\n", "line 1: expected"},
               {"1 b'\\u0041' 1\n", "line 1: expected"},
               {"1 '\\U00110000' 4\n", "line 1: expected"},
               {"1 '\\x4' 1\n", "line 1: expected"},
               {"1 'a'\n", "line 1: expected"},
               {"\n", "line 1: expected"},
               {"1 'a' 1", "line 1: expected a line break at the end"}};
    char err[512];
    folder_make();
    write_text("rwkv_vocab_v20230424.txt", lines);
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\":{\"0\":{\"content\":\"<end>\",\"special\":true}},\"eos_token\":\"<end>\"}");
    Tokenizer *t = open_folder(12, err, sizeof err);
    CHECK(t && tokenizer_size(t) == 10 && tokenizer_eos(t) == 0 && tokenizer_bos(t) == -1, "%s", err);
    expect(t, "a b\t \n\\it's\xC3\xA9", TOKENIZE_BOS, "6 3 8 5 4");
    expect(t, "\xE3\x80\x80\xF0\x9F\x98\x80\xE4\xBD\xFF<end>", TOKENIZE_SPECIAL, "7 2 9 0");
    expect(t, "aza", 0, "1 1"); // no token begins with z
    tokenizer_free(t);
    for (int i = 0; i < N_OF(bad); i++) {
        write_text("rwkv_vocab_v20230424.txt", bad[i].text);
        CHECK(!open_folder(0, err, sizeof err) && strstr(err, bad[i].want), "%d: '%s'", i, err);
    }
    folder_remove();
}

static void files_of_a_folder(void) {
    char err[512];
    folder_make();
    CHECK(
        !open_folder(0, err, sizeof err) &&
            strstr(err,
                   "expected tokenizer.json, tokenizer.model, vocab.json and merges.txt, or rwkv_vocab_v20230424.txt, "
                   "found none"),
        "%s", err);
    write_text("tokenizer.model", "x");
    CHECK(!open_folder(0, err, sizeof err) && strstr(err, "/tokenizer.model: at byte "), "%s", err);
    write_json("tokenizer.json", BPE);
    Tokenizer *t = open_folder(0, err, sizeof err);
    CHECK(t && tokenizer_bos(t) == -1 && tokenizer_eos(t) == -1 && !tokenizer_chat_template(t), "%s", err);
    expect(t, "ab", TOKENIZE_BOS, "9 4");
    tokenizer_free(t);
    t = open_folder(10, err, sizeof err); // a model with a token less
    CHECK(t && tokenizer_size(t) == 10 && strstr(tokenizer_notes(t)->text, "has 11 tokens, the model 10"), "%s", err);
    expect(t, "ab", TOKENIZE_BOS, "9 4");
    tokenizer_free(t);
    t = open_folder(12, err, sizeof err); // a padded table
    CHECK(t && tokenizer_size(t) == 11, "%s", err);
    tokenizer_free(t);

    write_json("generation_config.json", "{'eos_token_id':4}"); // and no BOS
    t = open_folder(0, err, sizeof err);
    CHECK(t && tokenizer_bos(t) == -1 && tokenizer_is_end(t, 4), "%s", err);
    tokenizer_free(t);

    write_json("tokenizer_config.json", "{'bos_token':{'content':'<s>'},'eos_token':'[x]','add_bos_token':false,"
                                        "'add_eos_token':true,'model_max_length':1000000000000000019884624838656,"
                                        "'chat_template':[{'name':'tool','template':'T'},{'name':'default','template':"
                                        "'{{ D }}'}]}");
    write_json("generation_config.json", "{'eos_token_id':[4,5],'bos_token_id':9}");
    t = open_folder(0, err, sizeof err);
    CHECK(t && tokenizer_bos(t) == 9 && tokenizer_eos(t) == 10, "%s", err);
    CHECK(t && tokenizer_is_end(t, 4) && tokenizer_is_end(t, 5) && tokenizer_is_end(t, 10) && !tokenizer_is_end(t, 9),
          "ends");
    CHECK(t && !strcmp(tokenizer_chat_template(t), "{{ D }}"), "chat template");
    expect(t, "ab", TOKENIZE_BOS, "4 10");
    expect(t, "", TOKENIZE_BOS, "10");
    tokenizer_free(t);

    write_json("chat_template.json", "{'chat_template':'{{ P }}'}");
    t = open_folder(0, err, sizeof err);
    CHECK(t && !strcmp(tokenizer_chat_template(t), "{{ D }}"), "the tokenizer's template counts");
    tokenizer_free(t);
    write_json("tokenizer_config.json", "{'eos_token':'[x]'}");
    t = open_folder(0, err, sizeof err);
    CHECK(t && !strcmp(tokenizer_chat_template(t), "{{ P }}"), "the processor's template counts");
    tokenizer_free(t);
    write_json("chat_template.json", "{'chat_template':3}");
    CHECK(!open_folder(0, err, sizeof err) && strstr(err, "chat_template.json: chat_template: expected a string"), "%s",
          err);
    write_json("chat_template.json", "{'chat_template':'{{ P }}'}");

    write_text("chat_template.jinja", "{# from the file #}");
    write_json("tokenizer_config.json", "{'chat_template':'{{ x }}'}");
    write_json("special_tokens_map.json", "{'bos_token':'<s>','eos_token':{'content':'<s>','lstrip':false}}");
    write_json("generation_config.json", "{'eos_token_id':4}");
    t = open_folder(0, err, sizeof err);
    CHECK(t && tokenizer_bos(t) == 9 && tokenizer_eos(t) == 9 && tokenizer_is_end(t, 4), "%s", err);
    CHECK(t && !strcmp(tokenizer_chat_template(t), "{# from the file #}"), "the file counts");
    tokenizer_free(t);

    folder_remove();
}

// What stands beside a tokenizer.json whose tokens are a to j, ab and abc: ids, end ids, notes.
static void tokens_beside(void) {
    static const struct {
        const char *file, *json, *text, *ids, *note;
    } cases[] = {
        {"added_tokens.json", "{'<mark>':11}", "<mark>ab", "11 4", ""},
        {"added_tokens.json", "{'<mark>':11.0,'<two>':13}", "<two>ab<mark>", "13 4 11", ""},
        {"added_tokens.json", "{'ab':4}", "abab", "4 4", ""},
        {"added_tokens.json", "{'ab':11}", "abab", "4 4",
         "added token 'ab': its id is 4, not 11, which the vocabulary"},
        {"added_tokens.json", "{'<mark>':4}", "<mark>ab", "11 4", "its id is 11, not 4, which another token has"},
        {"tokenizer_config.json", "{'added_tokens_decoder':{'11':{'content':'<mark>','special':true}}}", "<mark>ab",
         "11 4", ""},
        {"tokenizer_config.json", "{'added_tokens_decoder':{'9':{'content':'<s>','special':true}}}", "<s>ab", "9 4",
         ""},
        {"tokenizer_config.json", "{'added_tokens_decoder':{'12':{'content':'','special':true}}}", "ab", "4", ""},
        {"tokenizer_config.json", "{'eos_token':'<e>','added_tokens_decoder':{'11':{'content':'<e>','special':true}}}",
         "ab<e>", "4 11", ""},
        {"generation_config.json", "{'eos_token_id':[4,99]}", "ab", "4", "eos_token_id is 99, but there are 11 tokens"},
        {"generation_config.json", "{'bos_token_id':99}", "ab", "4", "bos_token_id is 99, but there are 11 tokens"},
    };
    folder_make();
    for (int i = 0; i < N_OF(cases); i++) {
        char err[512];
        folder_empty();
        write_json("tokenizer.json", BPE);
        write_json(cases[i].file, cases[i].json);
        Tokenizer *t = open_folder(0, err, sizeof err);
        CHECK(t, "%s", err);
        if (!t) continue;
        const char *notes = tokenizer_notes(t)->text;
        expect(t, cases[i].text, TOKENIZE_SPECIAL, cases[i].ids);
        CHECK(*cases[i].note ? strstr(notes, cases[i].note) != NULL : !*notes, "%s: notes '%s'", cases[i].json, notes);
        tokenizer_free(t);
    }
    folder_remove();
}

// The tokens that end a generation: generation_config.json counts, then config.json, of a part of it too.
static void end_tokens(void) {
    static const struct {
        const char *generation, *config;
        int ends, others;
    } cases[] = {
        {NULL, "{'eos_token_id':4}", 4, 5},
        {NULL, "{'eos_token_id':[5,4]}", 4, 6},
        {NULL, "{'eos_token_id':4.0,'bos_token_id':9}", 4, 9},
        {"{}", "{'eos_token_id':4}", 4, 5},
        {"{'eos_token_id':null}", "{'eos_token_id':4}", 4, 5},
        {"{'eos_token_id':5}", "{'eos_token_id':4}", 5, 4},
        {NULL, "{'text_config':{'eos_token_id':[4]}}", 4, 5},
        {NULL, "{'eos_token_id':4,'text_config':{'eos_token_id':5}}", 4, 5},
    };
    folder_make();
    for (int i = 0; i < N_OF(cases); i++) {
        char err[512];
        folder_empty();
        write_json("tokenizer.json", BPE);
        if (cases[i].generation) write_json("generation_config.json", cases[i].generation);
        write_json("config.json", cases[i].config);
        Tokenizer *t = open_folder(0, err, sizeof err);
        CHECK(t && tokenizer_is_end(t, cases[i].ends) && !tokenizer_is_end(t, cases[i].others), "case %d: %s", i, err);
        if (t && strstr(cases[i].config, "bos")) CHECK(tokenizer_bos(t) == 9, "bos %d", tokenizer_bos(t));
        tokenizer_free(t);
    }
    folder_remove();
}

// A key twice, an added token of no text, one whose id is another's: what counts.
static void odd_documents(void) {
    static const struct {
        const char *json, *text, *ids;
    } cases[] = {
        {"{'model':{'type':'BPE','vocab':{'a':0,'b':1,'a':2},'merges':[]}}", "ab", "2 1"},
        {"{'model':{'type':'BPE','vocab':{'a':2,'b':1,'a':0},'merges':[]}}", "ab", "0 1"},
        {"{'model':{'type':'BPE','vocab':{'x':0},'merges':[],'vocab':{'a':3,'b':1}}}", "ab", "3 1"},
        {"{'model':{},'model':{'type':'BPE','vocab':{'a':3,'b':1},'merges':[]}}", "ab", "3 1"},
        {"{'model':{'type':'BPE','vocab':{'a':0.0,'b':1e0},'merges':[]}}", "ab", "0 1"},
        {"{'x':[NaN,-Infinity,99999999999999999999],'model':{'type':'BPE','vocab':{'a':0,'b':1},'merges':[]}}", "ab",
         "0 1"},
        {"{'added_tokens':[{'id':2,'content':''}],'model':{'type':'BPE','vocab':{'a':0,'b':1},'merges':[]}}", "ab",
         "0 1"},
        {"{'added_tokens':[{'id':7,'content':'b'}],'model':{'type':'BPE','vocab':{'a':0,'b':1},'merges':[]}}", "ab",
         "0 1"},
        {"{'added_tokens':[{'id':1,'content':'<x>'}],'model':{'type':'BPE','vocab':{'a':0,'b':1},'merges':[]}}",
         "a<x>b", "0 2 1"},
        {"{'added_tokens':[{'id':2,'content':'<x>'},{'id':2,'content':'<y>'}],'model':{'type':'BPE','vocab':{'a':0,'b':"
         "1},"
         "'merges':[]}}",
         "<y><x>b", "3 2 1"},
    };
    folder_make();
    for (int i = 0; i < N_OF(cases); i++) {
        char err[512];
        write_json("tokenizer.json", cases[i].json);
        Tokenizer *t = open_folder(0, err, sizeof err);
        CHECK(t, "%s: %s", cases[i].json, err);
        if (t) expect(t, cases[i].text, TOKENIZE_SPECIAL, cases[i].ids);
        tokenizer_free(t);
    }
    folder_remove();
}

// vocab.json and merges.txt give what the same tokenizer.json gives.
static void vocab_and_merges(void) {
    static const char vocab[] = "{'a':0,'b':1,'\u0120':2,'ab':3,'\u0120ab':4,'\\\\':5,'!':6,'!!':7,'1':8,'11':9}";
    static const struct {
        const char *config, *ids, *note;
    } cases[] = {{"{'tokenizer_class':'GPT2Tokenizer'}", "3 4 7 5 9 10", ""},
                 {"{'tokenizer_class':'Qwen2TokenizerFast'}", "3 4 7 5 8 8 10", ""},
                 {"{'tokenizer_class':'OtherTokenizer'}", "3 4 7 5 9 10", "a guess, GPT-2's, for the class Other"},
                 {NULL, "3 4 7 5 9 10", "a guess, GPT-2's"}};
    char err[512];
    folder_make();
    for (int i = 0; i < N_OF(cases); i++) {
        folder_empty();
        write_json("vocab.json", vocab);
        write_json("added_tokens.json", "{'<x>':10}");
        write_text("merges.txt", "#version: 0.2\r\na b\n\xC4\xA0 ab\n! !\n1 1");
        if (cases[i].config) write_json("tokenizer_config.json", cases[i].config);
        Tokenizer *t = open_folder(0, err, sizeof err);
        CHECK(t, "%s", err);
        if (!t) continue;
        const char *notes = tokenizer_notes(t)->text;
        expect(t, "ab ab!!\\11<x>", TOKENIZE_SPECIAL, cases[i].ids);
        CHECK(*cases[i].note ? strstr(notes, cases[i].note) != NULL : !*notes, "notes '%s'", notes);
        tokenizer_free(t);
    }
    remove(in_folder("merges.txt"));
    CHECK(!open_folder(0, err, sizeof err) && strstr(err, "merges.txt: No such file"), "%s", err);
    folder_remove();
}

// ---- the program

static void program(void) {
    folder_make();
    write_json("tokenizer.json", BPE);
    const char *file = in_folder("tokenizer.json");
    prints(CALL("tokenize", file, "-p", "ab abc"), 0, "9 4 6 2\n", "a file");
    prints(CALL("tokenize", folder, "-p", "ab abc", "--no-bos"), 0, "4 6 2\n", "a folder");
    prints(CALL("tokenize", folder, "-p", "a<s>", "--no-bos"), 0, "0 9\n", "special");
    prints(CALL("tokenize", folder, "-p", "a<s>", "--no-bos", "--no-special"), 0, "0\n", "not special");
    prints(CALL("tokenize", folder, "-p", ""), 0, "9\n", "no text");
    prints(CALL_IN("ab--a--", "tokenize", folder, "--separator", "--", "--no-bos"), 0, "4\n0\n", "two texts");
    prints(CALL_IN("ab----a", "tokenize", folder, "-f", "-", "--separator", "--", "--no-bos"), 0, "4\n\n0\n",
           "an empty text");
    prints(CALL("tokenize", folder, "-p", " 9 4  6\n2 ", "--decode"), 0, "ab abc", "ids");
    prints(CALL("tokenize", folder, "-f", write_text("text", "abc")), 0, "9 8\n", "a text file");
    refuse_commands("commands_tokenize");
    folder_remove();
}

int main(void) {
    need_program("tokenize");
    RUN(byte_level_bpe);
    RUN(merges_as_pairs);
    RUN(unigram);
    RUN(unknown_that_no_text_reaches);
    RUN(wordpiece);
    RUN(characters_and_bytes);
    RUN(holes_are_unused);
    RUN(every_truncation);
    RUN(changed_bytes);
    RUN(files_of_a_folder);
    RUN(tokens_beside);
    RUN(end_tokens);
    RUN(odd_documents);
    RUN(vocab_and_merges);
    RUN(rwkv_text_file);
    RUN(program);
    return test_report();
}
