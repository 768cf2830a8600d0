#!/bin/sh
# init.sh RECORD SANDBOX UID GID GROUPS [--join FILE]... [--map-ids FIRST] [--fetch PYTHON FETCH CONFINE]
#         [--read-only PYTHON SCRIPT] [--drop DIR] [--scratch DIR]... [--cover DIR]... [--hide FILE]... [--device PATH]... -- COMMAND [ARGUMENT]...
#
# The first process of a container: furnishes the container's view of the machine and becomes its command.
#
# Theory of operation: it starts as the host's root, process 1 of a new PID namespace, in a new mount namespace, a slave
# of the host's (what is mounted here stays here; what the host unmounts goes away here), in a new IPC namespace, and in
# the container's network namespace. The container shares the host's file system, and a process with uid 0 owns host
# files even when it has no capability at all. So whatever could lift a limit or reach another container is covered
# here, while there still is a capability to mount, and can be uncovered by nobody inside:
#
#   RECORD/init       who this is on the host, "pid start-time"; read from the host's proc, which shows its numbers
#   --join FILE       a cgroup.procs file: the cgroups hold from here on
#   --map-ids FIRST   the user is not the host's: a user namespace, whose uids and gids 0-65535 are FIRST and on outside
#   --fetch PYTHON FETCH CONFINE
#                     when all else is there, have the program FETCH fetch what RECORD/orders says; for so long CONFINE
#                     makes all but the sandbox read-only. RECORD/fetched has a line when that begins, and one at its end
#   --read-only PYTHON SCRIPT
#                     every file system, and no devices on them, but for what is mounted hereafter; it no longer is a
#                     slave, since what the host mounts later would be writable
#   --drop DIR        where the network namespaces are kept, a mount of its own: a thousand copies of others' mounts go
#   --scratch DIR     an empty, writable directory in its place, as /tmp is
#   --cover DIR       a directory of the agent's: an empty one in its place, with the sandbox alone bound back
#   --hide FILE       a file outside these, for instance a socket. If the host makes the file anew, the new one shows
#   --device PATH     a device of the host's below /dev, besides the usual ones, with its owner and permissions
#   /proc             of this PID namespace; what changes the machine is read-only
#   /sys              of this network namespace, read-only; no bpf pins and no cgroups below it
#   /dev              devices without power over the machine: uid 0 could open the host's disks, even write on them
#   RECORD/furnished  not empty from here on: what goes wrong now is the command's affair
#
# Last, setpriv drops all capabilities but NET_RAW (ping) from every set, the bounding set included, and becomes the
# user. Only then is the container's environment taken on: it comes from RECORD/environment, as a script on standard
# input that exports the variables and becomes the command. So the environment is in no command line, for all to read,
# and it cannot lead a process of root's (PATH, LD_PRELOAD).
set -eu
umask 022

record=$1 sandbox=$2 uid=$3 gid=$4 groups=$5
shift 5
read_only='' fetcher='' devices='null zero full random urandom tty' first_id=''

# Fields 1 and 22 of proc(5)'s stat. Reading it must not fork: "self" would be somebody else.
identity() {
    read -r stat </proc/self/stat
    set -- $stat
    echo "$1 ${22}"
}

# The sandbox at its path again, if that is below the directory that has just been covered: the shell stands in it.
bind_back() {
    case $sandbox in "$1"/*)
        mkdir -p "$sandbox"
        mount --no-canonicalize --rbind . "$sandbox"
        [ -z "$read_only" ] || mount -o remount,bind,rw,nosuid,nodev "$sandbox"
        cd "$sandbox" ;;
    esac
}

cover() {
    mount -t tmpfs -o size=64k,mode=755,nosuid,nodev,noexec portslice "$1"
    bind_back "$1"
    mount -o remount,ro "$1"
}

# The host's devices are copied from below the new directory, where only the working directory leads.
make_devices() {
    cd /dev
    mount -t tmpfs -o size=64k,mode=755,nosuid,noexec portslice /dev
    cp -a --parents "$@" /dev
    mkdir /dev/pts /dev/shm
    ln -s pts/ptmx /dev/ptmx
    ln -s /proc/self/fd /dev/fd
    ln -s fd/0 /dev/stdin
    ln -s fd/1 /dev/stdout
    ln -s fd/2 /dev/stderr
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,nosuid,noexec portslice /dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev portslice /dev/shm
}

# A user namespace with its ids mapped, as a process to enter it by: the mapping must be there before the first execve,
# which else takes the capabilities away that entering gives. It ends when told so on descriptor 4.
hold_user_namespace() {
    mkfifo "$record/held" "$record/release"
    exec 3<>"$record/held" 4<>"$record/release"
    { unshare --user sh -c 'echo $$ >&3; read -r _ <&4' || echo >&3; } &
}

# The program comes on standard input: it may lie below what was covered.
fetch() {
    unshare --mount sh -c '
        set -e
        [ -n "$3" ] || "$1" -I -S "$2"
        mount --no-canonicalize --bind "$4" "$4"
        mount -o remount,bind,rw,nosuid,nodev "$4"
        cd "$4"
        exec "$1" -I -S -' sh "$fetcher" "$confine" "$read_only" "$sandbox" <&5 3>&- 4>&- 7>&- 9>&-
}

identity >"$record/init.new"
mv "$record/init.new" "$record/init"
exec <"$record/environment"
cd "$sandbox"

while [ "$1" = --join ]; do
    echo 0 >"$2"
    shift 2
done
if [ "$1" = --map-ids ]; then
    first_id=$2
    hold_user_namespace
    shift 2
fi
if [ "$1" = --fetch ]; then
    fetcher=$2 confine=$4
    exec 5<"$3" 6<"$record/orders"
    shift 4
fi
if [ "$1" = --read-only ]; then
    read_only=yes
    mount --make-rprivate /
    "$2" -I -S "$3"
    # A descriptor open for writing would have kept the file system from it.
    mount --bind "$record" "$record"
    mount -o remount,bind,rw "$record"
    shift 3
fi
exec 9>"$record/furnished"
[ -z "$fetcher" ] || exec 7>"$record/fetched"
while [ "$1" != -- ]; do
    case $1 in
        --drop) umount --lazy "$2" ;;
        --scratch) mount -t tmpfs -o mode=1777,nosuid,nodev portslice "$2"
            bind_back "$2" ;;
        --cover) cover "$2" ;;
        --hide) mount --bind /dev/null "$2" ;;
        --device) devices="$devices ${2#/dev/}" ;;
        *) echo "init.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
shift

mount -t proc -o nosuid,nodev,noexec proc /proc
for name in sys sysrq-trigger irq bus fs pressure acpi mtrr scsi driver asound latency_stats dynamic_debug; do
    [ -e "/proc/$name" ] || continue
    mount -o bind,ro,nosuid,nodev,noexec "/proc/$name" "/proc/$name"
done
# The tmpfs between: in the host's network namespace the kernel would see the same sysfs twice and refuse.
mount -t tmpfs -o ro,size=64k portslice /sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
make_devices $devices
cd "$sandbox"
bind_back /dev
mount -o remount,ro /dev

if [ -n "$fetcher" ]; then
    echo begun >&7
    fetch
    echo done >&7
    exec 5<&- 6<&- 7>&-
fi

# --pdeathsig: changing the user would forget that the end of the process outside is ours, too.
set -- setpriv --reuid "$uid" --regid "$gid" "$groups" --pdeathsig KILL \
    --bounding-set=-all,+net_raw --inh-caps=-all --ambient-caps=-all sh -s -- "$@"

if [ -z "$first_id" ]; then
    echo furnished >&9
    exec "$@" 9>&-
fi
read -r holder <&3
[ -n "$holder" ]
echo "0 $first_id 65536" >"/proc/$holder/uid_map"
echo "0 $first_id 65536" >"/proc/$holder/gid_map"
exec nsenter --user="/proc/$holder/ns/user" sh -c 'echo >&4; echo furnished >&9; exec "$@" 3>&- 4>&- 9>&-' sh "$@"
