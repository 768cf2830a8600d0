"""The dashboard's ticker: one for all readers, no work without one, and nothing piles up for a slow one."""

import asyncio
import secrets
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

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
        async with ticker(SimpleNamespace(snapshots=snapshots)) as shared, shared:
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
        shared = ticker(SimpleNamespace(snapshots=snapshots))
        for turn in (1, 2):
            async with shared:
                await shared.next(None)
            while not shared.is_idle():
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


def test_there_is_an_end_of_readers(ticker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dashboard, "_MAX_READERS", 2)
    agent: Any = SimpleNamespace(snapshots=Snapshots(), hostname="host", port_mapping=None)

    async def crowd() -> None:
        page = dashboard.Dashboard(agent)
        application = web.Application()
        application.add_routes(page.routes())
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(tmp_path / "socket")).start()

        async def read() -> tuple[bytes, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
            writer.write(b"GET /overview/events HTTP/1.1\r\nHost: host\r\n\r\n")
            status = (await reader.readline()).split()[1]
            if status == b"200":
                await reader.readuntil(b"event: overview\n")
            return status, writer

        readers = [await read() for _ in range(3)]
        assert [status for status, _ in readers] == [b"200", b"200", b"503"]
        readers[0][1].close()
        while page._ticker.is_full():
            await asyncio.sleep(0.01)
        readers.append(await read())
        assert readers[-1][0] == b"200", "there is room again"
        for _, writer in readers:
            writer.close()
            await writer.wait_closed()
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(crowd(), 60))


def test_a_reader_that_stalls_is_let_go(ticker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dashboard, "_STALLED_SECS", 0.1)
    monkeypatch.setattr(dashboard, "_overviews", lambda _: dashboard._Event("overview", secrets.token_hex(1 << 20)))
    agent: Any = SimpleNamespace(snapshots=Snapshots(), hostname="host", port_mapping=None)

    async def stall() -> None:
        page = dashboard.Dashboard(agent)
        application = web.Application()
        application.add_routes(page.routes())
        runner = web.AppRunner(application)
        await runner.setup()
        await web.UnixSite(runner, str(tmp_path / "socket")).start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(b"GET /overview/events HTTP/1.1\r\nHost: host\r\n\r\n")
        await reader.readuntil(b"event: overview\n")  # and nothing more
        while not page._ticker.is_idle():
            await asyncio.sleep(0.01)
        writer.close()
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(stall(), 60))
