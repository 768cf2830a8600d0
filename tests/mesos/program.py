"""Programs on real libraries: *_framework.* run one task each, *_executor.* echo what their framework says."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portslice.demo.testbed import Testbed
from tests.kernel.waiting import until
from tests.mesos import install

_HERE = Path(__file__).parent


class Program:
    """A framework that runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[str] = []
        self._last = ""
        threading.Thread(target=self._read, daemon=True).start()

    def state(self) -> str:
        """The next one of its task. The same again is no new one: the agent has not heard in time that it has come."""

        def changed() -> bool:
            while self._lines:
                state = str(json.loads(self._lines.pop(0))["state"])
                if state != self._last:
                    self._last = state
                    return True
            return False

        until(changed, "status")
        return self._last

    def kill(self) -> None:
        """Let it kill its task."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(iter(self._process.stdout.readline, ""))


@contextmanager
def started(bed: Testbed, namespace: Path, library: str, *arguments: str) -> Iterator[Program]:
    """Start a framework; it must end by itself.

    :param arguments: MASTER NAME PORT COMMAND, of pymesos also USER PASSWORD.
    """
    words = bed.command(namespace, [*command(library, "framework"), *arguments])
    with subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Program(process)
        except BaseException:
            process.kill()
            raise
        assert process.wait(60) == 0


def command(library: str, kind: str) -> list[str]:
    """What runs a `framework` or an `executor`; the test is skipped if the library cannot be had."""
    try:
        if library == "mesos_go":
            return [str(install.mesos_go(_HERE / f"mesos_go_{kind}.go"))]
        return [str(install.frameworks()), str(_HERE / f"{library}_{kind}.py")]
    except install.Missing as missing:
        pytest.skip(str(missing))
