"""Sandboxes and the agent's log, as Mesos' `files` process shows them.

    GET /files/browse?path=P                      what a directory holds: [{path, mode, uid, gid, nlink, size, mtime}]
    GET /files/read?path=P&offset=N&length=L      {data, offset}; offset -1 asks for the size, 64 KiB come at most
    GET /files/download?path=P                    the file
    GET /files/debug                              {virtual path: path on the host}

A *virtual* path begins with one of these, whatever lies below:

    a sandbox's own path, as /state has it
    /framework/ID/executor/NAME/latest            the sandbox of the latest container of this name
    /slave/log                                    the agent's log, with --log_dir

How they are read without being led elsewhere: portslice.containers.sandbox.
"""

import grp
import logging
import os
import pwd
import stat
from asyncio import to_thread
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from typing import Any, NamedTuple

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from portslice.agent.flags import LOG_NAME
from portslice.agent.policy import READONLY
from portslice.agent.service import Agent
from portslice.containers import sandbox
from portslice.containers.container import Container
from portslice.containers.sandbox import Tree
from portslice.errors import AccessError, NotFoundError, ParseError
from portslice.http.access import Access
from portslice.http.answers import json_response, long_json_response

log = logging.getLogger(__name__)

MAX_READ = 16 * os.sysconf("SC_PAGE_SIZE")
MAX_ENTRIES = 10_000
_DOWNLOAD = {hdrs.CONTENT_TYPE: "application/octet-stream", "X-Content-Type-Options": "nosniff"}


class FileInfo(NamedTuple):
    """One entry of a directory. `path` is virtual; `uid` and `gid` are names, if there are any."""

    path: str
    nlink: int
    size: int
    mtime_ns: int
    mode: int
    uid: str
    gid: str


class Piece(NamedTuple):
    """Bytes of a file from an offset on, and the file's size."""

    data: bytes
    offset: int
    size: int


class Files:
    """What of the host's files an agent shows."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def virtual_paths(self) -> dict[str, str]:
        """Each virtual path that leads somewhere, and the path on the host."""
        found = {}
        for container in self._agent.containerizer.all():
            path = str(container.sandbox)
            found[path] = found[_latest(container)] = path
        if self._agent.flags.log_dir is not None:
            found["/slave/log"] = str(self._agent.flags.log_dir / LOG_NAME)
        return found

    def list(self, path: str) -> list[FileInfo]:
        """What the directory at a virtual path holds, by name.

        :raises NotFoundError: there is nothing to be seen.
        :raises AccessError: it is not the container's.
        :raises ParseError: it is no directory.
        """
        with self.opened(path) as descriptor:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise ParseError("Not a directory.")
            with os.scandir(descriptor) as entries:
                shown = [_info(path, entry) for entry in islice(entries, MAX_ENTRIES)]
                if next(entries, None) is not None:
                    log.warning("'%s' holds more than the %s entries that are shown", path, MAX_ENTRIES)
        return sorted(filter(None, shown))

    def read(self, path: str, offset: int | None, length: int | None = None) -> Piece:
        """A piece of the file at a virtual path, of at most MAX_READ bytes; no offset: nothing, from the end.

        :raises PortsliceError: as `list`.
        """
        with self.opened(path) as descriptor:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise ParseError("Cannot read a directory.")
            if offset is None:
                return Piece(b"", status.st_size, status.st_size)
            wanted = MAX_READ if length is None else min(length, MAX_READ)
            data = os.pread(descriptor, wanted, offset) if offset < status.st_size else b""
            return Piece(data, offset, status.st_size)

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A descriptor of the file or directory at a virtual path.

        :raises NotFoundError: there is nothing to be seen.
        :raises AccessError: it is not the container's.
        """
        tree, rest = self._find(path)
        with tree.open(rest) as descriptor:
            yield descriptor

    def _find(self, path: str) -> tuple[Tree, str]:
        parts = _parts(path)
        if parts[:2] == ["slave", "log"] and (directory := self._agent.flags.log_dir) is not None:
            return Tree(directory / LOG_NAME, lambda _: True), "/".join(parts[2:])
        containers = self._agent.containerizer
        for container in containers.all():
            own = _parts(str(container.sandbox))
            if parts[: len(own)] == own:
                return sandbox.of(container), "/".join(parts[len(own) :])
        match parts:
            case ["framework", "executor", name, "latest", *rest]:
                return sandbox.of(containers.find(name, "")), "/".join(rest)
            case ["framework", framework_id, "executor", name, "latest", *rest]:
                return sandbox.of(containers.find(name, framework_id)), "/".join(rest)
        raise NotFoundError(f"Nothing is shown at '{path}'")


class FilesEndpoints:
    """/files/*: reading, for whom Access lets."""

    def __init__(self, agent: Agent) -> None:
        self._files = Files(agent)
        self._access = Access(agent)

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        named = {"browse": self.browse, "read": self.read, "download": self.download, "debug": self.debug}
        return [web.get(f"/files/{name}", self._guarded(handler)) for name, handler in named.items()]

    def _guarded(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._access.seeing_files(request, READONLY)
            try:
                return await handler(request)
            except NotFoundError:
                return web.Response(status=404, content_type="text/plain", charset="utf-8")
            except AccessError as error:
                return web.Response(status=403, text=f"{error}.\n")
            except ParseError as error:
                return web.Response(status=400, text=f"{error}\n")

        return guarded

    async def browse(self, request: web.Request) -> web.Response:
        """What the directory at `path` holds: an array of path, mode, uid, gid, nlink, size and mtime."""
        path = _path(request)
        return await long_json_response(request, await to_thread(lambda: [*map(_as_json, self._files.list(path))]))

    async def read(self, request: web.Request) -> web.Response:
        """A piece of the file at `path`: `length` bytes from `offset` on. Without an offset, its size, as offset."""
        path = _path(request)
        offset, length = _number(request, "offset"), _number(request, "length")
        piece = await to_thread(self._files.read, path, offset, length)
        return json_response(request, {"data": piece.data.decode(errors="replace"), "offset": piece.offset})

    async def download(self, request: web.Request) -> web.StreamResponse:
        """The file at `path`."""
        path = _path(request)
        with self._files.opened(path) as descriptor:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise ParseError("Cannot download a directory.")
            return _OpenedFile(os.dup(descriptor), _parts(path)[-1])

    async def debug(self, request: web.Request) -> web.Response:
        """The virtual paths, and the paths on the host that they stand for."""
        return json_response(request, self._files.virtual_paths())


class _OpenedFile(web.FileResponse):
    """A file that was opened, whatever its path means by now; it is closed when it has been sent."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(f"/proc/self/fd/{descriptor}", headers=_DOWNLOAD)
        self.headers[hdrs.CONTENT_DISPOSITION] = _attachment(name)
        self._opened = os.fdopen(descriptor, "rb")

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        with self._opened:
            return await super().prepare(request)


def _path(request: web.Request) -> str:
    path = request.query.get("path")
    if not path:
        raise ParseError("Expecting 'path=value' in query.")
    return path


def _number(request: web.Request, name: str) -> int | None:
    """A number of the query; -1 is as if there were none."""
    text = request.query.get(name)
    if not text:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 19:
        raise ParseError(f"Failed to parse {name}: Failed to convert '{text}' to number.")
    if (number := int(text)) < -1:
        raise ParseError(f"Negative {name} provided: {number}.")
    return None if number == -1 else number


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _latest(container: Container) -> str:
    return f"/framework/{container.framework_id}/executor/{container.name}/latest"


def _attachment(name: str) -> str:
    safe = "".join(each if each.isascii() and each.isprintable() and each not in '"\\' else "_" for each in name)
    return f'attachment; filename="{safe}"'


def _info(directory: str, entry: os.DirEntry[str]) -> FileInfo | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:  # gone meanwhile
        return None
    name = os.fsencode(entry.name).decode(errors="replace")
    return FileInfo(
        path=f"{directory.rstrip('/')}/{name}",
        nlink=status.st_nlink,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        mode=status.st_mode,
        uid=_name(pwd.getpwuid, status.st_uid),
        gid=_name(grp.getgrgid, status.st_gid),
    )


def _name(look_up: Callable[[int], Any], number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def _as_json(info: FileInfo) -> dict[str, Any]:
    members = {**info._asdict(), "mode": stat.filemode(info.mode), "mtime": info.mtime_ns / 1e9}
    del members["mtime_ns"]
    return members
