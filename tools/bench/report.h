// report: what every table of bench has around its rows. Called by the rows, the sweep and the attention of bench.
//
// Owns the opening and the end of a table in Markdown, CSV and JSON: the machine, the models, the cache, notes below.
#pragma once
#include "measure.h"

// header: of the table, in CSV and in Markdown.
void report_start(const Bench *b, const char *csv_header, const char *md_header);
void report_row(Bench *b); // before each row
// Ends the program if something could not be written.
void report_end(const Bench *b);

void report_string(const char *text);           // as JSON
void report_number(const char *key, double v);  // "key": v, or null for 0: unknown, or not applicable
const char *report_base_name(const char *path); // behind the last slash
// What a table's numbers hold for, beside the model: "bf16 KV cache, window 256, 4 sinks".
void report_cache(const Bench *b, char *text, size_t size);
