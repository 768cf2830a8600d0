"""`portslice run`."""

import argparse
import grp
import json
import pwd
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

from portslice.cli import values
from portslice.cli.client import AgentGoneError, Client
from portslice.errors import PortsliceError

T = TypeVar("T")

_RECONNECT_SECS = 60.0
_LAST_ID = 2**32 - 2  # the next one means "none"
_ENDING = (signal.SIGINT, signal.SIGTERM)
_EPILOG = """\
The command's output and exit status are passed on; -d leaves it running instead. It reads nothing from the terminal.
Inside it finds its ports in PORT0, PORT1, … and PORTS (PORT is the first), and its directory in MESOS_SANDBOX.
Ctrl-C ends it with SIGTERM, and a second time with SIGKILL.

examples:
  portslice run -- python3 -c 'print("hello")'
  portslice run --name web --cpus 0.5 --mem 64MB --ports 1 -- sh -c 'exec python3 -m http.server $PORT0'
  portslice run --egress 10MB --ingress 2MB -- ./crawler
  portslice run --name game -d --ports 31000-31004 -- ./server --port 31000
  portslice run --userns --read-only -- ./not-to-be-trusted

exit status: the command's; 128+n if signal n ended it; 1 if it could not be started."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.usage = "portslice run [options] -- COMMAND [ARGUMENT ...]"
    parser.add_argument("--name", help="name of the container (default: made up)")
    parser.add_argument("--cpus", type=values.cpus, help="share of CPUs, e.g. 0.5 (default: not limited)")
    parser.add_argument("--mem", type=values.bytes_, help="memory limit, e.g. 64MB (default: not limited)")
    parser.add_argument("--disk", type=values.bytes_, help="disk for its directory, e.g. 1GB (default: not limited)")
    parser.add_argument(
        "--ports", type=values.ports, default=0, help="how many assigned ports (5), or which (31000-31004)"
    )
    for direction, verb in (("egress", "sends"), ("ingress", "receives")):
        text = f"limit of what it {verb} in bytes per second, e.g. 10MB; 0: none (default: as the agent's flags say)"
        parser.add_argument(f"--{direction}", type=values.rate, metavar="RATE", help=text)
    parser.add_argument(
        "-e", "--env", type=_variable, action="append", default=[], metavar="NAME=VALUE", help="environment variable"
    )
    parser.add_argument(
        "--uri", action="append", default=[], metavar="URI",
        help="fetch into its directory first, and extract if it is an archive: a path, file://, http:// or https://",
    )
    parser.add_argument(
        "--user",
        type=_user,
        metavar="USER[:GROUP]",
        help="user and group to run as, names or numbers (default: you; others: root only)",
    )
    parser.add_argument(
        "--userns", action="store_true", help="user namespace: its users, root too, own nothing on the host"
    )
    parser.add_argument(
        "--read-only",
        action="store_true",
        help="file system read-only, but for the container's directory and a private /tmp",
    )
    parser.add_argument(
        "--device", action="append", default=[], metavar="PATH",
        help="show a device of the host's, e.g. /dev/nvidia0 (default: only null, random, tty and the like)",
    )
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait; print the container's name")
    parser.add_argument("argv", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    """Run it."""
    command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not command:
        options.parser.error("a COMMAND is missing: portslice run [options] -- COMMAND [ARGUMENT ...]")
    client = Client(options.socket)
    request: dict[str, Any] = {
        "command": command,
        "name": options.name,
        "cpus": options.cpus,
        "mem": options.mem,
        "disk": options.disk,
        "ports": options.ports,
        "egress": options.egress,
        "ingress": options.ingress,
        "environment": dict(options.env),
        "uris": options.uri,
        "user_namespace": options.userns,
        "read_only": options.read_only,
        "devices": options.device,
    }
    if options.user is not None:
        request["uid"], request["gid"] = options.user
    if options.detach:
        container = client.launch(_given(request))
        print(json.dumps(container, indent=2) if options.json else container["name"])
        return 0
    if options.uri:  # to fetch may take long: it can be ended, too, by the name
        request["name"] = options.name or f"c-{uuid.uuid4()}"
        for number in _ENDING:
            signal.signal(number, _forward(client, request["name"]))
        return _attached(client, client.launch(_given(request))["id"])
    # A signal between the launch and the handlers waits for them: the container must not be left behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        container = client.launch(_given(request))
        for number in _ENDING:
            signal.signal(number, _forward(client, container["id"]))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return _attached(client, container["id"])


def _given(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value is not None}


def _attached(client: Client, container_id: str) -> int:
    """Pass the output on until the container has ended, over restarts of the agent too."""
    streams = (("stdout", sys.stdout.buffer), ("stderr", sys.stderr.buffer))
    readers = [_Reader(client, container_id, name, stream) for name, stream in streams]
    for reader in readers:
        reader.start()
    ended = _persist(lambda: client.wait(container_id))
    for reader in readers:
        reader.join()
    for reader in readers:
        if reader.error is not None:
            raise reader.error
    if ended["exit_status"] is None:
        raise PortsliceError(f"The container '{ended['name']}' ended; {ended['message'].lower()}")
    if ended["message"]:
        print(f"portslice: {ended['message'].partition(chr(10))[0]}", file=sys.stderr)
    return int(ended["exit_status"])


class _Reader(threading.Thread):
    """Copies one output. If nobody takes it any more, the container is ended, as SIGPIPE ends a plain command."""

    def __init__(self, client: Client, container_id: str, name: str, stream: BinaryIO) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._container_id = container_id
        self._name = name
        self._stream = stream
        self._offset = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            _persist(self._copy)
        except (OSError, PortsliceError) as error:  # OSError: of the stream alone; the client has its own
            self.error = error
            with suppress(PortsliceError):
                self._client.kill(self._container_id, "SIGTERM")

    def _copy(self) -> None:
        for data in self._client.output(self._container_id, self._name, self._offset):
            self._offset += len(data)
            self._stream.write(data)
            self._stream.flush()


def _persist(request: Callable[[], T]) -> T:
    """Repeat a request while no agent is there to answer it, until a new one is."""
    deadline = None
    while True:
        try:
            return request()
        except AgentGoneError:
            now = time.monotonic()
            deadline = deadline or now + _RECONNECT_SECS
            if now > deadline:
                raise
            time.sleep(0.2)


def _forward(client: Client, container_id: str) -> Any:
    tried = False

    def forward(_number: int, _frame: object) -> None:
        nonlocal tried
        with suppress(PortsliceError):  # it may have just ended
            client.kill(container_id, "SIGKILL" if tried else "SIGTERM")
        tried = True

    return forward


# Values of options; argparse shows what is wrong with them.


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is no environment variable: write NAME=VALUE")
    return name, value


def _user(text: str) -> tuple[int, int]:
    """(uid, gid)"""
    user, colon, group = text.partition(":")
    uid, gid = _uid(user)
    return uid, _gid(group) if colon else gid


def _uid(text: str) -> tuple[int, int]:
    """uid, and gid by default"""
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        if text.isdecimal() and int(text) <= _LAST_ID:
            return int(text), int(text)
        raise argparse.ArgumentTypeError(f"there is no user '{text}'") from None
    return entry.pw_uid, entry.pw_gid


def _gid(text: str) -> int:
    if text.isdecimal() and int(text) <= _LAST_ID:
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group '{text}'") from None
