// samples: see samples.h.
#include "samples.h"

#include <math.h>
#include <stdlib.h>

double samples_mean(const double *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    return sum / n;
}

double samples_deviation(const double *v, int n) { // of a sample
    double m = samples_mean(v, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (v[i] - m) * (v[i] - m);
    return n > 1 ? sqrt(sum / (n - 1)) : 0;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_median(double *v, int n) { // sorts v
    qsort(v, (size_t)n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}
