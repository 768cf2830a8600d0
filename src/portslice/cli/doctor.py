"""`portslice doctor`."""

import argparse
import json
import shutil
import sys
import textwrap
from dataclasses import asdict

from portslice.agent import prerequisites
from portslice.cli import agent_flags
from portslice.cli.glyphs import Style
from portslice.cli.picture import picture
from portslice.network.probe import Check, Status

_EPILOG = """\
Give it the flags of the agent (portslice agent --help); without --resources it takes the example of Mesos'
documentation. It changes nothing.

examples:
  sudo portslice doctor
  sudo portslice doctor --isolation=cgroups/cpu,cgroups/mem,network/port_mapping \\
    --resources='ports:[31000-32000];ephemeral_ports:[32768-57344]' --egress_rate_limit_per_container=37500KB
  sudo portslice doctor --json

exit status: 0 if the agent can start (a warning is no obstacle), 1 if something is missing, wrong or unknown."""
_COLOURS = {
    Status.OK: "32",
    Status.WARNING: "33",
    Status.UNKNOWN: "33",
    Status.MISSING: "31;1",
    Status.WRONG: "31;1",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.usage = "portslice doctor [--json] [AGENT FLAG ...]"


def main(options: argparse.Namespace) -> int:
    """Examine the host."""
    flags = agent_flags.read(options.agent_flags)
    checks = list(prerequisites.examine(flags))
    healthy = all(check.ok for check in checks)
    ranges = prerequisites.ranges(flags)
    if options.json:
        answer = {
            "ok": healthy,
            "resources": flags.resources,
            "checks": [asdict(check) for check in checks],
            "ranges": ranges.json() if ranges else None,
        }
        print(json.dumps(answer, indent=2))
        return 0 if healthy else 1
    style = Style.of(sys.stdout)
    for check in checks:
        print(_line(check, style))
    if ranges:
        print(f"\n{picture(ranges, style)}")
    failed = sum(not check.ok for check in checks)
    verdict = f"cannot start: {failed} of {len(checks)} checks failed" if failed else "can start"
    print(f"\nThe agent {verdict}.")
    return 0 if healthy else 1


def _line(check: Check, style: Style) -> str:
    """`status  name: detail`, and the remedy on a line that can be copied."""
    status = check.status.ljust(8)
    if style.colour:
        status = f"\x1b[{_COLOURS[check.status]}m{status}\x1b[0m"
    text = f"{check.name}: {check.detail}" if check.detail else check.name
    width = max(shutil.get_terminal_size().columns - 9, 40)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    if not check.ok or check.status is Status.WARNING:
        lines.append(f"→ {check.remedy}" if style.unicode else f"-> {check.remedy}")
    return f"{status} " + f"\n{' ' * 9}".join(lines)
