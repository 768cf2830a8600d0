"""Which uids and gids of the host stand for those of a container in a user namespace of its own.

Nobody keeps a list: a container's ephemeral block is its own on the whole host, whichever agent gave it, and no block
is smaller than 16 ports, so the 16 ports that it begins in name the container, and 4,096 ranges are enough for all.
They are the ids 0x70000000-0x7fffffff (1879048192-2147483647), which systemd's list of uids has as unused, above what
it and the tools of /etc/subuid give to others.
"""

from portslice.ports import PortRange

SIZE = 65536
"""Ids of a container; all that Debian gives to users, nobody's among them."""

SMALLEST_BLOCK = 16

_FIRST = 0x70000000


def first_id(ephemeral: PortRange) -> int:
    """The host's uid (and gid) that is 0 in the container with this ephemeral block."""
    return _FIRST + ephemeral.begin // SMALLEST_BLOCK * SIZE
