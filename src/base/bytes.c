// bytes: see bytes.h.
#include "bytes.h"

#include <string.h>

#include <stb/stb_ds.h>

void bytes_append(char **to, const char *from, size_t n) {
    if (n) memcpy(arraddnptr(*to, n), from, n);
}

void bytes_append_text(char **to, const char *text) {
    if (text) bytes_append(to, text, strlen(text));
}

bool byte_is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}
