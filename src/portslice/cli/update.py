"""`portslice update`."""

import argparse
import json

from portslice.cli import values
from portslice.cli.client import Client

_EPILOG = """\
What is not named stays as it is, and traffic on ports that stay goes on. If anything is refused, nothing is changed.
A container does not learn of new ports by itself: PORT0 and the like are those of its start.
Limits per CPU (--egress_rate_per_cpu of the agent) follow --cpus. A hard memory limit is only ever raised; a smaller
--mem says what the kernel shall leave to the container when memory is short, as in Mesos.

examples:
  portslice update web --ports 31000-31009
  portslice update web --ports 3
  portslice update web --egress 10MB --ingress 0
  portslice update web --cpus 2 --mem 256MB --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="NAME", help="name or id of a running container")
    parser.add_argument("--cpus", type=values.cpus, help="share of CPUs, e.g. 0.5")
    parser.add_argument("--mem", type=values.bytes_, help="memory limit, e.g. 64MB")
    parser.add_argument("--disk", type=values.bytes_, help="disk for its directory, e.g. 1GB")
    parser.add_argument("--ports", type=values.ports, help="how many assigned ports (5), or which (31000-31004)")
    for direction, verb in (("egress", "sends"), ("ingress", "receives")):
        text = f"limit of what it {verb} in bytes per second, e.g. 10MB; 0: none"
        parser.add_argument(f"--{direction}", type=values.rate, metavar="RATE", help=text)


def main(options: argparse.Namespace) -> int:
    """Change it."""
    given = {name: getattr(options, name) for name in ("cpus", "mem", "disk", "ports", "egress", "ingress")}
    change = {name: value for name, value in given.items() if value is not None}
    if not change:
        options.parser.error(f"nothing to change: name at least one of {', '.join(f'--{name}' for name in given)}")
    container = Client(options.socket).update(options.name, change)
    print(json.dumps(container, indent=2) if options.json else container["name"])
    return 0
