"""The default executor: runs the tasks of a group, or one task that is checked, as processes of one container.

Theory of operation: it is a program of its own, `command()`, which the agent starts inside the executor's container, as
the container's user. It needs the standard library alone and none of the agent's files but this package and the pure
modules below it, since it starts often and runs as anybody. It speaks Mesos' v1 executor API to the agent:

    link.py         the connection that is held to the agent: events in, status updates out, until acknowledged
    api.py          its calls and events as HTTP
    supervisor.py   events become tasks; how the end of one is the end of others, and of the executor
    task.py         the life of one task, as its updates tell it
    definition.py   what a TaskInfo asks for
    checks.py       whether it is well: CheckInfo and HealthCheck
    probes.py       one look: a command, an HTTP request, a TCP connection
    process.py      processes, and what they leave behind
    ending.py       how a command ended, in Mesos' words; the agent's own command tasks have them, too

All tasks share the container: its network with its ports, so that they reach each other over 127.0.0.1, its cgroups
(Mesos' `share_cgroups`), its user, its view of the machine. That is Mesos' default executor but for the containers
nested in it. Everything happens in one thread, in an event loop; the calls alone are made in threads.
"""

import functools
import os
import pwd
import subprocess
import sys

from portslice.errors import ContainerError

_PROGRAM = os.path.join(os.path.dirname(os.path.realpath(__file__)), "__main__.py")
_PATIENCE_SECS = 60.0


def command(*, switch_user: bool = True) -> tuple[str, ...]:
    """The command line of the program.

    It is the interpreter below a virtual environment, which need not be readable, without anything of the user's.

    :param switch_user: the container runs as the user that is asked for, and so must its tasks; otherwise what they ask
        for is nothing, as with the agent's --no-switch_user.
    """
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return interpreter, "-I", "-S", "-B", _PROGRAM, *(() if switch_user else ("--no-switch_user",))


@functools.cache
def check_readable(uid: int, gid: int) -> None:
    """Whether this user (ids of the host) can run the program, by running it to say so. That takes as long as its
    start, and once for a user who can.

    :raises ContainerError: it cannot be read, and what to do about it.
    """
    try:
        done = subprocess.run(
            [*command(), "--version"],
            user=uid,
            group=gid,
            extra_groups=_groups(uid, gid),
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_SECS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ContainerError(_unreadable(uid, str(error))) from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").split("\n")
        raise ContainerError(_unreadable(uid, next((line for line in reversed(lines) if line), "no reason given")))


def _groups(uid: int, gid: int) -> list[int]:
    """As a container of this user has them."""
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return []


def _unreadable(uid: int, why: str) -> str:
    return (
        f"The default executor cannot be run by uid {uid}: {why}. Install portslice and its Python where every user"
        " can read them (not below /root, for instance)"
    )
