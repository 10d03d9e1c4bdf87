#!/usr/bin/env bash
# The README keeps its word: its C example compiles without warnings, writes the text it shows and stays inside its
# memory; its commands print what it shows, and have the flags that it names.
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
# The first block of C in README.md, or the second.
example() { awk -v n="$1" '/^```c$/ { at++; on = at == n; next } /^```$/ { on = 0 } on' README.md; }
example 1 >"$build/tests/readme_example.c"
example 2 >"$build/tests/readme_several.c"
lines=$(wc -l <"$build/tests/readme_example.c")
example_is_short() { [ "$lines" -gt 5 ] && [ "$lines" -le 20 ]; }
example_compiles() {
    ${CC:-gcc} -std=gnu11 -O2 -Wall -Wextra -Werror -Isrc -o "$build/tests/readme_example" \
        "$build/tests/readme_example.c" "$build/libtessera.a" -ljansson -lpcre2-8 -lutf8proc -lm -lpthread
}
several_are_short() { [ "$(wc -l <"$build/tests/readme_several.c")" -le 27 ]; }
several_write() {
    ${CC:-gcc} -std=gnu11 -O2 -Wall -Wextra -Werror -Isrc -o "$build/tests/readme_several" \
        "$build/tests/readme_several.c" "$build/libtessera.a" -ljansson -lpcre2-8 -lutf8proc -lm -lpthread &&
        [ "$("$build/tests/readme_several" | grep -c '^Once upon a time, there was\|^The dog was\|^Lily found\|^It was')" = 4 ]
}
example_writes() { "$build/tests/readme_example" | grep -q '^Once upon a time, there was'; }
# The map of the rooms stands in README.md as a table and at the top of tessera.h: the same words.
map_is_one() {
    diff <(sed -n 's/^| `\([a-z/]*\/\)` | \(.*\) |$/\1 \2/p' README.md) \
        <(sed -n '/^\/\/ The rooms/,/^\/\/$/s/^\/\/   //p' src/tessera.h | awk '/^[a-z]/ { if (line) print line; line = $0; next }
            { sub(/^ */, " "); line = line $0 } END { print line }' | sed 's/  */ /g')
}
# The same with a prompt of some hundred tokens, and every access checked.
example_takes_long_prompts() {
    local words
    words=$(printf 'word %.0s' {1..300})
    sed "s/\"Once upon a time\", 16/\"$words\", ${#words}/" "$build/tests/readme_example.c" >"$build/tests/readme_long.c"
    ${CC:-gcc} -std=gnu11 -fsanitize=address,undefined -fno-sanitize-recover=all -Isrc -o "$build/tests/readme_long" \
        "$build/tests/readme_long.c" "$build/libtessera.a" -ljansson -lpcre2-8 -lutf8proc -lm -lpthread &&
        ASAN_OPTIONS=detect_leaks=0 "$build/tests/readme_long" | grep -q '^word word word'
}

# ---- what stands behind "$ command" in a block, and what the command prints: the same, lines wrapped or not

shown() { awk -v cmd="$ $1" 'on && (/^```/ || /^\$ /) { exit } on { print } $0 == cmd { on = 1 }' README.md; }
one_line() { tr -s ' \t\n' ' ' | sed 's/ $//'; }
numbers_out() { sed -E 's/[0-9]+(\.[0-9]+)?/N/g'; }
prints_as_shown() { # command
    local want found
    want=$(shown "$1" | awk '!NF { exit } { print }' | one_line)
    found=$(eval "$1" 2>"$build/tests/readme_stderr" | one_line)
    [ -n "$want" ] && [ "$want" = "$found" ] && return
    printf '%s\n  shown: %s\n  found: %s\n' "$1" "$want" "$found"
    return 1
}
story='./run models/stories.bin -p "Once upon a time" --temp 0.5 -s 3'
story_is_as_shown() {
    prints_as_shown "$story" || return
    diff <(shown "$story" | awk 'on { print } !NF { on = 1 }' | one_line | numbers_out) \
        <(one_line <"$build/tests/readme_stderr" | numbers_out)
}
# Answers follow the shown ones where products of bfloat16 are the processor's best; elsewhere the texts part.
chat='./run models/stories.bin --chat --temp 0.5 -s 3 -n 60'
chat_is_as_shown() {
    local in want found
    if [ "$("$build/bench" --attention 1 -r 1 -o json | grep -c '"cpu_level": "avx512bf16"')" = 0 ]; then return 0; fi
    in=$(shown "$chat" | sed -n 's/^> //p' | grep -v '^/save')
    want=$(shown "$chat" | grep -v '^[>[]\|^note:\|^saved' | one_line)
    found=$(printf '%s\n' "$in" | eval "$chat" 2>"$build/tests/readme_stderr" | one_line)
    [ -n "$want" ] && [ "$want" = "$found" ] || { printf '  shown: %s\n  found: %s\n' "$want" "$found" && return 1; }
    diff <(shown "$chat" | grep '^\[\|^note:' | numbers_out) <(numbers_out <"$build/tests/readme_stderr")
}
words_are_as_shown() { prints_as_shown 'build/encdec models/g2p -p "small machines can speak" -b 4'; }
pictures_are_as_shown() {
    prints_as_shown 'build/vit models/vit models/vit/samples/ankle-boot.png models/vit/samples/shirt.png'
}
# Every flag of a command line in README stands in that program's --help.
flags_exist() {
    local program flag bad=0
    while read -r program flag; do
        "$program" --help | grep -qE "(^| |,)$flag( |,|\$)" || { echo "$program: no $flag in its --help" && bad=1; }
    done < <(grep -oE '(\./run|build/(bench|perplexity|quantize|inspect|tokenize|synth|encdec|vit|convnet|atlas|serve)) [^`;|]*' README.md |
        sed 's/   .*//' | awk '{ for (i = 2; i <= NF; i++) if ($i ~ /^--?[a-z][a-z-]*$/) print $1, $i }' | sort -u)
    [ "$bad" = 0 ]
}
check map_is_one map_is_one
check example_is_short example_is_short
check example_compiles example_compiles
check example_writes example_writes
check several_are_short several_are_short
check several_write several_write
check example_takes_long_prompts example_takes_long_prompts
check story_is_as_shown story_is_as_shown
check chat_is_as_shown chat_is_as_shown
check words_are_as_shown words_are_as_shown
check pictures_are_as_shown pictures_are_as_shown
check flags_exist flags_exist
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
