// draw: the next tokens of a session, guesses of them computed in the same pass (session_draw).
//
// Owns the comparison of guesses with what is drawn, and going back where they differ. A pass is exact (PassOptions):
// its rows have the bits of tokens that are decoded one at a time. As many guesses are made as the session's memory can
// forget again without computing anything: windows and recurrent states set limits.
#include "session.h"

#include "drafter.h"
#include "file.h"

#include <string.h>

_Static_assert(1 + MAX_GUESSES <= EXACT_ROWS, "a token and its guesses are one exact pass");

// A pass at work: row i follows the token before it, guess i - 1 or, of row 0, the text's last.
typedef struct {
    Session *session;
    Sampler *sampler;
    const Guesses *guesses;
    int32_t *drawn;
    int n_drawn, room;
    bool ended; // what follows is no continuation of the text
} Drawing;

static void draw_one(Drawing *d, const float *logits) {
    int32_t id = sampler_pick(d->sampler, logits);
    int i = d->n_drawn++;
    d->drawn[i] = id;
    bool goes_on = i < d->guesses->n_used && id == d->guesses->ids[i] && i + 1 < d->room;
    d->ended = !goes_on || engine_is_end(d->session->engine, id);
}

static void draw_row(void *context, int position, const float *logits) {
    Drawing *d = context;
    Session *s = d->session;
    if (d->ended || !session_check_logits(s, position, logits)) return;
    if (s->visit) s->visit(s->visit_context, position, logits);
    memcpy(s->logits, logits, sizeof *logits * (size_t)s->engine->model.config.vocab_size);
    draw_one(d, logits);
}

// The text's last token, which is not computed yet, and guesses of what follows it.
static int draw_guessed(Drawing *d, const int32_t *text, int n, Drafter *drafter, char *err, size_t errlen) {
    Session *s = d->session;
    int most = s->n_ctx - n < d->room - 1 ? s->n_ctx - n : d->room - 1;
    Guesses guesses = drafter_guess(drafter, text, n, d->sampler, memory_ahead(&s->memory, 1, most));
    int32_t rows[1 + MAX_GUESSES] = {text[n - 1]};
    int n_rows = 1 + guesses.n_used;
    memcpy(rows + 1, guesses.ids, sizeof *rows * (size_t)guesses.n_used);
    if (session_reserve(s, n_rows, err, errlen)) return -1;
    DecoderSegment segment = {
        .memory = &s->memory, .tokens = rows, .n = n_rows, .callback = draw_row, .callback_context = d};
    d->guesses = &guesses;
    double start = drafter_clock();
    if (runner_step(s->runner, &segment, 1, (PassOptions){.exact = true, .profile = s->profile}, err, errlen))
        return -1;
    memcpy(s->tokens + n - 1, rows, sizeof *rows * (size_t)n_rows);
    if (session_fail_bad(s, err, errlen)) return -1;
    memory_truncate(&s->memory, n - 1 + d->n_drawn);
    s->has_logits = true;
    session_publish_new(s, d->n_drawn, false);
    drafter_learn(drafter, &guesses, d->drawn, d->n_drawn, drafter_clock() - start);
    return d->n_drawn;
}

int session_draw(Session *s, const int32_t *text, int n, Sampler *sampler, Drafter *d, int32_t *drawn, int room,
                 char *err, size_t errlen) {
    static const Guesses none;
    Drawing drawing = {.session = s, .sampler = sampler, .guesses = &none, .drawn = drawn, .room = room};
    if (n < 1 || room < 1)
        return fail(err, errlen, "draw: expected a text and room for a token, found %d and %d", n, room);
    if (session_check(s, text, n, err, errlen)) return -1;
    if (d && session_keep(s, text, n) == n - 1 && n <= s->n_ctx) {
        s->bad_logits = -1;
        return draw_guessed(&drawing, text, n, d, err, errlen);
    }
    if (session_sync(s, text, n, err, errlen)) return -1;
    draw_one(&drawing, s->logits);
    return drawing.n_drawn;
}
