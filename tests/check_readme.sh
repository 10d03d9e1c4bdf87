#!/usr/bin/env bash
# The README keeps its word: its C example compiles without warnings and writes the text it shows.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${TESSERA_BUILD:-build}
mkdir -p "$build/tests"
passed=0 failed=0
check() { # name, command...
    local name=$1
    shift
    if "$@"; then echo "  ok   $name" && passed=$((passed + 1)); else echo "  FAIL $name" && failed=$((failed + 1)); fi
}
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$build/tests/readme_example.c"
lines=$(wc -l <"$build/tests/readme_example.c")
example_is_short() { [ "$lines" -gt 5 ] && [ "$lines" -le 20 ]; }
example_compiles() {
    ${CC:-gcc} -std=gnu11 -O2 -Wall -Wextra -Werror -Isrc -o "$build/tests/readme_example" \
        "$build/tests/readme_example.c" "$build/libtessera.a" -ljansson -lpcre2-8 -lutf8proc -lm -lpthread
}
example_writes() { "$build/tests/readme_example" | grep -q '^Once upon a time, there was'; }
# The map of the rooms stands in README.md as a table and at the top of tessera.h: the same words.
map_is_one() {
    diff <(sed -n 's/^| `\([a-z/]*\/\)` | \(.*\) |$/\1 \2/p' README.md) \
        <(sed -n 's/^\/\/   //p' src/tessera.h | awk '/^[a-z]/ { if (line) print line; line = $0; next }
            { sub(/^ */, " "); line = line $0 } END { print line }' | sed 's/  */ /g')
}
check map_is_one
check example_is_short example_is_short
check example_compiles example_compiles
check example_writes example_writes
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
