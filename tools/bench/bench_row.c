// bench_row: see bench_row.h.
#include "bench_row.h"

#include "cli.h"
#include "profile_table.h"
#include "report.h"
#include "samples.h"

#include <jansson.h>
#include <stdio.h>
#include <time.h>

#define COLUMNS                                                                                                        \
    "model,test,n_prompt,n_gen,n_depth,n_threads,avg_ts,stddev_ts,avg_ns,gb_per_s,kv_bytes,state_bytes,peak_rss,"      \
    "model_bytes,cpu_level"
const char row_csv_header[] = COLUMNS;
const char row_lookup_csv_header[] = COLUMNS ",text,lookup,acceptance,tokens_per_pass,ratio";
const char row_md_header[] =
    "| model | params | size | threads | test | t/s | GB/s | % of read | memory MiB | peak RSS MiB |\n"
    "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|\n";

static ProfileTable profile_of(const Bench *b, const Row *r) {
    return (ProfileTable){&r->profile, samples_mean(r->seconds, r->n) * r->n, r->n, b->machine->gflops[cpu_level()],
                          b->machine->read_gb};
}

static void print_profile_md(Bench *b, const Row *r) {
    printf("%s%s: %.2f ± %.2f tokens/s, %.2f ms\n\n", b->n_rows > 1 ? "\n" : "", r->test, samples_mean(r->speed, r->n),
           samples_deviation(r->speed, r->n), samples_mean(r->seconds, r->n) * 1e3);
    ProfileTable table = profile_of(b, r);
    profile_table_md(stdout, &table);
}

static void print_row_md(Bench *b, const Row *r) {
    char gb[32] = "", share[32] = "";
    if (r->gb > 0) snprintf(gb, sizeof gb, "%.2f", r->gb);
    if (r->gb > 0 && b->machine->read_gb > 0) {
        bool over = r->gb > b->machine->read_gb;
        b->over |= over;
        if (over) snprintf(share, sizeof share, "in cache *");
        else snprintf(share, sizeof share, "%.0f", 100 * r->gb / b->machine->read_gb);
    }
    printf("| %s | %.2f M | %.1f MiB | %d | %s | %.2f ± %.2f | %s | %s | %.2f | %.1f |\n", b->model->label,
           (double)b->info.n_params * 1e-6, (double)b->info.model_bytes / 0x1p20, b->n_threads, r->test,
           samples_mean(r->speed, r->n), samples_deviation(r->speed, r->n), gb, share, (double)measure_held(b) / 0x1p20,
           (double)peak_rss_bytes() / 0x1p20);
}

static json_t *real_array(const double *v, int n, double scale, bool whole) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, whole ? json_integer((json_int_t)(v[i] * scale)) : json_real(v[i] * scale));
    return list;
}

static void add_lookup(json_t *o, const RowLookup *l) {
    json_t *fields = json_pack("{s:s, s:b, s:o, s:f, s:f}", "text", l->text, "lookup", l->guesses, "acceptance",
                               l->acceptance < 0 ? json_null() : json_real(l->acceptance), "tokens_per_pass",
                               l->tokens_per_pass, "ratio", l->ratio);
    if (!fields) die(1, "%s: its row could not be written as JSON", l->text);
    json_object_update(o, fields);
    json_decref(fields);
}

static void print_lookup_json(const RowLookup *l) {
    fputs(", \"text\": ", stdout);
    report_string(l->text);
    printf(", \"lookup\": %s, \"acceptance\": ", l->guesses ? "true" : "false");
    if (l->acceptance < 0) fputs("null", stdout);
    else printf("%.6g", l->acceptance);
    printf(", \"tokens_per_pass\": %.6g, \"ratio\": %.6g", l->tokens_per_pass, l->ratio);
}

static void print_lookup_csv(const RowLookup *l) {
    fputs(",\"", stdout);
    for (const char *c = l->text; *c; c++) {
        if (*c == '"') putchar('"');
        putchar(*c);
    }
    printf("\",%d,", l->guesses);
    if (l->acceptance >= 0) printf("%.6g", l->acceptance);
    printf(",%.6g,%.6g", l->tokens_per_pass, l->ratio);
}

// One line with the fields of llama-bench; those that mean nothing here have the values of its CPU builds.
static void print_row_jsonl(const Bench *b, const Row *r) {
    char when[32];
    time_t now = time(NULL);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    const char *kv = b->o.session.kv == KV_Q8 ? "q8_0" : kv_type_name(b->o.session.kv);
    json_t *o = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s?, s:s, s:I, s:I, s:i, s:i, s:i}", "build_commit",
                          "tessera-" TESSERA_VERSION, "build_number", 0, "cpu_info", cpu_model(), "gpu_info", "",
                          "backends", "CPU", "model_filename", b->model->path, "model_type", b->model->label,
                          "model_size", (json_int_t)b->info.model_bytes, "model_n_params", (json_int_t)b->info.n_params,
                          "n_batch", MEASURE_BLOCK, "n_ubatch", MEASURE_BLOCK, "n_threads", b->n_threads);
    json_t *fixed =
        json_pack("{s:s, s:b, s:i, s:s, s:s, s:i, s:s, s:i, s:b, s:b, s:s, s:s, s:b, s:b, s:i}", "cpu_mask", "0x0",
                  "cpu_strict", 0, "poll", 50, "type_k", kv, "type_v", kv, "n_gpu_layers", 0, "split_mode", "none",
                  "main_gpu", 0, "no_kv_offload", 0, "flash_attn", 1, "tensor_split", "0.00", "tensor_buft_overrides",
                  "none", "use_mmap", 1, "embeddings", 0, "no_op_offload", 0);
    json_t *numbers =
        json_pack("{s:i, s:i, s:i, s:s, s:I, s:I, s:f, s:f}", "n_prompt", r->n_prompt, "n_gen", r->n_gen, "n_depth",
                  r->n_depth, "test_time", when, "avg_ns", (json_int_t)(samples_mean(r->seconds, r->n) * 1e9),
                  "stddev_ns", (json_int_t)(samples_deviation(r->seconds, r->n) * 1e9), "avg_ts",
                  samples_mean(r->speed, r->n), "stddev_ts", samples_deviation(r->speed, r->n));
    if (!o || !fixed || !numbers) die(1, "%s: its row could not be written as JSON", b->model->path);
    json_object_update(o, fixed);
    json_object_update(o, numbers);
    json_object_set_new(o, "n_sequences", json_integer(r->n_sequences));
    json_object_set_new(o, "samples_ns", real_array(r->seconds, r->n, 1e9, true));
    json_object_set_new(o, "samples_ts", real_array(r->speed, r->n, 1, false));
    if (r->lookup) add_lookup(o, r->lookup);
    json_dumpf(o, stdout, JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(o);
    json_decref(fixed);
    json_decref(numbers);
    fflush(stdout);
}

void row_print(Bench *b, const Row *r) {
    report_row(b);
    if (b->o.format == OUT_MD) {
        (b->o.profile ? print_profile_md : print_row_md)(b, r);
        fflush(stdout);
        return;
    }
    if (b->o.format == OUT_JSONL) {
        print_row_jsonl(b, r);
        return;
    }
    double speed = samples_mean(r->speed, r->n), spread = samples_deviation(r->speed, r->n),
           ns = samples_mean(r->seconds, r->n) * 1e9;
    SessionInfo held = measure_info(b);
    unsigned long long kv = held.kv_bytes, state = held.state_bytes, rss = peak_rss_bytes(),
                       bytes = b->info.model_bytes;
    const char *level = cpu_level_name(cpu_level());
    if (b->o.format == OUT_CSV) {
        printf("%s,%s,%d,%d,%d,%d,%.6g,%.6g,%.0f,", b->model->label, r->test, r->n_prompt, r->n_gen, r->n_depth,
               b->n_threads, speed, spread, ns);
        if (r->gb > 0) printf("%.6g", r->gb);
        printf(",%llu,%llu,%llu,%llu,%s", kv, state, rss, bytes, level);
        if (r->lookup) print_lookup_csv(r->lookup);
        putchar('\n');
        return;
    }
    printf("{\"model\": \"%s\", \"test\": \"%s\", \"n_prompt\": %d, \"n_gen\": %d, \"n_depth\": %d, \"n_sequences\": "
           "%d, \"n_threads\": %d, "
           "\"avg_ts\": %.6g, "
           "\"stddev_ts\": %.6g, \"avg_ns\": %.0f, \"samples_ns\": [",
           b->model->label, r->test, r->n_prompt, r->n_gen, r->n_depth, r->n_sequences, b->n_threads, speed, spread,
           ns);
    for (int i = 0; i < r->n; i++) printf("%s%.0f", i ? ", " : "", r->seconds[i] * 1e9);
    printf("], ");
    report_number("gb_per_s", r->gb);
    printf(", \"in_cache\": %s", b->machine->read_gb > 0 && r->gb > b->machine->read_gb ? "true" : "false");
    printf(
        ", \"kv_bytes\": %llu, \"state_bytes\": %llu, \"peak_rss\": %llu, \"model_bytes\": %llu, \"cpu_level\": \"%s\"",
        kv, state, rss, bytes, level);
    if (b->o.profile) {
        ProfileTable table = profile_of(b, r);
        fputs(", \"profile\": ", stdout);
        profile_table_json(stdout, &table);
    }
    if (r->lookup) print_lookup_json(r->lookup);
    putchar('}');
}
