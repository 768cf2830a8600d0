"""What the agent tells its executor: environment variables, as Mesos has them (docs/executor-http-api.md)."""

from collections.abc import Mapping
from dataclasses import dataclass

from portslice.errors import ParseError
from portslice.units import Duration


@dataclass(frozen=True)
class Settings:
    """Times are in seconds.

    :param sandbox: the directory of the executor, in which it is started.
    :param checkpoint: the executor outlives an agent.
    :param recovery_secs: how long it waits for the next agent, if so.
    :param backoff_secs: at most so long between two attempts to reach the agent.
    :param grace_secs: after SHUTDOWN the agent waits so long before it ends the container.
    """

    host: str
    port: int
    framework_id: str
    executor_id: str
    sandbox: str
    checkpoint: bool
    recovery_secs: float
    backoff_secs: float
    grace_secs: float

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """:raises ParseError: something is missing, or not to be understood."""

        def text(name: str) -> str:
            if value := environment.get(name):
                return value
            raise ParseError(f"Expecting '{name}' to be set in the environment")

        def secs(name: str, default: float) -> float:
            try:
                return Duration.parse(environment[name]).seconds if name in environment else default
            except ParseError as error:
                raise ParseError(f"Failed to parse '{name}': {error}") from None

        host, _, port = text("MESOS_AGENT_ENDPOINT").rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
            raise ParseError(f"Failed to parse MESOS_AGENT_ENDPOINT '{text('MESOS_AGENT_ENDPOINT')}'")
        return cls(
            host=host.strip("[]"),
            port=int(port),
            framework_id=text("MESOS_FRAMEWORK_ID"),
            executor_id=text("MESOS_EXECUTOR_ID"),
            sandbox=text("MESOS_SANDBOX"),
            checkpoint=environment.get("MESOS_CHECKPOINT") == "1",
            recovery_secs=secs("MESOS_RECOVERY_TIMEOUT", 900),
            backoff_secs=max(secs("MESOS_SUBSCRIPTION_BACKOFF_MAX", 2), 0.1),
            grace_secs=secs("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", 5),
        )
