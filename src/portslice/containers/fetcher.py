"""What a container finds in its sandbox when its command starts: the URIs of its request, as Mesos' fetcher has them.

A fetch is a step of the launch. When the container's walls stand, ``init.sh`` runs the program ``fetch.py``, which is
given its orders here, and if that fails the launch has failed. So whoever has something fetched is trusted with nothing
that the container itself does not have: it is done as the container's user, without capabilities, in the container's
cgroups and network (its own ports and limits, and the host's loopback as far as the container reaches it), and with no
other view of the host's files. Nothing but the sandbox can be written, whatever an archive holds: that is the kernel's
doing, in a mount namespace for the time of the fetch.

URIs may hold credentials: they are in no command line, and what is said of a URI leaves out user, password and query.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from portslice.errors import ParseError

_NET = ("http", "https")


@dataclass(frozen=True)
class Uri:
    """One of Mesos' `CommandInfo.URI`. Its `cache` has no place here: everything is fetched anew each time.

    :param value: a path, or a URI with the scheme file, http or https.
    :param executable: it may be executed then; in this case it is not extracted.
    :param extract: it is extracted as well, if its name is one of an archive.
    :param output_file: what it is called, relative to the sandbox; None: the last part of the value.
    """

    value: str
    executable: bool = False
    extract: bool = True
    output_file: str | None = None

    @property
    def shown(self) -> str:
        """What may be said of it."""
        scheme, separator, rest = self.value.strip().partition("://")
        if not separator:
            return self.value.strip()
        rest, query, _ = rest.partition("?")
        authority, slash, path = rest.partition("/")
        return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}{query and '?…'}"


def check(uris: Iterable[Uri]) -> None:
    """Whether all of them can be fetched, as far as their texts tell.

    :raises ParseError: with Mesos' words, where it has any.
    """
    for uri in uris:
        _order(uri)


def orders(
    uris: Iterable[Uri], *, uid: int, gid: int, groups: Sequence[int], stall_secs: float, max_bytes: int | None
) -> str:
    """What `fetch.py` is to do.

    :param uid: of the host, to do it as; likewise `gid` and `groups`.
    :param stall_secs: after so long without a byte a second it is given up (--fetcher_stall_timeout).
    :param max_bytes: all files together may have so many; None: any number.
    :raises ParseError: as `check`.
    """
    who = {"uid": uid, "gid": gid, "groups": list(groups)}
    return json.dumps({**who, "stall_secs": stall_secs, "max_bytes": max_bytes, "files": [_order(uri) for uri in uris]})


def _order(uri: Uri) -> dict[str, str | bool | None]:
    value = uri.value.strip()
    if any(c in "\\'" or not c.isprintable() for c in value):
        raise _bad("Illegal characters in URI")
    name = _name(uri)
    path = _local_path(uri)
    return {
        "path": path,
        "url": None if path is not None else value,
        "shown": uri.shown,
        "to": name if uri.output_file is None else _checked_output(uri.output_file),
        "executable": uri.executable,
        "extract": uri.extract and not uri.executable,
    }


def _name(uri: Uri) -> str:
    """The last part of it. As in Mesos a query belongs to it."""
    _, separator, path = uri.value.strip().partition("://")
    if separator and not path.partition("/")[2]:
        raise _bad(f"Malformed URI (missing path): {uri.shown}")
    name = (path if separator else uri.value.strip()).rpartition("/")[2]
    if name in ("", ".", ".."):
        raise _bad(f"Malformed URI (its last part is no file's name): {uri.shown}")
    return name


def _local_path(uri: Uri) -> str | None:
    """The path that it is; None: it is of the net."""
    scheme, separator, rest = uri.value.strip().partition("://")
    path = rest.removeprefix("localhost") if separator else scheme
    if separator and scheme in _NET:
        return None
    if separator and scheme != "file":
        raise _bad(f"{uri.shown}: the scheme '{scheme}' is not supported. What is fetched is file, http or https")
    if not path.startswith("/"):
        raise _bad(
            "File URI only supports absolute paths"
            if separator
            else f"A relative path was passed for the resource but there is no framework home: '{path}'"
        )
    return path


def _checked_output(path: str) -> str:
    if not path:
        raise _bad("URI output file path is empty")
    parts = PurePosixPath(path).parts
    if not path.isprintable():
        raise _bad("Illegal characters in URI output file path")
    if path.startswith("/") or path.endswith("/") or not parts or ".." in parts:
        raise _bad("URI output file must be within the sandbox directory")
    return path


def _bad(why: str) -> ParseError:
    return ParseError(f"Could not fetch: {why}")
