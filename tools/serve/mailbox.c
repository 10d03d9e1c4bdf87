// mailbox: see mailbox.h.
#include "mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct Mailbox {
    pthread_mutex_t lock;
    Letter *first, *last;
    int fd;
};

Mailbox *mailbox_open(void) {
    Mailbox *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    pthread_mutex_init(&m->lock, NULL);
    m->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->fd >= 0) return m;
    mailbox_close(m);
    return NULL;
}

void mailbox_close(Mailbox *m) {
    if (!m) return;
    if (m->fd >= 0) close(m->fd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void mailbox_put(Mailbox *m, Letter *letter) {
    if (letter) {
        letter->next = NULL;
        pthread_mutex_lock(&m->lock);
        if (m->last) m->last->next = letter;
        else m->first = letter;
        m->last = letter;
        pthread_mutex_unlock(&m->lock);
    }
    eventfd_write(m->fd, 1); // fails only when 2^64 - 2 wait, and then the reader is awake
}

Letter *mailbox_take(Mailbox *m) {
    eventfd_t n;
    eventfd_read(m->fd, &n);
    pthread_mutex_lock(&m->lock);
    Letter *list = m->first;
    m->first = m->last = NULL;
    pthread_mutex_unlock(&m->lock);
    return list;
}

void mailbox_wait(Mailbox *m) {
    struct pollfd p = {.fd = m->fd, .events = POLLIN};
    poll(&p, 1, -1);
}

int mailbox_fd(const Mailbox *m) {
    return m->fd;
}
