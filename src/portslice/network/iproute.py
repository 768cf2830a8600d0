"""pyroute2, for what is done once a container: links, addresses, routes, neighbours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute


@contextmanager
def routes() -> Iterator[Any]:
    """pyroute2's IPRoute in the calling thread's network namespace."""
    with IPRoute() as iproute:
        yield iproute
