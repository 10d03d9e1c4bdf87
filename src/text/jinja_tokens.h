// jinja_tokens: the words of a chat template.
//
// Owns the lexer with Jinja's control of white space (trim_blocks and lstrip_blocks, as Hugging Face sets them).
// Refuses strings, comments and tags without their end, and numbers of more than 64 bits. Called by jinja_parse.c.
#pragma once
#include "jinja_value.h"

typedef enum { TOKEN_OF_NAME, TOKEN_OF_VALUE, TOKEN_OF_OPERATOR, TOKEN_OF_END } JinjaTokenKind;

typedef struct {
    JinjaHeap *heap;
    const char *source; // [n], read up to at
    size_t at, n;
    JinjaTokenKind kind; // of the token that comes next
    const char *word;    // its name or operator, terminated
    JinjaValue value;
    int nested;       // brackets that are open
    bool variable;    // inside {{ }}
    bool line_starts; // the text that follows begins a line
    // the parser's
    const char *keyword; // of the tag that ended a body
    int depth, loops;
} JinjaTokens;

bool jinja_begins(const JinjaTokens *p, const char *word); // the source at p->at
void jinja_advance(JinjaTokens *p, size_t n);
bool jinja_is_blank(char c);

// Text and tags: the end of the text before the tag at p->at, without the white space that the tag removes.
size_t jinja_text_end(const JinjaTokens *p, size_t begin, bool variable);
void jinja_skip_comment(JinjaTokens *p);
void jinja_open_tag(JinjaTokens *p, bool variable);
void jinja_expect_tag_end(JinjaTokens *p);

// Tokens within a tag. accept and expect go on to the next one.
void jinja_next_token(JinjaTokens *p);
bool jinja_is_operator(const JinjaTokens *p, const char *word);
bool jinja_is_name(const JinjaTokens *p, const char *word);
bool jinja_accept(JinjaTokens *p, const char *word);
void jinja_expect(JinjaTokens *p, const char *word);
const char *jinja_expect_name(JinjaTokens *p);
