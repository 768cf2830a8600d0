"""Fetches a container's URIs into the working directory, and says on standard error what it does.

A program of its own, of the standard library alone: ``init.sh`` runs it inside the container (``fetcher`` says why). It
begins as root, so that it can be read wherever it is installed, and becomes the container's user for good, with no
capability, before it looks at anything of anybody's.

Its orders come as JSON on descriptor 6. It fails with status 1 at the first URI that cannot be had; the line that says
so is its last.
"""

# What is imported only when it is needed might not be readable any more by then: bz2, the codec of host names.
import base64
import bz2  # noqa: F401
import ctypes
import encodings.idna  # noqa: F401
import gzip
import http.client
import json
import lzma
import os
import resource
import signal
import stat
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from contextlib import suppress
from types import FrameType
from typing import IO, Any, NoReturn

_ORDERS = 6
_TARS = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
_PIECE = 1 << 16
_MAX_LINE = 1000
_BAD_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
_PR_SET_NO_NEW_PRIVS = 38


class Failure(Exception):
    """It cannot be had."""


class Stalled(Failure):
    """It comes too slowly."""


class Allowance:
    """How much may still be written."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._left = most

    def take(self, count: int) -> None:
        """:raises Failure: it is too much."""
        if self._left is not None:
            self._left -= count
            if self._left < 0:
                raise Failure(f"Disk usage exceeds quota ({self._most} bytes)")


class Watchdog:
    """Ends what is waited for unless, on the average of `secs` seconds, a byte comes every second."""

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self._fed = 0
        signal.signal(signal.SIGALRM, self._bite)

    def feed(self, count: int) -> None:
        """So many bytes have come."""
        self._fed += count
        if self._fed >= self._secs:
            self.start()

    def start(self) -> None:
        self._fed = 0
        signal.setitimer(signal.ITIMER_REAL, self._secs)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _bite(self, _number: int, _frame: FrameType | None) -> NoReturn:
        raise Stalled(f"less than a byte a second came for {self._secs:g} seconds")


def main() -> int:
    """The exit status."""
    with os.fdopen(_ORDERS) as file:
        orders = json.load(file)
    _become(orders["uid"], orders["gid"], orders["groups"])
    if orders["max_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (orders["max_bytes"], orders["max_bytes"]))
    allowance, watchdog = Allowance(orders["max_bytes"]), Watchdog(orders["stall_secs"])
    for order in orders["files"]:
        try:
            _fetch(order, allowance, watchdog)
        except Failure as failure:
            return _fail(order, str(failure))
        except OSError as error:
            return _fail(order, error.strerror or type(error).__name__)
    return 0


def _become(uid: int, gid: int, groups: list[int]) -> None:
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    # The user may be root: struct __user_cap_header_struct, version 3, this process; and no capability in any set.
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none) != 0 or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "Failed to drop the capabilities")


def _fetch(order: dict[str, Any], allowance: Allowance, watchdog: Watchdog) -> None:
    _say(f"Fetching URI '{order['shown']}'")
    to = order["to"]
    directory = os.path.dirname(to)
    if directory:
        os.makedirs(directory, exist_ok=True)
    if order["path"] is not None:
        _copy(order["path"], to, allowance)
    else:
        _say(f"Downloading resource from '{order['shown']}'")
        try:
            _download(order["url"], to, allowance, watchdog)
        finally:
            watchdog.stop()
    if order["executable"]:
        os.chmod(to, 0o755)
    elif order["extract"]:
        _extract(to, order["shown"], allowance)
    _say(f"Fetched '{order['shown']}'")


def _copy(path: str, to: str, allowance: Allowance) -> None:
    # A pipe would be waited for, and a device has no end.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Failure(f"'{path}' is no plain file")
        with _new(to, status.st_mode & 0o777) as file:
            while piece := source.read(_PIECE):
                allowance.take(len(piece))
                file.write(piece)


def _download(url: str, to: str, allowance: Allowance, watchdog: Watchdog) -> None:
    opener = urllib.request.OpenerDirector()  # the usual one would read files, speak FTP, and ask proxies
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    watchdog.start()
    try:
        with opener.open(_request(url)) as response:
            if response.status != http.client.OK:
                raise Failure(f"Error downloading resource, received HTTP return code {response.status}")
            with _new(to, 0o644) as file:
                while piece := response.read1(_PIECE):
                    watchdog.feed(len(piece))
                    allowance.take(len(piece))
                    file.write(piece)
            if response.length:
                raise Failure(f"Error downloading resource: {response.length} bytes are missing")
    except urllib.error.HTTPError as error:
        raise Failure(f"Error downloading resource, received HTTP return code {error.code}") from None
    except urllib.error.URLError as error:
        why = error.reason.strerror if isinstance(error.reason, OSError) else None
        raise Failure(f"Error downloading resource: {why or type(error.reason).__name__}") from None
    except Stalled as stalled:
        raise Failure(f"Error downloading resource: {stalled}") from None
    except (http.client.HTTPException, ValueError) as error:  # their texts may hold the URI
        raise Failure(f"Error downloading resource: {type(error).__name__}") from None


def _request(url: str) -> urllib.request.Request:
    """With the user of the URI as HTTP has it, and not for whomever a redirection leads to."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))
    request.add_header("User-Agent", "portslice-fetcher")
    if at:
        token = base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _new(path: str, mode: int) -> IO[bytes]:
    """A file that takes the place of what has this name."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")


# Archives


def _extract(path: str, shown: str, allowance: Allowance) -> None:
    """Into the working directory, as in Mesos, wherever the archive is."""
    try:
        if path.endswith(_TARS):
            with tarfile.open(path) as tar:
                _untar(tar, allowance)
        elif path.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                _unzip(archive, allowance)
        elif path.endswith(".gz"):
            with gzip.open(path) as source, _new(os.path.basename(path.removesuffix(".gz")), 0o644) as file:
                while piece := source.read(_PIECE):
                    allowance.take(len(piece))
                    file.write(piece)
        else:
            _say(
                "Copying instead of extracting resource from URI with 'extract' flag, because it does not seem to be "
                f"an archive: {shown}"
            )
            return
    except _BAD_ARCHIVE as error:
        raise Failure(f"Failed to extract archive: {error or type(error).__name__}") from None
    except (RuntimeError, ValueError, OverflowError, gzip.BadGzipFile) as error:  # encrypted; impossible names, times
        raise Failure(f"Failed to extract archive: {error}") from None
    _say(f"Extracted '{shown}' into the sandbox")


def _untar(tar: tarfile.TarFile, allowance: Allowance) -> None:
    tar.extraction_filter = lambda member, _path: member  # where Python has filters: what `_checked` lets pass
    directories = []
    for member in tar:
        member.name = os.path.normpath(member.name.lstrip("/"))
        if member.name == ".":
            continue
        _check(member)
        if member.isreg():
            allowance.take(member.size)
        if not member.isdir():
            with suppress(FileNotFoundError):
                os.unlink(member.name)
        tar.extract(member, set_attrs=not member.isdir())
        if member.isdir():
            directories.append(member)
        tar.members.clear()  # type: ignore[attr-defined]  # it would remember them all
    for directory in reversed(directories):  # at last: one may not be writable
        os.chmod(directory.name, directory.mode)


def _check(member: tarfile.TarInfo) -> None:
    """Only files, directories and links, in the working directory and to things in it; owned by whoever fetches."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise Failure(f"Failed to extract archive: '{member.name}' is neither file, directory nor link")
    _check_place(member.name)
    if member.issym():
        if os.path.isabs(member.linkname):
            raise Failure(f"Failed to extract archive: the link '{member.name}' leads out of the sandbox")
        _check_place(os.path.join(os.path.dirname(member.name), member.linkname))
    elif member.islnk():
        _check_place(member.linkname)
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    member.mode = (member.mode & 0o755) | (0o700 if member.isdir() else 0o600)


def _unzip(archive: zipfile.ZipFile, allowance: Allowance) -> None:
    for member in archive.infolist():
        mode = member.external_attr >> 16  # what Unix programs put there
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Failure(f"Failed to extract archive: '{member.filename}' is neither file nor directory")
        _check_place(member.filename.lstrip("/"))
        if member.is_dir():
            archive.extract(member)
            continue
        allowance.take(member.file_size)
        extracted = archive.extract(member)
        if mode:
            os.chmod(extracted, (mode & 0o755) | 0o600)


def _check_place(path: str) -> None:
    """:raises Failure: it is not in the working directory, as the links are that are there already."""
    here = os.path.realpath(".")
    if not f"{os.path.realpath(path)}/".startswith(f"{here}/"):
        raise Failure(f"Failed to extract archive: '{path}' is not within the sandbox directory")


def _fail(order: dict[str, Any], why: str) -> int:
    _say(f"Failed to fetch '{order['shown']}': {why}")
    return 1


def _say(text: str) -> None:
    # Some is of archives, and of libraries that like lines.
    line = "".join(c if c.isprintable() else " " for c in text[:_MAX_LINE])
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
