// The programs as people meet them: flags, exit statuses, what goes to stdout and what to stderr, and numbers that a
// recomputation through tessera.h confirms. Runs ./run, bench, perplexity and synth of TESSERA_BUILD as children.
#include "bad/commands.h"
#include "kernels.h"
#include "make_parrot.h"
#include "tessera.h"

#include <ctype.h>

#define MODEL in_folder("f32.bin")
#define MODEL_INT8 in_folder("int8.bin")
#define TEXT in_folder("text.txt")

// ---- formats

static bool json_valid(const char *s) {
    json_t *value = json_loads(s, JSON_DECODE_ANY, NULL);
    json_decref(value);
    return value;
}

static double json_number(const char *json, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(json, quoted);
    return at ? strtod(at + strlen(quoted), NULL) : NAN;
}

static void test_the_checker_itself(void) {
    CHECK(xml_valid("<svg a=\"<\"><g/>x &amp; y</svg>"), "XML");
    CHECK(!xml_valid("<svg><g></svg></g>") && !xml_valid("<svg>a & b</svg>") && !xml_valid("<svg>"), "no XML");
}

// ---- synth

static void check_model(const char *path) {
    char err[512];
    Engine *e = engine_open(path, NULL, err, sizeof err);
    NEED(e, "%s", err);
    SessionOptions so = {.n_threads = 1};
    Session *s = session_open(e, &so, err, sizeof err);
    int32_t *ids = NULL;
    int n = engine_encode(e, "a word or two: \xc3\xa9!", 18, true, false, &ids, err, sizeof err);
    CHECK(n > 1 && s && !session_sync(s, ids, n, err, sizeof err), "%s", err);
    const float *logits = session_logits(s);
    for (int i = 0; logits && i < engine_info(e).vocab_size; i++) {
        CHECK(fabsf(logits[i]) < 1000, "%s: logit %d is %g", path, i, (double)logits[i]);
    }
    free(ids);
    session_close(s);
    engine_close(e);
}

static void test_synth(void) {
    TELLS(0, "!", "", "synth", "tiny", "f32", MODEL);
    TELLS(0, "", "", "synth", "tiny", "int8", MODEL_INT8);
    check_model(MODEL);
    check_model(MODEL_INT8);
}

// ---- bench

static void test_bench_md(void) {
    Result r = CALL("bench", MODEL, "-p", "16,8", "-n", "4", "-d", "0,32", "-r", "2", "-t", "2");
    CHECK(r.status == 0, "status %d: %s", r.status, r.err);
    const char *want[] = {"| pp16 |",      "| pp8 |",       "| tg4 |", "| pp16 @ d32 |",
                          "| pp8 @ d32 |", "| tg4 @ d32 |", " ± ",     "GB/s"};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        CHECK(strstr(r.out, want[i]), "no '%s' in:\n%s", want[i], r.out);
    CHECK(count_of(r.out, "| llama 0.11M F32 |") == 6, "expected 6 rows:\n%s", r.out);
    release(&r);
    r = CALL("bench", MODEL, "-p", "0", "-n", "3", "-d", "0,20", "-r", "1", "--batch", "1,3");
    CHECK(r.status == 0 && strstr(r.out, "| tg3 |") && strstr(r.out, "| tg3 x3 |") && strstr(r.out, "| tg3 x3 @ d20 |"),
          "status %d: %s%s", r.status, r.out, r.err);
    release(&r);
    r = CALL("bench", MODEL_INT8, "-p", "0", "-n", "3", "-r", "1", "--window", "8", "--sinks", "2", "--kv", "f32", "-c",
             "3");
    CHECK(r.status == 0 && count_of(r.out, "| llama 0.11M ") == 1, "status %d: %s%s", r.status, r.out, r.err);
    release(&r);
}

static void test_bench_json(void) {
    Result r = CALL("bench", MODEL, "-p", "16", "-n", "4", "-d", "300", "-r", "3", "-t", "1", "-o", "json");
    CHECK(r.status == 0 && json_valid(r.out), "status %d, JSON expected: %s%s", r.status, r.out, r.err);
    const char *fields[] = {"test",      "n_prompt",      "n_gen",      "n_depth",  "n_threads", "avg_ts",
                            "stddev_ts", "avg_ns",        "samples_ns", "gb_per_s", "kv_bytes",  "model_bytes",
                            "cpu_level", "read_gb_per_s", "cores",      "peak_rss"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\": ", fields[i]);
        CHECK(strstr(r.out, quoted), "no field %s", fields[i]);
    }
    const char *decode = strstr(r.out, "\"test\": \"tg4 @ d300\"");
    CHECK(decode, "no decode row: %s", r.out);
    if (decode) { // every number of the row follows from others and from the shape of synth's tiny model
        const char *samples = strstr(decode, "\"samples_ns\": [") + 15;
        double sum_ns = 0, sum_ts = 0;
        for (int i = 0; i < 3; i++) {
            char *end;
            double ns = strtod(samples, &end);
            sum_ns += ns, sum_ts += 4e9 / ns;
            samples = end + 2;
        }
        double ts = json_number(decode, "avg_ts");
        CHECK(fabs(json_number(decode, "avg_ns") - sum_ns / 3) <= 1, "avg_ns against samples %g", sum_ns / 3);
        CHECK(fabs(ts / (sum_ts / 3) - 1) < 1e-4, "avg_ts %g against samples %g", ts, sum_ts / 3);
        double kv = 302.5 * 2 * 2 * 32 * 2; // mean keys x layers x (K, V) x kv_dim x bytes of bf16
        double gb = (json_number(r.out, "token_bytes") + kv) * ts * 1e-9;
        CHECK(fabs(json_number(decode, "gb_per_s") / gb - 1) < 1e-4, "gb_per_s: expected %g in %s", gb, decode);
        CHECK(json_number(decode, "kv_bytes") == 512 * 2 * 2 * 32 * 2, "kv_bytes of two blocks in %s", decode);
        CHECK(json_number(decode, "peak_rss") > 1e5 && json_number(decode, "n_depth") == 300, "%s", decode);
    }
    release(&r);
}

static void test_bench_kv(void) { // of two blocks: 2 layers, K and V, 2 heads of 16 values; q8 has a scale for them
    const struct {
        const char *kv;
        int token_bytes;
    } types[] = {{"bf16", 2 * 2 * 2 * 16 * 2}, {"f32", 2 * 2 * 2 * 16 * 4}, {"q8", 2 * 2 * 2 * (16 + 4)}};
    for (int i = 0; i < N_OF(types); i++) {
        Result r =
            CALL("bench", MODEL, "-p", "0", "-n", "4", "-d", "300", "-r", "1", "--kv", types[i].kv, "-o", "json");
        CHECK(r.status == 0 && json_valid(r.out), "%s: status %d: %s%s", types[i].kv, r.status, r.out, r.err);
        double gb = (json_number(r.out, "token_bytes") + 302.5 * types[i].token_bytes) * json_number(r.out, "avg_ts");
        CHECK(fabs(json_number(r.out, "gb_per_s") / (gb * 1e-9) - 1) < 1e-4, "%s: %s", types[i].kv, r.out);
        CHECK(json_number(r.out, "kv_bytes") == 512 * types[i].token_bytes, "%s: %s", types[i].kv, r.out);
        release(&r);
    }
}

static void test_bench_csv(void) {
    Result r = CALL("bench", MODEL, "-p", "8", "-n", "2", "-r", "1", "-o", "csv");
    CHECK(r.status == 0 && count_of(r.out, "\n") == 3, "status %d, three lines expected: %s%s", r.status, r.out, r.err);
    int commas[3] = {0}, line = 0;
    for (const char *s = r.out; *s && line < 3; s++) {
        commas[line] += *s == ',';
        line += *s == '\n';
    }
    CHECK(commas[0] > 8 && commas[1] == commas[0] && commas[2] == commas[0], "columns differ: %s", r.out);
    release(&r);
}

// Every field that llama.cpp's compare-llama-bench.py asks of a line, with the types of its database.
static void check_llama_bench_line(const json_t *o, const char *line) {
    static const char *const texts[] = {
        "build_commit", "cpu_info", "gpu_info",   "backends",     "model_filename",        "model_type", "cpu_mask",
        "type_k",       "type_v",   "split_mode", "tensor_split", "tensor_buft_overrides", "test_time"};
    static const char *const integers[] = {"build_number", "model_size", "model_n_params", "n_batch",  "n_ubatch",
                                           "n_threads",    "poll",       "n_gpu_layers",   "main_gpu", "n_prompt",
                                           "n_gen",        "n_depth",    "avg_ns",         "stddev_ns"};
    static const char *const booleans[] = {"cpu_strict", "no_kv_offload", "flash_attn", "use_mmap", "embeddings"};
    for (int i = 0; i < N_OF(texts); i++) CHECK(json_is_string(json_object_get(o, texts[i])), "%s: %s", texts[i], line);
    for (int i = 0; i < N_OF(integers); i++)
        CHECK(json_is_integer(json_object_get(o, integers[i])), "%s: %s", integers[i], line);
    for (int i = 0; i < N_OF(booleans); i++)
        CHECK(json_is_boolean(json_object_get(o, booleans[i])), "%s: %s", booleans[i], line);
    double ts = 0, ns = 0;
    for (size_t i = 0; i < 2; i++) {
        ts += json_number_value(json_array_get(json_object_get(o, "samples_ts"), i)) / 2;
        ns += json_number_value(json_array_get(json_object_get(o, "samples_ns"), i)) / 2;
    }
    CHECK(fabs(number(o, "avg_ts") / ts - 1) < 1e-6 && fabs(number(o, "avg_ns") / ns - 1) < 1e-4, "%s", line);
}

// Two models, two numbers of threads, three tests.
static void test_bench_jsonl(void) {
    const char *tests[3] = {"8 0 4", "0 2 4", "8 2 4"};
    int n = 0;
    Result r = CALL("bench", MODEL, "-m", MODEL_INT8, "-p", "8", "-n", "2", "-pg", "8,2", "-d", "4", "-t", "1,2", "-r",
                    "2", "-o", "jsonl");
    CHECK(r.status == 0, "status %d: %s", r.status, r.err);
    for (char *line = strtok(r.out, "\n"); line; line = strtok(NULL, "\n"), n++) {
        char found[64];
        json_t *o = json_loads(line, 0, NULL);
        CHECK(o, "no JSON: %s", line);
        check_llama_bench_line(o, line);
        snprintf(found, sizeof found, "%d %d %d", (int)number(o, "n_prompt"), (int)number(o, "n_gen"),
                 (int)number(o, "n_depth"));
        CHECK(!strcmp(found, tests[n % 3]), "line %d: expected %s, found %s", n, tests[n % 3], found);
        CHECK(number(o, "n_threads") == 1 + n / 3 % 2, "line %d: %s", n, line);
        const char *type = json_string_value(json_object_get(o, "model_type"));
        CHECK(type && !strcmp(type, n < 6 ? "llama 0.11M int8" : "llama 0.11M F32"), "line %d: %s", n, type);
        json_decref(o);
    }
    CHECK(n == 12, "expected 12 lines, found %d", n);
    release(&r);
}

static void test_bench_lists(void) {
    Result r = CALL("bench", MODEL, "-p", "2-8*2", "-p", "5", "-n", "0", "-t", "1-2", "-r", "1");
    const char *rows[] = {"| 1 | pp2 |", "| 1 | pp4 |", "| 1 | pp8 |", "| 1 | pp5 |",
                          "| 2 | pp2 |", "| 2 | pp4 |", "| 2 | pp8 |", "| 2 | pp5 |"};
    const char *at = r.out;
    for (int i = 0; i < N_OF(rows) && at; i++) {
        at = strstr(at, rows[i]);
        CHECK(at, "no %s in order in %s", rows[i], r.out);
    }
    CHECK(count_of(r.out, "\n| llama 0.11M F32 |") == 8 && strstr(r.out, "f32.bin: random weights\n"), "%s", r.out);
    release(&r);
}

static double median_of_3(const double v[3]) {
    double least = fmin(v[0], fmin(v[1], v[2])), most = fmax(v[0], fmax(v[1], v[2]));
    return v[0] + v[1] + v[2] - least - most;
}

// Two rows of a text, without guesses and with them: one is compared with the other, round by round.
static void check_lookup_rows(const json_t *plain, const json_t *guided, const char *text, int n_threads) {
    double ratios[3] = {0};
    const char *names[2] = {json_string_value(json_object_get(plain, "text")),
                            json_string_value(json_object_get(guided, "text"))};
    CHECK(names[0] && names[1] && !strcmp(names[0], text) && !strcmp(names[1], text), "expected %s, found %s and %s",
          text, names[0], names[1]);
    CHECK(json_is_false(json_object_get(plain, "lookup")) && json_is_true(json_object_get(guided, "lookup")), "%s",
          text);
    CHECK(json_is_null(json_object_get(plain, "acceptance")) && number(plain, "tokens_per_pass") == 1, "%s", text);
    for (size_t i = 0; i < 3; i++) {
        ratios[i] = json_number_value(json_array_get(json_object_get(plain, "samples_ns"), i)) /
                    json_number_value(json_array_get(json_object_get(guided, "samples_ns"), i));
    }
    double ratio = median_of_3(ratios), per_pass = number(guided, "tokens_per_pass");
    CHECK(fabs(number(plain, "ratio") / ratio - 1) < 1e-3 && fabs(number(guided, "ratio") / ratio - 1) < 1e-3,
          "%s: ratio %g, expected %g", text, number(guided, "ratio"), ratio);
    CHECK(per_pass >= 1 && per_pass <= 8, "%s: %g tokens a pass", text, per_pass);
    CHECK(number(plain, "n_gen") == number(guided, "n_gen") && number(plain, "n_depth") == number(guided, "n_depth") &&
              number(plain, "n_prompt") == 0 && number(plain, "n_threads") == n_threads,
          "%s: its rows differ", text);
    CHECK(number(plain, "gb_per_s") > 0 && json_is_null(json_object_get(guided, "gb_per_s")), "%s: GB/s", text);
}

static void test_bench_lookup(void) {
    Result r = CALL("bench", MODEL, "--lookup", "-n", "12,5", "-r", "2", "-t", "1");
    CHECK(r.status == 0 && strstr(r.out, "| t/s | with look-up t/s | ratio | guesses right | tokens a pass |"),
          "status %d: %s%s", r.status, r.out, r.err);
    const char *texts[] = {"copy json", "copy quote", "story"};
    for (int i = 0; i < 3; i++) {
        char row[64];
        snprintf(row, sizeof row, "| llama 0.11M F32 | 1 | %s |", texts[i]);
        CHECK(count_of(r.out, row) == 2, "no two rows of %s in:\n%s", texts[i], r.out);
    }
    release(&r);
    json_t *o = told(CALL("bench", MODEL, "--lookup", "-n", "12", "-r", "3", "-t", "1,2", "-o", "json")),
           *rows = json_object_get(o, "rows");
    CHECK(json_array_size(rows) == 12, "%zu rows", json_array_size(rows));
    for (size_t i = 0; i + 1 < json_array_size(rows); i += 2) {
        check_lookup_rows(json_array_get(rows, i), json_array_get(rows, i + 1), texts[i / 2 % 3], i < 6 ? 1 : 2);
    }
    json_decref(o);
    r = CALL("bench", MODEL, "--lookup", "-n", "6", "-r", "1", "-o", "csv");
    int commas[7] = {0}, line = 0;
    for (const char *s = r.out; *s && line < 7; s++) {
        commas[line] += *s == ',';
        line += *s == '\n';
    }
    for (int i = 1; i < 7; i++) CHECK(commas[i] == commas[0] && commas[0] == 19, "columns differ: %s", r.out);
    release(&r);
}

// The fields of llama-bench and a text of one's own, of which a model that goes round in it has every guess right; one
// that says nothing is left out.
static void test_bench_lookup_of_a_file(void) {
    static const char cycle[] = "abc\n";
    Parrot p = parrot_start();
    for (int i = 0; i < 4; i++) p.next[3 + cycle[i]] = 3 + cycle[(i + 1) % 4];
    parrot_write(&p, "parrot.bin", "parrot.tokenizer.bin");
    const char *file = write_text("a \"round\".txt", "abc\nabc\nabc\nabc");
    Result r = CALL("bench", in_folder("parrot.bin"), "--lookup", file, "-n", "50", "-r", "2", "-o", "jsonl");
    CHECK(r.status == 0 && count_of(r.out, "\n") == 2 && strstr(r.err, "note: story: left out"), "status %d: %s%s",
          r.status, r.out, r.err);
    for (char *line = strtok(r.out, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *o = json_loads(line, 0, NULL);
        CHECK(o, "no JSON: %s", line);
        check_llama_bench_line(o, line);
        const char *text = json_string_value(json_object_get(o, "text"));
        CHECK(text && !strcmp(text, "copy a \"round\".txt") && number(o, "n_gen") == 50, "%s", line);
        // Every guess is right but for those that the end cuts off, of which a slow machine has more or fewer.
        if (json_is_true(json_object_get(o, "lookup")))
            CHECK(number(o, "acceptance") > 0.5 && number(o, "tokens_per_pass") > 1, "%s", line);
        json_decref(o);
    }
    release(&r);
    write_file("zero.txt", "a\0b", 3);
    write_text("nothing.txt", "");
    REFUSES(1, "absent.txt", "bench", MODEL, "--lookup", in_folder("absent.txt"));
    REFUSES(1, "found an empty file", "bench", MODEL, "--lookup", in_folder("nothing.txt"));
    REFUSES(1, "at byte 1: expected text, found a zero byte", "bench", MODEL, "--lookup", in_folder("zero.txt"));
}

static void test_bench_sweep(void) {
    Result r = CALL("bench", MODEL, "--sweep", "600", "-r", "2", "--plot", in_folder("tools.svg"));
    CHECK(r.status == 0, "status %d: %s", r.status, r.err);
    CHECK(strstr(r.out, "| PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | GB/s | memory MiB |"), "%s",
          r.out);
    const char *rows[] = {"| 128 | 32 | 1 | 128 |", "| 256 | 32 | 1 | 256 |", "| 512 | 32 | 1 | 512 |",
                          "| 512 | 32 | 1 | 600 |"};
    for (int i = 0; i < 4; i++) CHECK(strstr(r.out, rows[i]), "no row %s in:\n%s", rows[i], r.out);
    char *svg = read_file(in_folder("tools.svg"), NULL);
    CHECK(xml_valid(svg) && !strncmp(svg, "<svg ", 5), "not well formed: %s", svg);
    CHECK(!strstr(svg, "nan") && !strstr(svg, "inf"), "a number is missing in %s", svg);
    CHECK(strstr(svg, "<title>f32.bin: speed and memory as the context grows</title>"), "no title: %s", svg);
    CHECK(strstr(svg, "llama 0.11M F32 (random weights), bf16 KV cache; 2 layers of width "), "no shape: %s", svg);
    CHECK(strstr(svg, "Memory of the session, KiB") && strstr(svg, ">KV cache<"), "no memory: %s", svg);
    CHECK(strstr(svg, "@media (prefers-color-scheme: dark){"), "no dark colours: %s", svg);
    CHECK(!strncmp(r.out, "llama 0.11M F32 (random weights), bf16 KV cache\n", 48), "no name: %s", r.out);
    free(svg);
    release(&r);
    r = CALL("bench", MODEL, "--sweep", "40", "-r", "1", "--plot", in_folder("tools.svg"), "-o", "json", "--window",
             "16", "--sinks", "2");
    CHECK(json_number(r.out, "window") == 16 && json_number(r.out, "sinks") == 2, "%s", r.out);
    CHECK(strstr(r.out, "\"random_weights\": true"), "%s", r.out);
    CHECK(r.status == 0 && json_valid(r.out) && count_of(r.out, "\"bound_ts\"") == 1, "%s%s", r.out, r.err);
    svg = read_file(in_folder("tools.svg"), NULL);
    CHECK(xml_valid(svg) && !strstr(svg, "nan"), "one point: %s", svg);
    CHECK(strstr(svg, "bf16 KV cache, window 16, 2 sinks"), "no window: %s", svg);
    free(svg);
    release(&r);
}

// Several numbers of texts: a row and a line of each; what they hold and their bound grow with them.
static void test_bench_sweep_of_batches(void) {
    json_t *o = told(CALL("bench", MODEL, "--sweep", "256", "--batch", "1,3,8", "-r", "1", "--plot", in_folder("b.svg"),
                          "-o", "json")),
           *rows = json_object_get(o, "rows");
    static const int texts[3] = {1, 3, 8};
    CHECK(json_array_size(rows) == 6, "%zu rows, expected 6", json_array_size(rows));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *alone = json_array_get(rows, i / 3 * 3);
        int n = texts[i % 3];
        CHECK(number(row, "n_sequences") == n && number(row, "n_kv") == 128 << i / 3, "row %zu", i);
        CHECK(number(row, "kv_bytes") == n * number(alone, "kv_bytes"), "row %zu: bytes", i);
        CHECK(number(row, "s_pp") == number(alone, "s_pp"), "row %zu: prefill is one text's", i);
        double speed = 32 * n / number(row, "t_tg");
        CHECK(fabs(number(row, "s_tg") / speed - 1) < 1e-4, "row %zu: %g tokens a second, expected %g", i,
              number(row, "s_tg"), speed);
        double bytes = number(row, "gb_per_s") / number(row, "s_tg") * 1e9, // of a token: weights are read for all
            weights = number(json_object_get(o, "model"), "token_bytes"), kv = number(alone, "n_kv") + 16.5;
        CHECK(fabs(bytes / (weights / n + kv * 2 * 2 * 32 * 2) - 1) < 1e-3, "row %zu: %g bytes a token", i, bytes);
    }
    json_decref(o);
    char *svg = read_file(in_folder("b.svg"), NULL);
    CHECK(xml_valid(svg) && !strstr(svg, "nan") && !strstr(svg, "inf"), "not well formed: %s", svg);
    const char *parts[] = {">Decode of all texts, tokens per second<",
                           ">Memory of all texts (KV cache), ",
                           ">context of each text, tokens<",
                           ">1 text<",
                           ">3 texts<",
                           ">8 texts<"};
    for (int i = 0; i < N_OF(parts); i++) CHECK(strstr(svg, parts[i]), "no %s in %s", parts[i], svg);
    CHECK(count_of(svg, "<polyline") == 7 + 7 && !strstr(svg, "bound by bandwidth"), "lines: %s", svg);
    free(svg);
    Result r = CALL("bench", MODEL, "--sweep", "40", "--batch", "2,3,4,5", "-r", "1", "--plot", in_folder("b.svg"));
    CHECK(r.status == 0 && strstr(r.out, "| 40 | 32 | 5 | 40 |"), "status %d: %s%s", r.status, r.out, r.err);
    release(&r);
    svg = read_file(in_folder("b.svg"), NULL);
    CHECK(xml_valid(svg) && !strstr(svg, "nan") && strstr(svg, ">2 texts<") && strstr(svg, ">5<"), "%s", svg);
    free(svg);
}

static void test_bench_attention(void) {
    const char *lengths[] = {"1", "33", "300"};
    for (int i = 0; i < 3; i++) {
        Result r = CALL("bench", "--attention", lengths[i], "-r", "1", "-t", i == 1 ? "3" : "1", "-o", "json");
        CHECK(r.status == 0 && json_valid(r.out), "n = %s: status %d: %s%s", lengths[i], r.status, r.out, r.err);
        CHECK(count_of(r.out, "\"max_difference\"") == 4, "four shapes expected: %s", r.out);
        release(&r);
        r = CALL("bench", "--attention", lengths[i], "-r", "1", "--window", "7", "--sinks", "2", "--kv", "q8", "-o",
                 "json"); // it compares fused with unfused, and its status says how that went
        CHECK(r.status == 0 && json_valid(r.out), "n = %s: status %d: %s%s", lengths[i], r.status, r.out, r.err);
        CHECK(count_of(r.out, "\"kv\": \"q8\", \"n\"") == 2, "two shapes of q8 expected: %s", r.out);
        release(&r);
    }
}

// ---- the instruction-set level of the kernels

// TESSERA_CPU=name gives `want`, with a word on stderr when that is another.
static void check_level(const char *name, const char *want) {
    char field[64];
    setenv("TESSERA_CPU", name, 1);
    Result r = CALL("bench", "--attention", "1", "-r", "1", "-t", "1", "-o", "json");
    snprintf(field, sizeof field, "\"cpu_level\": \"%s\"", want);
    CHECK(r.status == 0 && strstr(r.out, field), "TESSERA_CPU=%s: no %s in: %s%s", name, field, r.out, r.err);
    CHECK(!strstr(r.err, "not an instruction-set level") == (!*name || !strcmp(name, want)), "TESSERA_CPU=%s: %s", name,
          r.err);
    release(&r);
}

// What a processor without dot products, and one with them, is given.
static void check_arm_levels(void) {
    char *runner = strdup(getenv("RUNNER"));
    setenv("RUNNER", "qemu-aarch64 -cpu cortex-a53", 1);
    check_level("", "neon");
    check_level("neon_dot", "neon");
    setenv("RUNNER", "qemu-aarch64 -cpu cortex-a76", 1);
    check_level("neon_bf16", "neon_dot");
    check_level("", "neon_dot");
    check_level("neon", "neon");
    setenv("RUNNER", "qemu-aarch64 -cpu max", 1);
    check_level("", "neon_bf16");
    check_level("neon_dot", "neon_dot");
    setenv("RUNNER", runner, 1);
    free(runner);
}

static void test_levels(void) {
    const char *best = cpu_level_name(cpu_best_level()), *runner = getenv("RUNNER"), *outside = getenv("TESSERA_CPU");
    char *before = strdup(outside ? outside : "");
    check_level("", best);
    check_level("abacus", best);
    for (CpuLevel r = 0; r < N_LEVELS; r++) {
        const char *name = cpu_level_name(r);
        check_level(name, kernels_for(r) && r <= cpu_best_level() ? name : best);
    }
    if (runner && !strncmp(runner, "qemu-aarch64", 12)) check_arm_levels();
    setenv("TESSERA_CPU", before, 1);
    free(before);
}

// The number under a key of one operation of one row.
static double of_operation(const char *json, const char *test, const char *operation, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"test\": \"%s\"", test);
    const char *at = strstr(json, quoted);
    snprintf(quoted, sizeof quoted, "\"operation\": \"%s\"", operation);
    at = at ? strstr(at, quoted) : NULL;
    return at ? json_number(at, key) : NAN;
}

// Every operation's time is within the whole; returns the share of what is none's.
static double check_shares(const char *json, const char *test) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"test\": \"%s\"", test);
    const char *at = strstr(json, quoted);
    CHECK(at, "no %s: %s", test, json);
    if (!at) return NAN;
    double whole = json_number(at, "avg_ns") * 1e-6, sum = 0, share = NAN;
    const char *end = strstr(at, "]}");
    while ((at = strstr(at, "\"operation\"")) && at < end) {
        double ms = json_number(at, "ms"), alone = json_number(at, "alone_ms"), wait = json_number(at, "wait_ms");
        share = json_number(at, "share");
        CHECK(ms >= 0 && alone >= -1e-9 && wait >= 0 && alone + wait <= ms * 1.001, "%s: %.100s", test, at);
        sum += ms;
        at++;
    }
    CHECK(fabs(sum / whole - 1) < 1e-3, "%s: the operations take %g ms, the row %g", test, sum, whole);
    return share;
}

// tiny: 2 layers of width 64, 4 heads and 2 KV heads of 16, 128 hidden, 512 tokens.
static void test_bench_profile(void) {
    double share = 1;
    for (int i = 0; i < 5 && share > 0.5; i++) { // a busy machine may stop it anywhere
        Result r = CALL("bench", MODEL, "-p", "16", "-n", "4", "-r", "3", "-t", "2", "--profile", "-o", "json");
        CHECK(r.status == 0 && json_valid(r.out), "status %d: %s%s", r.status, r.out, r.err);
        share = fmax(check_shares(r.out, "pp16"), check_shares(r.out, "tg4"));
        const struct {
            const char *test, *operation;
            int calls;
        } want[] = {{"pp16", "embedding", 1}, {"pp16", "norms", 4},      {"pp16", "rope, KV store", 3},
                    {"pp16", "attention", 2}, {"pp16", "gemm F32", 8},   {"pp16", "activation, gate", 2},
                    {"pp16", "logits", 1},    {"tg4", "matvec F32", 32}, {"tg4", "attention", 8}};
        for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
            double calls = of_operation(r.out, want[k].test, want[k].operation, "calls");
            CHECK(calls == want[k].calls, "%s, %s: expected %d calls: %s", want[k].test, want[k].operation,
                  want[k].calls, r.out);
        }
        int weights = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64);
        CHECK(of_operation(r.out, "pp16", "gemm F32", "flops") == 2.0 * 16 * weights, "%s", r.out);
        CHECK(of_operation(r.out, "tg4", "matvec F32", "bytes") == 4.0 * 4 * weights, "%s", r.out);
        CHECK(of_operation(r.out, "pp16", "attention", "flops") == 4.0 * (16 * 17 / 2) * 64 * 2, "%s", r.out);
        CHECK(of_operation(r.out, "pp16", "attention", "bytes") == 2 * 2.0 * 16 * 32 * 2, "%s", r.out);
        CHECK(of_operation(r.out, "tg4", "logits", "bytes") == 4 * (4.0 * 512 * 64 + 8 * 64), "%s", r.out);
        CHECK(json_number(r.out, "scalar_gflop_per_s") > 0, "%s", r.out);
        release(&r);
    }
    CHECK(share < 0.5, "%g of the time belongs to no operation", share);
    Result r = CALL("bench", MODEL, "-p", "16", "-n", "4", "-r", "1", "-t", "1", "--profile", "--window", "8",
                    "--sinks", "2", "-o", "json"); // the last 8 keys and what the window has left of the first 2
    CHECK(of_operation(r.out, "pp16", "attention", "flops") == 4.0 * (36 + 8 * 8 + 1 + 7 * 2) * 64 * 2, "%s", r.out);
    CHECK(of_operation(r.out, "pp16", "gemm F32", "alone_ms") == of_operation(r.out, "pp16", "gemm F32", "ms"),
          "one thread is always alone: %s", r.out);
    release(&r);
    r = CALL("bench", MODEL, "-p", "16", "-n", "4", "-r", "1", "--profile");
    const char *lines[] = {"pp16: ", "| gemm F32 | 8 |", "tg4: ", "| matvec F32 | 32 |", "| other | |", "| all | |"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        CHECK(r.status == 0 && strstr(r.out, lines[i]), "no '%s' in:\n%s", lines[i], r.out);
    }
    release(&r);
}

// Products of several types in one group, and experts.
static void test_bench_profile_of_a_mixture(void) {
    const char *model = in_folder("mixture.gguf");
    TELLS(0, "", "", "synth", "mixtral-tiny", "Q4_K", model);
    Result r = CALL("bench", model, "-p", "0", "-n", "2", "-r", "1", "--profile", "-o", "json");
    CHECK(r.status == 0 && json_valid(r.out), "status %d: %s%s", r.status, r.out, r.err);
    check_shares(r.out, "tg2");
    // a layer's router, and before and behind each of 8 experts, of which 2 are called
    CHECK(of_operation(r.out, "tg2", "routing", "calls") == 2 * 4 * (1 + 8 + 2), "%s", r.out);
    CHECK(of_operation(r.out, "tg2", "activation, gate", "calls") == 2 * 4 * 2, "%s", r.out);
    release(&r);
}

// ---- perplexity

static void write_documents(void) {
    static char text[1 << 14];
    size_t n = 0;
    for (int document = 0; document < 4; document++) {
        for (int word = 0; word < (document == 2 ? 90 : 20 + document); word++) {
            for (int i = 0; i < 1 + (int)(test_u32() % 5); i++) text[n++] = (char)('a' + test_u32() % 26);
            text[n++] = word % 10 == 9 ? '\n' : ' ';
        }
        n += (size_t)snprintf(text + n, sizeof text - n, "caf\xc3\xa9.\n%s", document < 3 ? "<|endoftext|>\n" : "");
    }
    write_text("text.txt", text);
}

typedef struct {
    double nll;
    int n, first;
    const int32_t *tokens;
    int vocab;
} Sum;

static void add_nll(void *context, int position, const float *logits) {
    Sum *s = context;
    if (position < s->first) return;
    long double total = 0;
    for (int i = 0; i < s->vocab; i++) total += expl((long double)logits[i] - logits[s->tokens[position + 1]]);
    s->nll += (double)logl(total);
    s->n++;
}

// A fresh session predicts tokens[first + 1 .. n).
static void sum_tokens(const Engine *e, Sum *sum, const int32_t *tokens, int first, int n) {
    char err[512];
    SessionOptions so = {.n_threads = 1, .kv = KV_F32};
    Session *s = session_open(e, &so, err, sizeof err);
    NEED(s, "%s", err);
    sum->tokens = tokens, sum->first = first, sum->vocab = engine_info(e).vocab_size;
    session_visit(s, add_nll, sum);
    CHECK(!session_sync(s, tokens, n - 1, err, sizeof err), "%s", err);
    session_close(s);
}

static void check_estimate(Result r, const Sum *want, const char *what) {
    double ppl = exp(want->nll / want->n);
    CHECK(r.status == 0 && json_valid(r.out), "%s: status %d: %s%s", what, r.status, r.out, r.err);
    CHECK(json_number(r.out, "tokens") == want->n, "%s: expected %d tokens: %s", what, want->n, r.out);
    CHECK(fabs(json_number(r.out, "ppl") / ppl - 1) < 1e-6, "%s: expected PPL %.9g: %s", what, ppl, r.out);
    double bits = want->nll / log(2) / json_number(r.out, "bytes");
    CHECK(fabs(json_number(r.out, "bits_per_byte") / bits - 1) < 1e-6, "%s: expected %.9g bits: %s", what, bits, r.out);
    CHECK(fabs(json_number(r.out, "nats_per_token") * want->n / want->nll - 1) < 1e-6, "%s: %s", what, r.out);
}

static void test_perplexity_documents(void) {
    char err[512];
    Engine *e = engine_open(MODEL, NULL, err, sizeof err);
    NEED(e, "%s", err);
    char *text = read_file(TEXT, NULL), *at = text;
    Sum want = {0}, want_cut = {0};
    size_t bytes = 0;
    int n_cut = 0;
    for (int i = 0; i < 4; i++) {
        char *end = strstr(at, "\n<|endoftext|>\n"),
             *last = end ? end : at + strlen(at) - 1; // without the last newline
        int32_t *ids;
        int n = engine_encode(e, at, (size_t)(last - at), true, false, &ids, err, sizeof err);
        sum_tokens(e, &want, ids, 0, n);
        n_cut += n > 128;
        sum_tokens(e, &want_cut, ids, 0, n > 128 ? 128 : n);
        bytes += (size_t)(last - at);
        at = end + strlen("\n<|endoftext|>\n");
        free(ids);
    }
    CHECK(n_cut == 1, "one document is longer than 128 tokens, found %d", n_cut);
    Result r =
        CALL("perplexity", MODEL, "-f", TEXT, "--documents", "-c", "256", "-t", "1", "--kv", "f32", "-o", "json");
    if (json_number(r.out, "cut") == 0) check_estimate(r, &want, "documents");
    CHECK(json_number(r.out, "documents") == 4 && json_number(r.out, "cut") == 0, "%s", r.out);
    CHECK(json_number(r.out, "bytes") == (double)bytes, "expected %zu bytes: %s", bytes, r.out);
    release(&r);
    r = CALL("perplexity", MODEL, "-f", TEXT, "--documents", "-c", "128", "-t", "1", "--kv", "f32", "-o", "json");
    check_estimate(r, &want_cut, "cut documents");
    CHECK(json_number(r.out, "cut") == 1 && json_number(r.out, "bytes") < (double)bytes, "%s", r.out);
    release(&r);
    free(text);
    engine_close(e);
}

// A text of less than a chunk: one chunk of what it has, and a word on stderr.
static void test_perplexity_of_a_short_text(void) {
    char err[512];
    Engine *e = engine_open(MODEL, NULL, err, sizeof err);
    CHECK(e, "%s", err);
    if (!e) return;
    int32_t *ids;
    Sum want = {0};
    write_text("short.txt", "too short for a chunk\n");
    int n = engine_encode(e, "too short for a chunk", 21, true, false, &ids, err, sizeof err);
    sum_tokens(e, &want, ids, n / 2, n);
    Result r = CALL("perplexity", MODEL, "-f", in_folder("short.txt"), "-t", "1", "--kv", "f32", "-o", "json");
    CHECK(strstr(r.err, "one chunk of ") && json_number(r.out, "n_ctx") == n, "%s%s", r.err, r.out);
    check_estimate(r, &want, "short");
    release(&r);
    free(ids);
    engine_close(e);
}

static void test_perplexity_of_a_real_model(void) {
    const char *text = SHARED_DATA "text/stories-valid.txt", *tokenizer = SHARED_DATA "stories260K/tok512.bin";
    SKIP_WITHOUT(SHARED_DATA "stories260K/stories260K.bin");
    SKIP_WITHOUT(text);
    if (quick()) {
        test_was_skipped = 1;
        return;
    }
    const char *model = SHARED_DATA "stories260K/stories260K.bin", *int8 = SHARED_DATA "stories260K/stories260K-q8.bin";
    Result f32 = CALL("perplexity", model, "-z", tokenizer, "-f", text, "--documents", "--kv", "f32", "-o", "json");
    Result bf16 = CALL("perplexity", model, "-z", tokenizer, "-f", text, "--documents", "--kv", "bf16", "-o", "json");
    Result kv_q8 = CALL("perplexity", model, "-z", tokenizer, "-f", text, "--documents", "--kv", "q8", "-o", "json");
    Result q8 = CALL("perplexity", int8, "-z", tokenizer, "-f", text, "--documents", "--kv", "f32", "-o", "json");
    double a = json_number(f32.out, "ppl"), b = json_number(bf16.out, "ppl"), c = json_number(q8.out, "ppl");
    CHECK(fabs(json_number(kv_q8.out, "ppl") / a - 1) < 0.005, "KV as q8 against f32: %g, %s", a, kv_q8.out);
    CHECK(fabs(b / a - 1) < 0.001, "KV as bf16 against f32: %g, %g", b, a);
    CHECK(fabs(c / a - 1) < 0.02, "int8 weights against fp32: %g, %g", c, a);
    CHECK(fabs(json_number(f32.out, "bits_per_byte") - 1.0147) < 0.002, "bits per byte: %s", f32.out);
    release(&f32);
    release(&bf16);
    release(&kv_q8);
    release(&q8);
}

// ---- run

static void test_refusals(void) {
    write_text("one.txt", "");
    write_text("empty.txt", "");
    refuse_commands("commands_tools");
    TELLS(0, "usage:", "!", "run", "--help");
    TELLS(2, "!", "usage:", "run");
}

static void test_run_streams(void) {
    Result r = CALL("run", MODEL, "-p", "some words", "-n", "12", "-s", "5");
    CHECK(r.status == 0 && !strncmp(r.out, "some words", 10), "status %d: %s", r.status, r.out);
    CHECK(!strstr(r.out, "tok/s") && strstr(r.err, "tok/s") && strstr(r.err, "seed 5"), "statistics on stderr: %s",
          r.err);
    CHECK(r.n_out && r.out[r.n_out - 1] == '\n', "the text ends in a newline");
    Result q = CALL("run", MODEL, "-p", "some words", "-n", "12", "-s", "5", "-q");
    CHECK(!*q.err, "-q prints nothing on stderr, found: %s", q.err);
    prints(q, 0, r.out, "-q");
    write_text("prompt.txt", "some words");
    prints(CALL_IN("some words", "run", MODEL, "-f", "-", "-n", "12", "-s", "5"), 0, r.out, "-f -");
    prints(CALL("run", MODEL, "-f", in_folder("prompt.txt"), "-n", "12", "-s", "5"), 0, r.out, "-f FILE");
    prints(CALL("run", MODEL, "-i", "some words", "-n", "12", "-s", "5"), 0, r.out, "-i");
    release(&r);
}

static void test_run_seed(void) {
    Result one = CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "7", "-t", "1", "--temp", "1.2");
    CHECK(one.status == 0 && one.n_out > 10, "status %d: %s", one.status, one.err);
    prints(CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "7", "-t", "2", "--temp", "1.2"), 0, one.out, "2 threads");
    prints(CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "7", "-t", "3", "--temp", "1.2"), 0, one.out, "3 threads");
    Result other = CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "8", "-t", "1", "--temp", "1.2");
    CHECK(strcmp(one.out, other.out) != 0, "another seed gives another text");
    release(&one);
    release(&other);
    for (int i = 0; i < 2; i++) {
        const char *kv = i ? "q8" : "f32";
        one = CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "7", "-t", "1", "--kv", kv);
        CHECK(one.status == 0 && one.n_out > 10, "--kv %s: status %d: %s", kv, one.status, one.err);
        prints(CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "7", "-t", "3", "--kv", kv), 0, one.out, kv);
        release(&one);
    }
    Result greedy = CALL("run", MODEL, "-p", "abc", "-n", "60", "--temp", "0");
    CHECK(greedy.status == 0, "%s", greedy.err);
    prints(CALL("run", MODEL, "-p", "abc", "-n", "60", "--temp", "0", "-s", "99"), 0, greedy.out, "--temp 0");
    release(&greedy);
}

static void test_run_hint(void) {
    TELLS(0, "", "--top-p 0.9", "run", MODEL, "-p", "0.9", "-n", "2");
    Result r = CALL("run", MODEL, "-p", "0.9 apples", "-n", "2");
    CHECK(r.status == 0 && !strstr(r.err, "hint"), "words do not: %s", r.err);
    release(&r);
}

// Command lines as people type them, from other programs too: what is printed, and what is said.
static void test_run_command_lines(void) {
    enum { MOST = 24 };
    write_text("line.txt", "a b\n");
    const char *m = MODEL, *f = in_folder("line.txt");
    const struct {
        const char *in, *out, *err, *args[MOST]; // out: what stdout begins with, "=" before it: is; err: "!": empty
    } rows[] = {
        {NULL, "a b", "!", {"-m", m, "-p", "a b", "-n", "2", "-q"}},
        {NULL, "a b", "!", {"--model", m, "--prompt", "a b", "--n-predict", "2", "--quiet"}},
        {NULL, "a b", "!", {"--model", m, "--prompt=a b", "-n=2", "-q"}},
        {NULL, "a b", "!", {"-q", "-n", "2", "-p", "a b", m}},
        {NULL, "=a b\n", "!", {m, "-q", "-n", "0", "-f", f}},
        {"a b\n", "=a b\n", "!", {m, "-q", "-n", "0"}},
        {"a b\n\n", "=a b\n\n", "!", {m, "-q", "-n", "0", "-f", "-"}},
        {NULL, "=\n", "!", {m, "-q", "-n", "0"}},
        {NULL, "=a\n\tb\"'\\A\\q\n", "!", {m, "-q", "-n", "0", "-e", "-p", "a\\n\\tb\\\"\\'\\\\\\x41\\q"}},
        {NULL, "=a\\nb\n", "!", {m, "-q", "-n", "0", "-p", "a\\nb"}},
        {NULL, "=\n", "!", {m, "-q", "-n", "0", "-p", "a b", "--no-display-prompt"}},
        {NULL, "=--help\n", "!", {m, "-q", "-n", "0", "--prompt=--help"}},
        {NULL,
         "={\"prompt\": \"a b\", \"text\": \"\", \"ids\": [], \"stop\": \"limit\", ",
         "",
         {m, "-q", "-n", "0", "-p", "a b", "-o", "json"}},
        {NULL, "tessera ", "!", {"-n", "x", "--version"}},
        {NULL, "usage: ./run ", "!", {m, "-p", "a", "--wat", "-h"}},
        {NULL, "usage: ./run ", "!", {m, "-n", "--help"}},
        {NULL,
         "a b",
         "note: without effect here: -ngl (all layers run on the CPU), --color (",
         {"-m",
          m,
          "-p",
          "a b",
          "-n",
          "2",
          "-c",
          "128",
          "-t",
          "2",
          "-ngl",
          "99",
          "--temp",
          "0.7",
          "--top-k",
          "40",
          "--top-p",
          "0.9",
          "--repeat-penalty",
          "1.1",
          "-s",
          "42",
          "--color"}},
        {NULL,
         "a b",
         "-fa (attention is always fused), --no-mmap (weights are always mapped), --mlock (",
         {"-m", m,    "-p", "a b", "-n", "2",      "-fa",        "on",      "--no-mmap", "--mlock", "-ub",
          "64", "-b", "64", "-tb", "2",  "--numa", "distribute", "-no-cnv", "--keep",    "4"}},
        {NULL, "a b", "-fa (", {"-m", m, "-p", "a b", "-fa", "-n", "2", "--mirostat", "0", "--typical", "1.0"}},
        {NULL, "a b", "| seed 1", {m, "-p", "a b", "-n", "2", "-s", "-1"}},
        {NULL, "a b", "the context of 9 tokens is full", {m, "-p", "a b", "-n", "-1", "-c", "9", "--ignore-eos"}},
        {NULL,
         "a b",
         "!",
         {m, "-p", "a b", "-n", "4", "-q", "--presence-penalty", "0.5", "--frequency-penalty", "0.5", "--repeat-last-n",
          "-1", "--logit-bias", "300+2", "--logit-bias", "301-inf"}},
    };
    for (int i = 0; i < N_OF(rows); i++) {
        const char *args[MOST + 2] = {"run"};
        for (int k = 0; k < MOST && rows[i].args[k]; k++) args[k + 1] = rows[i].args[k];
        Result r = call(rows[i].in, args);
        const char *out = rows[i].out + (*rows[i].out == '=');
        bool json = strstr(out, "\"prompt\"") != NULL, whole = *rows[i].out == '=' && !json;
        bool said = *rows[i].err == '!' ? !*r.err : strstr(r.err, rows[i].err) != NULL;
        CHECK(r.status == 0 && said && !strncmp(r.out, out, strlen(out)) && (!whole || !strcmp(r.out, out)),
              "line %d: expected [%s] and [%s], found %d: [%s] [%s]", i, rows[i].out, rows[i].err, r.status, r.out,
              r.err);
        CHECK(!json || json_valid(r.out), "line %d: %s", i, r.out);
        CHECK(count_of(r.err, "note:") <= 1, "line %d: one note at most: %s", i, r.err);
        release(&r);
    }
}

// Lines of llama.cpp's documentation, with our files: they run, and say what is without effect. %NAME: a file.
static void test_pasted_command_lines(void) {
    static const struct {
        const char *line, *err;
    } rows[] = {
        {"run -m %f32.bin -p ab -n 2 -sm layer -mg 0 -ts 1,1 -dev none -ot x=CPU -ncmoe 3 -cmoe", "-sm (all layers"},
        {"run -m %f32.bin -p ab -n 2 --prio 2 --poll 50 --cpu-mask 0x3 --cpu-strict 1 --numa isolate",
         "--prio (threads"},
        {"run -m %f32.bin -p ab -n 2 -lv 1 --log-file x --log-prefix --log-timestamps -v", "-lv (there is no log)"},
        {"run -m %f32.bin -p ab -n 2 --xtc-probability 0.0 --xtc-threshold 0.1 --dry-multiplier 0 --dry-base 2",
         "--xtc-"},
        {"run -m %f32.bin -p ab -n 2 --top-nsigma -1 --dynatemp-range 0 --dynatemp-exp 1 --mirostat-lr 1",
         "--dynatemp-"},
        {"run -m %f32.bin -p ab -n 2 -md %f32.bin --draft-max 4 --prompt-cache %x.session --prompt-cache-all",
         "--draft-max (as much"},
        {"run -m %f32.bin -p ab -n 2 --offline --swa-full --no-op-offload --check-tensors --no-repack", "--offline ("},
        {"run -m %f32.bin -i ab --n_predict 2 --repeat_penalty 1.0 --top_k 40 --n_gpu_layers 9", "--n_gpu_layers (all"},
        {"run -m %f32.bin -p ab -n -2 -c 16", "the context of 16 tokens is full"},
        {"run -m %f32.bin -bf %line.txt -n 2 --reasoning-format none", "--reasoning-format ("},
        {"run -m %f32.bin -p ab -n 2 -ctk f16 -ctv f16", "stored as bf16"},
        {"run -m %f32.bin -p ab -sys cd -st -n 2", "User: "},
        {"run -m %f32.bin -cnv -f %line.txt --single-turn -n 2", "User: "},
        {"run -m %f32.bin -p ab -st -n 2 --chat-template {{messages[0].content}}", "stopped after -n 2"},
        {"run -m %f32.bin -p ab -st -n 2 --chat-template-kwargs {\"x\":1} --reasoning-budget 0", "stopped after -n 2"},
        {"bench -m %f32.bin -p 8 -n 2 -r 1 -fa 0,1 -mmp 0 -nkvo 0 -embd 0 -nopo 0 --delay 1 --progress", "-fa ("},
        {"bench -m %f32.bin -p 8 -n 2 -r 1 -ctk q8_0 -ctv q8_0 --prio 1 -C 0x3 --no-warmup -v", "--prio ("},
        {"bench -m %f32.bin -p 8 -n 0 -r 1 --flash_attn 1", "--flash_attn ("},
        {"quantize --allow-requantize %f32.bin %q.gguf q8_0 2", "--allow-requantize ("},
        {"quantize %f32.bin F16", "ggml-model-F16.gguf: F16"},
        {"quantize %f32.bin BF16 1", "ggml-model-BF16.gguf: BF16"},
        {"perplexity -m %f32.bin -f %text.txt -c 16 -b 512 -ub 128 -t 2 -ngl 0 -fa on --chunks 2 --ppl-stride 0",
         "[2]"},
        {"perplexity -m %f32.bin -f %text.txt -c 16 --perplexity -s 1 --kl-divergence-base %x.kld", "--perplexity ("},
        {"perplexity -m %f32.bin -f %text.txt -c 16 --kl-divergence-base %x.kld --kl-divergence -ctk f32 -ctv f32",
         "[1]"},
    };
    write_text("line.txt", "a b\n");
    for (int i = 0; i < N_OF(rows); i++) {
        char line[512], *rest = line;
        const char *args[MAX_ARGS + 1] = {NULL};
        snprintf(line, sizeof line, "%s", rows[i].line);
        for (int n = 0; n < MAX_ARGS && (args[n] = command_word(&rest)); n++) {}
        Result r = call("more\nand more\n", args);
        CHECK(r.status == 0 && *r.out + (i > 15) && strstr(r.err, rows[i].err),
              "%s: expected '%s', found %d: [%s] [%s]", rows[i].line, rows[i].err, r.status, r.out, r.err);
        CHECK(count_of(r.err, "without effect") <= 1, "%s: one note at most: %s", rows[i].line, r.err);
        release(&r);
    }
    struct stat st;
    CHECK(!stat(in_folder("ggml-model-F16.gguf"), &st), "the output beside the input");
    char both[1024];
    snprintf(both, sizeof both, "%s,%s", MODEL, MODEL_INT8);
    Result own = CALL("bench", "-m", both, "-p", "8", "-n", "0", "-r", "1", "-o", "csv");
    CHECK(own.status == 0 && count_of(own.out, ",pp8,") == 2, "two models: %s%s", own.out, own.err);
    release(&own);
    own = CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "7", "--kv", "q8");
    prints(CALL("run", MODEL, "-p", "abc", "-n", "60", "-s", "7", "-ctk", "q8_0", "-ctv", "q8_0"), 0, own.out,
           "-ctk q8_0");
    release(&own);
    own = CALL_IN("ab\n", "run", MODEL, "--chat", "-n", "4", "-s", "7", "-q");
    prints(CALL_IN("ab\ncd\n", "run", MODEL, "-st", "-n", "4", "-s", "7", "-q"), 0, own.out, "one turn of stdin's two");
    prints(CALL_IN("cd\n", "run", MODEL, "-st", "-p", "ab", "-n", "4", "-s", "7", "-q"), 0, own.out, "one turn of -p");
    release(&own);
}

// Every program answers -h, --help and --version anywhere on the line, and names the nearest flag.
static void test_every_program(void) {
    const char *programs[] = {"run",     "bench", "quantize", "perplexity", "tokenize",
                              "inspect", "synth", "encdec",   "vit"};
    const char *questions[] = {"-h", "--help", "--version"};
    for (int i = 0; i < N_OF(programs); i++) {
        for (int k = 0; k < N_OF(questions); k++)
            tells(0, k < 2 ? "usage: " : "tessera ", "!", programs[i],
                  CALL(programs[i], "x", "--wat", questions[k], "y"));
        tells(2, "!", "usage: ", programs[i], CALL(programs[i]));
        refuses(2,
                i == 6   ? "did you mean --layers?"
                : i == 2 ? "did you mean --threads?"
                         : "did you mean --",
                programs[i],
                CALL(programs[i], "x",
                     i == 6   ? "--layer"
                     : i == 2 ? "--thread"
                              : "--mode",
                     "y"));
    }
}

// A stop string ends the text before it, wherever the tokens are cut.
static void test_run_stops(void) {
    Result all = CALL("run", MODEL, "-p", "abc", "-n", "60", "--temp", "0", "-q");
    CHECK(all.status == 0 && all.n_out > 20, "%s", all.err);
    for (size_t at = 4; at + 6 < all.n_out && at < 30; at++) {
        char stop[5] = {0};
        memcpy(stop, all.out + at, 4);
        const char *first = strstr(all.out + 3, stop);
        if (strchr(stop, '\n') || !first || (stop[0] & 0xC0) == 0x80) continue;
        Result r =
            CALL("run", MODEL, "-p", "abc", "-n", "60", "--temp", "0", "-q", "-r", "never there", "--stop", stop);
        CHECK(r.n_out == (size_t)(first - all.out) + 1 && !strncmp(r.out, all.out, r.n_out - 1),
              "stop [%s]: [%s] of [%s]", stop, r.out, all.out);
        release(&r);
    }
    release(&all);
}

static void test_run_any_bytes(void) {
    Result r = CALL("run", MODEL, "-p", "bad \xff\xfe\xc3 bytes", "-n", "3", "-s", "1");
    CHECK(r.status == 0 && !strncmp(r.out, "bad \xff\xfe\xc3 bytes", 13), "status %d: %s%s", r.status, r.out, r.err);
    release(&r);
    TELLS(0, "", "", "run", MODEL, "-p", "", "-n", "3", "-s", "1");
    r = CALL("run", MODEL, "-p", "abc", "-n", "0");
    CHECK(r.status == 0 && !strcmp(r.out, "abc\n"), "-n 0: %s", r.out);
    release(&r);
}

static void test_run_full_context(void) {
    Result r = CALL("run", MODEL, "-p", "abc", "-n", "300", "-c", "20", "--temp", "0");
    CHECK(r.status == 0 && strstr(r.err, "-c") && strstr(r.err, "tok/s"), "status %d: %s", r.status, r.err);
    release(&r);
}

static void test_run_interrupt(void) {
    pid_t child = start(
        NULL, (const char *const[]){"run", MODEL, "-p", "abc", "-n", "3000000", "-c", "4000000", "--temp", "0", NULL});
    Result r = interrupt(child, 40);
    CHECK(r.status == 0, "Ctrl-C: status %d: %s", r.status, r.err);
    CHECK(strstr(r.err, "tok/s") && strstr(r.err, "generated"), "statistics after Ctrl-C: %s", r.err);
    CHECK(!strncmp(r.out, "abc", 3) && r.out[r.n_out - 1] == '\n', "the text so far is kept");
    release(&r);
}

// Each line's result is what the prompt gives alone, in order, at any number at a time; one that fails says why.
static void test_run_parallel(void) {
    static const char *const prompts[] = {"abc", "a b", "", "abca", "b"};
    enum { N = N_OF(prompts) };
    char lines[64] = "", *alone[N];
    for (int i = 0; i < N; i++) {
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s\n", prompts[i]);
        Result r = CALL("run", MODEL, "-p", prompts[i], "-n", "12", "--temp", "0", "-q", "-o", "json");
        json_t *o = json_loads(r.out, 0, NULL);
        alone[i] = json_dumps(json_object_get(o, "ids"), 0);
        json_decref(o);
        release(&r);
    }
    write_text("prompts.txt", lines);
    for (int parallel = 1; parallel <= 7; parallel += 3) {
        char number[12];
        snprintf(number, sizeof number, "%d", parallel);
        Result r = CALL("run", MODEL, "-f", in_folder("prompts.txt"), "-n", "12", "--temp", "0", "-o", "jsonl",
                        "--parallel", number);
        CHECK(r.status == 0 && count_of(r.out, "\n") == N && strstr(r.err, "5 of 5 prompts"), "%d, status %d: %s%s",
              parallel, r.status, r.out, r.err);
        char *at = r.out;
        for (int i = 0; i < N && at; i++, at = at ? at + 1 : NULL) {
            json_t *o = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
            char *ids = json_dumps(json_object_get(o, "ids"), 0);
            CHECK(ids && alone[i] && !strcmp(ids, alone[i]) && json_integer_value(json_object_get(o, "index")) == i,
                  "%d at a time, line %d: %s, expected %s", parallel, i, ids, alone[i]);
            free(ids);
            json_decref(o);
            at = strchr(at, '\n');
        }
        release(&r);
    }
    for (int i = 0; i < N; i++) free(alone[i]);
    Result r = CALL("run", MODEL, "-f", in_folder("prompts.txt"), "-n", "2", "-o", "jsonl", "-c", "2", "-q");
    CHECK(r.status == 1 && count_of(r.out, "\n") == N && count_of(r.out, "\"error\": ") >= 1, "status %d: %s", r.status,
          r.out);
    release(&r);
    r = CALL("run", MODEL, "-p", "a", "--parallel", "2");
    CHECK(r.status == 2 && strstr(r.err, "-o jsonl"), "status %d: %s", r.status, r.err);
    release(&r);
}

// A text goes on from where it was saved, and is the one that is generated at once; guesses change nothing.
static void test_run_session(void) {
    const char *path = in_folder("text.session");
    Result whole = CALL("run", MODEL, "-p", "abcabcabc", "-n", "60", "--temp", "0", "-q"),
           first = CALL("run", MODEL, "-p", "abcabcabc", "-n", "30", "--temp", "0", "-q", "--session", path);
    CHECK(first.status == 0 && first.n_out > 1, "status %d: %s", first.status, first.err);
    first.out[first.n_out - 1] = 0; // the line's end
    Result next = CALL("run", MODEL, "-p", first.out, "-n", "30", "--temp", "0", "-q", "--session", path),
           guessed = CALL("run", MODEL, "-p", "abcabcabc", "-n", "60", "--temp", "0", "--lookup"),
           drafted = CALL("run", MODEL, "-p", "abcabcabc", "-n", "60", "--temp", "0", "--draft", MODEL),
           other = CALL("run", MODEL, "-p", "abc", "--kv", "q8", "--session", path);
    CHECK(next.status == 0 && !strncmp(next.out, first.out, strlen(first.out)), "[%s] after [%s]: %s", next.out,
          first.out, next.err);
    CHECK(!strcmp(guessed.out, whole.out) && strstr(guessed.err, "guessed "), "[%s], expected [%s]: %s", guessed.out,
          whole.out, guessed.err);
    CHECK(!strcmp(drafted.out, whole.out) && strstr(drafted.err, "guessed "), "[%s], expected [%s]: %s", drafted.out,
          whole.out, drafted.err);
    CHECK(other.status == 1 && strstr(other.err, "stored as bf16"), "status %d: %s", other.status, other.err);
    release(&whole);
    release(&first);
    release(&next);
    release(&guessed);
    release(&drafted);
    release(&other);
}

int main(void) {
    folder_make();
    RUN(test_the_checker_itself);
    need_program("run");
    RUN(test_synth);
    write_documents();
    RUN(test_bench_md);
    RUN(test_bench_json);
    RUN(test_bench_kv);
    RUN(test_bench_csv);
    RUN(test_bench_jsonl);
    RUN(test_bench_lists);
    RUN(test_bench_lookup);
    RUN(test_bench_lookup_of_a_file);
    RUN(test_bench_sweep);
    RUN(test_bench_sweep_of_batches);
    RUN(test_bench_attention);
    RUN(test_levels);
    RUN(test_bench_profile);
    RUN(test_bench_profile_of_a_mixture);
    RUN(test_perplexity_documents);
    RUN(test_perplexity_of_a_short_text);
    RUN(test_perplexity_of_a_real_model);
    RUN(test_refusals);
    RUN(test_run_streams);
    RUN(test_run_seed);
    RUN(test_run_hint);
    RUN(test_run_command_lines);
    RUN(test_pasted_command_lines);
    RUN(test_every_program);
    RUN(test_run_stops);
    RUN(test_run_any_bytes);
    RUN(test_run_full_context);
    RUN(test_run_interrupt);
    RUN(test_run_parallel);
    RUN(test_run_session);
    folder_remove();
    return test_report();
}
