// schema: a JSON Schema to an automaton of the JSON texts that it accepts.
//
// Owns the keywords that can be enforced byte by byte (JSON Schema 2020-12, sections 7 to 10 of its core and 6 of its
// validation vocabulary, in part): type, enum, const, properties, required, additionalProperties, items, prefixItems,
// minItems, maxItems, minLength, maxLength, pattern, format (of some), minimum and maximum of integers, anyOf, oneOf
// of what excludes one another, allOf of one, $ref, $defs. Refuses by name what it knows and cannot enforce; keywords
// that only annotate are ignored. Texts are a subset of what the schema accepts: properties in the schema's order and
// no others where it names some, numbers of at most 16 digits, white space of at most a line break and 20 blanks.
#pragma once
#include "automaton.h"

#include <jansson.h>

// schema NULL: any JSON object. Returns the rule of the whole text, or -1 with a line in err.
int schema_compile(Automaton *a, const json_t *schema, char *err, size_t errlen);
