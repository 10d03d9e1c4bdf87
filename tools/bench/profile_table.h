// profile_table: prints a Profile as a Markdown table or as JSON. Called by bench.
//
// Owns what is derived from the sums: shares of the total time, the time outside of operations, and rates compared with
// the machine's peaks.
#pragma once
#include "profile.h"

#include <stdio.h>

typedef struct {
    const Profile *profile;
    double seconds;              // total time, of all runs
    int runs;                    // the printed numbers are averages of a run
    double peak_gflops, read_gb; // peak GFLOP/s and GB/s of the machine; 0: unknown
} ProfileTable;

void profile_table_md(FILE *f, const ProfileTable *t);
// An array of objects, one for each operation; the last, "other", is the time outside of operations.
void profile_table_json(FILE *f, const ProfileTable *t);
