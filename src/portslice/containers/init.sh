#!/bin/sh
# init.sh RECORD SANDBOX UID GID GROUPS [--join FILE]... [--drop DIRECTORY] [--cover DIRECTORY]... [--hide FILE]... --
#     COMMAND [ARGUMENT]...
#
# The first process of a container: furnishes the container's view of the machine and becomes its command.
#
# Theory of operation: it starts as the host's root, process 1 of a new PID namespace, in a new mount namespace, a slave
# of the host's (what is mounted here stays here; what the host unmounts goes away here), and in the container's network
# namespace. The container shares the host's file system, and a process with uid 0 owns host files even when it has no
# capability at all. So whatever could lift a limit or reach another container is covered here, while there still is a
# capability to mount, and can be uncovered by nobody inside:
#
#   RECORD/init    who this is on the host, "pid start-time"; read from the host's proc, which shows the host's numbers
#   --join         a cgroup.procs file: the cgroups hold from here on
#   --drop         where the network namespaces are kept, a mount of its own: a thousand copies of others' mounts go
#   --cover        a directory of the agent's: an empty one in its place, with the sandbox alone bound back at its path
#   --hide         a file outside these, for instance a socket. If the host makes the file anew, the new one shows
#   /proc          of this PID namespace; what changes the machine is read-only
#   /sys           of this network namespace, read-only; no bpf pins and no cgroups below it
#
# Last, setpriv drops all capabilities but NET_RAW (ping) from every set, the bounding set included, and becomes the user. Only
# then is the container's environment taken on: it comes from RECORD/environment, as a script on standard input that
# exports the variables and becomes the command. So the environment is in no command line, for all to read, and it
# cannot lead a process of root's (PATH, LD_PRELOAD).
set -eu
umask 022

record=$1 sandbox=$2 uid=$3 gid=$4 groups=$5
shift 5

# Fields 1 and 22 of proc(5)'s stat. Reading it must not fork: "self" would be somebody else.
identity() {
    read -r stat </proc/self/stat
    set -- $stat
    echo "$1 ${22}"
}

# The shell stands in the sandbox and so can still reach it when its path is covered: "." is bound back.
cover() {
    mount -t tmpfs -o size=64k,mode=755,nosuid,nodev,noexec portslice "$1"
    case $sandbox in "$1"/*)
        mkdir -p "$sandbox"
        mount --no-canonicalize --rbind . "$sandbox"
        cd "$sandbox" ;;
    esac
    mount -o remount,ro "$1"
}

identity >"$record/init.new"
mv "$record/init.new" "$record/init"
exec <"$record/environment"
cd "$sandbox"

while [ "$1" != -- ]; do
    case $1 in
        --join) echo 0 >"$2" ;;
        --drop) umount --lazy "$2" ;;
        --cover) cover "$2" ;;
        --hide) mount --bind /dev/null "$2" ;;
        *) echo "init.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
shift

mount -t proc -o nosuid,nodev,noexec proc /proc
for name in sys sysrq-trigger irq bus fs; do
    [ -e "/proc/$name" ] || continue
    mount -o bind,ro,nosuid,nodev,noexec "/proc/$name" "/proc/$name"
done
# The tmpfs between: in the host's network namespace the kernel would see the same sysfs twice and refuse.
mount -t tmpfs -o ro,size=64k portslice /sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys

# --pdeathsig keep: changing the user would forget that the end of the process outside is ours, too.
exec setpriv --reuid "$uid" --regid "$gid" "$groups" --pdeathsig keep \
    --bounding-set=-all,+net_raw --inh-caps=-all --ambient-caps=-all sh -s -- "$@"
