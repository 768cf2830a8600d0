"""What HTTP is allowed to look like where calls are taken (POST /api/v1), and what the answers look like.

Protobuf is not spoken: clients of Mesos speak JSON, too. It is said to those that try.
"""

import asyncio
from collections.abc import Mapping, Set
from typing import Any

from aiohttp import hdrs, web

from portslice.errors import ParseError
from portslice.http.answers import PIECES, compact
from portslice.http.operator.messages import Call, Schema

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
RECORDIO = "application/recordio"
_ALL = f"{JSON} or {PROTOBUF} or {RECORDIO}"
_PATIENCE_SECS = 30.0


async def read_call(request: web.Request, schema: Schema) -> Call:
    """The call that a request makes.

    :raises web.HTTPException: it is no JSON, or does not come.
    :raises ParseError: it is no call.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECS):
            return await _read(request, schema)
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


async def _read(request: web.Request, schema: Schema) -> Call:
    if hdrs.CONTENT_TYPE not in request.headers:
        raise web.HTTPBadRequest(text="Expecting 'Content-Type' to be present")
    kind = request.content_type
    if kind == PROTOBUF:
        raise web.HTTPUnsupportedMediaType(text=f"Expecting 'Content-Type' of {JSON}: no protobuf is read here")
    if kind == RECORDIO:
        if "Message-Content-Type" not in request.headers:
            raise web.HTTPBadRequest(text="Expecting 'Message-Content-Type' to be set for streaming requests")
        call = schema.read(_first_record(await request.read()))
        if call.type in schema.not_here:
            return call
        raise web.HTTPUnsupportedMediaType(
            text=f"Streaming 'Content-Type' {RECORDIO} is not supported for {call.type} call"
        )
    if kind != JSON:
        raise web.HTTPUnsupportedMediaType(text=f"Expecting 'Content-Type' of {_ALL}")
    try:
        text = await request.text()
    except (UnicodeDecodeError, LookupError) as error:
        raise ParseError(f"Failed to parse body into JSON: {error}") from error
    return schema.read(text)


def accepted(request: web.Request, call: Call, streaming: Set[str]) -> str:
    """The media type of the answer: JSON, or else RECORDIO. Who names RECORDIO gets a stream so, even if JSON is named,
    too, as by mesos-go."""
    accepted = [each.partition(";") for each in ",".join(request.headers.getall(hdrs.ACCEPT, ["*/*"])).split(",")]
    ranges = {kind.strip().lower() for kind, _, weight in accepted if weight.replace(" ", "") not in ("q=0", "q=0.0")}
    if call.type in streaming and RECORDIO in ranges:
        return RECORDIO
    for media in (JSON, RECORDIO):
        if ranges & {media, "application/*", "*/*"}:
            return media
    if PROTOBUF in ranges:
        raise web.HTTPNotAcceptable(text=f"Expecting 'Accept' to allow {JSON}: no protobuf is written here")
    raise web.HTTPNotAcceptable(text=f"Expecting 'Accept' to allow {_ALL}")


async def json_answer(call: Call, member: Mapping[str, Any] | None, long: Set[str]) -> web.Response:
    """The answer of a call that only reads.

    :param member: what is named like the call; None: nothing.
    :param long: calls whose answers are written in a thread.
    """
    answer: dict[str, Any] = {"type": call.type}
    if member is not None:
        answer[call.type.lower()] = member
    if call.type in long:
        text = await asyncio.to_thread(compact, answer, PIECES, in_order=True)
    else:
        text = compact(answer, in_order=True)
    return web.Response(body=text.encode(), content_type=JSON)


def _first_record(body: bytes) -> str:
    """The first record of a request in RecordIO.

    :raises ParseError: it is none.
    """
    length, _, rest = body.partition(b"\n")
    if not length.isdigit() or len(length) > 9 or len(rest) < int(length):
        raise ParseError("Failed to parse body into RecordIO: expecting '<length>\\n<record>'")
    return rest[: int(length)].decode(errors="replace")


def named(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Values by name as the API lists them."""
    return [{"name": name, "value": value} for name, value in sorted(values.items())]
