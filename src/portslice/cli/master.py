"""`portslice master`, also installed as `mesos-master`."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from portslice import __version__
from portslice.cli import logs
from portslice.cli.main import guarded
from portslice.engines.master.flags import MasterFlags
from portslice.errors import FlagError, PortsliceError
from portslice.flags import load, startup_line, usage

_INTRO = """\
A small Mesos master for one host, development and tests: agents join it with --master, frameworks of the v1 scheduler \
API are offered what they have.

It is one process without a stand-by. For many hosts run Apache Mesos' master with ZooKeeper: the same agents join it.

Example:
  {program} --work_dir=/var/lib/portslice-master
  portslice agent --master=127.0.0.1:5050 --isolation=network/port_mapping \\
    --resources='ports:[31000-32000];ephemeral_ports:[32768-57344]'"""


def mesos_master() -> int:
    """Entry point of `mesos-master`."""
    return guarded(lambda: run(sys.argv[1:], Path(sys.argv[0]).name))


def run(argv: Sequence[str], program: str = "portslice master") -> int:
    """Run the master to its end; 0 if it was asked to stop, 1 if it could not start."""
    if any(word in ("--help", "-h", "--help=true") for word in argv):
        print(usage(MasterFlags, program, _INTRO.format(program=program)))
        return 0
    try:
        flags, warnings = load(MasterFlags, argv, os.environ)
    except FlagError as error:
        print(f"{error}\n\nSee `{program} --help` for a list of supported flags.", file=sys.stderr)
        return 1
    if flags.version:
        print(f"portslice {__version__}")
        return 0
    if flags.logging_level not in logs.LEVELS:
        print(f"'{flags.logging_level}' is not a valid logging level: INFO, WARNING or ERROR", file=sys.stderr)
        return 1
    logs.begin(flags.logging_level, [logging.StreamHandler()])
    log = logging.getLogger(__name__)
    for warning in warnings:
        log.warning("%s", warning)
    log.info("%s", startup_line(flags))
    from portslice.engines.master import server

    try:
        asyncio.run(server.run(flags))
    except PortsliceError as error:
        print(f"EXIT with status 1: {error}", file=sys.stderr)
        return 1
    return 0
