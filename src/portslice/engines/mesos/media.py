"""The media types of Mesos' v1 APIs: JSON and protobuf."""

from typing import Any, TypeVar

from aiohttp import hdrs, web
from google.protobuf.message import Message

from portslice.engines.mesos.v1 import from_json
from portslice.errors import ParseError

JSON, PROTOBUF = "application/json", "application/x-protobuf"
TYPES = f"{JSON} or {PROTOBUF}"

_M = TypeVar("_M", bound=Message)


def accepted(request: web.Request) -> str:
    """The type of the answer.

    :raises web.HTTPNotAcceptable: the caller takes neither.
    """
    accepts = request.headers.get(hdrs.ACCEPT, "*/*")
    for media in (JSON, PROTOBUF):
        if any(each in accepts for each in (media, "application/*", "*/*")):
            return media
    raise web.HTTPNotAcceptable(text=f"Expecting 'Accept' to allow {TYPES}")


def call_of(kind: type[_M], content: Any) -> _M:
    """A call that came as JSON, which has been parsed.

    :raises web.HTTPBadRequest: it is none.
    """
    if not isinstance(content, dict):
        raise web.HTTPBadRequest(text="Failed to parse body into JSON: Expecting an object")
    try:
        return from_json(kind, content)
    except ParseError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
