"""The agent's flags for commands that foretell what an agent with these flags would do."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from portslice.agent.flags import AgentFlags
from portslice.flags import load

EXAMPLE = "ports:[31000-32000];ephemeral_ports:[32768-57344]"


def read(arguments: Sequence[str]) -> AgentFlags:
    """Read them as the agent does, MESOS_NAME in the environment included, and `--name value` as well. Without
    --resources they are those of Mesos' documentation, which is said on standard error.

    :raises FlagError: as the agent.
    """
    flags, _ = load(AgentFlags, _joined(arguments), os.environ)
    if not flags.resources:
        print(f"No --resources given: taking the documentation's example, {EXAMPLE}", file=sys.stderr)
        flags = replace(flags, resources=EXAMPLE)
    return flags


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--name value` as `--name=value`. A boolean needs no value and stands before another flag or at the end."""
    joined: list[str] = []
    for argument in arguments:
        if joined and not argument.startswith("--") and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
