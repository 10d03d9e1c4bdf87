// samples: what is said of repeated measurements. Called by the rows, the sweep and the attention of bench.
#pragma once

double samples_mean(const double *v, int n);
double samples_deviation(const double *v, int n); // of a sample; 0 for one
double samples_median(double *v, int n);          // sorts v
