// setting.h: a key k of a settings file, asked for by the reader that a base names: "int 5" is settings_int and what
// it returns there. A text counts as its length, three numbers as v[0] + 10 v[1] + 100 v[2].
#pragma once
#include "bad.h"
#include "settings.h"

UNUSED static double read_setting(Settings *s, const char *how) {
    double v[3] = {0, 0, 0};
    if (!strncmp(how, "int ", 4)) return settings_int(s, "k", 1, 10, 0);
    if (!strncmp(how, "int_5 ", 6)) return settings_int(s, "k", 1, 10, 5);
    if (!strncmp(how, "int_below ", 10)) return settings_int(s, "k", -10, -1, 0);
    if (!strncmp(how, "number ", 7)) return settings_number(s, "k", 0.25, 2, (double)NAN);
    if (!strncmp(how, "number_half ", 12)) return settings_number(s, "k", 0.25, 2, 0.5);
    if (!strncmp(how, "bool ", 5)) return settings_bool(s, "k", true);
    if (!strncmp(how, "text ", 5)) return (double)strlen(settings_string(s, "k", NULL));
    if (!strncmp(how, "text_x ", 7)) return (double)strlen(settings_string(s, "k", "x"));
    if (!strncmp(how, "three ", 6)) return settings_numbers(s, "k", 3, v) ? v[0] + 10 * v[1] + 100 * v[2] : -1;
    return settings_object(s, "k").object != NULL;
}
