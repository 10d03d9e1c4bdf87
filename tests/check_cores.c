// How many cores a process may use: control groups as trees of files beside a made-up /proc, and the affinity mask.
#include "child.h"
#include "cores.h"
#include "cpu.h"

#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>

// In place of libc's: a machine of made-up CPUs, as the kernel answers for it.
static int made_up;

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    if (!made_up) {
        memset(set, 0, size);
        return syscall(SYS_sched_getaffinity, pid, size, set) < 0 ? -1 : 0;
    }
    if (size * 8 < (size_t)made_up) {
        errno = EINVAL;
        return -1;
    }
    memset(set, 0, size);
    for (int i = 0; i < made_up; i++) CPU_SET_S((size_t)i, size, set);
    return 0;
}

// A file of the tree, its folders made first.
static void put(const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", in_folder("tree"), path);
    for (char *slash = strchr(full + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(full, 0777);
        *slash = '/';
    }
    write_bytes(full, text, strlen(text));
}

static void remove_tree(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", in_folder("tree"));
    CHECK(!system(command), "%s", command);
}

#define V2 "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1 "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
#define V1_MEMORY "34 32 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"

static void test_quotas(void) {
    enum { MOST = 4 };
    const struct {
        const char *what, *mounts, *groups;
        const char *files[2 * MOST]; // paths under /sys/fs/cgroup, and what they hold
        int cores;
    } rows[] = {
        {"v2", V2, "0::/user/run\n", {"/user/run/cpu.max", "200000 100000\n"}, 2},
        {"v2, a part of a core", V2, "0::/a\n", {"/a/cpu.max", "150000 100000\n"}, 2},
        {"v2, less than one", V2, "0::/a\n", {"/a/cpu.max", "20000 100000\n"}, 1},
        {"v2, none", V2, "0::/a\n", {"/a/cpu.max", "max 100000\n"}, 0},
        {"v2, above", V2, "0::/a/b/c\n", {"/a/b/c/cpu.max", "max 100000\n", "/a/cpu.max", "300000 100000\n"}, 3},
        {"v2, the least",
         V2,
         "0::/a/b\n",
         {"/a/b/cpu.max", "800000 100000\n", "/a/cpu.max", "500000 100000\n", "/cpu.max", "600000 100000\n"},
         5},
        {"v2, a namespace", V2, "0::/\n", {"/cpu.max", "400000 100000\n"}, 4},
        {"v2, a container from outside",
         "35 24 0:30 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
         "0::/docker/x\n",
         {"/cpu.max", "400000 100000\n"},
         4},
        {"v2, another group's name begins so",
         "35 24 0:30 /dock /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
         "0::/docker\n",
         {"/er/cpu.max", "100000 100000\n", "/docker/cpu.max", "400000 100000\n"},
         4},
        {"v1",
         V1_MEMORY V1,
         "3:memory:/m\n2:cpu,cpuacct:/a\n",
         {"/cpu,cpuacct/a/cpu.cfs_quota_us", "600000\n", "/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"},
         6},
        {"v1, none",
         V1,
         "2:cpu,cpuacct:/a\n",
         {"/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n", "/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"},
         0},
        {"v1 above, v2 without the controller",
         V1 V2,
         "2:cpuacct,cpu:/a/b\n0::/c\n",
         {"/cpu,cpuacct/cpu.cfs_quota_us", "70000\n", "/cpu,cpuacct/cpu.cfs_period_us", "10000\n"},
         7},
        {"cpuset is not cpu",
         "33 32 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
         "2:cpuset:/\n",
         {"/cpuset/cpu.cfs_quota_us", "70000\n", "/cpuset/cpu.cfs_period_us", "10000\n"},
         0},
        {"no group", V2, "", {"/cpu.max", "100000 100000\n"}, 0},
        {"not numbers", V2, "0::/\n", {"/cpu.max", "many\n"}, 0},
        {"period 0", V2, "0::/\n", {"/cpu.max", "100000 0\n"}, 0},
        {"lines of no mounts", "x\n\n - \n35 - cgroup2\n", "0\n0:\n::\n", {"/cpu.max", "100000 100000\n"}, 0},
    };
    for (int i = 0; i < N_OF(rows); i++) {
        put("/proc/self/mountinfo", rows[i].mounts);
        put("/proc/self/cgroup", rows[i].groups);
        for (int k = 0; k < MOST && rows[i].files[2 * k]; k++) {
            char path[256];
            snprintf(path, sizeof path, "/sys/fs/cgroup%s", rows[i].files[2 * k]);
            put(path, rows[i].files[2 * k + 1]);
        }
        int found = cores_in_quota(in_folder("tree"));
        CHECK(found == rows[i].cores, "%s: expected %d, found %d", rows[i].what, rows[i].cores, found);
        remove_tree();
    }
    CHECK(cores_in_quota(in_folder("absent")) == 0, "no /proc limits nothing");
}

static void test_mask(void) {
    cpu_set_t all, one;
    CHECK(!sched_getaffinity(0, sizeof all, &all), "a mask of at most 1024 CPUs is needed here");
    CHECK(cores_in_mask() == CPU_COUNT(&all), "expected %d, found %d", CPU_COUNT(&all), cores_in_mask());
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK(!sched_setaffinity(0, sizeof one, &one), "one CPU");
    CHECK(cores_in_mask() == 1 && cpu_count() == 1, "one CPU: found %d, %d", cores_in_mask(), cpu_count());
    sched_setaffinity(0, sizeof all, &all);
    for (made_up = 1; made_up < 10000; made_up = made_up * 3 + 1)
        CHECK(cores_in_mask() == made_up, "expected %d, found %d", made_up, cores_in_mask());
    made_up = 0;
}

int main(void) {
    folder_make();
    RUN(test_quotas);
    RUN(test_mask);
    folder_remove();
    return test_report();
}
