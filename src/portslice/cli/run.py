"""`portslice run`."""

import argparse
import http.client
import json
import pwd
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from portslice.cli.client import Client
from portslice.errors import PortsliceError
from portslice.units import Bytes

_RECONNECT_SECS = 60.0
_EPILOG = """\
The command's output and exit status are passed on; -d leaves it running instead. It reads nothing from the terminal.
Inside it finds its ports in PORT0, PORT1, … and PORTS (PORT is the first), and its directory in MESOS_SANDBOX.
Ctrl-C ends it with SIGTERM, and a second time with SIGKILL.

examples:
  portslice run -- python3 -c 'print("hello")'
  portslice run --name web --cpus 0.5 --mem 64MB --ports 1 -- sh -c 'exec python3 -m http.server $PORT0'
  portslice run --name game -d --ports 31000-31004 -- ./server --port 31000

exit status: the command's; 128+n if signal n ended it; 1 if it could not be started."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.usage = "portslice run [options] -- COMMAND [ARGUMENT ...]"
    parser.add_argument("--name", help="name of the container (default: made up)")
    parser.add_argument("--cpus", type=_cpus, help="share of CPUs, e.g. 0.5 (default: not limited)")
    parser.add_argument("--mem", type=_bytes, help="memory limit, e.g. 64MB (default: not limited)")
    parser.add_argument("--ports", type=_ports, default=0, help="how many assigned ports (5), or which (31000-31004)")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="environment variable")
    parser.add_argument("--user", help="user to run as, name or number (default: you; another one: root only)")
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait; print the container's name")
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    """Run it."""
    client = Client(options.socket)
    request: dict[str, Any] = {
        "command": options.argv,
        "name": options.name,
        "cpus": options.cpus,
        "mem": options.mem,
        "ports": options.ports,
        "environment": _environment(options.env),
    }
    if options.user is not None:
        request["uid"], request["gid"] = _user(options.user)
    container = client.launch({name: value for name, value in request.items() if value is not None})
    if options.detach:
        print(json.dumps(container) if options.json else container["name"])
        return 0
    return _attached(client, container["id"])


def _attached(client: Client, container_id: str) -> int:
    """Pass the output on until the container has ended, over restarts of the agent too."""
    signal.signal(signal.SIGINT, _forward(client, container_id))
    signal.signal(signal.SIGTERM, _forward(client, container_id))
    readers = [
        threading.Thread(target=_copy, args=(client, container_id, name, stream), daemon=True)
        for name, stream in (("stdout", sys.stdout.buffer), ("stderr", sys.stderr.buffer))
    ]
    for reader in readers:
        reader.start()
    ended = _persist(lambda: client.wait(container_id))
    for reader in readers:
        reader.join()
    if ended["exit_status"] is None:
        raise PortsliceError(f"The container '{ended['name']}' ended; {ended['message'].lower()}")
    return int(ended["exit_status"])


def _copy(client: Client, container_id: str, name: str, stream: Any) -> None:
    offset = 0

    def copy() -> None:
        nonlocal offset
        for data in client.output(container_id, name, offset):
            offset += len(data)
            stream.write(data)
            stream.flush()

    try:
        _persist(copy)
    except (BrokenPipeError, PortsliceError):
        return


def _persist(request: Any) -> Any:
    """Repeat a request that ended with the agent until a new agent answers."""
    deadline = None
    while True:
        try:
            return request()
        except BrokenPipeError:
            raise
        except (ConnectionError, http.client.HTTPException, PortsliceError) as error:
            now = time.monotonic()
            deadline = deadline or now + _RECONNECT_SECS
            gone = isinstance(error, PortsliceError) and "agent" not in str(error)
            if gone or now > deadline:
                raise PortsliceError(str(error)) from error
            time.sleep(0.2)


def _forward(client: Client, container_id: str) -> Any:
    tried = False

    def forward(_number: int, _frame: object) -> None:
        nonlocal tried
        with suppress(PortsliceError):  # it may have just ended
            client.kill(container_id, "SIGKILL" if tried else "SIGTERM")
        tried = True

    return forward


def _environment(pairs: list[str]) -> dict[str, str]:
    environment = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise PortsliceError(f"'{pair}' is no environment variable: write NAME=VALUE")
        environment[name] = value
    return environment


def _user(user: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        if user.isdigit():
            return int(user), int(user)
        raise PortsliceError(f"There is no user '{user}'") from None
    return entry.pw_uid, entry.pw_gid


def _cpus(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _bytes(text: str) -> int:
    try:
        return int(Bytes.parse(text))
    except PortsliceError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ports(text: str) -> int | str:
    if re.fullmatch(r"\d+", text):
        return int(text)
    if re.fullmatch(r"\d+-\d+(,\d+(-\d+)?)*|\d+(,\d+(-\d+)?)+", text):
        return text
    raise argparse.ArgumentTypeError("must be a number of ports (5) or the ports (31000-31004)")


