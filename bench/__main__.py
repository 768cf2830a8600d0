"""The command line of script/bench."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench import capacity, datapath, monitor
from bench.crowd import MAX_CONTAINERS
from bench.report import Report
from portslice.demo.interrupt import interruptible
from portslice.errors import PortsliceError

_BENCHMARKS: dict[str, Callable[[int, int], Report]] = {
    "capacity": capacity.run,
    "statistics": monitor.run,
    "datapath": datapath.run,
}


def main() -> int:
    """Run those asked for."""
    options = _options()
    reports = []
    try:
        for name in options.names or _BENCHMARKS:
            with interruptible():
                reports.append(_BENCHMARKS[name](options.containers, options.rounds))
            print(reports[-1].text(), end="\n\n", flush=True)
    except KeyboardInterrupt:
        print("script/bench: stopped", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, subprocess.SubprocessError, PortsliceError) as error:
        print(f"script/bench: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps({report.title: report.figures for report in reports}, indent=2) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_BENCHMARKS)}; default: all")
    parser.add_argument("--containers", type=_containers, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=_rounds, default=60, metavar="N", help="a measurement; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in _BENCHMARKS]:
        parser.error(f"there is no benchmark '{unknown[0]}': choose from {', '.join(_BENCHMARKS)}")
    if os.geteuid() != 0:
        parser.error("the benchmarks build network namespaces: run them as root")
    return options


def _containers(text: str) -> int:
    value = int(text)
    if not 20 <= value <= MAX_CONTAINERS:
        raise argparse.ArgumentTypeError(f"must be between 20 and {MAX_CONTAINERS}")
    return value


def _rounds(text: str) -> int:
    value = int(text)
    if not 4 <= value <= 10000:
        raise argparse.ArgumentTypeError("must be between 4 and 10000")
    return value


if __name__ == "__main__":
    sys.exit(main())
