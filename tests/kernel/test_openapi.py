"""A real agent answers as docs/openapi.yaml says: every operation is asked for, in the order and with the examples of
the description, and every JSON answer is what its schema says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import yaml
from referencing.jsonschema import DRAFT202012

from portslice.demo.node import Node, node
from portslice.demo.testbed import testbed
from tests.kernel.asking import ask, over_socket
from tests.kernel.conftest import NETWORK_STATISTICS
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

DESCRIPTION = yaml.safe_load((Path(__file__).parents[2] / "docs/openapi.yaml").read_text())
URI = "urn:openapi"
REGISTRY: referencing.Registry[Any] = referencing.Registry().with_resource(
    URI, DRAFT202012.create_resource(DESCRIPTION)
)
METHODS = ("get", "post", "patch", "put", "delete")
# A stream has no end; and files are not open to everybody: see test_dashboard, test_files.
ELSEWHERE = ("/overview/events", "/files/")
EVERYTHING = (
    *("--egress_rate_limit_per_container=37500KB", "--ingress_rate_limit_per_container=37500KB"),
    *NETWORK_STATISTICS,
    *("--network_rate_statistics_window=1mins", "--network_rate_statistics_interval=50ms"),
    *("--cgroups_enable_cfs", "--attributes=rack:abc;keys:[1-5]"),
)


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    with testbed() as bed, node(bed, *EVERYTHING) as agent:
        yield agent


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation; the operation has the parameters of its path, too."""
    for path, item in DESCRIPTION["paths"].items():
        for method in METHODS:
            if method in item and path not in ELSEWHERE and not path.startswith(ELSEWHERE[-1]):
                parameters = [*item.get("parameters", ()), *item[method].get("parameters", ())]
                yield path, method, {**item[method], "parameters": [resolved(each) for each in parameters]}


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    return dict(REGISTRY.resolver(URI).lookup(node["$ref"]).contents)


def request(path: str, operation: dict[str, Any]) -> tuple[str, bytes | None]:
    """Target and body, of the examples."""
    query = []
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
        elif "example" in parameter:
            query.append(f"{parameter['name']}={parameter['example']}")
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in content:
        valid(content["example"], content["schema"])
    target = path + (f"?{'&'.join(query)}" if query else "")
    return target, json.dumps(content["example"]).encode() if "example" in content else None


def valid(value: Any, schema: dict[str, Any]) -> None:
    """:raises jsonschema.ValidationError: it is not."""
    absolute = json.loads(re.sub(r'"\$ref": "#', f'"$ref": "{URI}#', json.dumps(schema)))
    jsonschema.Draft202012Validator(absolute, registry=REGISTRY).validate(value)


def test_the_agent_does_what_is_described(agent: Node) -> None:
    busy = agent.launch("busy", "sleep", "infinity", cpus=1.0, mem=64 << 20, ports="31005-31005")
    agent.launch("ended", "true")
    agent.client.wait("ended")
    until(lambda: "rx_rate" in agent.statistics("busy")["net_rate_statistics"], "percentiles of rates")
    asked = []
    for path, method, operation in operations():
        target, body = request(path, operation)
        where = f"{method.upper()} {target}"
        headers: dict[str, Any] = {"Content_Type": "application/json"} if body is not None else {}
        request_of = over_socket if "socket" in operation["tags"] else ask
        answer = request_of(agent, target, method.upper(), body, **headers)
        described = operation["responses"].get(str(answer.status))
        assert described is not None, f"{where}: {answer.status} {answer.text}"
        content = described.get("content", {})
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        assert kind in content if content else answer.body == b"", where
        if kind == "application/json":
            valid(answer.json, content[kind]["schema"])
            asked.append(path)
    assert len(asked) >= 15
    assert busy["id"] in ask(agent, "/containers").text, "the schemas were tried on more than empty lists"


def test_what_is_refused_is_described_too(agent: Node) -> None:
    """On the TCP port the socket's paths are forbidden, and an error is what is described as one."""
    for path, method, operation in operations():
        if "socket" in operation["tags"]:
            target, body = request(path, operation)
            answer = ask(agent, target, method.upper(), body)
            assert answer.status == 403, target
            valid(answer.json, resolved(operation["responses"]["default"])["content"]["application/json"]["schema"])


def test_a_schema_would_tell(agent: Node) -> None:
    """An unknown field, a text for a number and a missing member are no valid answers."""
    agent.launch("web")
    (element,) = ask(agent, "/containers").json
    schema = {"$ref": "#/components/schemas/ContainerUsage"}
    valid(element, schema)
    statistics = element["statistics"]
    for wrong in (
        {**element, "statistics": {**statistics, "net_unheard_of": 1}},
        {**element, "statistics": {**statistics, "net_rx_bytes": "1"}},
        {name: value for name, value in element.items() if name != "status"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            valid(wrong, schema)
