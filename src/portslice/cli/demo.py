"""`portslice demo`."""

import argparse
import json
import os
import shutil
import subprocess
import sys

from portslice.demo.console import Console
from portslice.demo.interrupt import interruptible, then_undisturbed
from portslice.demo.story import Story
from portslice.demo.testbed import testbed
from portslice.errors import PortsliceError

_EPILOG = """\
It builds a host and an outside world in network namespaces of their own, starts
an agent there and three containers: one that sends as fast as it may, one that
answers small requests, one that uses ports which are not its own. Every figure
is measured while you watch. Nothing of the machine's own network is touched,
and nothing is left behind. Needs root and iperf3.

examples:
  portslice demo
  portslice demo --seconds 3
  portslice demo --json

exit status: 0 if all that was claimed was so, 1 if not."""
_PROGRAMS = {"iperf3": "iperf3", "curl": "curl", "ip": "iproute2", "ss": "iproute2", "nsenter": "util-linux"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--seconds", type=_seconds, default=10.0, help="how long to measure under load (default: 10)")


def main(options: argparse.Namespace) -> int:
    """Tell it."""
    if os.geteuid() != 0:
        raise PortsliceError("The demo builds network namespaces: run it as root")
    if missing := sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None}):
        raise PortsliceError(f"The demo needs more programs: apt-get install {' '.join(missing)}")
    # With --json the story goes to standard error, and its figures alone to standard output.
    console = Console(sys.stderr if options.json else sys.stdout)
    try:
        figures = _tell(console, options.seconds)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise PortsliceError(f"The demo could not go on: {error}") from error
    broken = [claim.text for claim in console.claims if not claim.held]
    seconds = round(console.elapsed_secs, 1)
    if options.json:
        claims = [claim._asdict() for claim in console.claims]
        print(json.dumps({"seconds": seconds, "claims": claims, "figures": figures}, indent=2))
    console.step("Not all of it was so: " + "; ".join(broken) if broken else "Done; all of it was so")
    return 1 if broken else 0


def _tell(console: Console, seconds: float) -> dict[str, object]:
    console.step("Building a host and the world around it, in network namespaces")
    with interruptible(), testbed() as bed:
        story = Story(bed, console, seconds)
        try:
            with then_undisturbed():
                story.tell()
        finally:
            left = [] if story.cleaned_up else story.agent.cleanup()
    if left:
        raise RuntimeError("something was left behind: " + "; ".join(left))
    return story.figures


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 600:
        raise argparse.ArgumentTypeError("must be between 1 and 600")
    return value
