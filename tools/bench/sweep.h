// sweep: bench --sweep: prefill and decode speed, and the bytes that a session holds, as the context grows.
#pragma once
#include "measure.h"

// Measures and prints the table, and writes the chart of --plot.
void sweep_run(Bench *b);
