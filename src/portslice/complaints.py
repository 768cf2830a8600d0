"""Warnings of what others do wrong, which they may do as often as they like."""

import logging
import time


class Complaints:
    """Warns at most once in a while.

    :param log: where.
    :param secs: from one warning to the next.
    """

    def __init__(self, log: logging.Logger, secs: float) -> None:
        self._log = log
        self._secs = secs
        self._due = 0.0

    def warning(self, text: str, *arguments: object) -> None:
        """Log it, or pass it over."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._secs
            self._log.warning(text, *arguments)
