// hash: bytes to 64 bits, as fast as memory is read: to find what was damaged or is another file, not to stop a forger.
#pragma once
#include <stddef.h>
#include <stdint.h>

// seed: of bytes that precede these, their hash; 0: nothing does. A change within any 8 bytes always changes it.
uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t n);
