// made.h: bytes of a picture file put together by hand.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <zlib.h>

enum { MADE_ROOM = 1 << 20 };

static struct {
    uint8_t bytes[MADE_ROOM];
    size_t n;
} made;

static void put(const void *bytes, size_t n) { // nothing where there is no room
    if (n > MADE_ROOM - made.n) return;
    memcpy(made.bytes + made.n, bytes, n);
    made.n += n;
}

static void put_number(uint32_t number, int n_bytes, bool big) {
    for (int i = 0; i < n_bytes; i++) put(&(uint8_t){(uint8_t)(number >> 8 * (big ? n_bytes - 1 - i : i))}, 1);
}

static void put_chunk(const char *type, const void *data, size_t n) { // of a PNG
    put_number((uint32_t)n, 4, true);
    size_t at = made.n;
    put(type, 4);
    put(data, n);
    put_number((uint32_t)crc32(0, made.bytes + at, (uInt)(n + 4)), 4, true);
}

static void on_jpeg(void *user, void *data, int n) { // stb_image_write's
    (void)user;
    put(data, (size_t)n);
}
