// foreign: files that are no model here, by what they begin with, and folders that hold another kind of one.
//
// Owns the first message that a wrong file gets: what it is, and what to do. Reads nothing beyond its first bytes.
// Called by load.
#pragma once
#include "file.h"

// -1 with a line that says what it is; 0: nothing that is known here.
int foreign_refuse(const File *file, char *err, size_t errlen);
// The same for a folder without a model: what it has instead.
int foreign_refuse_folder(const char *folder, char *err, size_t errlen);
