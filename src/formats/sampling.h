// sampling: how a model's files say that tokens are to be picked. See sampling.c.
#pragma once
#include "gguf.h"
#include "model.h"
#include "settings.h"

// From general.sampling.*; failures are the container's.
void sampling_read_gguf(Model *m, Gguf *g);
// From generation_config.json in the folder of this path, which may be the folder. -1 with a line in err.
int sampling_read_folder(Model *m, const char *path, char *err, size_t errlen);
