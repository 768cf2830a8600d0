"""JSON as Mesos' endpoints answer it: compact, with sorted keys; whole doubles keep their fraction (2.0), as stout
prints them. Callback and compression are as the request wants.
"""

import asyncio
import json
from typing import Any

from aiohttp import web

_GZIP_MIN = 1024
COMPRESSED_IN_A_THREAD = 1 << 16
"""Bodies of this many bytes and more."""
PIECES = 4
"""The levels of `compact` above what there is once a container."""


def json_response(request: web.Request, value: Any, *, in_order: bool = False) -> web.Response:
    """`value` as JSON, or as JSONP if the request asks for it.

    :param in_order: keep the order of the members, instead of the alphabet's.
    """
    return _response(request, compact(value, in_order=in_order))


async def long_json_response(request: web.Request, value: Any, *, in_order: bool = False) -> web.Response:
    """As `json_response`, of a value with something of every container; others are answered meanwhile."""
    return _response(request, await asyncio.to_thread(compact, value, PIECES, in_order=in_order))


def compact(value: Any, levels: int = 0, *, in_order: bool = False) -> str:
    """`value`, of lists and of objects with texts as names, as compact JSON.

    :param levels: how many, from the outermost on, are written piece by piece. As long as json.dumps lasts, no other
        thread gets its turn: with a thousand containers a tenth of a second.
    """
    if levels and isinstance(value, list):
        return f"[{','.join(compact(each, levels - 1, in_order=in_order) for each in value)}]"
    if levels and isinstance(value, dict):
        members = value.items() if in_order else sorted(value.items())
        pairs = (f"{json.dumps(name)}:{compact(each, levels - 1, in_order=in_order)}" for name, each in members)
        return f"{{{','.join(pairs)}}}"
    return json.dumps(value, separators=(",", ":"), sort_keys=not in_order)


def _response(request: web.Request, text: str) -> web.Response:
    callback = request.query.get("jsonp")
    if callback is not None:
        text, content_type = f"{callback}({text})", "text/javascript"
    else:
        content_type = "application/json"
    response = web.Response(body=text.encode(), content_type=content_type, zlib_executor_size=COMPRESSED_IN_A_THREAD)
    if len(text) >= _GZIP_MIN and takes_gzip(request.headers.get("Accept-Encoding", "")):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def takes_gzip(header: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not with the weight 0, which refuses it."""
    codings = (coding.replace(" ", "").lower().partition(";q=") for coding in header.split(","))
    return any(name == "gzip" and (not weight or weight.strip("0.")) for name, _, weight in codings)
