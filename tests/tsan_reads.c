// tsan_reads: what ThreadSanitizer sees of a read that gcc takes for unaligned: of a vector, eight bytes near its
// beginning and eight near its end. It would look at all of them in a loop, which took two thirds of its checks' time;
// a thread that writes to what another one reads writes more than the middle of one vector. Linked in place of
// __tsan_read_range.
#include <stdint.h>

void __real___tsan_read_range(void *p, unsigned long n);
void __wrap___tsan_read_range(void *p, unsigned long n);
void __tsan_read4(void *p);
void __tsan_read8(void *p);

__attribute__((no_sanitize("thread"))) void __wrap___tsan_read_range(void *p, unsigned long n) {
    char *begin = (char *)p + -(uintptr_t)p % 8, *end = (char *)p + n;
    if (n == 4 && (uintptr_t)p % 4 == 0) {
        __tsan_read4(p);
    } else if (n == 8 && begin == p) {
        __tsan_read8(p);
    } else if (n >= 16 && n <= 64) {
        __tsan_read8(begin);
        __tsan_read8(end - 8 - (uintptr_t)end % 8);
    } else {
        __real___tsan_read_range(p, n);
    }
}
