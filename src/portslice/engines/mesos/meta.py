"""What an agent of a cluster must know again after a restart, below the work directory, where Mesos keeps it:

    meta/slaves/latest                 the id that the master gave, as a link to:
    meta/slaves/ID/slave.info          the SlaveInfo that was registered
    meta/slaves/ID/tasks/FRAMEWORK/TASK
                                       a TaskRecord: the task as it came, its status updates, which of them the
                                       framework has acknowledged
    meta/slaves/ID/executors/FRAMEWORK/EXECUTOR
                                       an ExecutorRecord, of an executor with a process of its own

A record is small and written whole, beside the old one, at each change and before anybody is told of it. It need not
reach the disk (fsync) for the same reason as the journal of containers: it is there for the next agent, and after a
crash of the machine no task is left that it could speak of. A disk that is full ends nothing: the tasks go on, and only
the next agent would know less.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from portslice.engines.mesos.schema.mesos_pb2 import SlaveID, SlaveInfo
from portslice.engines.mesos.schema.record_pb2 import ExecutorRecord, TaskRecord
from portslice.errors import ParseError

log = logging.getLogger(__name__)

Record = TaskRecord | ExecutorRecord
_R = TypeVar("_R", TaskRecord, ExecutorRecord)


class Meta:
    """The directory."""

    def __init__(self, work_directory: Path) -> None:
        self._slaves = work_directory / "meta" / "slaves"
        self._slave_id: str | None = None  # the link may be removed, for the next agent to be a new one
        with suppress(FileNotFoundError):
            self._slave_id = os.readlink(self.latest)

    @property
    def slave_id(self) -> SlaveID | None:
        """The id to register again with."""
        return SlaveID(value=self._slave_id) if self._slave_id is not None else None

    @property
    def _directory(self) -> Path:
        return self._slaves / (self._slave_id or "latest")

    @property
    def latest(self) -> Path:
        """The link without which the next agent is a new one."""
        return self._slaves / "latest"

    @property
    def info(self) -> SlaveInfo | None:
        """As it was registered last; None: never, or it cannot be read."""
        try:
            return SlaveInfo.FromString((self._directory / "slave.info").read_bytes())
        except FileNotFoundError:
            return None
        except DecodeError:
            log.error("'%s' cannot be read: it is not known what was registered", self.latest / "slave.info")
            return None

    def register(self, info: SlaveInfo) -> None:
        """The master knows this agent now, and as this; the id stands in the info."""
        directory = self._slaves / checked_id(info.id.value)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(directory / "slave.info", info)
        if self._slave_id != info.id.value:
            self._slave_id = info.id.value
            draft = self._slaves / "latest.new"
            draft.unlink(missing_ok=True)
            draft.symlink_to(info.id.value)
            draft.rename(self.latest)

    def unregister(self) -> None:
        """The next agent is to be a new one to the master."""
        if self._slave_id is not None:
            self.latest.unlink(missing_ok=True)
            shutil.rmtree(self._directory, ignore_errors=True)
            self._slave_id = None

    def write(self, record: Record) -> None:
        """Record a task or executor as it is now. An agent that is none of a cluster any more has no records."""
        if self._slave_id is None:
            return
        path = self._path(record)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(path, record)
        except OSError as error:
            log.error("Failed to checkpoint '%s': %s", path, error.strerror)

    def forget(self, record: Record) -> None:
        """Nobody will ask for it again."""
        path = self._path(record)
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    def tasks(self) -> list[TaskRecord]:
        """All tasks on record, in the order in which they came."""
        return sorted(self._load("tasks", TaskRecord), key=lambda record: record.received)

    def executors(self) -> list[ExecutorRecord]:
        """Likewise all executors."""
        return sorted(self._load("executors", ExecutorRecord), key=lambda record: record.received)

    def _load(self, kind: str, message: type[_R]) -> Iterator[_R]:
        """A record that cannot be read is left alone and said. Of one that was not written whole, nobody knows."""
        for path in list(self._directory.glob(f"{kind}/*/*")):
            if path.suffix == _DRAFT:
                path.unlink()
                continue
            try:
                yield message.FromString(path.read_bytes())
            except DecodeError:
                log.error("The record '%s' cannot be read and is left as it is", path)

    def _path(self, record: Record) -> Path:
        if isinstance(record, TaskRecord):
            kind, name = "tasks", record.task.task_id.value
        else:
            kind, name = "executors", record.executor.executor_id.value
        return self._directory.joinpath(kind, checked_id(record.framework.id.value), checked_id(name))


_DRAFT = ".\tnew"  # no id holds a tab


def checked_id(text: str) -> str:
    """An id that can be the name of a file (Mesos' common/validation.cpp).

    :raises ParseError: it cannot.
    """
    bad = any(c in "/\\" or c.isspace() or not c.isprintable() for c in text)
    if bad or text in ("", ".", "..") or len(text.encode()) > 242:
        raise ParseError(f"The id {text[:100]!r} contains invalid characters")
    return text


def _write(path: Path, message: Message) -> None:
    draft = path.with_name(path.name + _DRAFT)
    draft.write_bytes(message.SerializeToString())
    draft.rename(path)
