// run: the command line of ./run: generates text from a prompt, or runs a chat (dialogue.h).
//
// Owns the flags, Ctrl-C and the statistics. Refuses a wrong command line with exit status 2.
#include "cli.h"
#include "dialogue.h"
#include "file.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: ./run MODEL [-p \"prompt\"] [options]\n"
    "  -p, -i TEXT   prompt (default: start from BOS)\n"
    "  -f FILE       read the prompt from a file, - for stdin\n"
    "  --chat        interactive chat with the model's chat template; -p is the first message\n"
    "  --system TEXT system message of the chat (default: the template's own, if any)\n"
    "  -n N          tokens to generate (default: 256); in a chat, per answer (default: no limit but the context)\n"
    "  -c N          context limit; the KV cache grows up to it (default: the model's own)\n"
    "  -t N          threads (default: the cores this process may use)\n"
    "  -s N          seed; the same seed gives the same text with any number of threads (default: from the clock)\n"
    "  --temp X      temperature, 0 for greedy sampling (default: 0.8)\n"
    "  --top-k N     sample from the N most likely tokens, 0 for all (default: 40)\n"
    "  --top-p X     nucleus sampling: the most likely tokens with total probability X (default: 0.95)\n"
    "  --min-p X     minimum probability, relative to the most likely token (default: 0.05)\n"
    "  --window W    attend to the last W tokens only, and with --sinks S to the first S: memory O(W + S)\n"
    "  --kv TYPE     type of the KV cache: bf16, f32 or q8 (default: bf16)\n"
    "  -z FILE       tokenizer (default: from the model; for .bin, <model stem>.tokenizer.bin or tokenizer.bin)\n"
    "  -q            no statistics\n";

typedef struct {
    const char *model, *tokenizer, *prompt, *file, *system;
    int n_new; // -1: default
    bool quiet, chat;
    SessionOptions session;
    SamplerOptions sampler;
} Options;

static Options parse(int argc, char **argv) {
    Options o = {.n_new = -1, .sampler = {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f}};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    o.sampler.seed = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    Args a = args_start(argc, argv, usage);
    while (args_left(&a)) {
        const char *f = args_next(&a);
        if (!strcmp(f, "-p") || !strcmp(f, "-i")) o.prompt = args_string(&a, f);
        else if (!strcmp(f, "-f")) o.file = args_string(&a, f);
        else if (!strcmp(f, "-n")) o.n_new = args_int(&a, f, 0, 1 << 28);
        else if (!strcmp(f, "-s")) o.sampler.seed = args_u64(&a, f);
        else if (!strcmp(f, "--temp")) o.sampler.temperature = args_float(&a, f, 0, 100);
        else if (!strcmp(f, "--top-k")) o.sampler.top_k = args_int(&a, f, 0, 1 << 24);
        else if (!strcmp(f, "--top-p")) o.sampler.top_p = args_float(&a, f, 0, 1);
        else if (!strcmp(f, "--min-p")) o.sampler.min_p = args_float(&a, f, 0, 1);
        else if (!strcmp(f, "-z")) o.tokenizer = args_string(&a, f);
        else if (!strcmp(f, "-q")) o.quiet = true;
        else if (!strcmp(f, "--chat")) o.chat = true;
        else if (!strcmp(f, "--system")) o.system = args_string(&a, f);
        else if (args_session(&a, f, &o.session)) continue;
        else if (*f == '-' && f[1]) die(2, "%s: unknown flag; ./run --help lists them", f);
        else if (o.model) die(2, "%s: a second model; expected one, found %s first", f, o.model);
        else o.model = f;
    }
    if (!o.model) die(2, "no model: expected ./run MODEL -p \"prompt\"");
    if (o.prompt && o.file) die(2, "-p and -f: expected one prompt, found both");
    if (o.session.n_sinks && !o.session.window) die(2, "--sinks: needs --window");
    if (o.system && !o.chat) die(2, "--system: needs --chat");
    if (o.chat && o.file) die(2, "--chat and -f: expected one, found both");
    if (o.n_new < 0) o.n_new = o.chat ? 0 : 256;
    char *end = NULL;
    if (o.prompt && *o.prompt) strtod(o.prompt, &end);
    if (end && !*end)
        fprintf(stderr, "hint: the prompt is \"%s\"; for nucleus sampling use --top-p %s\n", o.prompt, o.prompt);
    return o;
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
} Stats;

static void print_stats(const Stats *st, const Session *s, uint64_t seed) {
    SessionInfo info = session_info(s);
    fprintf(stderr, "load %.3f s | prompt %d tokens, %.1f tok/s | generated %d tokens", st->load, st->n_prompt,
            st->n_prompt / st->prompt, st->n_new);
    if (st->n_new > 1) {
        fprintf(stderr, ", %.1f tok/s, %.2f GB/s", (st->n_new - 1) / st->generate,
                st->bytes_read / st->generate * 1e-9);
    }
    fprintf(stderr, " | KV %.2f MiB | peak %.1f MiB | %d threads | seed %llu\n", (double)info.kv_bytes / 0x1p20,
            (double)peak_rss_bytes() / 0x1p20, info.n_threads, (unsigned long long)seed);
}

// Samples and prints until n_new tokens, an end token, a full context or Ctrl-C. Returns the exit status.
static int generate(const Engine *e, Session *s, Sampler *sampler, const Options *o, int32_t *tokens, int n,
                    bool at_start, Stats *st) {
    char err[512];
    int n_ctx = session_info(s).n_ctx, status = 0;
    TextOut *out = textout_open(e, at_start);
    if (!out) die(1, "out of memory");
    double start = seconds();
    while (st->n_new < o->n_new && !interrupted) {
        int32_t id = sampler_pick(sampler, session_logits(s));
        if (engine_is_end(e, id)) break;
        fputs(textout_push(out, id), stdout);
        if (fflush(stdout)) break;
        tokens[n++] = id;
        if (++st->n_new == o->n_new) break;
        if (n > n_ctx) {
            fprintf(stderr, "\n[the context of %d tokens is full; a larger -c holds more]\n", n_ctx);
            break;
        }
        if (session_sync(s, tokens, n, err, sizeof err)) {
            fprintf(stderr, "\nerror: %s\n", err);
            status = 1;
            break;
        }
        st->bytes_read += (double)engine_info(e).token_bytes + (double)session_info(s).kv_token_bytes;
    }
    st->generate = seconds() - start;
    fputs(textout_finish(out), stdout);
    putchar('\n');
    textout_close(out);
    if (fflush(stdout) || ferror(stdout)) die(1, "stdout: the text could not be written");
    return status;
}

// Generates text after the prompt. Returns the exit status.
static int run_text(const Engine *e, Session *s, Sampler *sampler, const Options *o, Stats *st) {
    char err[512];
    size_t length = 0;
    char *file_text = o->file ? read_text(o->file, &length) : NULL;
    const char *prompt = o->prompt ? o->prompt : "";
    if (file_text) prompt = file_text;
    else length = strlen(prompt);
    int32_t *ids;
    int n = engine_encode(e, prompt, length, true, false, &ids, err, sizeof err), n_ctx = session_info(s).n_ctx;
    if (n < 0) die(1, "%s", err);
    if (n > n_ctx) die(1, "the prompt has %d tokens, the context %d; a larger -c holds more", n, n_ctx);
    int32_t *tokens = realloc(ids, sizeof *tokens * ((size_t)n + (size_t)o->n_new + 1));
    if (!tokens) die(1, "out of memory for %d tokens; a smaller -n needs less", n + o->n_new);
    double start = seconds();
    if (session_sync(s, tokens, n, err, sizeof err)) die(1, "%s", err);
    st->prompt = seconds() - start;
    st->n_prompt = n;
    fwrite(prompt, 1, length, stdout);
    int status = generate(e, s, sampler, o, tokens, n, length == 0, st);
    if (!o->quiet) print_stats(st, s, o->sampler.seed);
    free(tokens);
    free(file_text);
    return status;
}

int main(int argc, char **argv) {
    Options o = parse(argc, argv);
    char err[512];
    file_guard_shrinking();
    Stats st = {0};
    double start = seconds();
    Engine *e = engine_open(o.model, o.tokenizer, err, sizeof err);
    if (!e) die(1, "%s", err);
    EngineInfo info = engine_info(e);
    if (o.session.n_ctx > info.max_seq_len && !o.session.window && !o.quiet) {
        fprintf(stderr, "note: -c %d is beyond the %d positions the model was trained for\n", o.session.n_ctx,
                info.max_seq_len);
    }
    Session *s = session_open(e, &o.session, err, sizeof err);
    if (!s) die(1, "%s", err);
    Sampler *sampler = sampler_open(&o.sampler, info.vocab_size, err, sizeof err);
    if (!sampler) die(1, "%s", err);
    st.load = seconds() - start;
    catch_interrupts(o.chat);
    DialogueOptions dialogue = {.system = o.system, .first = o.prompt, .n_new = o.n_new, .quiet = o.quiet};
    int status = o.chat ? dialogue_run(e, s, sampler, &dialogue, &interrupted) : run_text(e, s, sampler, &o, &st);
    sampler_close(sampler);
    session_close(s);
    engine_close(e);
    return status;
}
