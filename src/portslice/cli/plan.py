"""`portslice plan`."""

import argparse
import json
import sys
from typing import Any

from portslice.agent import startup
from portslice.agent.prerequisites import Ranges, host_range
from portslice.cli import agent_flags
from portslice.cli.picture import picture
from portslice.cli.table import table
from portslice.ports import BlockAllocator, PortSet

_EPILOG = """\
It takes the agent's flags (portslice agent --help); these matter:
  --resources=RESOURCES                `ports` and `ephemeral_ports`; else the example of Mesos' documentation
  --ephemeral_ports_per_container=N    size of a container's ephemeral block (default: 1024)
  --strict_mesos                       only what Mesos would take: blocks of a power of two
It needs no root, changes nothing, and compares the ports with this host's own ephemeral ones.

examples:
  portslice plan --resources='ports:[31000-32000];ephemeral_ports:[32768-57344]'
  portslice plan --resources='ephemeral_ports:[32768-57344]' --ephemeral_ports_per_container=512 --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.usage = "portslice plan [--json] [AGENT FLAG ...]"


def main(options: argparse.Namespace) -> int:
    """Show it."""
    flags = agent_flags.read(options.agent_flags)
    assigned, ephemeral = startup.port_resources(flags)
    startup.check_blocks(flags, ephemeral)
    allocator = BlockAllocator(ephemeral, flags.ephemeral_ports_per_container)
    ranges = Ranges(startup.host_port_range(), assigned, ephemeral)
    blocks = list(allocator.blocks())
    unused = ephemeral - PortSet(blocks)
    each, left = divmod(len(assigned), len(blocks))
    host = host_range(ranges)
    warnings = [] if host.ok else [f"{host.detail}. Remedy: {host.remedy}"]
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    if options.json:
        plan: dict[str, Any] = {
            "resources": flags.resources,
            "containers": len(blocks),
            "ephemeral_ports_per_container": allocator.size,
            "blocks": [[block.begin, block.end] for block in blocks],
            "unused_ephemeral_ports": [[unused_range.begin, unused_range.end] for unused_range in unused.ranges],
            "assigned_ports": len(assigned),
            "assigned_ports_per_container": each,
            "ranges": ranges.json(),
            "warnings": warnings,
        }
        print(json.dumps(plan, indent=2))
        return 0
    print(f"Containers that fit:         {len(blocks)}")
    print(f"Ephemeral ports of each:     {allocator.size}")
    print(f"Assigned ports left of each: {each} of {len(assigned)}, if shared evenly; {left} remain")
    print(f"Ephemeral ports never used:  {f'{len(unused)}, {unused}, outside of aligned blocks' if unused else 'none'}")
    print(f"\n{picture(ranges)}\n")
    print(table(("CONTAINER", "EPHEMERAL PORTS"), [(number, str(block)) for number, block in enumerate(blocks, 1)]))
    return 0
