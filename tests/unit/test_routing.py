"""Paths, by libprocess' rules; the firewall's rules; what counts as asking for gzip; JSON in pieces."""

import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from portslice.agent.firewall import disabled_endpoints
from portslice.errors import PortsliceError
from portslice.http.answers import compact, takes_gzip
from portslice.http.routing import Endpoints


async def nothing(_request: web.Request) -> web.Response:
    return web.Response()


def table(*paths: str) -> Endpoints:
    endpoints = Endpoints()
    endpoints.add(web.route("*", path, nothing) for path in paths)
    return endpoints


PATHS = (
    *("/", "/api/v1", "/files/browse", "/flags", "/metrics"),
    *("/metrics/snapshot", "/monitor/statistics", "/stats.json"),
)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/flags", "/flags"),
        ("/flags/", "/flags"),
        ("//monitor//statistics", "/monitor/statistics"),
        ("/slave(1)/monitor/statistics", "/monitor/statistics"),
        ("/slave%281%29/monitor/statistics/", "/monitor/statistics"),
        ("/%66lags", "/flags"),
        ("/monitor/statistics.json", "/monitor/statistics"),
        ("/slave(1)/flags.json", "/flags"),
        ("/files/browse.json", "/files/browse"),
        ("/metrics/snapshot.json", "/metrics/snapshot"),
        ("/stats.json", "/stats.json"),
        ("/api/v1/operator", "/api/v1"),
        ("/api/v1/state/x", "/api/v1"),
        ("/slave(1)/api/v1/operator", "/api/v1"),
        ("/metrics/other", "/metrics"),
        ("/stats", None),
        ("/nope", None),
        ("/monitor", None),
        ("/api", None),
        ("/files", None),
        ("/slave(1)", None),
        ("/slave(1)/", None),
        ("/slave(1)/nope", None),
        ("/slave(1)/files/browse", None),
        ("/slave(1)/slave(1)/flags", None),
        ("/slave(2)/flags", None),
        ("/flags/..", None),
        ("/a/../flags", None),
        ("/a/%2e%2E/flags", None),
        ("/monitor%2Fstatistics", None),
        ("/FLAGS", None),
    ],
)
def test_which_endpoint_a_path_leads_to(path: str, endpoint: str | None) -> None:
    found = table(*PATHS).find(path)
    assert (found.path if found else None) == endpoint


@given(st.lists(st.text(st.characters(exclude_characters="/"), min_size=1), max_size=4))
def test_whatever_follows_an_endpoint_leads_there_unless_it_climbs(rest: list[str]) -> None:
    found = table("/api/v1").find("/".join(["/api/v1", *rest]))
    assert (found is None) == any(segment in ("..", "%2e%2e") for segment in rest)


def test_processes() -> None:
    processes = {endpoint.path: endpoint.process for endpoint in table(*PATHS)}
    assert processes["/metrics/snapshot"] == "metrics"
    assert processes["/flags"] == processes["/"] == "slave(1)"


def test_methods() -> None:
    endpoints = Endpoints()
    stream = web.get("/d", nothing, allow_head=False)
    endpoints.add([web.get("/a", nothing), web.post("/b", nothing), web.route("*", "/c", nothing), stream])
    answered = {
        endpoint.path: [method for method in ("GET", "HEAD", "POST", "DELETE") if endpoint.handler(method)]
        for endpoint in endpoints
    }
    assert answered == {"/a": ["GET", "HEAD"], "/b": ["POST"], "/c": ["GET", "HEAD", "POST", "DELETE"], "/d": ["GET"]}


def test_an_endpoint_is_served_once() -> None:
    with pytest.raises(ValueError, match=r"\* /flags/ is there twice"):
        table("/flags", "/flags/")


@pytest.mark.parametrize(
    ("path", "disabled"),
    [
        ("/flags", "/flags"),
        ("/slave(1)/flags/", "/flags"),
        ("/monitor/statistics.json", "/monitor/statistics"),
        ("/", "/"),
        ("/api/v1", "/api/v1"),
        ("/api/v1/operator", None),  # the beginning of its path is one, which must not go with it
    ],
)
def test_the_firewall_disables_an_endpoint_by_any_of_its_names(path: str, disabled: str | None) -> None:
    endpoints = table(*PATHS)
    endpoints.disable(path)
    changed = [endpoint.path for endpoint in endpoints if endpoint.handlers != {"*": nothing}]
    assert changed == ([disabled] if disabled else [])


@pytest.mark.parametrize("rules", [None, {}, {"disabled_endpoints": {}}, {"disabled_endpoints": {"paths": []}}])
def test_no_rules(rules: dict[str, Any] | None) -> None:
    assert disabled_endpoints(rules) == ()


@pytest.mark.parametrize(
    "rules",
    [
        {"disabled_endpoint": {"paths": ["/flags"]}},
        {"disabled_endpoints": ["/flags"]},
        {"disabled_endpoints": {"path": ["/flags"]}},
        {"disabled_endpoints": {"paths": "/flags"}},
        {"disabled_endpoints": {"paths": [1]}},
        {"disabled_endpoints": {"paths": ["flags"]}},
    ],
)
def test_rules_of_another_form_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(PortsliceError, match="Failed to load the rules of --firewall_rules"):
        disabled_endpoints(rules)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("deflate, GZIP", True),
        ("br;q=1.0, gzip; q=0.5", True),
        ("", False),
        ("deflate", False),
        ("gzip;q=0", False),
        ("gzip; q=0.00, deflate", False),
        ("x-gzip", False),
    ],
)
def test_asking_for_gzip(header: str, taken: bool) -> None:
    assert takes_gzip(header) is taken


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(JSON, st.integers(0, 5), st.booleans())
def test_json_in_pieces_is_json_at_once(value: Any, levels: int, in_order: bool) -> None:
    at_once = json.dumps(value, separators=(",", ":"), sort_keys=not in_order)
    assert compact(value, levels, in_order=in_order) == at_once
