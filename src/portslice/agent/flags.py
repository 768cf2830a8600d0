"""The agent's flags, with Mesos' names, types and defaults (reference: mesos `src/slave/flags.cpp`)."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portslice.credentials import Credentials
from portslice.flags import boolean, bytes_, duration, flag, json_object, path, text, uint16
from portslice.units import Bytes, Duration

DEFAULT_RUNTIME_DIR = Path("/run/portslice")
DEFAULT_WORK_DIR = Path("/var/lib/portslice")
SOCKET_NAME = "agent.sock"
LOG_NAME = "portslice-agent.log"
_NOT_YET = "Not supported yet."

# Mesos' flags that are known, so that none is taken for a slip of the pen in another one's name, and refused if set.
NOT_YET = ("credential",)


@dataclass(frozen=True)
class AgentFlags:
    """Every flag; None where Mesos has no default."""

    # Where and who
    master: str | None = flag(
        None,
        parse=text,
        help="The master of the Mesos cluster to join, `host:port`, or `zk://host1:port1,host2:port2,.../path` (also "
        "`zk://username:password@...`) where ZooKeeper knows it, or `file:///path` of a file that says so. It alone is "
        "obeyed, by its address. Unset: the agent stands alone. The socket launches containers either way.",
    )
    zk_session_timeout: Duration = flag(
        Duration.parse("10secs"),
        parse=duration,
        help="ZooKeeper session timeout: after so long without a connection to it, it is not known which master leads.",
    )
    registration_backoff_factor: Duration = flag(
        Duration.parse("1secs"),
        parse=duration,
        help="The agent waits up to this long before it registers with the master; each further wait may be twice as "
        "long, up to 1mins.",
    )
    ip: str | None = flag(
        None,
        parse=text,
        help="IP address to listen on; all addresses if unset. Without --http_credentials, all there only reads.",
    )
    port: int = flag(5051, parse=uint16, help="TCP port to listen on; 0 lets the kernel choose.")
    hostname: str | None = flag(None, parse=text, help="The hostname to report; found out if unset.")
    work_dir: Path = flag(DEFAULT_WORK_DIR, parse=path, help="Directory of the sandboxes.")
    runtime_dir: Path = flag(
        DEFAULT_RUNTIME_DIR,
        parse=path,
        help="Directory for what survives a restart of the agent but not of the machine: the journal, network "
        "namespaces, BPF maps. Agents with different ones can share a host.",
    )
    socket: Path | None = flag(
        None,
        parse=path,
        help=f"Unix socket on which root and the socket's group launch and kill containers. (default: {SOCKET_NAME} in "
        "--runtime_dir)",
    )
    socket_group: str | None = flag(
        None, parse=text, help="Group that may use the socket besides root. Its members run containers as themselves."
    )
    # Who may do what on the TCP port
    http_credentials: Credentials | None = flag(
        None,
        parse=Credentials.parse,
        secret=True,
        help='Who may change things and see sandboxes on the TCP port, too: `{"credentials":[{"principal":"ops",'
        '"secret":"…"}]}`, as `file:///path`. Without it that needs --socket.',
    )
    authenticate_http_readonly: bool = flag(
        False, parse=boolean, help="What only reads needs --http_credentials, too, but for /health and /version."
    )
    authenticate_http_readwrite: bool = flag(
        False, parse=boolean, help="All calls of the operator API need --http_credentials, those that only read, too."
    )
    http_users: str = flag(
        "nobody",
        parse=text,
        help="Users as whom containers may be launched with --http_credentials, separated by commas; the first is the "
        "default. Never root: that needs --socket.",
    )
    open_files: bool = flag(
        False,
        parse=boolean,
        help="Show sandboxes and the agent's log to whoever reaches the TCP port, as Mesos does (/files, LIST_FILES, "
        "READ_FILE, ATTACH_CONTAINER_OUTPUT).",
    )
    http_heartbeat_interval: Duration = flag(
        Duration.parse("30secs"), parse=duration, help="Between heartbeats on streams of a container's output."
    )
    # What is offered
    resources: str = flag(
        "",
        parse=text,
        help="The agent's resources, `name(role):value;name:value…` or a JSON array. Example: "
        "`cpus:8;mem:16384;ports:[31000-32000];ephemeral_ports:[32768-57344]`. Values not given are found out; "
        "`ephemeral_ports` has no default.",
    )
    default_role: str = flag("*", parse=text, help="Role of resources that name none.")
    attributes: str | None = flag(None, parse=text, help="Attributes of the machine, `rack:2` or `rack:2;u:1`.")
    # Isolation
    isolation: str = flag(
        "posix/cpu,posix/mem",
        parse=text,
        help="Isolators, separated by commas: `cgroups/blkio`, `cgroups/cpu`, `cgroups/mem`, `cgroups/perf_event`, "
        "`disk/du`, `posix/cpu`, `posix/mem`, `network/port_mapping`.",
    )
    launcher: str | None = flag(None, parse=text, help="`linux`, the only one: containers live in namespaces.")
    containerizers: str = flag("mesos", parse=text, help="`mesos`, the only one.")
    cgroups_hierarchy: Path = flag(Path("/sys/fs/cgroup"), parse=path, help="Where cgroups are mounted.")
    cgroups_root: str = flag("mesos", parse=text, help="Name of the root cgroup of the containers.")
    cgroups_enable_cfs: bool = flag(
        False, parse=boolean, help="Limit CPUs hard, by CFS bandwidth control, besides sharing them."
    )
    cgroups_limit_swap: bool = flag(
        False,
        parse=boolean,
        help="A container's memory limit also holds for memory and swap together, which are counted: "
        "mem_total_memsw_bytes. Only with version 1 of cgroups.",
    )
    cgroups_cpu_enable_pids_and_tids_count: bool = flag(
        False, parse=boolean, help="Count each container's processes and threads, with the isolator `cgroups/cpu`."
    )
    # disk/du
    container_disk_watch_interval: Duration = flag(
        Duration.parse("15secs"), parse=duration, help="Between two rounds in which the disk usage is measured."
    )
    enforce_container_disk_quota: bool = flag(
        False, parse=boolean, help="End a container whose directory takes more than its --disk."
    )
    # cgroups/perf_event
    perf_events: str | None = flag(
        None,
        parse=text,
        help="Events to count in each container, separated by commas, by the names that `perf list` shows, e.g. "
        "`task-clock,page-faults`. None are counted if unset.",
    )
    perf_interval: Duration = flag(
        Duration.parse("60secs"), parse=duration, help="Between the beginnings of two stretches of counting."
    )
    perf_duration: Duration = flag(
        Duration.parse("10secs"), parse=duration, help="Of such a stretch; not more than --perf_interval."
    )
    recover: str = flag(
        "reconnect",
        parse=text,
        help="`reconnect`: go on with the containers of an earlier agent. `cleanup`: kill them, take the data plane "
        "from the host, and exit.",
    )
    executor_shutdown_grace_period: Duration = flag(
        Duration.parse("5secs"), parse=duration, help="Between SIGTERM and SIGKILL when a container is killed."
    )
    executor_registration_timeout: Duration = flag(
        Duration.parse("1mins"), parse=duration, help="An executor that has not subscribed by then is ended."
    )
    executor_reregistration_timeout: Duration = flag(
        Duration.parse("2secs"),
        parse=duration,
        help="Likewise where the agent has started again, and the executor was there before; not more than 15secs.",
    )
    recovery_timeout: Duration = flag(
        Duration.parse("15mins"),
        parse=duration,
        help="Executors are told to end themselves when there is no agent for so long.",
    )
    executor_environment_variables: dict[str, Any] | None = flag(
        None, parse=json_object, help="Variables for the environment of executors, and of command tasks, as JSON."
    )
    # network/port_mapping
    ephemeral_ports_per_container: int = flag(
        1024,
        parse=uint16,
        help="Size of a container's ephemeral block, at least 16. Mesos takes powers of two only; see --strict_mesos.",
    )
    strict_mesos: bool = flag(
        False, parse=boolean, help="Refuse what Mesos would refuse although it works here: blocks of no power of two."
    )
    eth0_name: str | None = flag(
        None,
        parse=text,
        help="The public network interface; that of the default route if unset. Several, separated by commas: the "
        "containers have the addresses of all, and the name, MAC address and MTU of the first.",
    )
    lo_name: str | None = flag(None, parse=text, help="The loopback network interface; found out if unset.")
    ipv6: bool = flag(
        True, parse=boolean, help="Containers have the host's IPv6 addresses, too. `--no-ipv6`: IPv4 only, as in Mesos."
    )
    host_loopback: bool = flag(
        True,
        parse=boolean,
        help="Containers reach services on the host's loopback (127.0.0.0/8, ::1), as in Mesos. `--no-host_loopback`: "
        "only each other's ports, and the host itself begins conversations.",
    )
    egress_rate_limit_per_container: Bytes | None = flag(
        None,
        parse=bytes_,
        help="Limit of what a container sends, to anywhere, in bytes per second, e.g. 37500KB. 0B: no limit. "
        "`portslice run --egress` goes before it.",
    )
    egress_rate_per_cpu: str | None = flag(
        None,
        parse=text,
        help="The same for each whole CPU of a container, e.g. 10MB; `auto` divides the speed of the public interface "
        "by the `cpus` of --resources.",
    )
    minimum_egress_rate_limit: Bytes | None = flag(
        None,
        parse=bytes_,
        help="The flags give no container an egress limit below this; 125000B unless set, so smaller limits need `0B` "
        "here.",
    )
    maximum_egress_rate_limit: Bytes | None = flag(
        None,
        parse=bytes_,
        help="No container's egress limit is above this, not even one of `portslice run --egress`. 0B: no maximum.",
    )
    egress_ceil_limit: Bytes | None = flag(
        None,
        parse=bytes_,
        help="Bytes per second at which a burst is sent. Heeded where it is above the limit that the flags give, "
        "which holds in the long run.",
    )
    egress_burst: Bytes | None = flag(
        None, parse=bytes_, help="Size of such a burst; heeded together with --egress_ceil_limit."
    )
    ingress_rate_limit_per_container: Bytes | None = flag(
        None,
        parse=bytes_,
        help="Limit of what a container receives, from anywhere, in bytes per second, e.g. 37500KB. 0B: no limit. "
        "`portslice run --ingress` goes before it.",
    )
    ingress_rate_per_cpu: str | None = flag(
        None,
        parse=text,
        help="The same for each whole CPU of a container, e.g. 10MB; `auto` divides the speed of the public interface "
        "by the `cpus` of --resources.",
    )
    minimum_ingress_rate_limit: Bytes | None = flag(
        None,
        parse=bytes_,
        help="The flags give no container an ingress limit below this; 125000B unless set, so smaller limits need `0B` "
        "here.",
    )
    maximum_ingress_rate_limit: Bytes | None = flag(
        None,
        parse=bytes_,
        help="No container's ingress limit is above this, not even one of `portslice run --ingress`. 0B: no maximum.",
    )
    ingress_ceil_limit: Bytes | None = flag(
        None,
        parse=bytes_,
        help="Bytes per second at which a burst is received. Heeded where it is above the limit that the flags give, "
        "which holds in the long run.",
    )
    ingress_burst: Bytes | None = flag(
        None, parse=bytes_, help="Size of such a burst; heeded together with --ingress_ceil_limit."
    )
    ingress_isolate_existing_containers: bool = flag(
        True,
        parse=boolean,
        help="Whether these flags also limit what running containers receive that have no such limit so far. If not, "
        "limits that they have are changed or lifted only.",
    )
    egress_unique_flow_per_container: bool = flag(
        False,
        parse=boolean,
        help="Give each container one fair flow on the public interface (fq_codel), however many connections it has.",
    )
    egress_flow_classifier_parent: str = flag(
        "root",
        parse=text,
        help="Where on the public interface the flows hang: `root`, or a class as `major:minor` in hexadecimal.",
    )
    network_link_speed: Bytes | None = flag(
        None, parse=bytes_, help="Speed of the public interface in bytes per second, if its driver does not know."
    )
    # network/port_mapping: more statistics
    network_enable_socket_statistics_summary: bool = flag(
        False,
        parse=boolean,
        help="Count each container's TCP connections: net_tcp_active_connections and net_tcp_time_wait_connections.",
    )
    network_enable_socket_statistics_details: bool = flag(
        False,
        parse=boolean,
        help="Percentiles of the round-trip times of each container's TCP connections: net_tcp_rtt_microsecs_p50, "
        "_p90, _p95 and _p99. With very many connections on the host this takes a while.",
    )
    network_enable_snmp_statistics: bool = flag(
        False,
        parse=boolean,
        help="The kernel's counters of IP, ICMP, TCP and UDP for each container: net_snmp_statistics.",
    )
    network_enable_rate_statistics: bool = flag(
        False,
        parse=boolean,
        help="Percentiles of the rates at which each container receives and sends bytes and packets, drops and errors: "
        "net_rate_statistics. Needs the following two.",
    )
    network_rate_statistics_window: Duration | None = flag(
        None, parse=duration, help="How far back these percentiles look, e.g. 5mins."
    )
    network_rate_statistics_interval: Duration | None = flag(
        None,
        parse=duration,
        help="Between two samples of the rates, e.g. 1secs: at least 20ms, and less than the window.",
    )
    network_port_statistics_interval: Duration = flag(
        Duration.parse("15secs"),
        parse=duration,
        help="Between two rounds of counting the ports of its ephemeral block that each container uses: "
        "net_ephemeral_ports_in_use. A round takes the longer the more connections the host has, so that it costs 2 % "
        "of one CPU at most. 0ns: they are not counted.",
    )
    # The TCP port
    firewall_rules: dict[str, Any] | None = flag(
        None,
        parse=json_object,
        help="Endpoints that the TCP port does not serve, under any of their names: "
        '`{"disabled_endpoints": {"paths": ["/state", …]}}`, or the path of a file with it.',
    )
    # Logging, and Mesos' flags that change nothing here
    logging_level: str = flag("INFO", parse=text, help="`INFO`, `WARNING` or `ERROR`.")
    quiet: bool = flag(False, parse=boolean, help="Log nothing to standard error.")
    log_dir: Path | None = flag(None, parse=path, help="Directory for a log file; standard error only if unset.")
    strict: bool = flag(True, parse=boolean, help="Accepted for Mesos' sake: recovery repairs what it can either way.")
    switch_user: bool = flag(
        True,
        parse=boolean,
        help="Tasks of a master run as the user that they name; otherwise as the agent's. What is launched on the "
        "socket runs as its caller.",
    )
    credential: dict[str, Any] | None = flag(None, parse=json_object, secret=True, help=_NOT_YET)
    help: bool = flag(False, parse=boolean, help="Print this help.")
    version: bool = flag(False, parse=boolean, help="Print the version.")

    @property
    def socket_path(self) -> Path:
        """Where the control socket is."""
        return self.socket or self.runtime_dir / SOCKET_NAME

    @property
    def tag(self) -> str:
        """Four hexadecimal digits that mark what is this agent's among the things of others on the host."""
        return hashlib.sha256(bytes(self.runtime_dir.resolve())).hexdigest()[:4]
