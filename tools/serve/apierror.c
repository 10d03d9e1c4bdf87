// apierror: see apierror.h.
#include "apierror.h"

#include <stdarg.h>
#include <stdio.h>

int api_fail(ApiError *e, int status, const char *param, const char *fmt, ...) {
    *e = (ApiError){.status = status, .param = param};
    e->type = status == 401 ? "authentication_error" : status >= 500 ? "server_error" : "invalid_request_error";
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, args);
    va_end(args);
    return -1;
}
