# Shared by the scripts beside it: paths and the way they report progress. To be sourced by bash.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# say MESSAGE...: one line about what happens next, on standard error so that standard output stays the command's own.
say() { printf '==> %s\n' "$*" >&2; }

# fail MESSAGE...: the reason and the end.
fail() {
    printf '%s: %s\n' "script/$(basename "$0")" "$*" >&2
    exit 1
}

# usage: print the calling script's opening comment.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# step TITLE COMMAND...: announce it, run it, and show its output only if it fails.
step() {
    local title=$1 output
    shift
    say "$title"
    if ! output=$("$@" 2>&1 </dev/null); then
        printf '%s\n' "$output" >&2
        fail "failed: $title"
    fi
}
