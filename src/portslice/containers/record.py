"""What is on disk about one launched container, written by the launcher and its scripts.

    environment   the script that becomes the command; it may hold secrets, so the directory is root's alone
    supervisor    "pid start-time" of the shell that waits for the container's end
    init          "pid start-time" of the container's first process, by the host's numbers
    orders        what is to be fetched before the command, if anything; URIs may hold secrets, too
    fetched       "begun", and another line when that is done
    furnished     not empty once all is set up for the command
    exit_status   0-255, once the container has ended

A later agent learns from it all that the one knew which launched the container.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from portslice.containers.process import ProcessHandle


@dataclass(frozen=True)
class Record:
    directory: Path

    @property
    def supervisor(self) -> ProcessHandle | None:
        """The shell that ends when the exit status is on record. None before it has begun."""
        return self._process("supervisor")

    @property
    def init(self) -> ProcessHandle | None:
        """The first process: it hands signals on to the command, and killing it ends all the others. None before it
        has begun."""
        return self._process("init")

    @property
    def fetching(self) -> bool:
        """Whether what the container is to find in its sandbox is being fetched, or could not be."""
        return self._read("fetched") == "begun\n"

    @property
    def furnished(self) -> bool:
        """Whether the container's view of the machine was set up, so that what came then was the command's affair."""
        return bool(self._read("furnished"))

    @property
    def exit_status(self) -> int | None:
        """0-255, 128+n after signal n. None while the container runs, and for ever if its supervisor was killed."""
        text = self._read("exit_status")
        return None if text is None else int(text)

    def remove(self) -> None:
        """Forget the container, if there is anything to forget."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _process(self, name: str) -> ProcessHandle | None:
        text = self._read(name)
        return None if text is None else ProcessHandle.parse(text)

    def _read(self, name: str) -> str | None:
        try:
            return (self.directory / name).read_text()
        except FileNotFoundError:
            return None
