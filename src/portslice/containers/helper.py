"""Programs that measure for the agent in the background. They end with the agent, however it ends.

The kernel kills a helper when the thread that started it ends (PR_SET_PDEATHSIG); that is the event loop's, the main
thread. What the helper starts itself is its own affair.
"""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from subprocess import CompletedProcess

DIES_WITH_ITS_PARENT = ("setpriv", "--pdeathsig", "KILL")
"""What to put before a command."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_PATIENCE_SECS = 5.0  # with a process that the kernel does not end yet


def is_installed(program: str) -> bool:
    """Whether `run` finds it."""
    return shutil.which(program, path=ENVIRONMENT["PATH"]) is not None


async def run(*command: str, timeout_secs: float | None = None) -> "CompletedProcess[str]":
    """Run a program to its end, in `ENVIRONMENT`; its output is read as text, whatever bytes are in it.

    :raises TimeoutError: it did not end in time, and was killed. So it is if the caller is cancelled.
    :raises OSError: it could not be started.
    """
    process = await asyncio.create_subprocess_exec(
        *DIES_WITH_ITS_PARENT, *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=ENVIRONMENT
    )
    try:
        async with asyncio.timeout(timeout_secs):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):  # it may hang in the kernel, on a dead file server, say
                await asyncio.wait_for(process.wait(), _PATIENCE_SECS)
    assert process.returncode is not None
    return CompletedProcess(command, process.returncode, os.fsdecode(stdout), os.fsdecode(stderr))
