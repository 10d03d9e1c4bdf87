#!/usr/bin/env bash
# Run each check (through $RUNNER if set), show what it says, end on "N passed, N failed, N skipped".
# A check that ends without its own closing line counts as one failure.
set -u
passed=0 failed=0 skipped=0
for check in "$@"; do
    echo "== ${check##*/}"
    case $check in *.sh) output=$("$check" 2>&1) ;; *) output=$(${RUNNER:-} "$check" 2>&1) ;; esac
    status=$?
    printf '%s\n' "$output"
    line=$(printf '%s\n' "$output" | grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' | tail -n 1)
    if [ -z "$line" ]; then
        echo "${check##*/}: ended with status $status and no closing line"
        failed=$((failed + 1))
        continue
    fi
    read -r p _ f _ s _ <<<"$line"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$status" = 0 ] || [ "$f" != 0 ] || failed=$((failed + 1))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
