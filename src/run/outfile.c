// outfile: see outfile.h.
#include "outfile.h"

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LINKS = 40, MAX_TRIES = 1000 };

static char partial[MAX_OUT_FILES][PATH_MAX]; // the temporaries
static atomic_bool in_use[MAX_OUT_FILES];     // read by the signal handler

// ---- nothing half-written is left behind

static void remove_partials(void) {
    for (int i = 0; i < MAX_OUT_FILES; i++) {
        if (atomic_exchange(&in_use[i], false)) unlink(partial[i]);
    }
}

static const int fatal[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGBUS};

enum { N_FATAL = sizeof fatal / sizeof *fatal };

static struct sigaction before[N_FATAL];

// What the signal did before is done after it: a fault comes again when the handler returns, the others are raised.
static void on_fatal(int sig) {
    int why = errno;
    remove_partials();
    for (int i = 0; i < N_FATAL; i++) {
        if (fatal[i] == sig) sigaction(sig, &before[i], NULL);
    }
    if (sig != SIGBUS) raise(sig);
    errno = why;
}

// A signal that the program ignores or handles by itself (the chat's Ctrl-C) does not end it; but SIGBUS always does.
static void guard(void) {
    static bool guarded;
    if (guarded) return;
    guarded = true;
    atexit(remove_partials);
    for (int i = 0; i < N_FATAL; i++) {
        struct sigaction ours = {.sa_handler = on_fatal};
        if (sigaction(fatal[i], NULL, &before[i])) continue;
        if (before[i].sa_handler == SIG_DFL || fatal[i] == SIGBUS) sigaction(fatal[i], &ours, NULL);
    }
    signal(SIGXFSZ, SIG_IGN); // the write fails instead
}

// ---- where the bytes go

// The number behind /dev/fd/ and its like; -1: the path is another.
static int open_number(const char *path) {
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        size_t n = strlen(folders[i]);
        const char *digits = path + n;
        if (strncmp(path, folders[i], n) != 0 || !*digits || strspn(digits, "0123456789") != strlen(digits)) continue;
        long number = strtol(digits, NULL, 10);
        return number <= INT_MAX ? (int)number : -1;
    }
    return -1;
}

// One link further: the path that `at` leads to, in place. 1: followed, 0: `at` is no link, -1: errno.
static int follow_one(char *at) {
    char to[PATH_MAX], joined[2 * PATH_MAX];
    ssize_t n = readlink(at, to, sizeof to - 1);
    if (n < 0) return errno == EINVAL || errno == ENOENT ? 0 : -1;
    to[n] = 0;
    const char *slash = *to == '/' ? NULL : strrchr(at, '/');
    int folder = slash ? (int)(slash + 1 - at) : 0;
    n = snprintf(joined, sizeof joined, "%.*s%s", folder, at, to);
    if (n >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(at, joined, (size_t)n + 1);
    return 1;
}

// target becomes what the path leads to; *number the open file that it names, or -1. -1 with errno.
static int resolve(char *target, const char *path, int *number) {
    *number = strcmp(path, "-") ? -1 : STDOUT_FILENO;
    size_t n = strlen(path);
    errno = n ? ENAMETOOLONG : ENOENT;
    if (!n || n >= PATH_MAX) return -1;
    memcpy(target, path, n + 1);
    int followed = 1;
    for (int i = 0; *number < 0 && followed == 1; i++) {
        *number = open_number(target);
        if (*number >= 0) break;
        followed = i < MAX_LINKS ? follow_one(target) : -1;
        if (i == MAX_LINKS) errno = ELOOP;
    }
    return followed < 0 ? -1 : 0;
}

bool outfile_replaces(const char *path) {
    char target[PATH_MAX];
    int number;
    struct stat st;
    if (resolve(target, path, &number) || number >= 0) return false;
    return stat(target, &st) || S_ISREG(st.st_mode);
}

static int free_slot(void) {
    for (int i = 0; i < MAX_OUT_FILES; i++) {
        if (!atomic_load(&in_use[i])) return i;
    }
    return -1;
}

// An empty file of a new name beside the target, with the permissions of a new file; its descriptor, or -1 with errno.
// The slot is in use before the file is there: a signal between the two leaves nothing behind either.
static int make_partial(int slot, const char *target) {
    char *name = partial[slot];
    const char *slash = strrchr(target, '/');
    int folder = slash ? (int)(slash + 1 - target) : 0, fd = -1;
    for (int i = 0; i < MAX_TRIES && fd < 0; i++) {
        int n = snprintf(name, PATH_MAX, "%.*s%.200s.%ld-%d", folder, target, target + folder, (long)getpid(), i);
        if (n >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        atomic_store(&in_use[slot], true);
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0) atomic_store(&in_use[slot], false);
        if (fd < 0 && errno != EEXIST) return -1;
    }
    return fd;
}

// old: the file that is replaced.
static int keep_permissions(int fd, const struct stat *old) {
    bool own = old->st_uid == geteuid() && old->st_gid == getegid();
    if (!own && fchown(fd, old->st_uid, old->st_gid) && errno != EPERM) return -1;
    return fchmod(fd, old->st_mode & 07777); // behind the owner: a change of that clears bits
}

static int open_beside(OutFile *o, const struct stat *old, char *err, size_t errlen) {
    if (old && access(o->target, W_OK)) return fail(err, errlen, "%s: %s", o->path, strerror(errno));
    int slot = free_slot();
    if (slot < 0) return fail(err, errlen, "%s: expected at most %d files written at once", o->path, MAX_OUT_FILES);
    int fd = make_partial(slot, o->target);
    if (fd < 0) return fail(err, errlen, "%s: cannot make a file beside it: %s", o->path, strerror(errno));
    o->slot = slot;
    if ((!old || !keep_permissions(fd, old)) && (o->file = fdopen(fd, "wb"))) return 0;
    fail(err, errlen, "%s: %s", o->path, strerror(errno));
    close(fd);
    outfile_abandon(o);
    return -1;
}

int outfile_open(OutFile *o, const char *path, char *err, size_t errlen) {
    int number;
    struct stat st;
    *o = (OutFile){.path = strcmp(path, "-") ? path : "stdout", .slot = -1};
    guard();
    if (resolve(o->target, path, &number)) return fail(err, errlen, "%s: %s", path, strerror(errno));
    bool there = number < 0 && !stat(o->target, &st);
    if (there && S_ISDIR(st.st_mode)) return fail(err, errlen, "%s: is a directory", path);
    if (number < 0 && (!there || S_ISREG(st.st_mode))) return open_beside(o, there ? &st : NULL, err, errlen);
    signal(SIGPIPE, SIG_IGN); // the write fails instead
    if (number == STDOUT_FILENO) fflush(stdout);
    int fd = number < 0 ? open(o->target, O_WRONLY | O_CLOEXEC) : fcntl(number, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0 && (o->file = fdopen(fd, "wb"))) return 0;
    fail(err, errlen, "%s: %s", o->path, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

// Why a write failed, perhaps long ago: the next one fails alike.
static int reason(FILE *f) {
    return write(fileno(f), "", 1) < 0 ? errno : EIO;
}

int outfile_finish(OutFile *o, char *err, size_t errlen) {
    bool bad = ferror(o->file) || fflush(o->file);
    int why = bad ? reason(o->file) : 0;
    if (fclose(o->file) && !bad) {
        bad = true;
        why = errno;
    }
    o->file = NULL;
    if (!bad && o->slot >= 0 && rename(partial[o->slot], o->target)) {
        bad = true;
        why = errno;
    }
    if (!bad && o->slot >= 0) atomic_store(&in_use[o->slot], false);
    if (!bad) return 0;
    fail(err, errlen, "%s: %s%s", o->path, strerror(why), outfile_fate(o));
    outfile_abandon(o);
    return -1;
}

void outfile_abandon(OutFile *o) {
    if (o->file) fclose(o->file);
    o->file = NULL;
    if (o->slot >= 0 && atomic_exchange(&in_use[o->slot], false)) unlink(partial[o->slot]);
    o->slot = -1;
}

const char *outfile_fate(const OutFile *o) {
    return o->slot >= 0 ? "; the incomplete file was removed" : "";
}
