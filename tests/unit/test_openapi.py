"""docs/openapi.yaml is an OpenAPI description, of all that the agent serves."""

import re
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
import yaml

import portslice
from portslice.agent.flags import AgentFlags
from portslice.agent.service import Agent
from portslice.http import server

METHODS = ("get", "post", "patch", "put", "delete")


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return dict(yaml.safe_load((Path(__file__).parents[2] / "docs/openapi.yaml").read_text()))


def test_it_is_one(description: dict[str, Any]) -> None:
    openapi_spec_validator.validate(description)
    assert description["info"]["version"] == portslice.__version__


def test_everything_served_is_described_and_the_other_way_round(description: dict[str, Any]) -> None:
    agent = Agent(AgentFlags())
    served = {(route.path, route.method) for route in (*server.on_socket(agent), *server.on_tcp(agent))}
    served = {(re.sub(r":[^}]*}", "}", path), method) for path, method in served} | {("/help", "*")}
    described = {
        (path, method.upper()) for path, item in description["paths"].items() for method in item if method in METHODS
    }
    wanted = {(path, "GET" if method == "*" else method) for path, method in served}
    assert described == wanted
