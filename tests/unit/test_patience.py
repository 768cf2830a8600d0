"""Connections over which no request comes, and readers that do not read."""

import asyncio

from aiohttp import ClientSession, web

from portslice.engines.mesos.streams import Events
from portslice.http.patience import Patience

_HALF = b"GET / HTTP/1.1\r\nHost: m\r\nX-Half: "


async def _answer(_request: web.Request) -> web.Response:
    return web.Response(text="here")


async def _served(patience: Patience, handler: object = _answer) -> tuple[web.AppRunner, int]:
    application = web.Application(middlewares=[patience.hear])
    application.router.add_get("/", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


def test_who_does_not_ask_is_closed() -> None:
    """Who asked once may take a time to do it again."""

    async def test() -> None:
        patience = Patience(30.0)
        runner, port = await _served(patience)
        assert runner.server is not None
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        (_, nothing), (_, half), (reader, whole) = connections
        half.write(_HALF)
        whole.write(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n")
        assert await reader.readuntil(b"here")
        patience.sweep(runner.server.connections, 0.0)
        patience.sweep(runner.server.connections, 29.0)
        assert len(runner.server.connections) == 3
        patience.sweep(runner.server.connections, 31.0)
        for closed, _ in connections[:2]:
            assert await asyncio.wait_for(closed.read(), 20) == b""
        whole.write(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n")
        assert await reader.readuntil(b"here")
        for writer in (nothing, half, whole):
            writer.close()
        await runner.cleanup()

    asyncio.run(test())


def test_a_reader_that_does_not_read_is_hung_up_on() -> None:
    async def test() -> None:
        streams: list[Events] = []

        async def follow(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            streams.append(Events(b"{}", 60, most=1 << 20))
            await streams[0].copy_to(request, response)
            return response

        runner, port = await _served(Patience(), follow)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert runner.server is not None
        async with asyncio.timeout(60):
            while runner.server.connections:
                streams[0].put_bytes(bytes(1 << 16))
                await asyncio.sleep(0)
        writer.close()
        await runner.cleanup()

    asyncio.run(test())


def test_events_come_in_order_to_the_end() -> None:
    async def test() -> None:
        events = [b"%d" % number for number in range(1000)]

        async def follow(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            stream = Events(b"{}", 60, most=1 << 20)
            for event in events:
                stream.put_bytes(event)
            stream.end()
            stream.put_bytes(b"too late")
            await stream.copy_to(request, response)
            return response

        runner, port = await _served(Patience(), follow)
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as response:
            text = await response.read()
        assert text == b"".join(b"%d\n%b" % (len(event), event) for event in events)
        await runner.cleanup()

    asyncio.run(test())
