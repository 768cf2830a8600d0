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
        self._states: list[str] = []
        self._told = 0
        threading.Thread(target=self._read, daemon=True).start()

    def state(self) -> str:
        """The next one of its task. A state that is told again, as after a change of masters, is none."""
        until(lambda: len(self._states) > self._told, "status")
        self._told += 1
        return self._states[self._told - 1]

    def kill(self) -> None:
        """Let it kill its task."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in iter(self._process.stdout.readline, ""):
            state = json.loads(line)["state"]
            if state not in self._states[-1:]:
                self._states.append(state)


@contextmanager
def started(bed: Testbed, namespace: Path, library: str, *arguments: str) -> Iterator[Program]:
    """Start a framework; it must end by itself.

    :param arguments: MASTER NAME PORT COMMAND, and what else it takes.
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
