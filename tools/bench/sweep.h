// sweep: bench --sweep: prefill and decode speed, and the bytes that sessions hold, as the context grows; decode of one
// text, or of the numbers of texts that --batch names.
#pragma once
#include "measure.h"

// Measures and prints the table, and writes the chart of --plot.
void sweep_run(Bench *b);
