"""From flags to who may do what on the TCP port, checked before the agent touches the host.

What is not said here is not allowed: without credentials nothing on the port changes the host or shows a sandbox.
"""

import pwd
from dataclasses import dataclass

from portslice.agent.flags import AgentFlags
from portslice.credentials import Credentials
from portslice.errors import PortsliceError

READONLY = "mesos-agent-readonly"
READWRITE = "mesos-agent-readwrite"


class PolicyError(PortsliceError):
    """The flags about access contradict each other, or name nobody."""


@dataclass(frozen=True)
class Policy:
    """What holds on the TCP port.

    :param realms: what needs credentials even where it only reads: READONLY, READWRITE.
    :param users: as whom containers may be launched there; the first is the default.
    """

    credentials: Credentials | None
    realms: frozenset[str]
    users: tuple[str, ...]
    open_files: bool


def policy(flags: AgentFlags) -> Policy:
    """What the flags mean.

    :raises PolicyError: in Mesos' words where it has any.
    """
    asked = {READONLY: flags.authenticate_http_readonly, READWRITE: flags.authenticate_http_readwrite}
    realms = frozenset(realm for realm, wanted in asked.items() if wanted)
    if realms and flags.http_credentials is None:
        raise PolicyError(
            f"No credentials provided for the default 'basic' HTTP authenticator for realm '{min(realms)}': name a "
            "file with --http_credentials"
        )
    users = tuple(name.strip() for name in flags.http_users.split(",") if name.strip())
    if not users:
        raise PolicyError("--http_users names nobody: 'nobody' is its default")
    if flags.http_credentials is not None or flags.http_users != AgentFlags.http_users:
        for name in users:  # the default may be unknown where nobody needs it
            _check_user(name)
    return Policy(flags.http_credentials, realms, users, flags.open_files)


def _check_user(name: str) -> None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise PolicyError(f"There is no user '{name}' for --http_users") from None
    if entry.pw_uid == 0:
        raise PolicyError(f"--http_users may not name '{name}': containers are launched as root over --socket only")
