// utf8: the streaming decoder. See utf8.h.
#include "utf8.h"

#include <string.h>

size_t utf8_push(Utf8Stream *s, unsigned char b, char *out) {
    size_t n = 0;
    if (s->n_held && !utf8_follows(s->held[0], s->n_held, b)) n = utf8_finish(s, out);
    s->held[s->n_held++] = b;
    int len = utf8_lead(s->held[0]);
    if (len == 0) return n + utf8_finish(s, out + n);
    if (s->n_held < len) return n;
    memcpy(out + n, s->held, (size_t)len);
    s->n_held = 0;
    return n + (size_t)len;
}

size_t utf8_finish(Utf8Stream *s, char *out) {
    if (!s->n_held) return 0;
    s->n_held = 0;
    memcpy(out, "\xEF\xBF\xBD", 3); // U+FFFD
    return 3;
}
