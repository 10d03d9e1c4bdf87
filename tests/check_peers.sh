#!/usr/bin/env bash
# tools/peers.mjs: what it tells programs with llama-bench's flags, what it makes of their JSON, and how a peer that fails
# leaves the others alone. The programs are stand-ins that print speeds they were given; ours is build/bench.
set -u
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
check() { # name
    if "$1"; then echo "  ok   $1" && passed=$((passed + 1)); else echo "  FAIL $1" && failed=$((failed + 1)); fi
}
if ! command -v node >/dev/null; then
    echo "  skip tools/peers.mjs: node is not installed"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi

# bench DIALECT SPEED: --help and rows as llama.cpp's llama-bench (d) or ik_llama.cpp's (gp) has them; the first sample of
# two is a tenth. Its command lines go to $tmp/DIALECT.args. "two": prints each row twice; "torn": no JSON; "fail": fails.
cat >"$tmp/bench" <<'FAKE'
#!/usr/bin/env bash
kind=$1 speed=$2 p=512 n=128 d=0 r=5 t=8
shift 2
echo "$*" >>"$(dirname "$0")/$kind.args"
[ "$kind" = fail ] && [ "$1" != --help ] && echo "main: error: failed to load model" >&2 && exit 1
while [ $# -gt 0 ]; do
    case $1 in
        --help)
            echo "  -n, --n-gen <n>"
            case $kind in gp) echo "  -gp <pp,tg>" ;; none) ;; *) echo "  -d, --n-depth <n>" ;; esac
            exit 0 ;;
        -p) p=$2 ;;
        -n) n=$2 ;;
        -d) d=$2 ;;
        -gp) p=${2%,*} n=${2#*,} ;;
        -r) r=$2 ;;
        -t) t=$2 ;;
    esac
    shift 2
done
[ "$kind" = torn ] && echo "no rows today" && exit 0
samples=$speed
[ "$r" = 2 ] && samples="$((speed / 10)), $speed"
depth="\"n_depth\": $d, "
[ "$kind" = gp ] && depth=
row="{\"n_prompt\": $p, \"n_gen\": $n, $depth\"n_threads\": $t, \"samples_ts\": [ $samples ]}"
echo "== a line that is no JSON"
echo "["
[ "$kind" = two ] && echo "$row,"
echo "$row"
echo "]"
FAKE
mkdir "$tmp/npm"
printf '#!/bin/sh\nexit 1\n' >"$tmp/npm/npm"
chmod +x "$tmp/bench" "$tmp/npm/npm"
${TESSERA_BUILD:-build}/synth tiny F32 "$tmp/tiny.gguf" 2>/dev/null # a model of a moment

peers() { # PEER_BENCH, arguments...
    PEER_BENCH=$1 PATH="$tmp/npm:$PATH" PEER_MODELS=$tmp/tiny.gguf PEER_ROUNDS=${rounds:-1} PEER_THREADS=1 \
        PEER_FOLDER="$tmp/peers" PEER_NPM=${npm:-0} node tools/peers.mjs "${@:2}" >"$tmp/out" 2>"$tmp/err"
}
shows() { # part, file
    grep -qF -- "$1" "$tmp/$2" && return
    printf '  expected: %s\n  found: %s\n' "$1" "$(cat "$tmp/$2")"
    return 1
}
# The row of a test, as words between bars without spaces: 1 model, 2 MiB, 3 test, 4 ours, 5 bound, 6 share, 7.. peers.
row() { grep -F "| $1 |" "$tmp/out" | sed 's/^| //; s/ |$//; s/ | /|/g'; }
field() { row "$1" | cut -d'|' -f"$2"; }

two_dialects() {
    rounds=2 peers "cpp=$tmp/bench d 1000; ik=$tmp/bench gp 50 -t 1" || { cat "$tmp/err" && return 1; }
    shows "| model | MiB | test | Tessera t/s | bound t/s | of the bound | cpp t/s | ik t/s | ratio to the best |" out &&
        shows "-m $tmp/tiny.gguf -p 0 -n 32 -d 4096 -r 1 -o json -t 1" d.args &&
        shows "-m $tmp/tiny.gguf -p 512 -n 0 -r 2 -o json -t 1" d.args &&
        shows "-m $tmp/tiny.gguf -p 4096 -n 0 -r 2 -o json -t 1" d.args &&
        shows "-t 1 -m $tmp/tiny.gguf -p 0 -n 0 -gp 4096,32 -r 1 -o json" gp.args &&
        [ "$(grep -c -- '-t 1.*-t 1' "$tmp/gp.args")" = 0 ] && [ "$(wc -l <"$tmp/gp.args")" = 9 ] || return
    local test
    for test in pp512 pp4096 tg32 "tg32 @ d4096"; do
        [ "$(field "$test" 7)" = "1000.0 (1000.0-1000.0)" ] && [ "$(field "$test" 8)" = "50.0 (50.0-50.0)" ] || return
    done
    cmp "$tmp/out" "$tmp/peers/table.md"
}
# From the table above: ours / 1000, against the faster of the two; the share is ours / bound.
ratios_follow() {
    local test ours ratio name bound share
    for test in pp512 "tg32 @ d4096"; do
        ours=$(field "$test" 4 | cut -d' ' -f1)
        read -r ratio _ name <<<"$(field "$test" 9 | tr -d '*')"
        [ "$name" = cpp ] && awk -v o="$ours" -v r="$ratio" 'BEGIN { d = o / 1000 - r; exit !(o > 0 && d * d < 1e-4) }' ||
            { row "$test" && return 1; }
    done
    bound=$(field tg32 5) share=$(field tg32 6) ours=$(field tg32 4 | cut -d' ' -f1)
    awk -v o="$ours" -v b="$bound" -v s="$share" 'BEGIN { if (s == "in cache") exit !(o > b)
        d = 100 * o / b - s; exit !(b > 0 && d < 0.6 && d > -0.6) }' || { row tg32 && return 1; }
    [ -z "$(field pp512 5)" ] && shows "memory reads" out
}
failing_peers_are_named() {
    peers "gone=$tmp/no-such-program; fail=$tmp/bench fail 5; torn=$tmp/bench torn 5; two=$tmp/bench two 5; ok=$tmp/bench d 5"
    [ $? = 1 ] && shows "error: gone: expected llama-bench's --help, found: " err &&
        shows "error: fail: tiny.gguf, pp512: main: error: failed to load model" err &&
        shows "error: torn: tiny.gguf, tg32: expected llama-bench's JSON on its standard output, found other text" err &&
        shows "error: two: tiny.gguf, tg32: expected one row, found 2" err || return
    [ "$(field pp512 7)$(field pp512 8)$(field pp512 9)" = "---" ] && [ "$(field pp512 10)" = "5.0 (5.0-5.0)" ] ||
        { row pp512 && return 1; }
    [ "$(grep -c '^error: ' "$tmp/err")" = 13 ] || { cat "$tmp/err" && return 1; } # gone, and four tests of three
}
other_threads_are_refused() {
    peers "wide=$tmp/bench d 5 -t 3"
    [ $? = 1 ] && shows "error: wide: tiny.gguf, pp512: n_threads: expected 1, found 3" err
}
depth_may_be_missing() {
    peers "old=$tmp/bench none 5" || { cat "$tmp/err" && return 1; }
    shows "old: its --help has neither --n-depth nor -gp" err && [ "$(field "tg32 @ d4096" 7)" = - ] &&
        [ "$(field tg32 7)" = "5.0 (5.0-5.0)" ]
}
peers_as_arguments() { peers "" "named=$tmp/bench d 7" && shows "| named t/s | ratio |" out; }
npm_may_be_missing() {
    npm=1 peers "ok=$tmp/bench d 5" || { cat "$tmp/err" && return 1; }
    shows "without llama.cpp: npm could not install node-llama-cpp" err && shows "| ok t/s | ratio |" out || return
    npm=1 peers "" && shows "skipped: there is no peer to compare with" out
}
settings_are_checked() {
    local bad
    for bad in "no-command" "a=x;a=y" "Tessera=x" "llama.cpp=x" "=x"; do
        peers "$bad"
        [ $? = 2 ] && [ ! -s "$tmp/out" ] && [ "$(grep -c '^error: ' "$tmp/err")" = "$(wc -l <"$tmp/err")" ] ||
            { echo "  $bad: $(cat "$tmp/err")" && return 1; }
    done
    rounds=0 peers "ok=$tmp/bench d 5"
    [ $? = 2 ] && shows "error: PEER_ROUNDS, PEER_THREADS and PEER_DEPTH: expected whole numbers from 1" err
}
check two_dialects
check ratios_follow
check failing_peers_are_named
check other_threads_are_refused
check depth_may_be_missing
check peers_as_arguments
check npm_may_be_missing
check settings_are_checked
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
