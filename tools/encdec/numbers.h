// numbers: the numbers in a word, spelled out in English: "21st" is "twenty first". Called by words.
//
// Owns which numbers there are: whole ones ("1,234"), decimals ("3.14": three point one four), ordinals ("3rd") and
// plurals ("1990s"), alone or between letters ("mp3", "24/7"). Years are spelled as any number. A number that begins
// with a zero, or has more than 18 digits, is read digit by digit. Refuses nothing.
#pragma once
#include <stdbool.h>
#include <stddef.h>

// The n bytes at text, a word, with blanks around each word that stands for a number; free() it. negative: a minus
// stood before it. NULL: out of memory.
char *numbers_spell(const char *text, size_t n, bool negative);
