"""Patience: what the kernel does in its own time is polled for, long enough for an emulated machine."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PATIENCE_SECS = 60.0


def until(condition: Callable[[], T | None], what: str) -> T:
    """The first true value of `condition`.

    :param what: is waited for, as the failure says.
    """
    deadline = time.monotonic() + _PATIENCE_SECS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still no {what} after {_PATIENCE_SECS:g} s"
        time.sleep(0.02)
    return value
