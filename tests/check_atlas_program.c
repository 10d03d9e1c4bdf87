// check_atlas_program: build/atlas as people meet it: the list, a page of each mechanism, measurements as tables, JSON
// and pictures, claims, the heads of the shipped model, and wrong command lines.
#include "child.h"

#include "facts.h"

#define STORIES "models/stories.bin"

static void lists_every_mechanism(void) {
    Result r = CALL("atlas");
    json_t *all = told(CALL("atlas", "-o", "json"));
    const Mechanism *m;
    int n = 0;
    for (; (m = mechanism_at(n)); n++) {
        CHECK(strstr(r.out, fact(m, "title")), "%s is not in the list", m->name);
        const char *name = json_string_value(json_object_get(json_array_get(all, (size_t)n), "name"));
        CHECK(name && !strcmp(name, m->name), "JSON: expected %s, found %s", m->name, name ? name : "none");
    }
    CHECK((int)json_array_size(all) == n, "JSON: expected %d rows, found %zu", n, json_array_size(all));
    release(&r);
    json_decref(all);
}

// Weights of a causal mechanism are 0 above the diagonal; of softmax each row's sum is 1.
static void shows_each(void) {
    const Mechanism *m;
    for (int i = 0; (m = mechanism_at(i)); i += by_speed(1, 4, 7)) {
        json_t *o = told(CALL("atlas", m->name, "-n", "9", "-o", "json"));
        const json_t *rows = json_object_get(o, "weights");
        CHECK(m->opaque || json_array_size(rows) == 9, "%s: expected 9 rows, found %zu", m->name,
              json_array_size(rows));
        for (size_t t = 0; t < json_array_size(rows); t++) {
            double ahead = 0, sum = 0;
            for (size_t j = 0; j < 9; j++) {
                double w = json_number_value(json_array_get(json_array_get(rows, t), j));
                sum += w;
                if (j > t) ahead += fabs(w);
            }
            CHECK(m->time != TIME_CAUSAL || ahead == 0, "%s: row %zu looks ahead: %g", m->name, t, ahead);
            CHECK(strcmp(fact(m, "family"), "masks") || fabs(sum - 1) < 1e-5, "%s: row %zu sums to %g", m->name, t,
                  sum);
        }
        if (m->approximates) CHECK(number(o, "error") >= 0, "%s: no error", m->name);
        json_decref(o);
    }
    TELLS(0, "o = softmax(Q K^T / sqrt(d)) V", "!", "atlas", "scaled-dot");
    TELLS(0, "██", "!", "atlas", "window", "--svg", in_folder("w.svg"));
    char *svg = read_file(in_folder("w.svg"), NULL);
    CHECK(strstr(svg, "<svg") && strstr(svg, "</svg>"), "no picture: %.100s", svg);
    free(svg);
}

static bool near(double a, double b) { // to the digits that JSON gets
    return fabs(a / b - 1) < 1e-5;
}

static void measures(void) {
    json_t *all = told(CALL("atlas", "--bench", "window", "mha", "--n", "512..2048", "-o", "json", "-t", "1"));
    CHECK(json_array_size(all) == 6, "expected 2 mechanisms at 3 lengths, found %zu", json_array_size(all));
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *o = json_array_get(all, i);
        double n = number(o, "n"), flops = number(o, "flops"), pairs = n * (n + 1) / 2;
        CHECK(number(o, "prefill_s") > 0 && number(o, "decode_s") > 0 && number(o, "bytes") > 0, "row %zu", i);
        // 4 heads of 64: 2 products of 2 operations; a window of 256
        if (i < 3) pairs = 256 * (n - 256) + 256 * 257 / 2.0;
        CHECK(near(flops, pairs * 4 * 64 * 4), "row %zu: %g operations, expected %g", i, flops, pairs * 1024);
    }
    double first = number(json_array_get(all, 0), "bytes"), last = number(json_array_get(all, 2), "bytes");
    CHECK(first == last, "a window's cache grew from %g to %g bytes", first, last);
    CHECK(near(number(json_array_get(all, 5), "bytes"), 2048 * 4 * 64 * 2 * 2), "mha: not 2 bytes a value");
    json_decref(all);
    TELLS(0, "| gqa | 512 |", "!", "atlas", "--bench", "gqa", "--n", "512..1024", "--svg", in_folder("b.svg"));
    char *svg = read_file(in_folder("b.svg"), NULL);
    CHECK(strstr(svg, "Prefill") && strstr(svg, "Decode") && strstr(svg, "gqa"), "no plots: %.100s", svg);
    free(svg);
    TELLS(0, "| mha | 1024 | left out: --limit |", "!", "atlas", "--bench", "mha", "--n", "512..1024", "--limit",
          "1e-6");
}

static void tests_claims(void) {
    json_t *claims = told(CALL("atlas", "--claims", "--fast", "-o", "json"));
    CHECK(json_array_size(claims) >= 13, "%zu claims", json_array_size(claims));
    for (size_t i = 0; i < json_array_size(claims); i++) {
        const json_t *o = json_array_get(claims, i);
        CHECK(json_string_length(json_object_get(o, "here")) > 20 && json_object_get(o, "verdict"), "claim %zu", i + 1);
    }
    json_decref(claims);
    TELLS(0, "endless stream", "!", "atlas", "--advise", "--fast");
}

static void compares(void) {
    json_t *table = told(CALL("atlas", "--table", "--fast", "-o", "json"));
    CHECK(json_array_size(table) >= 20, "%zu rows", json_array_size(table));
    for (size_t i = 0; i < json_array_size(table); i++) {
        const json_t *o = json_array_get(table, i);
        if (strcmp(json_string_value(json_object_get(o, "mechanism")), "mqa")) continue;
        CHECK(number(o, "bytes_of_mha") == 0.25, "one of 4 heads: %g of the cache", number(o, "bytes_of_mha"));
    }
    json_decref(table);
}

// Shares are of a whole, and a text read twice has the same token to look at.
static void heads_of_a_model(void) {
    json_t *heads =
        told(CALL("atlas", "--heads", STORIES, "-p", "Lily and Tom went to the park. Lily ran.", "-o", "json"));
    CHECK(json_array_size(heads) == 36, "6 layers of 6 heads: found %zu", json_array_size(heads));
    double previous = 0;
    for (size_t i = 0; i < json_array_size(heads); i++) {
        const json_t *o = json_array_get(heads, i);
        double sum = number(o, "first") + number(o, "itself") + number(o, "previous") + number(o, "near") +
                     number(o, "same") + number(o, "induction");
        CHECK(sum > 0 && sum <= 1.0001 && number(o, "keys") >= 1, "head %zu: shares of %g, %g keys", i, sum,
              number(o, "keys"));
        previous = fmax(previous, number(o, "previous"));
    }
    CHECK(previous > 0.4, "no head looks at the token before: at most %g", previous);
    json_decref(heads);
    TELLS(0, "| 1 | 1 |", "!", "atlas", "--heads", STORIES, "-p", "Tom ran home.", "--svg", in_folder("h.svg"));
}

static void wrong_lines(void) {
    REFUSES(2, "'nothing'", "atlas", "nothing");
    REFUSES(2, "expected one mechanism", "atlas", "mha", "gqa");
    REFUSES(2, "--n", "atlas", "--bench", "mha", "--n", "5..2");
    REFUSES(2, "--n", "atlas", "--bench", "mha", "--n", "512..x");
    REFUSES(2, "--svg", "atlas", "--svg", "x.svg");
    REFUSES(2, "expected one of them", "atlas", "--bench", "--table");
    REFUSES(2, "expected both", "atlas", "--heads", STORIES);
    REFUSES(2, "no weights", "atlas", "mla", "--svg", in_folder("m.svg"));
    REFUSES(1, "2 to", "atlas", "--heads", STORIES, "-p", "");
    REFUSES(1, "none.bin", "atlas", "--heads", "none.bin", "-p", "a b c");
}

int main(void) {
    folder_make();
    need_program("atlas");
    RUN(lists_every_mechanism);
    RUN(shows_each);
    RUN(measures);
    // These measure every mechanism; check_atlas_operators runs them all under sanitizers.
    if (!quick()) RUN(compares);
    if (!quick()) RUN(tests_claims);
    RUN(heads_of_a_model);
    RUN(wrong_lines);
    folder_remove();
    return test_report();
}
