// check_families: every decoder family, from a Hugging Face folder and from GGUF, against logits that a reference in
// double precision computed.
//
//   build/tests/check_families [NAME...]    all fixtures, or these
//
// The models are made again from their fixtures (make_family.h). TESSERA_KEEP=DIR keeps the GGUF files there, for other
// engines.
#include "make_bin.h"
#include "make_family.h"

// Normalized mean squared; arithmetic in float gives about 1e-12. Where weights are quantized, vectors are too.
static const double MOST_ERROR = 1e-9, MOST_QUANTIZED = 1e-7;

static double family_error(const FamilyLogits *seen, const Fixture *f) {
    double error = 0, power = 0;
    for (int i = 0; i < f->n_positions; i++) {
        for (int token = 0; token < f->vocab_size; token++) {
            double want = family_logit(f, i, token);
            double difference = (double)seen->logits[f->positions[i] * f->vocab_size + token] - want;
            error += difference * difference;
            power += want * want;
        }
    }
    return error / power;
}

// At once, then token by token from the middle on; one thread and two.
static void check_model(const Fixture *f, const char *path, const char *tokenizer, const char *form) {
    static FamilyLogits seen, two;
    char err[512] = "";
    bool ok = family_run(&seen, f, path, tokenizer, 1, f->n_tokens, err, sizeof err) &&
              family_run(&two, f, path, tokenizer, 2, f->n_tokens, err, sizeof err);
    CHECK(ok, "%s, %s: %s", f->name, form, err);
    if (!ok) return;
    double error = family_error(&seen, f);
    double most = strstr(f->name, "oss") ? MOST_QUANTIZED : MOST_ERROR;
    CHECK(error <= most, "%s, %s: NMSE %.1e", f->name, form, error);
    CHECK(!memcmp(&seen, &two, sizeof seen), "%s, %s: two threads give other logits", f->name, form);
    ok = family_run(&two, f, path, tokenizer, 2, f->n_tokens / 2, err, sizeof err);
    CHECK(ok, "%s, %s: %s", f->name, form, err);
    double by_token = family_error(&two, f);
    CHECK(by_token <= most, "%s, %s, token by token: NMSE %.1e", f->name, form, by_token);
    printf("  %-20s %-7s NMSE %.1e at once, %.1e token by token\n", f->name, form, error, by_token);
}

// ---- the two forms

static void check_folder(const Fixture *f) {
    const char *tokenizer = BIN_DIR "family.tokenizer.bin";
    folder_make();
    write_family(f);
    make_tokenizer_bin(tokenizer, f->vocab_size, 1);
    check_model(f, folder, tokenizer, "folder");
    folder_remove();
}

static void check_gguf(const Fixture *f) {
    const char *keep = getenv("TESSERA_KEEP");
    char path[512];
    folder_make();
    snprintf(path, sizeof path, "%s/%s.gguf", keep && *keep ? keep : folder, f->name);
    write_family_gguf(f, path);
    check_model(f, path, NULL, "GGUF");
    folder_remove();
}

static void families_as_folders(void) {
    each_family(check_folder, false);
}

static void families_as_gguf(void) {
    each_family(check_gguf, true);
}

int main(int argc, char **argv) {
    without_bf16();
    chosen = argv + 1;
    n_chosen = argc - 1;
    RUN(families_as_folders);
    RUN(families_as_gguf);
    return test_report();
}
