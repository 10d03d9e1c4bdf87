// check_encdec_program: build/encdec as people meet it, and folders that mean harm. What it prints is compared with
// what the library says of the same words.
#include "bad/commands.h"
#include "bad/model_folder.h"
#include "make_bart.h"

#define US_BART SHARED_DATA "g2p-bart-us"
#define G2P "models/g2p"

// ---- hostile models

static bool refuses_model(char *err, size_t errlen) {
    G2p m;
    bool refused = g2p_open(&m, folder, err, errlen) == -1;
    if (!refused) g2p_close(&m);
    return refused;
}

static void write_faulty(Fault fault) {
    write_config(&small);
    write_weights(&small, fault);
}

static void hostile_config(void) {
    refuse_configs("bart_config");
}

static void hostile_tensors(void) {
    // clang-format off
    static const char *const names[] = {"model.shared.weight", "final_logits_bias",
        "model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight",
        "model.encoder.layernorm_embedding.weight", "model.decoder.layernorm_embedding.bias",
        "model.encoder.layers.0.self_attn.q_proj.weight", "model.encoder.layers.1.self_attn.k_proj.bias",
        "model.encoder.layers.0.self_attn.out_proj.bias", "model.encoder.layers.1.self_attn_layer_norm.weight",
        "model.encoder.layers.0.fc1.weight", "model.encoder.layers.0.fc1.bias", "model.encoder.layers.1.fc2.weight",
        "model.encoder.layers.1.final_layer_norm.bias", "model.encoder.layer_norm.weight",
        "model.decoder.layers.0.self_attn.v_proj.weight", "model.decoder.layers.1.encoder_attn.k_proj.weight",
        "model.decoder.layers.1.encoder_attn.v_proj.bias", "model.decoder.layers.0.encoder_attn_layer_norm.bias",
        "model.decoder.layers.1.fc2.bias", "model.decoder.layer_norm.bias"};
    // clang-format on
    refuse_tensors(names, N_OF(names), "final_logits_bias");
    write_weights(&small, (Fault){"final_logits_bias", MISSING}); // may be absent
    char err[512] = "";
    G2p m;
    bool open = !g2p_open(&m, folder, err, sizeof err);
    CHECK(open, "%s", err);
    if (open) g2p_close(&m);
}

static void truncated_weights(void) {
    refuse_cut_weights();
}

// ---- the program

// Random models rarely find an end; what is said of that is taken out of stderr. Returns how many lines.
static int drop_cuts(Result *r) {
    int n = 0;
    char *to = r->err;
    for (char *line = r->err, *next; *line; line = next) {
        next = line + strcspn(line, "\n");
        next += *next == '\n';
        bool cut = memmem(line, (size_t)(next - line), "cut at its limit of", 19) != NULL;
        n += cut;
        if (!cut) memmove(to, line, (size_t)(next - line));
        if (!cut) to += next - line;
    }
    *to = 0;
    return n;
}

// As prints, and its stderr holds `note` (NULL: is empty).
static void says(Result r, int status, const char *want, const char *note, const char *what) {
    drop_cuts(&r);
    CHECK(note ? strstr(r.err, note) != NULL : !*r.err, "%s: expected '%s' on stderr, found: %s", what,
          note ? note : "", r.err);
    prints(r, status, want, what);
}

// The lines that the library makes of this text.
static char *said_by_library(const G2p *m, const char *text, int n_beams) {
    char err[512] = "", *lines;
    size_t n;
    Word *words = NULL;
    CHECK(!words_split(&words, m, text, strlen(text), err, sizeof err), "%s", err);
    Decoded *out = pronounce_all(m, words, (int)arrlen(words), 1, n_beams);
    FILE *f = open_memstream(&lines, &n);
    for (ptrdiff_t i = 0; i < arrlen(words); i++) {
        char *spoken = pronunciation(m, &out[i]);
        fprintf(f, "%s\t%s\n", words[i].text, out[i].ids ? spoken : "?");
        free(spoken);
    }
    fclose(f);
    free_outputs(out, (int)arrlen(words));
    words_free(&words);
    return lines;
}

static void program_words(void) {
    G2p m;
    if (!open_model(&m, &small)) return;
    const char *text = "some words, Over \"two\" lines\nand one long: abcdefghijklmnopqr\n\n last";
    char *one = said_by_library(&m, text, 1), *three = said_by_library(&m, text, 3);
    says(CALL("encdec", folder, "-p", text, "-q"), 0, one, NULL, "-p");
    says(CALL("encdec", folder, "-p", text, "-q", "-b", "3", "-t", "1"), 0, three, NULL, "-b 3 -t 1");
    says(CALL("encdec", folder, "-p", text, "-q", "-b", "3", "-t", "3"), 0, three, NULL, "-b 3 -t 3");
    says(CALL("encdec", folder, "-p", text, "-q", "--batch", "1"), 0, one, NULL, "--batch 1");
    says(CALL("encdec", folder, "-p", text, "-q", "--batch", "256"), 0, one, NULL, "--batch 256");
    says(CALL_IN(text, "encdec", folder, "-q"), 0, one, NULL, "stdin");
    says(CALL_IN(text, "encdec", folder, "-f", "-", "-q"), 0, one, NULL, "-f -");
    write_text("words.txt", text);
    says(CALL("encdec", folder, "-f", in_folder("words.txt"), "-q", "-t", "2"), 0, one, NULL, "-f FILE");
    says(CALL("encdec", "-q", "-p", text, in_folder("model.safetensors")), 0, one, NULL, "the .safetensors file");
    says(CALL("encdec", folder, "-p", text), 0, one, "10 words", "statistics");
    says(CALL("encdec", folder, "-p", "", "-q"), 0, "", NULL, "no words");
    says(CALL("encdec", folder, "-p", ""), 0, "", "0 words", "statistics of no words");
    says(CALL_IN("\n \n...\n", "encdec", folder, "-q"), 0, "", NULL, "blank lines");
    Result r = CALL("encdec", folder, "-p", "");
    CHECK(!strstr(r.err, "nan") && !strstr(r.err, "inf"), "statistics of no words: %s", r.err);
    release(&r);
    r = CALL("encdec", folder, "-p", text, "-q", "-n", "2");
    for (char *line = strtok(r.out, "\n"); line; line = strtok(NULL, "\n")) {
        char *tab = strchr(line, '\t'), *space = tab ? strchr(tab, ' ') : NULL;
        CHECK(tab && (!space || !strchr(space + 1, ' ')), "-n 2: more than two symbols: %s", line);
    }
    release(&r);
    free(one);
    free(three);
    g2p_close(&m);
}

static void program_many_words(void) {
    write_model(&small);
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    for (int i = 0; i < (quick() ? 300 : 9000); i++) { // more than it takes at once
        fprintf(f, "%c%c%c%c", 'a' + pick(26), 'a' + pick(26), 'a' + pick(3), i % 7 ? ' ' : '\n');
    }
    fclose(f);
    G2p m;
    if (!open_model(&m, &small)) return;
    char *lines = said_by_library(&m, text, 1);
    // the words come in pieces, so that batches differ; words and their order do not
    Result r = CALL_IN(text, "encdec", folder, "-q", "-t", "2");
    drop_cuts(&r);
    CHECK(r.status == 0 && !*r.err, "status %d: %s", r.status, r.err);
    int differ = 0, n_lines = 0;
    char *a = lines, *b = r.out;
    for (; *a && *b; n_lines++) {
        size_t n_a = strcspn(a, "\n"), n_b = strcspn(b, "\n");
        CHECK(!strncmp(a, b, strcspn(a, "\t") + 1), "line %d: another word: %.20s", n_lines, b);
        differ += n_a != n_b || memcmp(a, b, n_a) != 0;
        a += n_a + 1;
        b += n_b + 1;
    }
    CHECK(!*a && !*b && differ < n_lines / 1000 + 1, "%d lines, %d differ", n_lines, differ);
    says(CALL_IN(text, "encdec", folder, "-q", "-t", "1"), 0, r.out, NULL, "one thread");
    release(&r);
    free(lines);
    g2p_close(&m);
    free(text);
}

static void program_json(void) {
    G2p m;
    if (!open_model(&m, &small)) return;
    const char *text = "some \"words\" toolongtoolongtoolong qu\xc3\xa9 ### \xff\xfe"
                       "ab \xf0\x9f\x98\x80";
    Result r = CALL("encdec", folder, "-p", text, "-o", "json", "-b", "2");
    CHECK(r.status == 1, "three words cannot be said: status %d: %s", r.status, r.err);
    char *lines = said_by_library(&m, text, 2), *want = lines, *saved;
    int n = 0;
    for (char *line = strtok_r(r.out, "\n", &saved); line; line = strtok_r(NULL, "\n", &saved), n++) {
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        CHECK(json_is_object(object), "not JSON: %s", line);
        const json_t *symbols = json_object_get(object, "symbols"), *score = json_object_get(object, "score");
        const char *word = json_string_value(json_object_get(object, "word"));
        size_t n_word = strcspn(want, "\t");
        CHECK(json_object_get(object, "word") && json_is_array(symbols), "keys: %s", line);
        if (memchr(want, '\xff', n_word)) {
            CHECK(json_is_null(json_object_get(object, "word")), "a word that is not UTF-8: %s", line);
        } else {
            CHECK(word && strlen(word) == n_word && !memcmp(word, want, n_word), "word: expected %.*s in %s",
                  (int)n_word, want, line);
        }
        char spoken[512] = "";
        for (size_t i = 0; i < json_array_size(symbols); i++) {
            if (i) strcat(spoken, " ");
            strncat(spoken, json_string_value(json_array_get(symbols, i)), 8);
        }
        const char *tab = want + n_word + 1;
        bool said = *tab != '?';
        CHECK(!said || (strlen(spoken) == strcspn(tab, "\n") && !strncmp(spoken, tab, strlen(spoken))),
              "symbols: expected %.*s, found %s", (int)strcspn(tab, "\n"), tab, line);
        CHECK(said ? json_is_real(score) && json_real_value(score) <= 0 : !score && !*spoken, "score: %s", line);
        json_decref(object);
        want += strcspn(want, "\n") + 1;
    }
    CHECK(n == 6 && !*want, "6 lines expected, found %d", n);
    free(lines);
    release(&r);
    g2p_close(&m);
}

static void program_notes(void) {
    G2p m;
    if (!open_model(&m, &small)) return;
    char *line = said_by_library(&m, "qu\xd0\x96", 1);
    Result r = CALL("encdec", folder, "-p", "qu\xd0\x96", "-q");
    drop_cuts(&r);
    CHECK(!strncmp(r.err, "note: qu\xd0\x96: ", 12) && strstr(r.err, "'\xd0\x96'"), "note: %s", r.err);
    CHECK(one_line((r.err[strcspn(r.err, "\n")] = 0, r.err)), "one line: %s", r.err);
    says(r, 0, line, "note: ", "an unknown letter");
    says(CALL("encdec", folder, "-p", "#1# \xe6\x97\xa5", "-q"), 1, "1\t?\n\xe6\x97\xa5\t?\n",
         "note: 1: the model does not know digits, and its config.json does not say \"language\": \"en\"",
         "no known letter");
    free(line);
    char text[1010] = "ab ", want[2048];
    memset(text + 3, 'x', 1000);
    text[1003] = 0;
    line = said_by_library(&m, "ab", 1);
    snprintf(want, sizeof want, "%s%s\t?\n", line, text + 3);
    says(CALL("encdec", folder, "-p", text, "-q"), 1, want, "found 1000", "a word too long");
    says(CALL("encdec", folder, "-p", "abcdefghijklmnopqrs", "-q"), 1, "abcdefghijklmnopqrs\t?\n", "at most 18 letters",
         "a letter too many");
    free(line);
    g2p_close(&m);
}

static void program_refuses(void) {
    write_model(&small);
    refuse_commands("commands_encdec");
    write_text("config.json", "{}");
    REFUSES(1, "config.json: model_type", "encdec", folder, "-p", "a");
    TELLS(0, "usage: ", "!", "encdec", "--help");
}

// A dictionary of what the model says, some of it altered: the rates follow.
static void program_eval(void) {
    char err[512] = "";
    Case c = lettered;
    G2p m;
    if (!open_model(&m, &c)) return;
    Word *words = NULL;
    const char *text = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima";
    CHECK(!words_split(&words, &m, text, strlen(text), err, sizeof err), "%s", err);
    int n = (int)arrlen(words), wrong[2] = {0}, edits[2] = {0}, n_words = 0, n_phonemes = 0;
    Decoded *out = pronounce_all(&m, words, n, 1, 4);
    char *dict;
    size_t size;
    FILE *f = open_memstream(&dict, &size);
    fprintf(f, ";;; what it says, altered\n");
    for (int i = 0; i < n; i++) {
        int symbols = 0, vowels = 0;
        for (int t = 0; t < out[i].n; t++) {
            symbols += symbols_text(&m.phonemes, out[i].ids[t]) != NULL;
            vowels += out[i].ids[t] >= AH0 && out[i].ids[t] <= AH2;
        }
        if (symbols != out[i].n || !symbols) continue; // ids without a symbol cannot be written down
        n_words++;
        fprintf(f, "%s%s", words[i].text, i % 4 == 3 ? " K K K K K K\n" : "");
        if (i % 4 == 3) fprintf(f, "%s(2)", words[i].text); // one of two is right
        for (int t = 0; t < symbols; t++) {
            int id = out[i].ids[t];
            bool vowel = id >= AH0 && id <= AH2;
            if (i % 4 == 1 && vowel) id = AH0 + (id - AH0 + 1) % 3; // another stress
            fprintf(f, " %s", symbols_text(&m.phonemes, id));
        }
        if (i % 4 == 2) fprintf(f, " XX YY"); // two symbols that it never says
        fprintf(f, "%s\n", i % 2 ? " # comment" : "");
        n_phonemes += symbols + 2 * (i % 4 == 2);
        for (int stress = 0; stress < 2; stress++) {
            int e = i % 4 == 2 ? 2 : i % 4 == 1 && stress ? vowels : 0;
            edits[stress] += e;
            wrong[stress] += e > 0;
        }
    }
    fclose(f);
    CHECK(n_words >= 6, "%d words that can be written down", n_words);
    write_text("test.dict", dict);
    char want[512];
    snprintf(want, sizeof want,
             "without stress word error rate %5.2f %% (%d of %d)   phoneme error rate %5.2f %% (%d of %d)\n"
             "with stress    word error rate %5.2f %% (%d of %d)   phoneme error rate %5.2f %% (%d of %d)\n",
             100.0 * wrong[0] / n_words, wrong[0], n_words, 100.0 * edits[0] / n_phonemes, edits[0], n_phonemes,
             100.0 * wrong[1] / n_words, wrong[1], n_words, 100.0 * edits[1] / n_phonemes, edits[1], n_phonemes);
    says(CALL("encdec", folder, "--eval", "-q"), 0, want, NULL, "--eval, MODEL/test.dict");
    says(CALL("encdec", folder, "--eval", in_folder("test.dict"), "-b", "4", "-t", "3", "-q"), 0, want, NULL,
         "--eval FILE");
    Result r = CALL("encdec", folder, "--eval", "-o", "json", "-t", "1");
    json_t *object = json_loads(r.out, 0, NULL);
    const char *keys[] = {"wer", "per", "wer_stress", "per_stress"};
    double rates[] = {(double)wrong[0] / n_words, (double)edits[0] / n_phonemes, (double)wrong[1] / n_words,
                      (double)edits[1] / n_phonemes};
    for (int i = 0; i < 4; i++) {
        CHECK(fabs(json_number_value(json_object_get(object, keys[i])) - rates[i]) < 1e-6, "%s: expected %g in %s",
              keys[i], rates[i], r.out);
    }
    CHECK(json_integer_value(json_object_get(object, "n_words")) == n_words &&
              json_integer_value(json_object_get(object, "beams")) == 4,
          "%s", r.out);
    json_decref(object);
    release(&r);
    write_text("test.dict", "ab\n");
    REFUSES(1, "test.dict: line 1", "encdec", folder, "--eval");
    unlink(in_folder("test.dict"));
    free(dict);
    free_outputs(out, n);
    words_free(&words);
    g2p_close(&m);
}

static void check_picture(const char *model, const char *name, const char *begin, const char *const *parts) {
    size_t n;
    const char *path = in_folder(name);
    unlink(path);
    Result r = CALL("encdec", model, "-p", "cab", "-q", "--attention", path);
    drop_cuts(&r);
    CHECK(r.status == 0 && !*r.err && !strncmp(r.out, "cab\t", 4), "%s: status %d: %s%s", name, r.status, r.out, r.err);
    release(&r);
    char *picture = read_file(in_folder(name), &n);
    CHECK(n > 200 && !memcmp(picture, begin, strlen(begin)), "%s: %zu bytes: %.20s", name, n, picture);
    for (; *parts; parts++) CHECK(strstr(picture, *parts), "%s: no '%s'", name, *parts);
    unlink(in_folder(name));
    free(picture);
}

static void tells_but_cuts(const char *what, Result r) {
    drop_cuts(&r);
    tells(0, "", "!", what, r);
}

// Known answers of the shipped model: accents, digits, apostrophes, and a word that it finds no end for.
static void program_words_of_people(void) {
    static const char shipped[] = "models/g2p";
    Result a = CALL("encdec", shipped, "-p", "cafe uber cats's dogs'", "-q");
    CHECK(a.status == 0 && !*a.err && strstr(a.out, "cats's\tK AE1 T S IH0 Z\ndogs'\tD AO1 G Z\n"), "%s%s", a.out,
          a.err);
    Result b = CALL("encdec", shipped, "-p", "caf\u00e9 \u00dcber cats\u2019s dogs'", "-q");
    const char *from = strchr(a.out, '\t'), *to = strchr(b.out, '\t');
    for (; from && to; from = strchr(from + 1, '\t'), to = strchr(to + 1, '\t')) {
        size_t n = strcspn(from, "\n");
        CHECK(!strncmp(from, to, n + 1), "%s%s", a.out, b.out);
    }
    CHECK(!from && !to && b.status == 0 && !*b.err, "%s%s", b.out, b.err);
    release(&a);
    release(&b);
    a = CALL("encdec", shipped, "-p", "the third of forty two", "-q");
    prints(CALL("encdec", shipped, "-p", "the 3rd of 42", "-q"), 0, a.out, "numbers in words");
    release(&a);
    Result r = CALL("encdec", shipped, "-p", "supercalifragilisticexpialidocious", "-q");
    CHECK(r.status == 0 && drop_cuts(&r) == 1 && !*r.err, "%s", r.err);
    release(&r);
}

static void program_attention(void) {
    write_model(&small);
    const char *const svg[] = {"</svg>", ">c<", ">a<", ">b<", "all heads", "layer 2, head 4", NULL}, *const none[] = {
                                                                                                         NULL};
    check_picture(folder, "p.svg", "<svg", svg);
    check_picture(folder, "p.png", "\x89PNG\r\n\x1a\n", none);
    Result r = CALL("encdec", folder, "-p", "cab", "-q", "--attention", in_folder("p.txt"));
    struct stat st;
    CHECK(r.status == 1 || r.status == 2, "p.txt: status %d: %s", r.status, r.err);
    CHECK(strstr(r.err, "p.txt") && strstr(r.err, ".svg"), "p.txt: %s", r.err);
    CHECK(stat(in_folder("p.txt"), &st), "p.txt: written");
    release(&r);
    TELLS(1, "", "absent/p.svg", "encdec", folder, "-p", "cab", "-q", "--attention", in_folder("absent/p.svg"));
    r = CALL("encdec", folder, "-p", "abcdefghijklmnopqrstuv", "-q", "--attention", in_folder("p.svg"));
    CHECK(r.status == 1 && !strcmp(r.out, "abcdefghijklmnopqrstuv\t?\n") && stat(in_folder("p.svg"), &st),
          "a word too long: status %d: %s%s", r.status, r.out, r.err);
    release(&r);
    tells_but_cuts("stdin", CALL_IN("cab\n", "encdec", folder, "-q", "-b", "3", "--attention", in_folder("p.svg")));
    // as many symbols as the decoder has positions: every row of the picture is there
    Case c = small;
    c.longest = 5;
    write_model(&c);
    tells_but_cuts("-n", CALL("encdec", folder, "-p", "cab", "-q", "-n", "500", "--attention", in_folder("p.svg")));
    unlink(in_folder("p.svg"));
}

static void program_on_real_models(void) {
    static const struct {
        const char *model, *need, *words;
    } models[] = {{US_BART, US_BART "/us_bart.safetensors", "cab"}, {G2P, G2P "/model.safetensors", "cab"}};
    static const char *const svg[] = {"</svg>", "all heads", NULL}, *const none[] = {NULL};
    int n = 0;
    for (int i = 0; i < N_OF(models); i++) {
        struct stat st;
        if (stat(models[i].need, &st)) {
            printf("  (no %s here)\n", models[i].need);
            continue;
        }
        n++;
        const char *text = "The quick brown fox, it's said, jumped over well-worn lazy dogs in the U.S.";
        Result one = CALL("encdec", models[i].model, "-p", text, "-b", "4", "-t", "1", "-q");
        CHECK(one.status == 0 && strstr(one.out, "quick\t"), "%s: status %d: %s", models[i].model, one.status, one.err);
        says(CALL("encdec", models[i].model, "-p", text, "-b", "4", "-t", "3", "-q"), 0, one.out,
             one.err[0] ? one.err : NULL, "three threads");
        release(&one);
        check_picture(models[i].model, "p.svg", "<svg", svg);
        check_picture(models[i].model, "p.png", "\x89PNG\r\n\x1a\n", none);
    }
    if (!n) test_was_skipped = 1;
}

// A file that ties the table of tokens keeps one of its names.
static void names_of_the_table(void) {
    static const char *const names[] = {"lm_head.weight", "model.encoder.embed_tokens.weight",
                                        "model.decoder.embed_tokens.weight"};
    static const char shared[] = "\"model.shared.weight\"";
    write_model(&small);
    Result want = CALL("encdec", folder, "-p", "abc");
    CHECK(want.status == 0, "%s", want.err);
    for (int i = 0; i < N_OF(names); i++) {
        size_t n;
        write_model(&small);
        char *bytes = read_file(in_folder("model.safetensors"), &n), header[20000];
        uint64_t length;
        memcpy(&length, bytes, 8);
        char *at = memmem(bytes + 8, length, shared, sizeof shared - 1), *rest = at + sizeof shared - 1;
        int n_header = snprintf(header, sizeof header, "%.*s\"%s\"%.*s", (int)(at - bytes - 8), bytes + 8, names[i],
                                (int)(bytes + 8 + length - rest), rest);
        write_safetensors(header, (size_t)n_header, bytes + 8 + length, n - 8 - length);
        free(bytes);
        prints(CALL("encdec", folder, "-p", "abc"), 0, want.out, names[i]);
    }
    release(&want);
}

static void damaged_weights(void) {
    size_t n;
    write_model(&small);
    char *bytes = read_file(in_folder("model.safetensors"), &n);
    memcpy(bytes + n - 4, &(float){NAN}, 4);
    write_file("model.safetensors", bytes, n);
    free(bytes);
    REFUSES(1, "are not finite: a weight of the model may be damaged", "encdec", folder, "-p", "abc");
    REFUSES(1, "are not finite: a weight of the model may be damaged", "encdec", folder, "-p", "abc", "-b", "3");
}

int main(void) {
    folder_make();
    bad_model = (ModelFolder){refuses_model, write_faulty};
    need_program("encdec");
    RUN(hostile_config);
    RUN(hostile_tensors);
    RUN(truncated_weights);
    RUN(program_words);
    RUN(program_many_words);
    RUN(program_json);
    RUN(program_notes);
    RUN(program_refuses);
    RUN(program_eval);
    RUN(program_attention);
    RUN(program_words_of_people);
    RUN(names_of_the_table);
    RUN(damaged_weights);
    RUN(program_on_real_models);
    folder_remove();
    return test_report();
}
