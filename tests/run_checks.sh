#!/usr/bin/env bash
# Run the checks (through $RUNNER if set), as many at a time as there are cores (JOBS), show what each says in the given
# order and the seconds it took, end on "N passed, N failed, N skipped". A check that ends without its own closing line
# counts as one failure.
set -u
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0 skipped=0

run() { # check number
    local status=0 start=$SECONDS
    case $1 in *.sh) "$1" ;; *) ${RUNNER:-} "$1" ;; esac >"$out/$2" 2>&1 || status=$?
    echo "$status" >"$out/$2.status"
    echo "$((SECONDS - start))" >"$out/$2.seconds"
}
show() { # check number
    local status line p f s _
    status=$(cat "$out/$2.status")
    echo "== ${1##*/} ($(cat "$out/$2.seconds") s)"
    cat "$out/$2"
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$out/$2" | tail -n 1)
    if [ -z "$line" ]; then
        echo "${1##*/}: ended with status $status and no closing line"
        failed=$((failed + 1))
        return
    fi
    read -r p _ f _ s _ <<<"$line"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$status" = 0 ] || [ "$f" != 0 ] || failed=$((failed + 1))
}

measures() { # what a busy machine disturbs: it runs when the others have ended, alone
    case ${1##*/} in check_threads | check_tools) ;; *) return 1 ;; esac
}

checks=("$@")
for n in "${!checks[@]}"; do
    measures "${checks[$n]}" && continue
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-$(nproc)}" ]; do wait -n; done
    run "${checks[$n]}" "$n" &
done
wait
for n in "${!checks[@]}"; do measures "${checks[$n]}" && run "${checks[$n]}" "$n"; done
for n in "${!checks[@]}"; do show "${checks[$n]}" "$n"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
