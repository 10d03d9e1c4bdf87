// conversation: the messages of a chat request.
//
// Owns the roles, contents and fields that are passed to the chat template. Where the template knows no tools, calls
// and results in the messages become text. Refuses, with the message's number, what has no role or no text.
#pragma once
#include "apierror.h"
#include "toolform.h"

#include <jansson.h>

typedef struct {
    ChatMessage *messages; // stb_ds array
    char **texts;          // stb_ds array of stb_ds arrays: what the messages point to
    char **fields;         // stb_ds array of malloc'd JSON, NULL for none
} Conversation;

// form NULL: calls cannot be written as text. told: for the first message, NULL: nothing. Returns 0, or -1 with *error
// filled. conversation_free also after a failure.
int conversation_read(Conversation *c, const json_t *list, const ToolForm *form, const char *told, ApiError *error);
void conversation_free(Conversation *c);
