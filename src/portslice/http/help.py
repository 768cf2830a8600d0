"""/help: what is served, from the docstrings of what serves it, in libprocess' form.

    /help                                    everything
    /help/slave(1)                           a process
    /help/slave(1)/monitor/statistics        an endpoint

each as Markdown, or with `?format=json` as an object: {"processes": […]}, {"id": …, "endpoints": […]} and
{"name": …, "text": …}.
"""

import inspect
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from portslice.http.answers import json_response
from portslice.http.routing import Endpoint, Endpoints


class Help:
    """The help for some endpoints."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def routes(self) -> list[web.RouteDef]:
        """The endpoint."""
        return [web.route("*", "/help", self.help)]

    async def help(self, request: web.Request) -> web.Response:
        """What is served, as Markdown, or with `format=json` as JSON.

        The path may go on with a process, and with an endpoint of it.
        """
        _, *words = (unquote(segment) for segment in request.rel_url.raw_path.split("/") if segment)
        processes = self._processes()
        found: dict[str, Any] | None = {"processes": processes}
        if words:
            found = next((each for each in processes if each["id"] == words[0]), None)
        if words[1:] and found is not None:
            name = "/" + "/".join(words[1:])
            found = next((each for each in found["endpoints"] if each["name"] == name), None)
        if found is None:
            raise web.HTTPNotFound(text=f"No help available for '/{'/'.join(words)}'.\n")
        if request.query.get("format") == "json":
            return json_response(request, found)
        return web.Response(text="\n".join(_texts(found)), content_type="text/markdown")

    def _processes(self) -> list[dict[str, Any]]:
        by_process: dict[str, list[dict[str, str]]] = {}
        for endpoint in self._endpoints:
            name = endpoint.path
            if endpoint.process != endpoint.delegate:
                name = name.removeprefix(f"/{endpoint.process}")
            by_process.setdefault(endpoint.process, []).append({"name": name or "/", "text": _text(endpoint)})
        return [{"id": process, "endpoints": endpoints} for process, endpoints in sorted(by_process.items())]


def _texts(found: dict[str, Any]) -> list[str]:
    if "text" in found:
        return [found["text"]]
    return [text for each in found.get("processes", found.get("endpoints", [])) for text in _texts(each)]


def _text(endpoint: Endpoint) -> str:
    own = endpoint.process == endpoint.delegate and endpoint.segments  # the root has no second name
    path = f"/{endpoint.delegate}{endpoint.path}" if own else endpoint.path
    handler = next(iter(endpoint.handlers.values()))
    summary, _, description = (inspect.getdoc(handler) or "").partition("\n\n")
    text = f"### USAGE ###\n>        {path}\n\n### TL;DR; ###\n{summary}\n"
    return f"{text}\n### DESCRIPTION ###\n{description}\n" if description else text
