// cores: how many cores this process may use: its affinity mask, and the quotas of its control groups.
//
// Owns the reading of /proc and of the cgroup files (man 7 cgroups; v1: cpu.cfs_quota_us, v2: cpu.max). Refuses
// nothing: what cannot be read limits nothing. Called by cpu_count.
#pragma once

// CPUs in the affinity mask, of any number; at least 1.
int cores_in_mask(void);
// The least CPU quota of the process's groups and those that contain them, in cores, rounded up; 0: none. root: before
// every path that is read, "" but for checks.
int cores_in_quota(const char *root);
