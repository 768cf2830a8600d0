"""Asks the agent again and again, in a thread of its own, so that keys are answered while an answer is awaited."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from portslice.errors import PortsliceError

T = TypeVar("T")
_RETRY_SECS = 0.5
_SLOW_SECS = 3.0
_FIRST_SECS = 0.5  # to the second request: without it there are no rates


class Sampler(Generic[T]):
    """Answers, or the errors that came instead, in order."""

    def __init__(self, ask: Callable[[], T], interval: float, notify: Callable[[], None]) -> None:
        """:param interval: from one request to the next, seconds; it may be set at any time.
        :param notify: is called, by the thread, when there is something to `take`.
        """
        self._ask = ask
        self._interval = interval
        self._notify = notify
        self._answers: deque[T | Exception] = deque()
        self._changed = threading.Event()
        self._paused = False
        self._asked: float | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> list[T | PortsliceError]:
        """What has come since.

        :raises Exception: `ask` failed with another error than a PortsliceError; nothing will come any more.
        """
        answers: list[T | PortsliceError] = []
        while self._answers:
            answer = self._answers.popleft()
            if isinstance(answer, Exception) and not isinstance(answer, PortsliceError):
                raise answer
            answers.append(answer)
        return answers

    def waiting(self) -> str:
        """That the answer is long in coming, in words; empty if it is not."""
        asked = self._asked
        secs = 0.0 if asked is None else time.monotonic() - asked
        return f"no answer for {secs:.0f} s" if secs >= _SLOW_SECS else ""

    def set(self, interval: float, *, paused: bool) -> None:
        """Ask so often, or not at all while paused."""
        if (interval, paused) != (self._interval, self._paused):
            self._interval, self._paused = interval, paused
            self._changed.set()

    def _run(self) -> None:
        wait = min(_FIRST_SECS, self._interval)
        while True:
            begun = time.monotonic()
            if not self._paused:
                self._asked = begun
                try:
                    self._answers.append(self._ask())
                except PortsliceError as error:
                    self._answers.append(error)
                    wait = min(_RETRY_SECS, self._interval)
                except Exception as error:
                    self._answers.append(error)
                    self._notify()
                    return
                self._asked = None
                self._notify()
            # An agent that is slow to answer gets as much rest as the answer took.
            wait = max(wait, 2 * (time.monotonic() - begun))
            while (left := begun + wait - time.monotonic()) > 0 or self._paused:
                if self._changed.wait(None if self._paused else left):
                    self._changed.clear()
                    wait = self._interval
            wait = self._interval
