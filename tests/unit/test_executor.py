"""What the default executor reads, and what checks amount to."""

import os
import pwd
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.errors import ParseError
from portslice.executor.checks import Health
from portslice.executor.definition import Definition, HealthCheck, Probe
from portslice.executor.settings import Settings

_ENVIRONMENT = {
    "MESOS_AGENT_ENDPOINT": "10.0.0.1:5051",
    "MESOS_FRAMEWORK_ID": "f",
    "MESOS_EXECUTOR_ID": "e",
    "MESOS_SANDBOX": "/sandbox",
}


def _task(**more: Any) -> dict[str, Any]:
    return {"name": "t", "task_id": {"value": "t"}, "command": {"value": "true"}, **more}


def test_settings() -> None:
    settings = Settings.read({**_ENVIRONMENT, "MESOS_CHECKPOINT": "1", "MESOS_RECOVERY_TIMEOUT": "15mins"})
    assert (settings.host, settings.port, settings.checkpoint, settings.recovery_secs) == ("10.0.0.1", 5051, True, 900)
    assert Settings.read({**_ENVIRONMENT, "MESOS_AGENT_ENDPOINT": "[::1]:5051"}).host == "::1"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MESOS_EXECUTOR_ID", "", "Expecting 'MESOS_EXECUTOR_ID' to be set in the environment"),
        ("MESOS_AGENT_ENDPOINT", "5051", "Failed to parse MESOS_AGENT_ENDPOINT '5051'"),
        ("MESOS_AGENT_ENDPOINT", "h:99999", "Failed to parse MESOS_AGENT_ENDPOINT 'h:99999'"),
        ("MESOS_RECOVERY_TIMEOUT", "15", "Failed to parse 'MESOS_RECOVERY_TIMEOUT': Invalid duration '15'"),
    ],
)
def test_no_settings(name: str, value: str, message: str) -> None:
    with pytest.raises(ParseError) as raised:
        Settings.read({**_ENVIRONMENT, name: value})
    assert str(raised.value) == message


def test_a_definition() -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    resources = [
        {"name": "ports", "ranges": {"range": [{"begin": 9, "end": 9}, {"begin": 3, "end": 4}]}},
        {"name": "cpus", "scalar": {"value": 1}, "allocation_info": {"role": "web"}},
    ]
    info = _task(command={"value": "true", "user": user, "shell": True}, resources=resources)
    definition = Definition.read(info | {"kill_policy": {"grace_period": {"nanoseconds": 10**8}}}, alone=False)
    assert definition.command.words == ("sh", "sh", "-c", "true")
    ports = {"PORT": "3", "PORT0": "3", "PORT1": "4", "PORT2": "9", "PORTS": "3,4,9"}
    assert definition.environment == {"MESOS_TASK_ID": "t", "MESOS_ALLOCATION_ROLE": "web", **ports}
    assert definition.grace_secs == 0.1
    alone = Definition.read(info | {"max_completion_time": {"nanoseconds": 10**9}}, alone=True)
    assert (alone.grace_secs, alone.max_secs) == (3, 1)
    assert "PORT0" not in alone.environment  # its container's


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"command": {"shell": False}}, "The task's command must contain 'executable path'"),
        ({"command": {"value": "true", "uris": [{"value": "file:///x"}]}}, "URIs of a task in a group are not fetched"),
        ({"container": {"mesos": {"image": {}}}}, "Container images and volumes"),
        ({"task_id": {"value": "../up"}}, "The id '../up' contains invalid characters"),
        ({"health_check": {}}, "HealthCheck must specify 'type'"),
        ({"health_check": {"type": "TCP"}}, "Expecting 'tcp' to be set for TCP health check"),
        ({"health_check": {"type": "COMMAND"}}, "Expecting 'command' to be set for command health check"),
        ({"check": {"type": "COMMAND", "command": {"command": {}}}}, "Command check must contain 'shell command'"),
        ({"check": {"type": "HTTP", "http": {"port": 80, "path": "x"}}}, "The path 'x' of HTTP check must start with"),
        ({"check": {"type": "HTTP", "http": {"port": 0}}}, "0 is not the number of a port"),
        ({"check": {"type": "TCP", "tcp": {"port": 80}, "delay_seconds": -1}}, "Expecting 'delay_seconds' to be non-"),
        ({"check": {"type": "UNKNOWN"}}, "'UNKNOWN' is not a valid check type"),
        ({"health_check": {"type": "HTTP", "http": {"port": 80, "scheme": "ftp"}}}, "Unsupported HTTP health check"),
        ({"resources": [{"name": "ports"}]}, "The task is not well formed: "),
        ({"command": {"value": 3}}, "Expecting a text, not 3"),
    ],
)
def test_no_definition(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ParseError) as raised:
        Definition.read(_task(**more), alone=False)
    assert str(raised.value).startswith(message)


def test_users() -> None:
    """A task's, or a check's, is the executor's; unless nobody's is asked for."""
    check = {"type": "COMMAND", "command": {"command": {"value": "true", "user": "nosuchuser"}}}
    for more in ({"command": {"value": "true", "user": "nosuchuser"}}, {"check": check}):
        with pytest.raises(ParseError, match=r"^There is no user 'nosuchuser' on this host$"):
            Definition.read(_task(**more), alone=True)
        Definition.read(_task(**more), alone=True, switch_user=False)
    other = next(each.pw_name for each in pwd.getpwall() if each.pw_uid != os.geteuid())
    with pytest.raises(ParseError, match=f"^The task wants to run as user '{other}', but its executor runs as uid "):
        Definition.read(_task(command={"value": "true", "user": other}), alone=False)


def test_a_health_check_of_ipv6() -> None:
    check = {"type": "HTTP", "http": {"port": 80, "path": "/x", "protocol": "IPv6"}}
    definition = Definition.read(_task(health_check=check), alone=True)
    assert definition.health_check is not None
    assert definition.health_check.probe == Probe("HTTP", url="http://[::1]:80/x")


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(0, 5))
def test_health(answers: list[bool], failures: int, grace: int) -> None:
    """One answer a second. Whatever is told is true of the answers so far, and no news is left out."""
    told: list[tuple[bool, bool]] = []
    check = HealthCheck(Probe("TCP", host="127.0.0.1", port=1), 0, 1, 0, failures, grace)
    health = Health(check, lambda healthy, end: told.append((healthy, end)))
    counted: list[bool] = []
    for second, answer in enumerate(answers):
        before = len(told)
        if answer:
            health.success()
        else:
            health.failure("why", second)
        if answer or not grace or second > grace or True in counted:
            news = not counted or not answer or not counted[-1]
            counted.append(answer)
            ends = not answer and len(counted) >= failures and not any(counted[-failures:])
            assert told[before:] == ([(answer, ends)] if news else [])
        else:
            assert told[before:] == []
