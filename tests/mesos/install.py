"""Apache Mesos 1.11.0 as there is no package of it: its master, from what PyPI and Debian have.

PyPI's egg `mesos.scheduler` holds libmesos whole, as an extension module of Python 2.7. It was linked against libraries
that Debian 12 no longer has:

    OpenSSL 1.0                lies in the wheel of psycopg2-binary 2.7.5, under other names
    libcurl, CURL_OPENSSL_3    Debian's libcurl-gnutls has the same functions as CURL_GNUTLS_3; the name of the version
                               in the module's table of needed versions is changed, no code

All of it is put into one directory, once, and checked by its hashes.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

_HERE = Path(__file__).parent
_BUILD = _HERE.parents[1] / "build"
_EGG = "mesos.scheduler-1.11.0-py2.7-linux-x86_64.egg"
_EGG_SHA256 = "4940ebb70894ee004cf8a12b7b66b52a351be1070ec2a4e6f7dae4ec04f8cb61"
_MODULE = "mesos/scheduler/_scheduler.so"
_SHT_GNU_VERNEED = 0x6FFFFFFE
_GO_PATH = Path("/usr/share/gocode")
_CURL = ("CURL_OPENSSL_3", "CURL_GNUTLS_3")


class Missing(Exception):
    """Why the master cannot be had on this machine."""


@contextmanager
def _draft(directory: Path) -> Iterator[Path | None]:
    """Where to make what is to be in `directory` if the block succeeds; None: it is there. Tests that run at the same
    time wait for each other."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            yield None
            return
        draft = directory.with_name(f"{directory.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        draft.mkdir()
        try:
            yield draft
            draft.rename(directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def python27() -> Path:
    """A Python that the module fits: 2.7 with UCS4 strings; PYTHON27 names one, or pyenv has one.

    :raises Missing: there is none.
    """
    pyenv = glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python2.7"))
    for candidate in (os.environ.get("PYTHON27"), *sorted(pyenv), shutil.which("python2.7")):
        fits = "import sys; sys.exit(sys.version_info[:2] != (2, 7) or sys.maxunicode < 0x10ffff)"
        if candidate and subprocess.run([candidate, "-c", fits], check=False).returncode == 0:
            return Path(candidate)
    raise Missing("Apache Mesos' master needs a Python 2.7 with UCS4 strings (pyenv install 2.7.18, or PYTHON27)")


def environment(directory: Path) -> dict[str, str]:
    """What the module needs to be imported."""
    return {
        "LD_LIBRARY_PATH": str(directory / "lib"),
        "PYTHONPATH": str(directory / "python"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
    }


def module(directory: Path) -> Path:
    """libmesos itself."""
    return directory / "python" / _MODULE


def install() -> Path:
    """The directory; made if there is none yet.

    :raises Missing: this machine cannot have it.
    """
    if platform.machine() != "x86_64":
        raise Missing("Apache Mesos' master is on PyPI for x86-64 only")
    python = python27()
    directory = _BUILD / "mesos-1.11.0"
    with _draft(directory) as draft:
        if draft is not None:
            _fetch(draft, python)
            _assemble(draft)
    check = [str(python), "-c", "import mesos.scheduler"]
    result = subprocess.run(check, env=environment(directory), capture_output=True, text=True, check=False)
    if result.returncode:
        raise Missing(f"libmesos cannot be loaded (script/setup --test): {result.stderr.strip().splitlines()[-1]}")
    return directory


def frameworks() -> Path:
    """The interpreter of an environment with frameworks' libraries. One of them needs http-parser, whose C was written
    by a Cython that knew no Python 3.11: so it is written anew.

    :raises Missing: PyPI does not give them, or they do not compile.
    """
    lock = _HERE / "frameworks.lock"
    directory = _BUILD / f"frameworks-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    with _draft(directory) as draft:
        if draft is not None:
            _install_frameworks(draft, lock)
    return directory / "bin/python"


def _install_frameworks(directory: Path, lock: Path) -> None:
    python, packages = str(directory / "bin/python"), directory / "packages"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    _must(sys.executable, "-m", "venv", str(directory))
    as_is = ("--no-deps", "--no-build-isolation")
    _must(*pip, "download", *as_is, "--require-hashes", "--requirement", str(lock), "--dest", str(packages))
    tools = (path for name in ("[Cc]ython", "setuptools", "wheel") for path in packages.glob(f"{name}-*"))
    _must(*pip, "install", *as_is, *map(str, tools))
    (archive,) = packages.glob("http-parser-*.tar.gz")
    shutil.unpack_archive(archive, packages)
    archive.unlink()
    (module,) = packages.glob("http-parser-*/http_parser/parser.pyx")
    _must(python, "-m", "cython", str(module))
    _must(*pip, "install", *as_is, *map(str, packages.iterdir()))
    shutil.rmtree(packages)


def _must(*command: str) -> None:
    """:raises Missing: the command fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Missing(f"{' '.join(command[:5])}...: {result.stderr.strip()[-500:]}")


def mesos_go(source: Path) -> Path:
    """A program that uses mesos-go, compiled.

    :raises Missing: Debian's packages are not installed.
    """
    if shutil.which("go") is None or not (_GO_PATH / "src/github.com/mesos/mesos-go").exists():
        raise Missing("needs golang-go and golang-github-mesos-mesos-go-dev: script/setup --test")
    cache = _BUILD / "clients"
    program = cache / source.stem
    environment = {"GO111MODULE": "off", "GOPATH": str(_GO_PATH), "GOCACHE": str(cache / "go-build")}
    command = ["go", "build", "-o", str(program), str(source)]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    return program


def _fetch(directory: Path, python: Path) -> None:
    """:raises Missing: PyPI does not give it."""
    wheels = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    wheels += ["--target", str(directory / "python"), "--require-hashes", "-r", str(_HERE / "requirements.txt")]
    wheels += ["--no-deps", "--only-binary=:all:", "--python-version=27", "--implementation=cp", "--abi=cp27mu"]
    wheels += ["--abi=none", "--platform=manylinux1_x86_64", "--platform=any"]
    # An egg is nothing to pip, but to the setuptools of Python 2.7.
    egg = [str(python), "-m", "easy_install", "--quiet", "--zip-ok", "--multi-version", "--no-deps"]
    egg += ["--install-dir", str(directory), "mesos.scheduler==1.11.0"]
    for command in (wheels, egg):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise Missing(f"PyPI does not give what Apache Mesos' master needs: {result.stderr.strip()[-300:]}")


def _assemble(directory: Path) -> None:
    egg = directory / _EGG
    with egg.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == _EGG_SHA256, f"{_EGG} is not the one that is known"
    with zipfile.ZipFile(egg) as archive:
        archive.extractall(directory / "python", [name for name in archive.namelist() if name.startswith("mesos/")])
    egg.unlink()
    for package in ("mesos", "google"):
        (directory / "python" / package / "__init__.py").touch()
    module(directory).write_bytes(needing(module(directory).read_bytes(), *_CURL))
    libraries = directory / "lib"
    shutil.move(directory / "python/psycopg2/.libs", libraries)
    for name in ("libssl", "libcrypto"):
        (library,) = libraries.glob(f"{name}-*.so.1.0.2o")
        (libraries / f"{name}.so.1.0.0").symlink_to(library.name)
    (libraries / "libcurl.so.4").symlink_to("/usr/lib/x86_64-linux-gnu/libcurl-gnutls.so.4")


def needing(elf: bytes, old: str, new: str) -> bytes:
    """A 64-bit ELF file that needs another version of the same symbols, whose name is not longer."""
    image = bytearray(elf)
    sections = list(_sections(elf))
    for type_, offset, size, link in sections:
        if type_ == _SHT_GNU_VERNEED:
            _, names, names_size, _ = sections[link]
            # An entry has a version's hash, and the offset of its name in the table of strings.
            _replace(image, offset, size, struct.pack("<I", _hash(old)), struct.pack("<I", _hash(new)))
            _replace(image, names, names_size, f"\0{old}\0".encode(), f"\0{new}\0".encode().ljust(len(old) + 2, b"\0"))
    return bytes(image)


def _sections(elf: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(type, offset, size, link) of each section (elf(5), Elf64_Ehdr and Elf64_Shdr)."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    entry, count = struct.unpack_from("<HH", elf, 58)
    for at in range(table, table + entry * count, entry):
        _, type_, _, _, offset, size, link = struct.unpack_from("<IIQQQQI", elf, at)
        yield type_, offset, size, link


def _replace(image: bytearray, offset: int, size: int, old: bytes, new: bytes) -> None:
    part = image[offset : offset + size]
    assert part.count(old) == 1, f"{old!r} is there {part.count(old)} times"
    image[offset : offset + size] = part.replace(old, new)


def _hash(name: str) -> int:
    """The System V hash of a name."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value
