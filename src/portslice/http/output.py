"""What a container writes to its stdout and stderr, as it comes."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress

from portslice.agent.service import Agent
from portslice.containers import sandbox
from portslice.containers.container import Container, State
from portslice.errors import NotFoundError, PortsliceError

STREAMS = ("stdout", "stderr")
_FOLLOW_SECS = 0.05
_CHUNK = 1 << 16


@asynccontextmanager
async def followed(
    agent: Agent, container: Container, *streams: str, offset: int = 0
) -> AsyncIterator[AsyncIterator[tuple[str, bytes] | None]]:
    """Pieces of these outputs with their streams' names, from `offset` to the end of the container; None: nothing came
    for a moment. What is no plain file, or not the container's, is as if it were empty. If whoever they are written to
    hangs up, the block ends without an error."""
    async with aclosing(_follow(agent, container, *streams, offset=offset)) as pieces:
        with suppress(ConnectionResetError):
            yield pieces


async def _follow(
    agent: Agent, container: Container, *streams: str, offset: int
) -> AsyncGenerator[tuple[str, bytes] | None, None]:
    with ExitStack() as stack:
        read = {}
        for stream in streams:
            try:
                descriptor = stack.enter_context(sandbox.of(container).open(stream))
            except PortsliceError:
                continue
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                read[stream] = [descriptor, offset]
        while read:
            ended = _has_ended(agent, container)
            for stream, place in read.items():
                while data := await asyncio.to_thread(os.pread, place[0], _CHUNK, place[1]):
                    place[1] += len(data)
                    yield stream, data
            if ended:
                return
            yield None
            await asyncio.sleep(_FOLLOW_SECS)


def _has_ended(agent: Agent, container: Container) -> bool:
    try:
        return agent.containerizer.find(container.id).state is State.EXITED
    except NotFoundError:
        return True
