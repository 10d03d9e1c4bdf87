// draws: see draws.h.
#include "draws.h"

int32_t draws_next(Draws *d, const int32_t *text, int n, int most, char *err, size_t errlen) {
    if (d->at == d->n) {
        int room = most < MAX_DRAWN ? most : MAX_DRAWN;
        d->at = 0;
        d->n = session_draw(d->session, text, n, d->sampler, d->drafter, d->ids, room, err, errlen);
        if (d->n < 0) d->n = 0;
        if (!d->n) return -1;
    }
    return d->ids[d->at++];
}
