#!/usr/bin/env bash
# The rooms of src/ stay apart: a header of a room that may not be seen fails to compile, includes are bare names, no two
# files have one name, modules form no circle; and the library shows the functions of tessera.h and nothing else.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${TESSERA_BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
check() { # name
    if "$1"; then echo "  ok   $1" && passed=$((passed + 1)); else echo "  FAIL $1" && failed=$((failed + 1)); fi
}
rooms="base text compute model formats engine run"
# What each room may see, said a second time: here as a reader would, in the Makefile as the compiler is told.
declare -A sees=([base]="base" [text]="base text" [compute]="base compute" [model]="base compute model"
    [formats]="base text compute model formats" [engine]="base text compute model formats engine" [run]="base run")
sources() { find src -name '*.[ch]' | sort; }

# A file that names the headers it can find among these, and one that includes them: preprocessed with these flags.
found() { # flags..., headers on stdin
    sed 's/.*/#if __has_include("&")\n& is found\n#endif/' | preprocess "$@" | sed -n 's/ is found$//p'
}
preprocess() { ${CC:-gcc} "$@" -idirafter /usr/include -D_GNU_SOURCE -std=gnu11 -E -P -x c -; }
headers_of() { # rooms...
    find "${@/#/src/}" -name '*.h' ! -name '*_tmpl.h' ! -name 'neon.h' | sed 's|.*/||' | sort
}
planted_includes_fail() {
    local bad=0 room flags seen
    for room in $rooms; do
        read -ra flags <<<"$(MAKEFLAGS= make -s --no-print-directory show-includes FILE="src/$room/planted.c")"
        read -ra seen <<<"${sees[$room]}"
        diff <(headers_of "${seen[@]}") <(headers_of $rooms | found "${flags[@]}") >"$tmp/error" ||
            { sed -n "s|^< |src/$room cannot include |p; s|^> |src/$room can include |p" "$tmp/error" && bad=1; }
        headers_of "${seen[@]}" | sed 's/.*/#include "&"/' | preprocess "${flags[@]}" 2>"$tmp/error" >/dev/null ||
            { echo "src/$room: $(head -n 3 "$tmp/error")" && bad=1; }
    done
    return $bad
}
includes_are_bare() { ! sources | xargs grep -n '#include ".*/'; }
names_are_unique() { [ -z "$(sources | sed 's|.*/||' | sort | uniq -d)" ]; }
modules_form_no_circle() { # a module: NAME.c and NAME.h
    sources | while read -r file; do
        module=$(basename "${file%.*}")
        grep -ho '^#include "[^"]*"' "$file" | sed 's/.*"\(.*\)\..*"/\1/' | sed "/^$module\$/d; s/^/$module /"
    done | tsort >/dev/null
}
library_exports_its_header_alone() {
    [ -f "$build/libtessera.a" ] || return 1
    ${NM:-nm} -g --defined-only "$build/libtessera.a" | awk 'NF == 3 { print $3 }' | sort >"$tmp/exported"
    ${CC:-gcc} -E -P -x c src/tessera.h 2>/dev/null | sed '/^#/d' | grep -o '\b[a-z][a-z_]*(' | tr -d '(' | sort -u >"$tmp/declared"
    diff "$tmp/declared" "$tmp/exported"
}
# A program may have functions of its own by the names that the library uses inside.
library_links_beside_fail() {
    printf '#include "tessera.h"\nint fail(void); int fail(void) { return 7; }\n%s\n' \
        'int main(void) { engine_close(engine_open("none", 0, 0, 0)); return fail() - 7; }' >"$tmp/own.c"
    ${CC:-gcc} -Isrc "$tmp/own.c" "$build/libtessera.a" -ljansson -lpcre2-8 -lutf8proc -lm -lpthread -o "$tmp/own" &&
        "$tmp/own"
}
check planted_includes_fail
check includes_are_bare
check names_are_unique
check modules_form_no_circle
check library_exports_its_header_alone
check library_links_beside_fail
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
