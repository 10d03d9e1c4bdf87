// pickle: what a Python pickle of protocol 2 says, as JSON.
//
// Owns the opcodes that lists, dictionaries, numbers, strings, and objects of numpy and scipy are written with. Refuses
// to call or make anything: an object is a list of its name and its arguments, with its state behind them where it has
// one; a dictionary is a list of keys and values in turn. Called by papers.
#pragma once
#include "file.h"

#include <jansson.h>

// A new reference; strings are bytes. NULL with a line in err.
json_t *pickle_read(const File *f, char *err, size_t errlen);
