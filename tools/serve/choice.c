// choice: see choice.h.
#include "choice.h"

#include "chat.h"
#include "cli.h"
#include "engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_ds.h>

static const Chat *chat_of(const Choice *c) {
    return c->job->request.own_chat ? c->job->request.own_chat : c->model->chat;
}

static int open_parts(Choice *c, const Request *r, ApiError *error) {
    char err[256];
    SamplerOptions sampling = r->sampling;
    sampling.seed += (uint64_t)(c->index % r->n_choices);
    c->sampler = sampler_open(&sampling, engine_info(c->model->engine).vocab_size, err, sizeof err);
    if (!c->sampler) return api_fail(error, 400, NULL, "%s", err);
    if (r->pool) c->pool = pool_open(r->pool, engine_info(c->model->engine).dim);
    if (r->chat) c->answer = answer_open(chat_of(c));
    else c->out = textout_open(c->model->engine, false);
    if (r->tools.names) c->calls = callreader_open(c->model->tools, r->tools.names);
    if ((!c->answer && !c->out) || (r->pool && !c->pool) || (r->tools.names && !c->calls))
        return api_fail(error, 500, NULL, "out of memory");
    return 0;
}

Choice *choice_open(Job *job, const Served *model, int index, ApiError *error) {
    const Request *r = &job->request;
    const Prompt *p = &r->prompts[index / r->n_choices];
    Choice *c = calloc(1, sizeof *c);
    if (!c) {
        api_fail(error, 500, NULL, "out of memory");
        return NULL;
    }
    *c = (Choice){.job = job, .model = model, .index = index, .n_prompt = p->n};
    memcpy(arraddnptr(c->tokens, p->n), p->ids, sizeof *p->ids * (size_t)p->n);
    c->task.n_tokens = p->n;
    c->n_limit = model->n_ctx - p->n + 1;
    if (r->max_tokens >= 0 && r->max_tokens < c->n_limit) c->n_limit = r->max_tokens;
    c->constraint = r->constraints ? r->constraints[index] : NULL;
    c->thinks = r->chat && chat_starts_thinking(chat_of(c));
    c->stops.strings = (const char *const *)r->stops;
    if (!open_parts(c, r, error)) {
        sampler_history(c->sampler, c->tokens, p->n);
        return c;
    }
    choice_close(c);
    return NULL;
}

void choice_close(Choice *c) {
    if (!c) return;
    session_close(c->session);
    sampler_close(c->sampler);
    answer_close(c->answer);
    callreader_close(c->calls);
    pool_close(c->pool);
    textout_close(c->out);
    stops_free(&c->stops);
    logprobs_free(c->logprobs);
    arrfree(c->tokens);
    free(c);
}

// ---- log probabilities

// The n largest logits, best first, as log probabilities.
static TokenLogprob *most_likely(const float *logits, int vocab_size, int n, double log_sum) {
    TokenLogprob *top = NULL;
    for (int32_t id = 0; id < vocab_size; id++) {
        if (arrlen(top) == n && (!n || logits[id] <= top[n - 1].logprob)) continue;
        if (arrlen(top) < n) arrput(top, ((TokenLogprob){0}));
        ptrdiff_t at = arrlen(top) - 1;
        for (; at > 0 && top[at - 1].logprob < logits[id]; at--) top[at] = top[at - 1];
        top[at] = (TokenLogprob){id, logits[id]};
    }
    for (ptrdiff_t i = 0; i < arrlen(top); i++) top[i].logprob = (float)((double)top[i].logprob - log_sum);
    return top;
}

static void note_logprobs(Choice *c, int32_t id, const float *logits) {
    int n = engine_info(c->model->engine).vocab_size;
    double most = -HUGE_VAL, sum = 0;
    for (int i = 0; i < n; i++) most = (double)logits[i] > most ? (double)logits[i] : most;
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - most);
    double log_sum = most + log(sum);
    LogprobEntry e = {.token = {id, (float)((double)logits[id] - log_sum)}, .at = c->n_text};
    e.top = most_likely(logits, n, c->job->request.top_logprobs, log_sum);
    arrput(c->logprobs, e);
}

// ---- text

// `text` is certain to be in the answer: into the event, with the log probabilities of its tokens.
static void give(Choice *c, Output *e, const char *text) {
    size_t n = strlen(text), kept = 0;
    if (!n) return;
    size_t before = e->text ? strlen(e->text) : 0;
    char *joined = realloc(e->text, before + n + 1);
    if (!joined) die(1, "out of memory");
    memcpy(joined + before, text, n + 1);
    e->text = joined;
    c->n_given += n;
    for (ptrdiff_t i = 0; i < arrlen(c->logprobs); i++) {
        if (c->logprobs[i].at < c->n_given) arrput(e->logprobs, c->logprobs[i]);
        else c->logprobs[kept++] = c->logprobs[i];
    }
    if (c->logprobs) arrsetlen(c->logprobs, kept);
}

static void push_text(Choice *c, Output *e, const char *text) {
    c->n_text += strlen(text);
    give(c, e, stops_push(&c->stops, text));
}

static void drop_logprobs(Choice *c) {
    logprobs_free(c->logprobs);
    c->logprobs = NULL;
}

// Text of an answer, in which there may be calls of tools.
static void push_answer(Choice *c, Output *e, const char *text) {
    if (!c->calls) {
        push_text(c, e, text);
        return;
    }
    push_text(c, e, callreader_push(c->calls, text));
    CallPart *parts = callreader_take(c->calls);
    if (parts) drop_logprobs(c); // of tokens that are no text
    for (ptrdiff_t i = 0; i < arrlen(parts); i++) arrput(e->calls, parts[i]);
    arrfree(parts);
}

static void finish(Choice *c, Output *e, const char *reason) {
    if (!c->stops.found) push_answer(c, e, c->answer ? answer_finish(c->answer) : textout_finish(c->out));
    if (c->calls) push_text(c, e, callreader_finish(c->calls));
    give(c, e, stops_finish(&c->stops));
    e->finish = c->calls && callreader_begun(c->calls) && !strcmp(reason, "stop") ? "tool_calls" : reason;
    e->n_prompt = c->n_prompt;
    e->n_cached = c->n_cached;
    e->n_new = c->n_new;
}

// Marks of calls that are control tokens have no text of their own in an answer.
static void push_mark(Choice *c, Output *e, int32_t id) {
    const Piece *p = c->calls ? tokenizer_piece(c->model->engine->tokenizer, id) : NULL;
    if (!p || p->type != TOKEN_CONTROL || p->len <= 0) return;
    char *mark = strndup(p->text, (size_t)p->len);
    if (mark && strstr(c->model->tools->mark, mark)) push_answer(c, e, mark);
    free(mark);
}

// Puts the token's text out. True: the token ends the text.
static bool put_token(Choice *c, Output *e, int32_t id) {
    if (c->out) {
        if (engine_is_end(c->model->engine, id)) return true;
        push_text(c, e, textout_push(c->out, id));
        return false;
    }
    AnswerPart part = answer_push(c->answer, id);
    c->thinks = part.thought;
    if (part.thought) e->thought = *part.text ? strdup(part.text) : NULL;
    else {
        push_mark(c, e, id);
        push_answer(c, e, part.text);
    }
    return part.end;
}

static Output *no_token(Output *e) {
    ApiError error;
    api_fail(&error, 500, NULL, "the model's vocabulary has no token that the requested form allows here");
    output_fail(e, &error);
    return e;
}

// The next token: of what the answer must begin with, or one that the constraint allows. -1: there is none.
static int32_t next_token(Choice *c, const float *logits) {
    const Prompt *lead = &c->job->request.lead;
    if (!c->thinks && c->n_led < lead->n) return lead->ids[c->n_led++];
    const float *allowed = c->constraint && !c->thinks ? constraint_mask(c->constraint, logits) : logits;
    return allowed ? sampler_pick(c->sampler, allowed) : -1;
}

static bool is_complete(const Choice *c, bool constrained) {
    return c->stops.found || (constrained && constraint_complete(c->constraint)) ||
           (c->calls && c->job->request.tools.single && callreader_complete(c->calls));
}

Output *choice_pick(Choice *c, const float *logits, bool *ended) {
    Output *e = output_new(c->job, c->index);
    int n_led = c->n_led;
    bool thought = c->thinks;
    int32_t id = next_token(c, logits);
    bool constrained = c->constraint && !thought && c->n_led == n_led;
    *ended = true;
    if (id < 0) return no_token(e);
    if (c->job->request.logprobs) note_logprobs(c, id, logits);
    bool end = put_token(c, e, id);
    if (!end) {
        arrput(c->tokens, id);
        c->task.n_tokens++;
        c->n_new++;
        if (constrained) constraint_accept(c->constraint, id);
    }
    if (end || is_complete(c, constrained)) finish(c, e, "stop");
    else if (c->n_new == c->n_limit) finish(c, e, "length");
    *ended = e->finish;
    if (e->finish || e->text || e->thought || e->calls) return e;
    output_free(e);
    return NULL;
}

Output *choice_embed(Choice *c) {
    Output *e = output_new(c->job, c->index);
    e->vector = pool_vector(c->pool);
    if (!e->vector) die(1, "out of memory");
    finish(c, e, "stop");
    return e;
}

Output *choice_end(Choice *c, const ApiError *error) {
    Output *e = output_new(c->job, c->index);
    if (error) output_fail(e, error);
    else finish(c, e, "length");
    return e;
}
