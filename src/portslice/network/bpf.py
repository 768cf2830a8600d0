"""libbpf through ctypes: load an object, attach its programs to clsact, see its maps as memory.

Only what the data plane needs. libbpf comes from the system (Debian: libbpf1), so that BTF relocation, map pinning
and the traffic-control hooks are the work of the library that the kernel's own tree maintains.
"""

import ctypes
import errno
import mmap
import os
import sys
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path

from portslice.errors import NetworkError

INGRESS, EGRESS = 1, 2
_REPLACE = 1
_PRINT_WARN = 0

PROG_TYPE_SCHED_CLS = 3


class _ObjectOptions(ctypes.Structure):
    _fields_ = (
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", c_bool),
        ("pin_root_path", c_char_p),
        ("attach_prog_fd", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
        ("kernel_log_buf", c_char_p),
        ("kernel_log_size", c_size_t),
        ("kernel_log_level", c_uint32),
    )


class _Hook(ctypes.Structure):
    _fields_ = (("sz", c_size_t), ("ifindex", c_int), ("attach_point", c_int), ("parent", c_uint32))


class _ProgramInfo(ctypes.Structure):
    """The beginning of struct bpf_prog_info."""

    _fields_ = (("type", c_uint32), ("id", c_uint32), ("tag", ctypes.c_uint8 * 8))


class _Filter(ctypes.Structure):
    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    )


_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_messages: list[str] = []


def _load_library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        return None
    for name in ("bpf_object__open_file", "bpf_object__find_program_by_name", "bpf_object__find_map_by_name"):
        getattr(library, name).restype = c_void_p
    library.bpf_object__open_file.argtypes = (c_char_p, POINTER(_ObjectOptions))
    for name in ("bpf_object__find_program_by_name", "bpf_object__find_map_by_name"):
        getattr(library, name).argtypes = (c_void_p, c_char_p)
    for name in ("bpf_object__load", "bpf_object__close", "bpf_program__fd", "bpf_map__fd", "bpf_map__value_size"):
        getattr(library, name).argtypes = (c_void_p,)
    return library


_lib = _load_library()


def available() -> bool:
    """Whether libbpf 1 is installed."""
    return _lib is not None


def _library() -> ctypes.CDLL:
    if _lib is None:
        raise NetworkError("libbpf.so.1 was not found. Install it: apt-get install libbpf1")
    return _lib


def _collect(level: int, text: bytes, arguments: int) -> int:
    if level == _PRINT_WARN:
        buffer = ctypes.create_string_buffer(4096)
        ctypes.CDLL(None).vsnprintf(buffer, len(buffer), text, c_void_p(arguments))
        _messages.append(buffer.value.decode(errors="replace").strip())
    return 0


_collector = _PRINT(_collect)  # kept alive: libbpf holds the pointer


def _check(result: int, what: str, *tolerated: int) -> None:
    if result < 0 and -result not in tolerated:
        details = "; ".join(_messages[-8:])
        _messages.clear()
        raise NetworkError(f"{what}: {os.strerror(-result)}" + (f" ({details})" if details else ""))


class Object:
    """A loaded BPF object; maps declared with pinning are shared through `pins`, a directory on a BPF file system."""

    def __init__(self, path: Path, pins: Path) -> None:
        """:raises NetworkError: libbpf's and the verifier's words if the kernel refuses the object."""
        lib = _library()
        _messages.clear()
        lib.libbpf_set_print(_collector)
        options = _ObjectOptions(sz=ctypes.sizeof(_ObjectOptions), pin_root_path=bytes(pins))
        self._object = lib.bpf_object__open_file(bytes(path), ctypes.byref(options))
        if not self._object:
            _check(-ctypes.get_errno(), f"Failed to open the BPF object '{path}'")
        _check(lib.bpf_object__load(self._object), "Failed to load the BPF programs")

    def program(self, name: str) -> int:
        """The file descriptor of a program."""
        return int(_library().bpf_program__fd(_library().bpf_object__find_program_by_name(self._object, name.encode())))

    def map(self, name: str) -> int:
        """The file descriptor of a map."""
        return int(_library().bpf_map__fd(_library().bpf_object__find_map_by_name(self._object, name.encode())))

    def zero(self, name: str, index: int) -> None:
        """Overwrite an element of an array with zeros."""
        lib = _library()
        size = lib.bpf_map__value_size(lib.bpf_object__find_map_by_name(self._object, name.encode()))
        update(self.map(name), index.to_bytes(4, sys.byteorder), bytes(size))

    def memory(self, name: str, size: int) -> memoryview:
        """A map with BPF_F_MMAPABLE as `size` bytes of shared memory."""
        return memoryview(mmap.mmap(self.map(name), -(-size // mmap.PAGESIZE) * mmap.PAGESIZE))[:size]

    def close(self) -> None:
        """Close programs and maps; what is attached or pinned stays."""
        _library().bpf_object__close(self._object)


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Insert or overwrite an element."""
    _check(_library().bpf_map_update_elem(map_fd, key, value, ctypes.c_uint64(0)), "Failed to update a BPF map")


def delete(map_fd: int, key: bytes) -> None:
    """Remove an element; a missing one is fine."""
    _check(_library().bpf_map_delete_elem(map_fd, key), "Failed to delete from a BPF map", errno.ENOENT)


def keys(map_fd: int, size: int) -> list[bytes]:
    """All keys of a hash, each `size` bytes."""
    found: list[bytes] = []
    buffer = ctypes.create_string_buffer(size)
    previous: bytes | None = None
    while _library().bpf_map_get_next_key(map_fd, previous, buffer) == 0:
        previous = buffer.raw
        found.append(previous)
    return found


def create_clsact(ifindex: int) -> None:
    """The clsact qdisc of an interface in the calling thread's network namespace; an existing one is fine."""
    hook = _Hook(sz=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=INGRESS | EGRESS)
    _check(_library().bpf_tc_hook_create(ctypes.byref(hook)), "Failed to create the clsact qdisc", errno.EEXIST)


def attach(ifindex: int, point: int, program_fd: int, priority: int) -> None:
    """Attach a classifier (direct action), atomically in place of the one that has this priority."""
    hook = _Hook(sz=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=point)
    options = _Filter(sz=ctypes.sizeof(_Filter), prog_fd=program_fd, flags=_REPLACE, handle=1, priority=priority)
    _check(_library().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)), "Failed to attach a BPF program")


def tag(program_fd: int) -> bytes:
    """What tells a program from every other one: a digest of its instructions (struct bpf_prog_info)."""
    info = _ProgramInfo()
    size = c_uint32(ctypes.sizeof(info))
    result = _library().bpf_obj_get_info_by_fd(program_fd, ctypes.byref(info), ctypes.byref(size))
    _check(result, "Failed to ask for a BPF program")
    return bytes(info.tag)


def attached(ifindex: int, point: int, priority: int) -> bytes | None:
    """The tag of the program at this priority."""
    hook = _Hook(sz=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=point)
    options = _Filter(sz=ctypes.sizeof(_Filter), handle=1, priority=priority)
    if _library().bpf_tc_query(ctypes.byref(hook), ctypes.byref(options)) < 0:
        return None
    descriptor = _library().bpf_prog_get_fd_by_id(options.prog_id)
    if descriptor < 0:
        return None
    try:
        return tag(descriptor)
    finally:
        os.close(descriptor)


def detach(ifindex: int, point: int, priority: int) -> None:
    """Remove the classifier at this priority; a missing one, or interface, is fine."""
    hook = _Hook(sz=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=point)
    options = _Filter(sz=ctypes.sizeof(_Filter), handle=1, priority=priority)
    result = _library().bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
    _check(result, "Failed to detach a BPF program", errno.ENOENT, errno.EINVAL, errno.ENODEV)


def supports_program(kind: int = PROG_TYPE_SCHED_CLS) -> bool:
    """Whether the kernel takes programs of this type (libbpf_probe_bpf_prog_type)."""
    return bool(_library().libbpf_probe_bpf_prog_type(kind, None) == 1)


def supports_helper(helper: int, kind: int = PROG_TYPE_SCHED_CLS) -> bool:
    """Whether the kernel offers this helper function to programs of this type (libbpf_probe_bpf_helper)."""
    return bool(_library().libbpf_probe_bpf_helper(kind, helper, None) == 1)
