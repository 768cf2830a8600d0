"""Calls of the operator API, over the agent's Unix socket and over TCP."""

import json
from typing import Any

from portslice.demo.node import Node
from tests.kernel.asking import Answer, ask, over_socket

PATH = "/api/v1"
JSON: dict[str, Any] = {"Content_Type": "application/json"}


def body(kind: str, **argument: Any) -> str:
    """A call as JSON; without an argument's members, the argument is left out."""
    return json.dumps({"type": kind, **({kind.lower(): argument} if argument else {})})


def call(agent: Node, kind: str, **argument: Any) -> Answer:
    """A call over the socket, as root."""
    return over_socket(agent, PATH, "POST", body(kind, **argument), **JSON)


def call_over_tcp(agent: Node, kind: str, argument: dict[str, Any] | None = None, /, **headers: Any) -> Answer:
    """A call over TCP."""
    return ask(agent, PATH, "POST", body(kind, **(argument or {})), **{**JSON, **headers})


def about(container_id: str) -> dict[str, Any]:
    """The argument that names a container."""
    return {"container_id": {"value": container_id}}
