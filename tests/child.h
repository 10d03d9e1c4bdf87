// child.h: the programs as people meet them: what they are told, what they print and how they end.
//
//   Result r = CALL("bench", MODEL, "-p", "8"); // to its end
//   CHECK(r.status == 0 && strstr(r.out, "pp8"), "%s", r.err);
//   release(&r);
//
// Programs come from TESSERA_BUILD (build, when it is not set); RUNNER, when set, is the emulator and its flags, split
// at spaces. What goes in and out lies in the folder of files.h, which must be there.
#pragma once
#include "files.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>

enum { MAX_ARGS = 32, NOT_STARTED = 127 };

typedef struct {
    int status;      // exit status, or 128 + signal
    char *out, *err; // terminated
    size_t n_out;
} Result;

// args: the program and its arguments, then NULL; argv: what to execute, [MAX_ARGS + 16].
UNUSED static void program_argv(const char *const *args, const char **argv) {
    static char runner[512], path[512];
    const char *build = getenv("TESSERA_BUILD"), *words = getenv("RUNNER");
    int n = 0;
    snprintf(runner, sizeof runner, "%s", words ? words : "");
    for (char *word = strtok(runner, " "); word && n < 8; word = strtok(NULL, " ")) argv[n++] = word;
    snprintf(path, sizeof path, "%s/%s", build ? build : "build", args[0]);
    argv[n++] = path;
    for (int i = 1; args[i] && i <= MAX_ARGS; i++) argv[n++] = args[i];
    argv[n] = NULL;
}

// in: what stands on stdin, NULL: nothing. args: as above. -1 when it could not be started. Spawned, not forked: what a
// sanitizer has mapped takes long to copy.
UNUSED static pid_t start(const char *in, const char *const *args) {
    const char *argv[MAX_ARGS + 16], *from = in_folder("in"), *to[2] = {in_folder("out"), in_folder("err")};
    program_argv(args, argv);
    write_text("in", in ? in : "");
    for (int i = 0; i < 2; i++) {
        unlink(to[i]); // of the call before
        write_text(i ? "err" : "out", "");
    }
    fflush(NULL);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, from, O_RDONLY, 0);
    for (int i = 0; i < 2; i++) posix_spawn_file_actions_addopen(&actions, i + 1, to[i], O_WRONLY, 0);
    pid_t child = -1;
    if (posix_spawnp(&child, argv[0], &actions, NULL, (char **)argv, environ)) child = -1;
    posix_spawn_file_actions_destroy(&actions);
    return child;
}

UNUSED static Result finish(pid_t child) {
    int status = NOT_STARTED << 8;
    if (child > 0) waitpid(child, &status, 0);
    Result r = {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
    r.out = read_file(in_folder("out"), &r.n_out);
    r.err = read_file(in_folder("err"), NULL);
    return r;
}

UNUSED static void wait_a_little(void) {
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

// Ctrl-C, when it has printed more than n bytes.
UNUSED static Result interrupt(pid_t child, off_t n) {
    struct stat st;
    for (int i = 0; i < 4000 && (stat(in_folder("out"), &st) || st.st_size <= n); i++) wait_a_little();
    kill(child, SIGINT);
    return finish(child);
}

UNUSED static Result call(const char *in, const char *const *args) {
    return finish(start(in, args));
}
#define CALL(...) call(NULL, (const char *const[]){__VA_ARGS__, NULL})
#define CALL_IN(text, ...) call(text, (const char *const[]){__VA_ARGS__, NULL})

UNUSED static void release(Result *r) {
    free(r->out);
    free(r->err);
}

// The program refuses: this status, one line on stderr that holds `part`, nothing on stdout.
UNUSED static void refuses(int status, const char *part, const char *what, Result r) {
    const char *end = strchr(r.err, '\n');
    CHECK(r.status == status, "%s: status: expected %d, found %d: %s", what, status, r.status, r.err);
    CHECK(end && !end[1] && !strncmp(r.err, "error: ", 7), "%s: expected one line, found: %s", what, r.err);
    CHECK(strstr(r.err, part), "%s: expected '%s' in: %s", what, part, r.err);
    CHECK(!*r.out, "%s: expected nothing on stdout, found: %s", what, r.out);
    release(&r);
}
#define REFUSES(status, part, ...) refuses(status, part, #__VA_ARGS__, CALL(__VA_ARGS__))

// It ends with this status; its stdout and its stderr hold these parts ("!": are empty).
UNUSED static void tells(int status, const char *out, const char *err, const char *what, Result r) {
    bool said = *out == '!' ? !*r.out : strstr(r.out, out) != NULL;
    bool noted = *err == '!' ? !*r.err : strstr(r.err, err) != NULL;
    CHECK(r.status == status && said && noted, "%s: expected status %d, '%s' and '%s', found %d: %s%s", what, status,
          out, err, r.status, r.out, r.err);
    release(&r);
}
#define TELLS(status, out, err, ...) tells(status, out, err, #__VA_ARGS__, CALL(__VA_ARGS__))

// It ends with this status, and its stdout is `want`.
UNUSED static void prints(Result r, int status, const char *want, const char *what) {
    CHECK(r.status == status, "%s: status: expected %d, found %d: %s", what, status, r.status, r.err);
    CHECK(!strcmp(r.out, want), "%s: expected [%s], found [%s]", what, want, r.out);
    release(&r);
}

// Without this program there is nothing to check.
UNUSED static void need_program(const char *program) {
    Result r = CALL(program, "--help");
    CHECK(r.status == 0 && strstr(r.out, "usage:") && !*r.err, "%s --help: status %d: %s%s", program, r.status, r.out,
          r.err);
    bool missing = r.status == NOT_STARTED;
    release(&r);
    if (!missing) return;
    fprintf(stderr, "%s does not start: run make first, or set TESSERA_BUILD\n", program);
    folder_remove();
    exit(1);
}

// What a program printed with -o json, and a number of it.
UNUSED static json_t *told(Result r) {
    json_t *o = json_loads(r.out, 0, NULL);
    CHECK(r.status == 0 && o, "status %d: %s%s", r.status, r.err, r.out);
    release(&r);
    return o;
}

UNUSED static double number(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    CHECK(json_is_number(v), "%s: expected a number", key);
    return json_number_value(v);
}
