#!/bin/sh
# supervise.sh RECORD COMMAND [ARGUMENT]...
#
# Runs the command and writes its exit status to RECORD/exit_status.
#
# Theory of operation: a process's exit status goes to its parent and is lost with it. The agent may end and start again
# at any time, so it is not the parent: this shell is, one for each container, and it outlives the agent. It belongs to
# no terminal and to no session of the agent's. It first writes who it is to RECORD/supervisor ("pid start-time", so that
# a reused pid cannot be mistaken for it), and it ends when the status is written: whoever watches it end finds the status.
# Both files appear under their names complete or not at all.
#
# The status is 0-255; 128+n if signal n ended the command. What cannot even be started has a status, too (127: not
# found, 126: not executable).
set -eu

record=$1
shift

# Fields 1 and 22 of proc(5)'s stat. Reading it must not fork: "self" would be somebody else.
identity() {
    read -r stat </proc/self/stat
    set -- $stat
    echo "$1 ${22}"
}

# A handler, not '': the command would inherit that these signals are ignored.
trap : HUP INT TERM

identity >"$record/supervisor.new"
mv "$record/supervisor.new" "$record/supervisor"

status=0
"$@" || status=$?

echo "$status" >"$record/exit_status.new"
mv "$record/exit_status.new" "$record/exit_status"
