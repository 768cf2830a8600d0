"""The dashboard's ticker: one for all readers, no work without one, and nothing piles up for a slow one."""

import asyncio
import zlib
from typing import Any

import pytest

from portslice.http import dashboard
from portslice.statistics import Snapshot


class Snapshots:
    """Counts how often it is asked."""

    taken = 0

    async def take(self) -> Snapshot:
        self.taken += 1
        return ()


@pytest.fixture
def ticker(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(dashboard, "_TICK_SECS", 0.01)
    return dashboard._Ticker


def test_readers_share_the_snapshots_and_a_slow_one_misses_some(ticker: Any) -> None:
    async def read() -> None:
        snapshots = Snapshots()
        async with ticker(snapshots) as shared, shared:
            first = event = await shared.next(None)
            assert await shared.next(None) is first, "who comes later does not wait for the next tick"
            for _ in range(10):  # meanwhile the other reader is busy with the first one
                event = await shared.next(event)
            assert await shared.next(first) is event, "it gets the latest only"
            assert snapshots.taken <= 12, "both readers together"

    asyncio.run(read())


def test_without_a_reader_there_is_no_work(ticker: Any) -> None:
    async def read() -> None:
        snapshots = Snapshots()
        shared = ticker(snapshots)
        for turn in (1, 2):
            async with shared:
                await shared.next(None)
            while shared._task is not None:
                await asyncio.sleep(0.01)
            taken = snapshots.taken
            await asyncio.sleep(0.05)
            assert snapshots.taken == taken >= turn

    asyncio.run(read())


def test_each_event_can_be_read_without_those_before_it() -> None:
    first, second = (dashboard._Event("overview", [{"name": name * 100}]) for name in "ab")
    for events in ((first, second), (second,), (second, first, second)):
        stream = dashboard._GZIP_HEADER + b"".join(each.compressed for each in events)
        read = zlib.decompressobj(wbits=31).decompress(stream)
        assert read == b"".join(each.plain for each in events), "all of it, before the stream has an end"
