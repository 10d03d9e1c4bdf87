// page: the bytes of page.html, inside the program.
#pragma once
extern const char page_begin[], page_end[];
