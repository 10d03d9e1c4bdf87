// mailbox: letters from one thread to another, in order.
//
// Owns the list and its lock. A letter is the first member of what is sent. The reader waits in mailbox_wait, or its
// event loop watches mailbox_fd.
#pragma once
#include <stdbool.h>

typedef struct Letter {
    struct Letter *next;
} Letter;

typedef struct Mailbox Mailbox;

Mailbox *mailbox_open(void);    // NULL: no memory, or no descriptor
void mailbox_close(Mailbox *m); // accepts NULL; letters are their sender's

void mailbox_put(Mailbox *m, Letter *letter); // NULL: only wakes the reader
Letter *mailbox_take(Mailbox *m);             // all letters, oldest first, as a list; NULL: none
void mailbox_wait(Mailbox *m);                // until something was put since the last take
int mailbox_fd(const Mailbox *m);             // readable when something was put
