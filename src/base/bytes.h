// bytes: texts that grow: stb_ds arrays of char, not terminated.
#pragma once
#include <stdbool.h>
#include <stddef.h>

void bytes_append(char **to, const char *from, size_t n);
void bytes_append_text(char **to, const char *text); // NULL: nothing

bool byte_is_space(char c); // ASCII's: blank, tab, the line ends, vertical tab, form feed
