"""The status updates of one task, delivered at least once and in order.

One update is on its way at a time. It is sent again after 10 s, 20 s, ... up to 10 min, until the framework has
acknowledged it by its uuid; then comes the next one. An acknowledgement of anything else is an echo of an update that
was sent twice. All of it is on record before it happens, so that the next agent goes on where this one stopped.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from portslice.engines.mesos.schema.messages_pb2 import StatusUpdate
from portslice.engines.mesos.schema.record_pb2 import TaskRecord

log = logging.getLogger(__name__)

RETRY_MIN_SECS = 10.0
RETRY_MAX_SECS = 600.0
_KEPT = 32  # of those that the framework has


class Stream:
    """The updates of a record.

    :param save: writes the record down.
    :param send: sends an update if there is a master; otherwise does nothing.
    """

    def __init__(
        self, record: TaskRecord, save: Callable[[TaskRecord], None], send: Callable[[StatusUpdate], None]
    ) -> None:
        self._record = record
        self._save = save
        self._send = send
        self._retry: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> StatusUpdate | None:
        """The one that is on its way."""
        updates = self._record.updates
        return updates[self._record.acknowledged] if self._record.acknowledged < len(updates) else None

    def add(self, updates: Iterable[StatusUpdate]) -> None:
        """Have them delivered after all others."""
        idle = self.pending is None
        if self._record.acknowledged > 2 * _KEPT:  # a health check tells of its findings for years
            del self._record.updates[: self._record.acknowledged - _KEPT]
            self._record.acknowledged = _KEPT
        self._record.updates.extend(updates)
        self._save(self._record)
        if idle:
            self.resend()

    def acknowledge(self, uuid: bytes) -> StatusUpdate | None:
        """The framework has it; the update, if it is the one that was on its way."""
        update = self.pending
        if update is None or update.uuid != uuid:
            return None
        self._record.acknowledged += 1
        self._save(self._record)
        self.resend()
        return update

    def resend(self) -> None:
        """Send what is on its way, now and until it is acknowledged."""
        self.stop()
        self._transmit(RETRY_MIN_SECS)

    def stop(self) -> None:
        """Send nothing more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _transmit(self, retry_secs: float) -> None:
        update = self.pending
        if update is None:
            return
        update.latest_state = self._record.updates[-1].status.state
        self._send(update)
        later = min(2 * retry_secs, RETRY_MAX_SECS)
        self._retry = asyncio.get_running_loop().call_later(retry_secs, self._transmit, later)
