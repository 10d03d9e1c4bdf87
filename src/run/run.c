// run: the program ./run: generates text from a prompt, or runs a chat (dialogue.h).
//
// Owns the generation, Ctrl-C and the statistics; its flags are options.h's. A prompt that Ctrl-C stops ends it with
// status 130, a text that Ctrl-C ends with 0.
#include "batch.h"
#include "bytes.h"
#include "cli.h"
#include "dialogue.h"
#include "draws.h"
#include "file.h"
#include "options.h"
#include "progress.h"
#include "result.h"
#include "stops.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stb/stb_ds.h>

enum { STATUS_INTERRUPTED = 130 };

// What the command line did not give: as the model's files say, or else built in. `said` tells the values and whence;
// a penalty is told where one is given.
static void choose_sampling(SamplerOptions *o, SamplingDefaults model, char *said, size_t size) {
    const struct {
        const char *name;
        float given, model, built_in;
    } list[] = {{"temp", o->temperature, model.temperature, 0.8f},
                {"top-k", (float)o->top_k, (float)model.top_k, 40},
                {"top-p", o->top_p, model.top_p, 0.95f},
                {"min-p", o->min_p, model.min_p, 0.05f},
                {"repeat-penalty", o->repeat_penalty, model.repeat_penalty, 1}};
    enum { PENALTY = 4, N = 5 };
    float chosen[N];
    *said = 0;
    for (int i = 0; i < N; i++) {
        const char *from = list[i].given >= 0 ? "flag" : list[i].model >= 0 ? model.source : NULL;
        size_t n = strlen(said);
        chosen[i] = list[i].given >= 0 ? list[i].given : list[i].model >= 0 ? list[i].model : list[i].built_in;
        if (i == PENALTY && !from) continue;
        snprintf(said + n, size - n, from ? "%s%s %g (%s)" : "%s%s %g", i ? ", " : "", list[i].name, (double)chosen[i],
                 from);
    }
    o->temperature = chosen[0];
    o->top_k = (int)chosen[1];
    o->top_p = chosen[2];
    o->min_p = chosen[3];
    bool of_model = o->repeat_penalty < 0; // then so is what it looks back on
    if (of_model && !o->penalty_last_n) o->penalty_last_n = model.penalty_last_n;
    o->repeat_penalty = chosen[PENALTY];
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
    (void)sig;
    interrupted = 1;
}

// The first Ctrl-C stops generation, the second ends the program. In a chat, each may interrupt a read.
static void catch_interrupts(bool chat) {
    struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = chat ? 0 : SA_RESTART | (int)SA_RESETHAND};
    sigaction(SIGINT, &act, NULL);
}

typedef struct {
    double load, prompt, generate; // seconds
    int n_prompt, n_new;
    double bytes_read; // by the generated tokens
    const char *stop;  // what ended the text: "end", "limit", "word", "context", "interrupt", "error"
} Stats;

static void print_stats(const Stats *st, const Session *s, const Drafter *drafter, const Options *o) {
    SessionInfo info = session_info(s);
    fprintf(stderr, "load %.3f s | prompt %d tokens, %.1f tok/s | generated %d tokens", st->load, st->n_prompt,
            st->n_prompt / st->prompt, st->n_new);
    if (st->n_new > 1) {
        fprintf(stderr, ", %.1f tok/s, %.2f GB/s", (st->n_new - 1) / st->generate,
                st->bytes_read / st->generate * 1e-9);
    }
    if (drafter) {
        DrafterInfo d = drafter_info(drafter);
        fprintf(stderr, " | guessed %llu of them, %llu right", (unsigned long long)d.n_guessed,
                (unsigned long long)d.n_right);
    }
    print_held(&info);
    fprintf(stderr, " | %d threads | seed %llu | %s\n", info.n_threads, (unsigned long long)o->sampler.seed,
            o->sampling);
}

// What is generated from: the prompt's tokens, then those that follow.
typedef struct {
    const Engine *engine;
    Draws draws;
    Constraint *constraint; // NULL: free text
    const Options *options;
    int32_t *tokens;
    int n;
    Stops stops;
    char *text; // stb_ds array: with -o json, what would be printed
} Generation;

static bool put_text(Generation *g, const char *text) {
    if (g->options->format) {
        bytes_append_text(&g->text, text);
        return true;
    }
    fputs(text, stdout);
    return !fflush(stdout);
}

// The next token within the constraint.
static int32_t draw_constrained(Generation *g, char *err, size_t errlen) {
    if (session_sync(g->draws.session, g->tokens, g->n, err, errlen)) return -1;
    const float *logits = constraint_mask(g->constraint, session_logits(g->draws.session));
    if (!logits) die(1, "--json-schema: the vocabulary has no token that can follow");
    return sampler_pick(g->draws.sampler, logits);
}

// Samples one token and puts its text out. NULL, or what ends the text.
static const char *generate_token(Generation *g, TextOut *out, Stats *st, int *status) {
    char err[512];
    const Options *o = g->options;
    Session *s = g->draws.session;
    int n_ctx = session_info(s).n_ctx, most = o->n_new < 0 ? n_ctx : o->n_new - st->n_new, n_done = session_length(s);
    if (g->n > n_ctx) {
        fprintf(stderr, "\n[the context of %d tokens is full; a larger -c holds more]\n", n_ctx);
        return "context";
    }
    int32_t id = g->constraint ? draw_constrained(g, err, sizeof err)
                               : draws_next(&g->draws, g->tokens, g->n, most, err, sizeof err);
    if (id < 0) {
        fprintf(stderr, "\nerror: %s\n", err);
        *status = 1;
        return "error";
    }
    if (session_length(s) != n_done) { // by a pass
        st->bytes_read += (double)engine_info(g->engine).token_bytes + (double)session_info(s).memory_token_bytes;
    }
    if (engine_is_end(g->engine, id) && !o->ignore_eos) return "end";
    if (!put_text(g, stops_push(&g->stops, textout_push(out, id)))) return "error";
    g->tokens[g->n++] = id;
    st->n_new++;
    if (g->stops.found) return "word";
    if (g->constraint) constraint_accept(g->constraint, id);
    if (g->constraint && constraint_complete(g->constraint)) return "end";
    return st->n_new == o->n_new ? "limit" : NULL;
}

// Samples and prints until -n tokens, an end token, a stop string, a full context or Ctrl-C. Returns the exit status.
static int generate(Generation *g, Stats *st) {
    int status = 0;
    TextOut *out = textout_open(g->engine, !g->options->n_prompt);
    if (!out) die(1, "out of memory");
    textout_show_special(out, g->options->special);
    sampler_history(g->draws.sampler, g->tokens, g->n);
    double start = seconds();
    if (!g->options->n_new) st->stop = "limit";
    while (!st->stop && !interrupted) st->stop = generate_token(g, out, st, &status);
    if (!st->stop) st->stop = "interrupt";
    st->generate = seconds() - start;
    put_text(g, stops_push(&g->stops, textout_finish(out)));
    put_text(g, stops_finish(&g->stops));
    textout_close(out);
    return status;
}

// One object on stdout.
static void print_json(const Generation *g, const Stats *st) {
    const Options *o = g->options;
    json_t *line = result_json(&(Result){.prompt = o->prompt,
                                         .n_prompt_bytes = o->n_prompt,
                                         .text = g->text,
                                         .n_text_bytes = arrlenu(g->text),
                                         .tokens = g->tokens,
                                         .n = g->n,
                                         .n_prompt = st->n_prompt,
                                         .stop = st->stop,
                                         .seed = o->sampler.seed});
    json_object_set_new(line, "prompt_ts", json_real(st->n_prompt / st->prompt));
    if (st->n_new > 1) json_object_set_new(line, "generated_ts", json_real((st->n_new - 1) / st->generate));
    json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
    json_decref(line);
}

// Reads the prompt, which is already on the screen. Returns false after Ctrl-C.
static bool read_tokens(Generation *g, Stats *st) {
    char err[512];
    Progress progress = progress_start(&interrupted, g->options->quiet);
    double start = seconds();
    session_watch(g->draws.session, progress_watch, &progress);
    int rc = session_sync(g->draws.session, g->tokens, g->n, err, sizeof err);
    session_watch(g->draws.session, NULL, NULL);
    progress_end(&progress);
    st->prompt = seconds() - start;
    if (rc && !interrupted) die(1, "%s", err);
    if (!rc) return true;
    fprintf(stderr, "\n[stopped after %d of the prompt's %d tokens]\n", session_length(g->draws.session), g->n);
    return false;
}

static void open_generation(Generation *g) {
    char err[512];
    const Options *o = g->options;
    int32_t *ids;
    int n = engine_encode(g->engine, o->prompt ? o->prompt : "", o->n_prompt, true, o->special, &ids, err, sizeof err);
    int n_ctx = session_info(g->draws.session).n_ctx;
    if (n < 0) die(1, "%s", err);
    if (n > n_ctx) die(1, "the prompt has %d tokens, the context %d; a larger -c holds more", n, n_ctx);
    int most = o->n_new < 0 || o->n_new > n_ctx - n + 1 ? n_ctx - n + 1 : o->n_new;
    g->tokens = realloc(ids, sizeof *ids * ((size_t)n + (size_t)most + 1));
    if (!g->tokens) die(1, "out of memory for %d tokens; a smaller -n needs less", n + most);
    g->n = n;
    g->stops.strings = o->stops;
    if (!o->constrained) return;
    g->constraint = constraint_open(g->engine, NULL, o->schema, err, sizeof err);
    if (!g->constraint) die(2, "--json-schema: %s", err);
}

// Generates text after the prompt. Returns the exit status.
static int run_text(const Engine *e, Session *s, Sampler *sampler, Drafter *drafter, const Options *o, Stats *st) {
    Generation g = {.engine = e, .draws = {s, sampler, drafter, {0}, 0, 0}, .options = o};
    open_generation(&g);
    st->n_prompt = g.n;
    if (!o->hide_prompt && !o->format) fwrite(o->prompt, 1, o->n_prompt, stdout);
    fflush(stdout);
    bool read = read_tokens(&g, st);
    int status = read ? generate(&g, st) : STATUS_INTERRUPTED;
    if (o->format && read) print_json(&g, st);
    if (read || o->n_prompt) putchar('\n');
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the text could not be written");
    if (!o->quiet && read) print_stats(st, s, drafter, o);
    constraint_close(g.constraint);
    free(g.tokens);
    arrfree(g.text);
    stops_free(&g.stops);
    return status;
}

// What --session left there, if anything.
static void load_session(Session *s, const Options *o) {
    char err[512];
    if (!o->saved || access(o->saved, F_OK)) return;
    if (session_load(s, o->saved, err, sizeof err)) die(1, "--session: %s", err);
}

static void save_session(const Session *s, const Options *o) {
    char err[512];
    if (o->saved && session_save(s, o->saved, err, sizeof err)) die(1, "--session: %s", err);
}

// Who guesses the next tokens; NULL: nobody.
static Drafter *open_drafter(const Options *o, const Engine *e, const Engine *draft, const Session *s) {
    char err[512];
    SessionOptions options = o->session;
    if (!draft && !o->lookup) return NULL;
    options.n_ctx = session_info(s).n_ctx;
    Drafter *d = draft ? drafter_model(draft, e, &options, err, sizeof err) : drafter_lookup(err, sizeof err);
    if (!d) die(1, "--draft: %s", err);
    return d;
}

int main(int argc, char **argv) {
    Options o = options_parse(argc, argv);
    char err[512];
    file_guard_shrinking();
    Stats st = {0};
    double start = seconds();
    Engine *e = engine_open(o.model, o.tokenizer, err, sizeof err);
    if (!e) die(1, "%s", err);
    EngineInfo info = engine_info(e);
    tell_notes(engine_notes(e));
    choose_sampling(&o.sampler, engine_sampling(e), o.sampling, sizeof o.sampling);
    if (o.chat && !o.quiet) fprintf(stderr, "[sampling: %s]\n", o.sampling);
    if (o.session.n_ctx > info.max_seq_len && !o.session.window && !o.quiet) {
        fprintf(stderr, "note: -c %d is beyond the %d positions the model was trained for\n", o.session.n_ctx,
                info.max_seq_len);
    }
    Session *s = session_open(e, &o.session, err, sizeof err);
    if (!s) die(1, "%s", err);
    options_bind(&o, e);
    load_session(s, &o);
    Sampler *sampler = sampler_open(&o.sampler, info.vocab_size, err, sizeof err);
    if (!sampler) die(2, "--logit-bias: %s", err); // the other options have their ranges
    Engine *draft = o.draft ? engine_open(o.draft, NULL, err, sizeof err) : NULL;
    if (o.draft && !draft) die(1, "--draft: %s", err);
    Drafter *drafter = open_drafter(&o, e, draft, s);
    st.load = seconds() - start;
    catch_interrupts(o.chat);
    DialogueOptions dialogue = {.system = o.system,
                                .chat_template = o.chat_template,
                                .variables = o.template_variables,
                                .first = o.prompt,
                                .stops = o.stops,
                                .n_new = o.n_new};
    dialogue.drafter = drafter;
    dialogue.quiet = o.quiet;
    dialogue.template_is_text = o.template_is_text;
    dialogue.no_thinking = o.reasoning_budget == 0;
    dialogue.single_turn = o.single_turn;
    int status = o.chat                     ? dialogue_run(e, s, sampler, &dialogue, &interrupted)
                 : o.format == FORMAT_JSONL ? batch_run(e, &o, &interrupted)
                                            : run_text(e, s, sampler, drafter, &o, &st);
    save_session(s, &o);
    drafter_close(drafter);
    engine_close(draft);
    sampler_close(sampler);
    session_close(s);
    engine_close(e);
    options_free(&o);
    return status;
}
