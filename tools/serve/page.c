// page: see page.h.
#include "page.h"

__asm__(".section .rodata\n"
        ".global page_begin, page_end\n"
        "page_begin: .incbin \"tools/serve/page.html\"\n"
        "page_end: .byte 0\n"
        ".previous\n");
