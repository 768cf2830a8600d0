"""`portslice master`, also installed as `mesos-master`."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from portslice.cli import logs, program
from portslice.cli.main import guarded
from portslice.engines.master.flags import MasterFlags
from portslice.errors import PortsliceError
from portslice.flags import startup_line

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


def run(argv: Sequence[str], name: str = "portslice master") -> int:
    """Run the master to its end; 0 if it was asked to stop, 1 if it could not start."""
    begun = program.begin(MasterFlags, argv, name, _INTRO)
    if isinstance(begun, int):
        return begun
    flags, warnings = begun
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
