"""How many files the agent may have open, and its containers.

A container costs the agent five descriptors: of its end, of its netlink socket, of three levels of memory pressure. The
usual soft limit of 1,024 would end at two hundred containers. It exists for programs that use select(2), so the agent,
which does not, may raise its own; containers get what the agent was started with.
"""

import resource

_inherited = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_limit() -> None:
    """Let this process open as many as the hard limit allows."""
    hard = _inherited[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def inherited() -> list[str]:
    """What to put before a command (prlimit(1)), so that it starts with the limits that this process started with."""
    if resource.getrlimit(resource.RLIMIT_NOFILE) == _inherited:
        return []
    return ["prlimit", f"--nofile={':'.join(map(_text, _inherited))}"]


def _text(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
