"""One look at a task: a command, an HTTP request, or a TCP connection, from inside its container."""

import asyncio
import http.client
import io
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

from portslice.errors import ContainerError
from portslice.executor.definition import Command, Probe
from portslice.executor.ending import ended
from portslice.executor.process import Processes

_REDIRECTS = 50  # as curl, which Mesos has do it
_HTTP_FAILURES = (OSError, EOFError, ValueError, http.client.HTTPException, asyncio.LimitOverrunError)


class ProbeError(Exception):
    """There was no answer; why."""


class Prober:
    """Takes looks at one task.

    :param environment: of the task; a command gets it.
    :param directory: where a command runs.
    """

    def __init__(self, processes: Processes, environment: Mapping[str, str], directory: str) -> None:
        self._processes = processes
        self._environment = environment
        self._directory = directory

    async def take(self, probe: Probe, timeout_secs: float) -> int:
        """A command's exit status, an HTTP status, or 1 for a TCP connection that came about, 0 for one that did not.

        :param timeout_secs: 0: none.
        :raises ProbeError: there was no answer, or none in time.
        """
        try:
            async with asyncio.timeout(timeout_secs or None):
                if probe.command is not None:
                    return await self._run(probe.command)
                return await (_get(probe.url) if probe.url else _connect(probe.host, probe.port))
        except TimeoutError:
            raise ProbeError(f"no answer after {timeout_secs:g} s; aborting") from None

    async def _run(self, command: Command) -> int:
        environment = {**self._environment, **command.environment}
        output = sys.stderr.fileno()
        try:
            process = self._processes.start(
                command.words, environment=environment, directory=self._directory, stdout=output, stderr=output
            )
        except ContainerError as error:
            raise ProbeError(str(error)) from None
        try:
            return await process.wait()
        finally:
            process.signal(signal.SIGKILL)  # nobody waits for it any more


async def _connect(host: str, port: int) -> int:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return 0
    writer.close()
    return 1


async def _get(url: str) -> int:
    """The status of the answer, behind redirects; a certificate is not looked at."""
    try:
        for _ in range(_REDIRECTS + 1):
            status, location = await _request(url)
            if location is None or not 300 <= status < 400:
                return status
            url = urljoin(url, location)
    except _HTTP_FAILURES as error:
        raise ProbeError(f"{url}: {error or type(error).__name__}") from None
    raise ProbeError(f"{url}: more than {_REDIRECTS} redirects")


async def _request(url: str) -> tuple[int, str | None]:
    """Status and Location."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError(f"redirected to {url[:200]!r}")
    tls = None
    if parts.scheme == "https":
        import ssl  # costs memory

        tls = ssl._create_unverified_context()
    port = parts.port or (443 if tls else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls)
    try:
        request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\nAccept: */*\r\n\r\n"
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    line, _, headers = head.partition(b"\r\n")
    version, _, rest = line.partition(b" ")
    if not version.startswith(b"HTTP/") or not rest[:3].isdigit():
        raise ValueError(f"{line[:100]!r} is no answer of HTTP")
    with suppress(http.client.HTTPException):
        return int(rest[:3]), http.client.parse_headers(io.BytesIO(headers)).get("Location")
    return int(rest[:3]), None


def failure(probe: Probe, answer: int) -> str | None:
    """Why an answer means that the task is not healthy; None: it is."""
    match probe.kind:
        case "COMMAND":
            return None if answer == 0 else ended(answer, killed=False)[1]
        case "HTTP":
            return None if 200 <= answer < 400 else f"Unexpected HTTP response code: {answer}"
        case _:
            return None if answer else f"Failed to connect to port {probe.port}"
