// stb: the one file that instantiates stb_ds, the arrays and maps of libstb.
#define STB_DS_IMPLEMENTATION
#include <stb/stb_ds.h>
