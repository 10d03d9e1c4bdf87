// transcript: a conversation as a text file, for /save and /load of the chat.
//
// Owns the format: each message is "User: text" (or System, Assistant) and an empty line; a line of a message that
// would read as the beginning of one has a backslash before it. Refuses to load what is no conversation: a system
// message at most, then turns of both, each complete.
#pragma once
#include "tessera.h"

// 0, or -1 with a line in err.
int transcript_save(const char *path, const ChatMessage *messages, int n, char *err, size_t errlen);
// *messages: a stb_ds array of malloc'd texts. 0, or -1 with a line in err and nothing to free.
int transcript_load(const char *path, ChatMessage **messages, char *err, size_t errlen);
void transcript_free(ChatMessage *messages); // with their texts and ids
