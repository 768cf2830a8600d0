"""The master's flags, with Mesos' names, types and defaults (reference: mesos `src/master/flags.cpp`) where it has
them."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from portslice.credentials import Credentials
from portslice.errors import ParseError, PortsliceError
from portslice.flags import boolean, duration, flag, integer, path, text, uint16
from portslice.units import Duration

SCHEDULER_REALM = "mesos-master-scheduler"


@dataclass(frozen=True)
class Networks:
    """IPv4 addresses and networks, separated by commas."""

    text: str
    networks: tuple[IPv4Network, ...]

    @classmethod
    def parse(cls, text: str) -> "Networks":
        """:raises ParseError: one is none."""
        try:
            return cls(text, tuple(IPv4Network(each.strip()) for each in text.split(",")))
        except ValueError as error:
            raise ParseError(f"Expecting addresses or networks, 10.0.0.7,10.1.0.0/24: {error}") from None

    def __str__(self) -> str:
        return self.text


def address(value: str) -> str:
    """An IPv4 address."""
    try:
        return str(IPv4Address(value.strip()))
    except ValueError:
        raise ParseError("Expecting an IPv4 address") from None


def fixed_port(value: str) -> int:
    """A port that agents can be told: 1..65535."""
    if (number := uint16(value)) == 0:
        raise ParseError("Expecting a fixed port: agents and frameworks look for it")
    return number


def count(value: str) -> int:
    """A number that is not negative."""
    if (number := integer(value)) < 0:
        raise ParseError("Expecting a number that is not negative")
    return number


def elected(value: str) -> str:
    """What a master needs that has others beside it: refused."""
    raise ParseError(
        "This master is for one host and has none beside it; where several are elected over ZooKeeper run Apache "
        "Mesos' master, which the same agents join with --master=zk://..."
    )


_ELECTED = "Refused if set: this master is for one host and takes part in no election."


@dataclass(frozen=True)
class MasterFlags:
    """Every flag; None where there is no default."""

    ip: str = flag(
        "127.0.0.1",
        parse=address,
        help="IPv4 address to listen on; `0.0.0.0` is all of them. Whoever reaches it can read.",
    )
    port: int = flag(5050, parse=fixed_port, help="TCP port to listen on.")
    hostname: str | None = flag(None, parse=text, help="The hostname to report; the --ip if unset.")
    cluster: str | None = flag(None, parse=text, help="Name of the cluster, to show.")
    work_dir: Path = flag(
        Path("/var/lib/portslice-master"), parse=path, help="Directory of the ids that survive a restart."
    )
    agent_networks: Networks | None = flag(
        None,
        parse=Networks.parse,
        help="Addresses and networks from which agents may join besides this host, e.g. 10.0.0.7,10.1.0.0/24.",
    )
    credentials: Credentials | None = flag(
        None,
        parse=Credentials.parse_any,
        secret=True,
        help='Who may come from anywhere: `{"credentials":[{"principal":"jobs","secret":"…"}]}`, or a principal and '
        "its secret a line, as `file:///path`. Then all frameworks need one (HTTP Basic). Without it frameworks are "
        "processes of root, or of the master's user, on this host. For agents see --authenticate_agents.",
    )
    authenticate_agents: bool = flag(
        False,
        parse=boolean,
        aliases=("authenticate_slaves",),
        help="Only agents that prove that they are in --credentials (CRAM-MD5) join; from any host, unless "
        "--agent_networks names some.",
    )
    authenticators: str = flag("crammd5", parse=text, help="`crammd5`, the only one.")
    authenticate_http_frameworks: bool | None = flag(
        None, parse=boolean, help="Whether frameworks need --credentials; if unset, they do where there are any."
    )
    http_framework_authenticators: str = flag("basic", parse=text, help="`basic`, the only one.")
    max_executors_per_agent: int | None = flag(
        None,
        parse=count,
        aliases=("max_executors_per_slave",),
        help="No more executors at once on an agent; a command task is one. If unset, as many as it has blocks of "
        "ephemeral ports.",
    )
    agent_ping_timeout: Duration = flag(
        Duration.parse("15secs"),
        parse=duration,
        aliases=("slave_ping_timeout",),
        help="Between two pings of an agent.",
    )
    max_agent_ping_timeouts: int = flag(
        5,
        parse=count,
        aliases=("max_slave_ping_timeouts",),
        help="So many pings without an answer make an agent unreachable.",
    )
    allocation_interval: Duration = flag(
        Duration.parse("1secs"), parse=duration, help="Between two rounds of offers; there is one at each event, too."
    )
    zk: str | None = flag(None, parse=elected, help=_ELECTED)
    quorum: str | None = flag(None, parse=elected, help=_ELECTED)
    logging_level: str = flag("INFO", parse=text, help="`INFO`, `WARNING` or `ERROR`.")
    help: bool = flag(False, parse=boolean, help="Print this help.")
    version: bool = flag(False, parse=boolean, help="Print the version.")

    def check(self) -> None:
        """What they say together.

        :raises PortsliceError: in Mesos' words where it has any.
        """
        if not 1 <= self.agent_ping_timeout.seconds <= 15 * 60:
            raise PortsliceError(
                f"Invalid value '{self.agent_ping_timeout}' for --agent_ping_timeout: Must be between 1secs and 15mins"
            )
        if self.max_agent_ping_timeouts < 1:
            raise PortsliceError(
                f"Invalid value '{self.max_agent_ping_timeouts}' for --max_agent_ping_timeouts: Must be at least 1"
            )
        if self.allocation_interval.seconds <= 0:
            raise PortsliceError(
                f"Invalid value '{self.allocation_interval}' for --allocation_interval: Must be more than 0"
            )
        if self.authenticators != "crammd5":
            raise PortsliceError(
                f"Could not create authenticator module '{self.authenticators}': crammd5 is the only one"
            )
        if self.http_framework_authenticators != "basic":
            raise PortsliceError(
                f"HTTP authenticator '{self.http_framework_authenticators}' not found: --http_framework_authenticators"
                "=basic is the only one"
            )
        if self.authenticate_agents and self.credentials is None:
            raise PortsliceError(
                "No credentials provided, authentication requests will be refused: name a file with --credentials"
            )
        if self.authenticate_http_frameworks and self.credentials is None:
            raise PortsliceError(
                "No credentials provided for the default 'basic' HTTP authenticator for realm "
                f"'{SCHEDULER_REALM}': name a file with --credentials"
            )

    @property
    def framework_credentials(self) -> Credentials | None:
        """Those that all frameworks need."""
        return None if self.authenticate_http_frameworks is False else self.credentials
