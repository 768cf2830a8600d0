"""Others than root."""

import os
import pickle
from collections.abc import Callable
from typing import Any


def as_user(uid: int, gid: int, work: Callable[[], Any]) -> Any:
    """Do something as another user, who need not be able to read this program's files; its result or exception."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            result = work()
        except BaseException as error:
            result = error
        os.write(write, pickle.dumps(result))
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        result = pickle.load(pipe)
    os.waitpid(pid, 0)
    if isinstance(result, BaseException):
        raise result
    return result
