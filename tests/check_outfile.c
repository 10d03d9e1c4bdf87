// Where the programs' output files go: regular files are replaced whole, everything else is written in place.
#include "outfile.h"

#include "child.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUT in_folder("out")

static char err[512];

// 0, or -1 with err.
static int write_out(const char *path, const char *text) {
    OutFile o;
    if (outfile_open(&o, path, err, sizeof err)) return -1;
    fputs(text, o.file);
    return outfile_finish(&o, err, sizeof err);
}

static void holds(const char *path, const char *want) {
    char *text = read_file(path, NULL);
    CHECK(!strcmp(text, want), "%s: expected '%s', found '%s'", path, want, text);
    free(text);
}

static void test_regular_files(void) {
    struct stat st;
    mode_t mask = umask(027);
    CHECK(!write_out(in_folder("made"), "first"), "%s", err);
    umask(mask);
    holds(in_folder("made"), "first");
    CHECK(!stat(in_folder("made"), &st) && (st.st_mode & 07777) == 0640, "mode %o", st.st_mode);
    CHECK(!chmod(in_folder("made"), 02751), "chmod");
    CHECK(!write_out(in_folder("made"), "second"), "%s", err);
    CHECK(!stat(in_folder("made"), &st) && (st.st_mode & 07777) == 02751, "mode %o", st.st_mode);
    holds(in_folder("made"), "second");

    OutFile o;
    CHECK(!outfile_open(&o, in_folder("made"), err, sizeof err), "%s", err);
    fputs("third", o.file);
    fflush(o.file);
    holds(in_folder("made"), "second"); // until it is complete
    outfile_abandon(&o);
    outfile_abandon(&o);
    holds(in_folder("made"), "second");
    CHECK(count_files("made") == 1, "something is left behind");
}

static void test_links(void) {
    struct stat st;
    char far[PATH_MAX];
    write_text("target", "old");
    snprintf(far, sizeof far, "../%s/near", strrchr(folder, '/') + 1);
    CHECK(!symlink("target", in_folder("near")) && !symlink(far, in_folder("link")), "symlink");
    CHECK(!symlink("later", in_folder("dangling")) && !symlink("circle", in_folder("circle")), "symlink");
    CHECK(!write_out(in_folder("link"), "new") && !write_out(in_folder("dangling"), "made"), "%s", err);
    holds(in_folder("target"), "new");
    holds(in_folder("later"), "made");
    CHECK(!lstat(in_folder("link"), &st) && S_ISLNK(st.st_mode), "the link is gone");
    CHECK(!lstat(in_folder("near"), &st) && S_ISLNK(st.st_mode), "the link is gone");
    CHECK(write_out(in_folder("circle"), "x") && strstr(err, "symbolic links"), "%s", err);
}

static void test_refused(void) {
    OutFile o[MAX_OUT_FILES + 1];
    CHECK(write_out(folder, "x") && strstr(err, "is a directory"), "%s", err);
    CHECK(write_out("", "x") && strstr(err, "No such file"), "%s", err);
    CHECK(write_out(in_folder("absent/x"), "x") && strstr(err, "No such file"), "%s", err);
    for (int i = 0; i < MAX_OUT_FILES; i++) {
        char name[16];
        snprintf(name, sizeof name, "many%d", i);
        CHECK(!outfile_open(&o[i], in_folder(name), err, sizeof err), "%s", err);
    }
    CHECK(outfile_open(&o[MAX_OUT_FILES], OUT, err, sizeof err) && strstr(err, "at most 4"), "%s", err);
    for (int i = 0; i < MAX_OUT_FILES; i++) outfile_abandon(&o[i]);
    CHECK(count_files("many") == 0, "something is left behind");
    if (geteuid() == 0) return; // whom permissions do not stop
    write_text("kept", "kept");
    CHECK(!chmod(in_folder("kept"), 0444), "chmod");
    CHECK(write_out(in_folder("kept"), "x") && strstr(err, "Permission denied"), "%s", err);
    holds(in_folder("kept"), "kept");
}

// Writes 100,000 bytes, of which `most` are allowed.
static void test_no_room(void) {
    struct rlimit old, tight = {.rlim_cur = 4096};
    static char text[100001];
    memset(text, 'x', sizeof text - 1);
    write_text("small", "old");
    CHECK(!getrlimit(RLIMIT_FSIZE, &old), "getrlimit");
    tight.rlim_max = old.rlim_max;
    CHECK(!setrlimit(RLIMIT_FSIZE, &tight), "setrlimit");
    int rc = write_out(in_folder("small"), text);
    CHECK(!setrlimit(RLIMIT_FSIZE, &old), "setrlimit");
    CHECK(rc && strstr(err, "small: File too large; the incomplete file was removed"), "%s", err);
    holds(in_folder("small"), "old");
    CHECK(count_files("small") == 1, "something is left behind");
}

// A program that ends while it writes; how: a signal, or 0 for exit().
static void check_ends(int how) {
    write_text("kept", "old");
    int ready[2];
    CHECK(!pipe(ready), "pipe");
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        OutFile o;
        if (outfile_open(&o, in_folder("kept"), err, sizeof err)) _exit(9);
        fputs("half", o.file);
        fflush(o.file);
        if (write(ready[1], "", 1) != 1) _exit(9);
        if (!how) exit(3);
        for (;;) pause();
    }
    char byte;
    CHECK(read(ready[0], &byte, 1) == 1, "the child did not write");
    CHECK(count_files("kept") == 2 || !how, "nothing was being written");
    if (how) kill(child, how);
    int status = 0;
    waitpid(child, &status, 0);
    bool ended = how ? WIFSIGNALED(status) && WTERMSIG(status) == how : WIFEXITED(status) && WEXITSTATUS(status) == 3;
    CHECK(ended, "signal %d: ended with %x", how, status);
    holds(in_folder("kept"), "old");
    CHECK(count_files("kept") == 1, "signal %d: something is left behind", how);
    close(ready[0]);
    close(ready[1]);
}

static void test_ends(void) {
    check_ends(0);
    for (size_t i = 0; i < 4; i++) check_ends((int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT}[i]);
}

// ---- the programs

#define MODEL in_folder("model.gguf")
#define FIFO in_folder("fifo")

static const char story[] = "Once upon a time, there was a little girl named Lily. She loved to play outside.";

// Command lines that write a file; %: the file.
static const char *const writers[][8] = {
    {"synth", "tiny", "F16", "%"},
    {"quantize", "%model.gguf", "%", "Q8_0"},
    {"perplexity", "%model.gguf", "-f", "%story.txt", "-c", "8", "--save-logits", "%"},
    {"bench", "%model.gguf", "--sweep", "128", "--plot", "%"},
    {"encdec", "models/g2p", "-p", "cat", "--attention", "%"},
    {"vit", "models/vit", "models/vit/samples/ankle-boot.png", "--attention", "%"},
};
static const char *const endings[] = {".gguf", ".gguf", "", ".svg", ".svg", ".png"};

static pid_t start_writer(int which, const char *out) {
    const char *args[MAX_ARGS + 1] = {NULL};
    for (int i = 0; i < 8 && writers[which][i]; i++) {
        const char *word = writers[which][i];
        if (*word == '%') word = word[1] ? in_folder(word + 1) : out;
        args[i] = word;
    }
    return start(NULL, args);
}

static void make_inputs(void) {
    folder_empty();
    TELLS(0, "", "", "synth", "tiny", "F32", MODEL);
    write_text("story.txt", story);
}

static const char *named(const char *stem, int which) {
    char name[64];
    snprintf(name, sizeof name, "%s%s", stem, endings[which]);
    return in_folder(name);
}

// What a FIFO's reader gets of a program; also that it stays a FIFO.
static void check_fifo(int which) {
    const char *fifo = named("fifo", which), *file = named("file", which);
    struct stat st;
    size_t n = 0, size = 0;
    CHECK(!mkfifo(fifo, 0600), "mkfifo");
    Result r = finish(start_writer(which, file));
    CHECK(r.status == 0, "%s: status %d: %s", writers[which][0], r.status, r.err);
    release(&r);
    char *want = read_file(file, &size), *got = need(size + 1);
    pid_t child = start_writer(which, fifo);
    FILE *f = fopen(fifo, "rb");
    n = f ? fread(got, 1, size + 1, f) : 0;
    if (f) fclose(f);
    r = finish(child);
    bool timed = !strcmp(writers[which][0], "bench"); // whose numbers differ each time
    CHECK(r.status == 0, "%s: status %d: %s", writers[which][0], r.status, r.err);
    CHECK(timed ? n > 0 && !memcmp(got, want, 4) : n == size && !memcmp(got, want, size), "%s: %zu bytes of %zu",
          writers[which][0], n, size);
    CHECK(!stat(fifo, &st) && S_ISFIFO(st.st_mode), "%s: the FIFO is gone", writers[which][0]);
    release(&r);
    free(want);
    free(got);
    unlink(fifo);
    unlink(file);
}

static void test_programs_and_fifos(void) {
    make_inputs();
    for (int i = 0; i < N_OF(writers); i++) check_fifo(i);
}

// A reader that goes away.
static void test_broken_pipe(void) {
    make_inputs();
    CHECK(!mkfifo(FIFO, 0600), "mkfifo");
    pid_t child = start_writer(1, FIFO);
    FILE *f = fopen(FIFO, "rb");
    if (f) fclose(f);
    refuses(1, "Broken pipe", "quantize to a FIFO that nobody reads", finish(child));
    unlink(FIFO);
}

static void test_programs_and_links(void) {
    struct stat st;
    make_inputs();
    for (int i = 0; i < N_OF(writers); i++) {
        const char *link = named("link", i), *target = named("target", i);
        write_bytes(target, "old", 3);
        CHECK(!chmod(target, 0604) && !symlink(strrchr(target, '/') + 1, link), "symlink");
        Result r = finish(start_writer(i, link));
        CHECK(r.status == 0, "%s: status %d: %s", writers[i][0], r.status, r.err);
        CHECK(!lstat(link, &st) && S_ISLNK(st.st_mode), "%s: the link is gone", writers[i][0]);
        CHECK(!stat(target, &st) && (st.st_mode & 07777) == 0604 && st.st_size > 3, "%s: mode %o", writers[i][0],
              st.st_mode);
        CHECK(count_files("target") == 1, "%s: something is left behind", writers[i][0]);
        release(&r);
        unlink(link);
        unlink(target);
    }
}

static void test_programs_and_devices(void) {
    struct stat st;
    make_inputs();
    for (int i = 0; i < N_OF(writers); i++) {
        const char *node = named("node", i);
        if (mknod(node, S_IFCHR | 0666, makedev(1, 3))) {
            printf("  (a device can be made by root alone)\n");
            test_was_skipped = 1;
            return;
        }
        Result r = finish(start_writer(i, node));
        CHECK(r.status == 0, "%s: status %d: %s", writers[i][0], r.status, r.err);
        CHECK(!stat(node, &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3), "%s: the device is gone",
              writers[i][0]);
        release(&r);
        unlink(node);
    }
}

static void test_stdout(void) {
    make_inputs();
    TELLS(0, "", "", "quantize", MODEL, in_folder("file.gguf"), "Q8_0");
    size_t size;
    char *want = read_file(in_folder("file.gguf"), &size);
    for (int i = 0; i < 2; i++) {
        Result r = CALL("quantize", MODEL, i ? "/dev/stdout" : "-", "Q8_0");
        CHECK(r.status == 0 && r.n_out == size && !memcmp(r.out, want, size), "%zu bytes of %zu: %s", r.n_out, size,
              r.err);
        release(&r);
    }
    free(want);
    REFUSES(2, "stdout has the results", "perplexity", MODEL, "-f", in_folder("story.txt"), "-c", "8", "--save-logits",
            "-");
    REFUSES(2, "stdout has the table", "bench", MODEL, "--sweep", "128", "--plot", "-");
    REFUSES(2, "ends in .svg", "bench", MODEL, "--sweep", "128", "--plot", in_folder("g.png"));
    REFUSES(2, "with OUT.tokenizer.bin beside it", "synth", "tiny", "f32", "-");
}

static void test_programs_and_signals(void) {
    for (int i = 0; i < 2; i++) {
        int how = i ? SIGTERM : SIGINT;
        const char *args[] = {"synth", "gpt2", "F32", in_folder("big.gguf"), NULL};
        pid_t child = start(NULL, args);
        for (int wait = 0; wait < 10000 && count_files("big") == 0; wait++) usleep(1000);
        CHECK(count_files("big") == 1, "it did not start to write");
        kill(child, how);
        Result r = finish(child);
        CHECK(r.status == 128 + how && count_files("big") == 0, "signal %d: status %d, %d files: %s", how, r.status,
              count_files("big"), r.err);
        release(&r);
    }
}

int main(void) {
    for (size_t i = 0; i < 4; i++) signal((int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT}[i], SIG_DFL);
    folder_make();
    need_program("quantize");
    RUN(test_regular_files);
    RUN(test_links);
    RUN(test_refused);
    RUN(test_no_room);
    RUN(test_ends);
    RUN(test_programs_and_fifos);
    RUN(test_broken_pipe);
    RUN(test_programs_and_links);
    RUN(test_programs_and_devices);
    RUN(test_stdout);
    RUN(test_programs_and_signals);
    folder_remove();
    return test_report();
}
