// cores: see cores.h.
#include "cores.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 4096, MOST_CPUS = 1 << 20 };

int cores_in_mask(void) {
    for (int most = 1024; most <= MOST_CPUS; most *= 2) { // the kernel refuses a mask smaller than its own
        cpu_set_t *set = CPU_ALLOC(most);
        if (!set) return 1;
        size_t size = CPU_ALLOC_SIZE(most);
        int failed = sched_getaffinity(0, size, set), reason = errno, n = failed ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (!failed) return n > 0 ? n : 1;
        if (reason != EINVAL) return 1;
    }
    return 1;
}

// One hierarchy of control groups that can limit the CPU.
typedef struct {
    char mount[PATH_ROOM], root[PATH_ROOM]; // where it is mounted, and which of its groups is mounted there
    bool v2;
} Hierarchy;

// Whether `name` is one of a list with commas.
static bool has_word(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; *at;) {
        size_t length = strcspn(at, ",\n");
        if (length == n && !memcmp(at, name, n)) return true;
        at += length + (at[length] != 0);
    }
    return false;
}

static bool read_line(const char *root, const char *path, char *line, int room) {
    char full[4 * PATH_ROOM];
    snprintf(full, sizeof full, "%s%s", root, path);
    FILE *f = fopen(full, "r");
    bool read = f && fgets(line, room, f);
    if (f) fclose(f);
    return read;
}

// Quota / period of one group; 0: none.
static double group_quota(const char *root, const char *folder, bool v2) {
    char path[2 * PATH_ROOM + 32], line[128];
    double quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/%s", folder, v2 ? "cpu.max" : "cpu.cfs_quota_us");
    if (!read_line(root, path, line, sizeof line)) return 0;
    int n = sscanf(line, "%lf %lf", &quota, &period); // "max 100000": none
    if (!v2) {
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        if (n == 1 && read_line(root, path, line, sizeof line)) n += sscanf(line, "%lf", &period);
    }
    return n == 2 && quota > 0 && period > 0 ? quota / period : 0;
}

// The least quota from a group up to the one that is mounted.
static double least_quota(const char *root, const Hierarchy *h, const char *group) {
    char folder[2 * PATH_ROOM];
    double least = 0;
    size_t n_root = strlen(h->root), n_mount = strlen(h->mount);
    bool outside = n_root > 1 && !strncmp(group, h->root, n_root) && (!group[n_root] || group[n_root] == '/');
    if (outside) group += n_root; // the path is seen from outside of the container
    snprintf(folder, sizeof folder, "%s%s", h->mount, strcmp(group, "/") != 0 ? group : "");
    for (;;) {
        double quota = group_quota(root, folder, h->v2);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < n_mount) return least;
        *slash = 0;
    }
}

// The process's group in a hierarchy: lines "0::/path" (v2) and "4:cpu,cpuacct:/path" (v1).
static bool find_group(const char *root, bool v2, char *group) {
    char path[PATH_ROOM], line[PATH_ROOM], controllers[256];
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (!second) continue;
        snprintf(controllers, sizeof controllers, "%.*s", (int)(second - first - 1), first + 1);
        second[1 + strcspn(second + 1, "\n")] = 0;
        found = v2 ? !*controllers : has_word(controllers, "cpu");
        if (found) strcpy(group, second + 1);
    }
    if (f) fclose(f);
    return found;
}

// A line of mountinfo: "31 23 0:28 ROOT MOUNT options ... - TYPE source controllers".
static bool parse_mount(const char *line, Hierarchy *h) {
    char type[32], controllers[256];
    const char *rest = strstr(line, " - ");
    bool sound = rest && sscanf(line, "%*s %*s %*s %4095s %4095s", h->root, h->mount) == 2 &&
                 sscanf(rest + 3, "%31s %*s %255s", type, controllers) == 2;
    if (!sound) return false;
    h->v2 = !strcmp(type, "cgroup2");
    return h->v2 || (!strcmp(type, "cgroup") && has_word(controllers, "cpu"));
}

int cores_in_quota(const char *root) {
    char path[PATH_ROOM], line[4 * PATH_ROOM], group[PATH_ROOM];
    double least = 0;
    Hierarchy h;
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (!parse_mount(line, &h) || !find_group(root, h.v2, group)) continue;
        double quota = least_quota(root, &h, group);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
    }
    if (f) fclose(f);
    if (least > MOST_CPUS) return 0;
    int whole = (int)least;
    return whole + (least > whole);
}
