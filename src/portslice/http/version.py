"""Which version the agent and the master say that they are."""

import time
from pathlib import Path

import portslice

MESOS_VERSION = "1.11.0"  # whose interface this is: clients choose what they ask for by it
# Our own build; Mesos' members without a value here are empty.
_BUILT = Path(portslice.__file__).stat().st_mtime
VERSION = {
    "build_date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(_BUILT)),
    "build_time": _BUILT,
    "build_user": "",
    "git_sha": "",
    "git_tag": "",
    "portslice_version": portslice.__version__,
    "version": MESOS_VERSION,
}
