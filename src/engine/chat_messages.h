// chat_messages: what a chat template sees of messages.
//
// Owns the variables that a ChatMessage becomes, and what examples show of the form that a template expects of contents
// and of the arguments of tool calls. Refuses fields that are no JSON object. Called by chat.c.
#pragma once
#include "jinja.h"
#include "tessera.h"
#include "tokenizer.h"

typedef enum { ARGUMENTS_AS_GIVEN, ARGUMENTS_MAPPING, ARGUMENTS_TEXT } ArgumentForm;

// What a template expects; all zeros: messages as they are.
typedef struct {
    bool parts;       // a text as its only part, [{"type": "text", "text": ...}]
    bool joins_parts; // several texts as one, a line each
    ArgumentForm arguments;
} MessageForm;

// The text that ids stand for, in a stb_ds array.
char *text_of_ids(const Tokenizer *t, const int32_t *ids, int n);

JinjaValue messages_value(JinjaHeap *h, const Tokenizer *t, const ChatMessage *messages, int n, MessageForm form);

// The text that a template gives for messages in a form; free() it. NULL: it refuses them.
typedef char *MessageTrial(const void *context, const ChatMessage *messages, int n, MessageForm form);
MessageForm messages_form(MessageTrial *trial, const void *context);
