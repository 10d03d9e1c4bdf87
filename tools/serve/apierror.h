// apierror: what goes wrong with a request, as OpenAI's clients read it.
#pragma once

typedef struct {
    int status;        // of HTTP
    const char *type;  // "invalid_request_error"
    const char *code;  // NULL: none
    const char *param; // NULL: none
    char message[512];
} ApiError;

// Fills *e and returns -1.
int api_fail(ApiError *e, int status, const char *param, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
