"""An environment as a shell script, for the last step of a launch (``init.sh`` says why it is one)."""

import re
import shlex
from collections.abc import Mapping, Sequence

from portslice.errors import ContainerError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def script(environment: Mapping[str, str], env: str, command: Sequence[str]) -> str:
    """A script for ``sh -s -- ARGUMENT...`` that takes on exactly this environment and becomes the command, followed
    by the arguments, with nothing to read on standard input.

    ``env`` is the path of env(1), for names that no shell can hold as variables: they alone show, for an instant, in a
    command line. ContainerError if a name is empty or holds ``=``, or if a name or value holds a NUL.
    """
    exports, others = [], []
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ContainerError(f"Bad environment variable {name!r}")
        # dash allows only a number as OPTIND
        if _VARIABLE.fullmatch(name) and name != "OPTIND":
            exports.append(f"export {name}={shlex.quote(value)}\n")
        else:
            others.append(f"{name}={value}")
    start = shlex.join([*([env, "--", *others] if others else []), *command])
    return f'unset PATH PWD OLDPWD\n{"".join(exports)}exec {start} "$@" </dev/null\n'
