// labels: see labels.h.
#include "labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LABELS = 1 << 20 };

int labels_read(char ***labels, Settings *s) {
    Settings table = settings_object(s, "id2label");
    size_t named = table.object ? json_object_size(table.object) : 0;
    int n = named ? (int)(named < MAX_LABELS ? named : MAX_LABELS) : settings_int(s, "num_labels", 1, MAX_LABELS, 2);
    *labels = calloc((size_t)n, sizeof **labels);
    if (!*labels) settings_fail(s, "id2label", "out of memory");
    for (int i = 0; !settings_failed(s) && i < n; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const char *name = named ? settings_string(&table, number, NULL) : number;
        (*labels)[i] = strdup(name);
        if (!(*labels)[i]) settings_fail(s, "id2label", "out of memory");
    }
    return n;
}

void labels_free(char **labels, int n) {
    for (int i = 0; labels && i < n; i++) free(labels[i]);
    free(labels);
}
