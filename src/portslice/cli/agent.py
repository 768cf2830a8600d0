"""`portslice agent`, also installed as `mesos-agent` and `mesos-slave`."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from portslice.agent.flags import LOG_NAME, AgentFlags
from portslice.cli import logs, program
from portslice.cli.main import guarded
from portslice.errors import PortsliceError

if TYPE_CHECKING:
    from portslice.agent.service import Agent
    from portslice.engines.mesos.engine import MesosEngine

_INTRO = """\
The agent of Portslice: gives each container a slice of the host's ports, a share of its network and exact statistics.

Example:
  {program} --isolation=cgroups/cpu,cgroups/mem,network/port_mapping \\
    --resources='ports:[31000-32000];ephemeral_ports:[32768-57344]' --ephemeral_ports_per_container=1024 \\
    --egress_rate_limit_per_container=37500KB --egress_unique_flow_per_container

`portslice doctor` says what the host lacks, with the command that mends it."""


def mesos_agent() -> int:
    """Entry point of `mesos-agent` and `mesos-slave`."""
    return guarded(lambda: run(sys.argv[1:], Path(sys.argv[0]).name))


def run(argv: Sequence[str], name: str = "portslice agent") -> int:
    """Run the agent to its end; 0 if it was asked to stop, 1 if it could not start."""
    begun = program.begin(AgentFlags, argv, name, _INTRO)
    if isinstance(begun, int):
        return begun
    flags, warnings = begun
    _log(flags)
    for warning in warnings:
        logging.getLogger(__name__).warning("%s", warning)
    return _serve(flags)


def _serve(flags: AgentFlags) -> int:
    from portslice.agent.service import Agent
    from portslice.agent.startup import StartupError
    from portslice.http import server

    agent = Agent(flags)
    try:
        engine = _engine(agent)
        agent.prepare()
        try:
            asyncio.run(server.run(agent, engine))
        finally:
            agent.close()
    except PortsliceError as error:
        print(f"EXIT with status 1: {error}", file=sys.stderr)
        if isinstance(error, StartupError):
            print("\n`portslice doctor` with the same flags says how to mend it.", file=sys.stderr)
        return 1
    return 0


def _engine(agent: "Agent") -> "MesosEngine | None":
    if agent.flags.master is None:
        return None
    from portslice.engines.mesos.engine import MesosEngine

    return MesosEngine(agent)


def _log(flags: AgentFlags) -> None:
    handlers: list[logging.Handler] = [] if flags.quiet else [logging.StreamHandler()]
    if flags.log_dir is not None:
        flags.log_dir.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(flags.log_dir / LOG_NAME))
    logs.begin(flags.logging_level, handlers)
