"""Build hook: compile the BPF programs while a wheel is made.

An object file is needed by the network isolator only, so a machine without clang still gets a package, and a warning
that says what it lacks. Where clang is present a failure to compile is an error: a wheel must not silently lose its
data plane.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REMEDY = "apt-get install clang libbpf-dev linux-libc-dev make"


class BpfBuildHook(BuildHookInterface[Any]):
    """Runs ``make -C bpf`` for wheels, editable ones included; a source distribution carries the sources alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        missing = [tool for tool in ("clang", "make") if shutil.which(tool) is None]
        if missing:
            self.app.display_warning(
                f"portslice: no {' and no '.join(missing)}: this package has no BPF programs, the network/port_mapping "
                f"isolator cannot work. Remedy: {REMEDY}, then install again."
            )
            return
        build = subprocess.run(
            ["make", "-C", str(Path(self.root, "bpf"))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if build.returncode != 0:
            raise RuntimeError(f"the BPF programs do not compile (Remedy: {REMEDY}):\n{build.stdout}")
