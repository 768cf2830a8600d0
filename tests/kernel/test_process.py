"""Process handles, on real processes."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator

import pytest

from portslice.containers.process import ProcessHandle
from portslice.errors import NotFoundError


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_a_living_process_can_be_signalled_and_waited_for(sleeper: subprocess.Popen[bytes]) -> None:
    handle = ProcessHandle.of(sleeper.pid)
    assert handle.alive()
    assert not handle.wait(0.05)
    assert handle.signal(signal.SIGTERM)
    assert handle.wait(5)
    # not reaped yet: a zombie is no process
    assert not handle.alive()
    assert not handle.signal(signal.SIGTERM)
    assert handle.wait(0)
    with pytest.raises(NotFoundError):
        ProcessHandle.of(sleeper.pid)
    assert sleeper.wait() == -signal.SIGTERM
    assert handle.pidfd() is None


def test_a_reused_process_id_is_somebody_else(sleeper: subprocess.Popen[bytes]) -> None:
    living = ProcessHandle.of(sleeper.pid)
    former = ProcessHandle(living.pid, living.start_time - 1)
    assert not former.alive()
    assert former.pidfd() is None
    assert not former.signal(signal.SIGKILL)
    assert former.wait(0)
    assert living.alive()


def test_the_pidfd_becomes_readable_at_the_end(sleeper: subprocess.Popen[bytes]) -> None:
    descriptor = ProcessHandle.of(sleeper.pid).pidfd()
    assert descriptor is not None
    try:
        assert select.select([descriptor], [], [], 0)[0] == []
        sleeper.kill()
        assert select.select([descriptor], [], [], 5)[0] == [descriptor]
    finally:
        os.close(descriptor)


def test_a_strange_command_name_does_not_confuse_it() -> None:
    command = ["sh", "-c", "printf 'a) Z 1 (b' >/proc/$$/comm; echo; read -r _"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        with open(f"/proc/{shell.pid}/comm") as comm:
            assert comm.read() == "a) Z 1 (b\n"
        assert ProcessHandle.of(shell.pid).alive()


def test_it_survives_json_and_the_launchers_files() -> None:
    handle = ProcessHandle.of(os.getpid())
    assert ProcessHandle.from_json(json.loads(json.dumps(handle.to_json()))) == handle
    assert ProcessHandle.parse(f"{handle.pid} {handle.start_time}\n") == handle
    with pytest.raises(ValueError, match="unpack"):
        ProcessHandle.parse("12")
