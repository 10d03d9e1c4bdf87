// check_first_messages: what ./run and build/tokenize say of files that are no model, and which model of several they
// take; the notes of what was guessed; whence the sampling came; texts as other systems write them.
#include "bad/gguf.h"
#include "child.h"
#include "make_family.h"

#define ONCE "Once"

// ---- what is no model

static void write_start(const char *name, const char *start, size_t n) {
    char bytes[600];
    memset(bytes, '.', sizeof bytes);
    memcpy(bytes, start, n);
    write_file(name, bytes, sizeof bytes);
}

static void foreign_files(void) {
    static const struct {
        const char *start;
        size_t n;
        const char *said;
    } cases[] = {
#define START(bytes, said) {bytes, sizeof bytes - 1, said}
        START("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        START("<!DOCTYPE html><html>", "a web page"),
        START("\n  <HTML><head>", "a web page"),
        START("\xEF\xBB\xBF<html>", "a web page"),
        START("<?xml version=\"1.0\"?>", "a web page"),
        START("PK\3\4", "a zip archive, as PyTorch saves models"),
        START("\x80\2}q", "a Python pickle"),
        START("\x80\5", "a Python pickle"),
        START("lmgg", "a GGML file, the format before GGUF"),
        START("fmgg\1\0\0\0", "ggmf"),
        START("tjgg\3\0\0\0", "ggjt"),
        START("algg", "a LoRA adapter for GGML"),
        START("GGUF\0\0\0\3", "a big-endian GGUF file"),
        START("GGUF\0\0\0\2", "a big-endian GGUF file"),
        START("\x1F\x8B\x08", "compressed with gzip"),
        START("\x28\xB5\x2F\xFD", "compressed with zstd"),
        START("BZh9", "compressed with bzip2"),
        START("\x89HDF\r\n", "an HDF5 file"),
        START("\x93NUMPY", "a NumPy array"),
        START("\x89PNG", "a picture"),
        START("%PDF-1.7", "a PDF document"),
        START("{\"model_type\": \"llama\"}", "JSON: name the folder"),
#undef START
    };
    for (int i = 0; i < N_OF(cases); i++) {
        char want[200];
        write_start("model.gguf", cases[i].start, cases[i].n);
        snprintf(want, sizeof want, "model.gguf: expected a model, found %s", cases[i].said);
        if (strstr(cases[i].said, "gg") && strlen(cases[i].said) == 4)
            snprintf(want, sizeof want, "(%s)", cases[i].said);
        REFUSES(1, want, "run", in_folder("model.gguf"), "-p", ONCE);
        REFUSES(1, want, "tokenize", in_folder("model.gguf"), "-p", ONCE);
    }
    char tar[600] = "model.gguf";
    memcpy(tar + 257, "ustar", 5);
    write_file("model.gguf", tar, sizeof tar);
    REFUSES(1, "a tar archive", "run", in_folder("model.gguf"), "-p", ONCE);
}

static void foreign_folders(void) {
    static const char *const cases[][2] = {{"adapter_config.json", "a LoRA adapter"},
                                           {"pytorch_model.bin", "a model as PyTorch saves it"},
                                           {"consolidated.00.pth", "a model as PyTorch saves it"},
                                           {"tf_model.h5", "a model as TensorFlow saves it"},
                                           {"flax_model.msgpack", "a model as Flax saves it"},
                                           {"model.onnx", "an ONNX model"},
                                           {"model_index.json", "a pipeline of Diffusers"}};
    for (int i = 0; i < N_OF(cases); i++) {
        folder_empty();
        write_text(cases[i][0], "{}");
        REFUSES(1, cases[i][1], "run", folder, "-p", ONCE);
    }
    folder_empty();
    REFUSES(1, "config.json", "run", folder, "-p", ONCE);
}

// ---- models that are made here

static Maker small_maker(void) {
    BinSpec s = {32, 24, 2, 4, 2, 20, 64, .tied = true, .seed = 5};
    Maker m = maker_new();
    maker_llama(&m, &s);
    return m;
}

static const char *write_made(Maker *m, const char *name) {
    size_t n;
    uint8_t *bytes = maker_bytes(m, &n);
    const char *path = write_file(name, bytes, n);
    free(bytes);
    maker_free(m);
    return path;
}

// A folder with one GGUF file is that file; of two, one must be named.
static void folder_of_gguf(void) {
    folder_empty();
    Maker m = small_maker();
    const char *path = write_made(&m, "only.gguf");
    Result one = CALL("run", path, "-p", "ab", "--temp", "0", "-n", "8", "-q");
    prints(CALL("run", folder, "-p", "ab", "--temp", "0", "-n", "8", "-q"), 0, one.out, "the folder");
    CHECK(one.status == 0, "%s", one.err);
    release(&one);
    prints(CALL("tokenize", folder, "-p", "ab"), 0, "1 3 4 5\n", "its vocabulary");
    m = small_maker();
    write_made(&m, "other.gguf");
    REFUSES(1, "expected one .gguf file, found 2", "run", folder, "-p", "ab");
}

static void no_decoders(void) {
    REFUSES(1, "build/vit runs it", "run", "models/vit", "-p", "x");
    REFUSES(1, "build/encdec runs it", "run", "models/g2p", "-p", "x");
}

static void parts_of_a_split(void) {
    folder_empty();
    Maker m = maker_new();
    uint16_t part = 1, parts = 2;
    maker_put(&m, "split.no", G_U16, &part, 2);
    maker_put(&m, "split.count", G_U16, &parts, 2);
    write_made(&m, "x-00002-of-00002.gguf");
    REFUSES(1, "part 2 of 2 of a split model: name the first, ", "run", in_folder("x-00002-of-00002.gguf"), "-p", "x");
    REFUSES(1, "/x-00001-of-00002.gguf", "run", in_folder("x-00002-of-00002.gguf"), "-p", "x");
}

static void types_by_name(void) {
    static const struct {
        uint32_t number;
        const char *name;
    } types[] = {{15, "Q8_K"}, {9, "Q8_1"}, {28, "F64"}};
    folder_empty();
    for (int i = 0; i < N_OF(types); i++) {
        char want[80];
        Maker m = small_maker();
        maker_tensor(&m, "blk.0.attn_q.weight")->type = types[i].number;
        write_made(&m, "t.gguf");
        snprintf(want, sizeof want, "found %s (number %u)", types[i].name, types[i].number);
        REFUSES(1, want, "run", in_folder("t.gguf"), "-p", "x");
    }
}

// ---- what is said of a model that runs

static void notes(void) {
    folder_empty();
    Maker m = small_maker();
    drop_pair(&m, "tokenizer.ggml.token_type");
    maker_u32(&m, "tokenizer.ggml.eos_token_id", 77);
    const char *path = write_made(&m, "m.gguf");
    TELLS(0, "a", "note: tokenizer.ggml.token_type is absent", "run", path, "-p", "a", "-n", "2", "-q");
    TELLS(0, "a", "note: tokenizer.ggml.eos_token_id is 77, but there are 20 tokens", "run", path, "-p", "a", "-n",
          "2");
    TELLS(0, "1 3 4\n", "note: tokenizer.ggml.token_type is absent", "tokenize", path, "-p", "a");
}

// A logit that is no number ends the text with one line.
static void damaged_weights(void) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    folder_empty();
    for (int i = 0; i < N_OF(bad); i++) {
        Maker m = small_maker();
        memcpy(maker_tensor(&m, "blk.1.ffn_down.weight")->data.at, &bad[i], 4);
        const char *path = write_made(&m, "m.gguf");
        TELLS(1, "a", "error: the logits after token 3 are not finite", "run", path, "-p", "a", "-n", "2");
    }
}

// Flag, then generation_config.json or general.sampling.*, then built in.
static void sampling(void) {
    folder_empty();
    Maker m = small_maker();
    const char *path = write_made(&m, "m.gguf");
    TELLS(0, "", "| temp 0.8, top-k 40, top-p 0.95, min-p 0.05\n", "run", path, "-p", "a", "-n", "2");
    TELLS(0, "", "| temp 0.5 (flag), top-k 40, top-p 0.95, min-p 0 (flag)\n", "run", path, "-p", "a", "-n", "2",
          "--temp", "0.5", "--min-p", "0");
    m = small_maker();
    maker_f32(&m, "general.sampling.temp", 0);
    maker_put(&m, "general.sampling.top_k", G_I32, &(int32_t){1}, 4);
    maker_f32(&m, "general.sampling.top_p", 0.5f);
    maker_f32(&m, "general.sampling.min_p", 0.25f);
    maker_f32(&m, "general.sampling.penalty_repeat", 1.5f);
    path = write_made(&m, "m.gguf");
    TELLS(0, "",
          "| temp 0 (general.sampling), top-k 1 (general.sampling), top-p 0.5 (general.sampling), min-p 0.25 "
          "(general.sampling), repeat-penalty 1.5 (general.sampling)\n",
          "run", path, "-p", "a", "-n", "2");
    TELLS(0, "", "temp 0.75 (flag), top-k 1 (general.sampling), top-p 1 (flag)", "run", path, "-p", "a", "-n", "2",
          "--temp", "0.75", "--top-p", "1");
    TELLS(0, "", ", repeat-penalty 2 (flag)\n", "run", path, "-p", "a", "-n", "2", "--repeat-penalty", "2");
    Result one = CALL("run", path, "-p", "a", "-n", "9", "-s", "1", "-q");
    prints(CALL("run", path, "-p", "a", "-n", "9", "-s", "2", "-q"), 0, one.out, "greedy, whatever the seed");
    release(&one);
}

// What a penalty of the files does: what the flags do that say the same. The text is longer than 64 tokens, which is as
// far as the flag's looks back unless told.
static void penalties_of_files(void) {
    static const struct {
        double penalty;
        int last_n; // -9: not said
        const char *flags[4];
    } cases[] = {{1, -9, {"--repeat-penalty", "1", "--repeat-last-n", "64"}},
                 {1.3, -9, {"--repeat-penalty", "1.3", "--repeat-last-n", "64"}},
                 {1.3, -1, {"--repeat-penalty", "1.3", "--repeat-last-n", "-1"}},
                 {1.3, 5, {"--repeat-penalty", "1.3", "--repeat-last-n", "5"}},
                 {1.3, 0, {"--repeat-penalty", "1", "--repeat-last-n", "64"}}};
    char *texts[N_OF(cases)];
    folder_empty();
    BinSpec s = {32, 24, 2, 4, 2, 200, 300, .tied = true, .seed = 5};
    Maker plain = maker_new();
    maker_llama(&plain, &s);
    const char *without = strdup(write_made(&plain, "plain.gguf"));
    for (int i = 0; i < N_OF(cases); i++) {
        Maker m = maker_new();
        maker_llama(&m, &s);
        maker_f32(&m, "general.sampling.penalty_repeat", (float)cases[i].penalty);
        if (cases[i].last_n != -9)
            maker_put(&m, "general.sampling.penalty_last_n", G_I32, &(int32_t){cases[i].last_n}, 4);
        const char *path = write_made(&m, "m.gguf"), *const *f = cases[i].flags;
        Result said = CALL("run", without, "-p", "a", "-n", "200", "-q", "--temp", "2", "-s", "1", "--ignore-eos", f[0],
                           f[1], f[2], f[3]);
        prints(CALL("run", path, "-p", "a", "-n", "200", "-q", "--temp", "2", "-s", "1", "--ignore-eos"), 0, said.out,
               f[3]);
        Result over =
            CALL("run", path, "-p", "a", "-n", "200", "-q", "--temp", "2", "-s", "1", "--ignore-eos", f[0], "1");
        if (i) CHECK(!strcmp(over.out, texts[0]), "a flag goes before the file: %s", over.out);
        texts[i] = strdup(said.out);
        release(&over);
        release(&said);
    }
    for (int i = 1; i < 4; i++) CHECK(strcmp(texts[i], texts[0]) != 0, "penalty %d changes nothing: %s", i, texts[i]);
    CHECK(strcmp(texts[1], texts[2]) != 0 && strcmp(texts[1], texts[3]) != 0, "what it looks back on changes nothing");
    for (int i = 0; i < N_OF(cases); i++) free(texts[i]);
    free((char *)without);
}

static void sampling_of_folders(void) {
    static const struct {
        const char *json, *said;
    } cases[] = {
        {NULL, "| temp 0.8, top-k 40, top-p 0.95, min-p 0.05\n"},
        {"{'eos_token_id':2}", "| temp 0.8, top-k 40, top-p 0.95, min-p 0.05\n"},
        {"{'do_sample':true,'temperature':0.5,'top_k':7,'top_p':0.25,'min_p':0.125}",
         "| temp 0.5 (generation_config.json), top-k 7 (generation_config.json), top-p 0.25 (generation_config.json), "
         "min-p 0.125 (generation_config.json)\n"},
        {"{'temperature':null,'top_k':0}", "| temp 0.8, top-k 0 (generation_config.json), top-p 0.95, min-p 0.05\n"},
        {"{'do_sample':false,'temperature':0.5}", "| temp 0 (generation_config.json), top-k 40"},
        {"{'repetition_penalty':1.5}", ", min-p 0.05, repeat-penalty 1.5 (generation_config.json)\n"},
        {"{'typical_p':0.5}", "note: generation_config.json: typical_p = 0.5 is not applied"},
    };
    Fixture f;
    family_read(&f, FIXTURES "llama.json");
    for (int i = 0; i < N_OF(cases); i++) {
        folder_empty();
        write_family(&f);
        write_json("tokenizer.json", "{'model':{'type':'BPE','vocab':{'a':0,'b':1,'ab':2},'merges':['a b']}}");
        if (cases[i].json) write_json("generation_config.json", cases[i].json);
        TELLS(0, "", cases[i].said, "run", folder, "-p", "a", "-n", "2");
    }
    write_json("generation_config.json", "{'repetition_penalty':0}");
    REFUSES(1, "generation_config.json: repetition_penalty: expected 0.01 to 100, found 0", "run", folder, "-p", "a");
    write_json("generation_config.json", "{'top_p':2}");
    REFUSES(1, "generation_config.json: top_p: expected 0 to 1, found 2", "run", folder, "-p", "a");
    family_free(&f);
}

// ---- texts

static void texts(void) {
    folder_empty();
    Maker m = small_maker();
    const char *path = write_made(&m, "m.gguf");
    const char *plain = write_text("plain.txt", "ab\nab"), *other = write_text("other.txt", "\xEF\xBB\xBF"
                                                                                            "ab\r\nab");
    Result one = CALL("run", path, "-f", plain, "-n", "4", "--temp", "0", "-q");
    prints(CALL("run", path, "-f", other, "-n", "4", "--temp", "0", "-q"), 0, one.out, "a file with CR LF and a mark");
    release(&one);
    one = CALL("tokenize", path, "-f", plain);
    prints(CALL("tokenize", path, "-f", other), 0, one.out, "its tokens");
    release(&one);
    one = CALL_IN("ab\nba\n", "run", path, "--chat", "-n", "4", "--temp", "0", "-q");
    prints(CALL_IN("\xEF\xBB\xBF"
                   "ab\r\nba\r\n",
                   "run", path, "--chat", "-n", "4", "--temp", "0", "-q"),
           0, one.out, "a chat with CR LF and a mark");
    CHECK(one.status == 0 && *one.out, "%s", one.err);
    release(&one);
    one = CALL_IN("ab\n/quit\nba\n", "run", path, "--chat", "-n", "4", "--temp", "0", "-q");
    prints(CALL_IN("ab\r\n/quit\r\nba\r\n", "run", path, "--chat", "-n", "4", "--temp", "0", "-q"), 0, one.out,
           "a command with CR LF");
    release(&one);
}

// The tokenizer beside a .bin, and a tokenizer.bin alone, whatever its size.
static void tokenizer_beside(void) {
    BinSpec s = {32, 24, 2, 4, 2, 300, 64, .tied = true, .seed = 5};
    folder_empty();
    make_bin(in_folder("m.bin"), &s);
    make_tokenizer_bin(in_folder("tokenizer.bin"), 300, 4);
    Result one = CALL("tokenize", in_folder("tokenizer.bin"), "-p", "abc");
    CHECK(one.status == 0 && *one.out, "%s", one.err);
    prints(CALL("tokenize", in_folder("m.bin"), "-p", "abc"), 0, one.out, "beside the model");
    make_tokenizer_bin(in_folder("m.tokenizer.bin"), 260, 4);
    Result own = CALL("tokenize", in_folder("m.tokenizer.bin"), "-p", "abc");
    prints(CALL("tokenize", in_folder("m.bin"), "-p", "abc"), 0, own.out, "its own first");
    release(&own);
    release(&one);
}

int main(void) {
    folder_make();
    need_program("run");
    need_program("tokenize");
    RUN(foreign_files);
    RUN(foreign_folders);
    RUN(folder_of_gguf);
    RUN(no_decoders);
    RUN(parts_of_a_split);
    RUN(types_by_name);
    RUN(notes);
    RUN(damaged_weights);
    RUN(sampling);
    RUN(penalties_of_files);
    RUN(sampling_of_folders);
    RUN(texts);
    RUN(tokenizer_beside);
    folder_remove();
    return test_report();
}
