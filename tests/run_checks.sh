#!/usr/bin/env bash
# Run the checks (through $RUNNER if set), one more at a time than there are cores (JOBS), since some wait for others; the
# slowest first; show what each says in the given order and the seconds it took, end on "N passed, N failed, N skipped". A
# check that ends without its own closing line counts as one failure.
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

turn() { # check: 1 what would hold up the end, 2 the others, 3 what a busy machine disturbs (it runs alone)
    case ${1##*/} in
    check_attention | check_batch | check_draft | check_families | check_recurrent | check_serve | check_serve_tools | check_vit)
        echo 1 ;;
    check_threads) echo 3 ;;
    check_tools) [ -n "${TESSERA_TEST_QUICK-}" ] && echo 1 || echo 3 ;; # quick runs compare no speeds
    *) echo 2 ;;
    esac
}

checks=("$@") jobs=${JOBS:-$(($(nproc) + 1))}
for now in 1 2 3; do
    for n in "${!checks[@]}"; do
        [ "$(turn "${checks[$n]}")" = $now ] || continue
        while [ "$(jobs -rp | wc -l)" -ge "$([ $now = 3 ] && echo 1 || echo "$jobs")" ]; do wait -n; done
        run "${checks[$n]}" "$n" &
    done
done
wait
for n in "${!checks[@]}"; do show "${checks[$n]}" "$n"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
