"""All that the agent needs of its host, as checks with remedies: what `portslice doctor` shows.

The verdicts come from the start-up's own checks (portslice.agent.startup, portslice.network.probe), so that the two
cannot disagree. Here are the remedies, and beyond the start-up what an agent can live with for a while but its operator
should know. Nothing is changed on the host: the kernel is tried in network namespaces that are gone afterwards.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from portslice.agent import mounts, startup
from portslice.agent.flags import AgentFlags
from portslice.agent.limits import SpeedError, limits, uses_speed
from portslice.containers import cgroups, launcher
from portslice.containers.cgroups.v2 import CgroupsV2
from portslice.containers.isolators.disk import Du
from portslice.containers.isolators.perf_event import PerfEvent
from portslice.errors import NetworkError, PortsliceError
from portslice.network import sockets
from portslice.network.probe import Check, Kernel, Status
from portslice.ports import BlockAllocator, PortRange, PortSet

_PACKAGES = {"tini": "tini", "mount": "mount", "sh": "dash", **dict.fromkeys(launcher.COREUTILS, "coreutils")}

_AS_ROOT = "sudo portslice doctor"

# Where Linux distributions let local ports begin and end: below are registered services (RFC 6335), above it the ports
# that masquerading prefers.
_CUSTOMARY = PortSet((PortRange(32768, 61000),))
_ENOUGH_PORTS = 1024


@dataclass(frozen=True)
class Ranges:
    """Three parts of the ports, which must not overlap.

    :param host: net.ipv4.ip_local_port_range.
    :param assigned: the `ports` resource.
    :param ephemeral: the `ephemeral_ports` resource.
    """

    host: PortRange
    assigned: PortSet
    ephemeral: PortSet

    def conflicts(self) -> PortSet:
        """The containers' ports that the host takes for its own connections."""
        return (self.assigned | self.ephemeral) & PortSet((self.host,))

    def json(self) -> dict[str, list[list[int]]]:
        """Lists of [first, last]."""
        parts = {"host": PortSet((self.host,)), "assigned": self.assigned, "ephemeral": self.ephemeral}
        return {name: [[each.begin, each.end] for each in ports.ranges] for name, ports in parts.items()}


def ranges(flags: AgentFlags) -> Ranges | None:
    """The three parts; None if --resources, or the host, does not tell."""
    try:
        assigned, ephemeral = startup.port_resources(flags)
        return Ranges(startup.host_port_range(), assigned, ephemeral)
    except PortsliceError:
        return None


def examine(flags: AgentFlags) -> Iterator[Check]:
    """Everything, in the order in which one builds on the other."""
    yield _mount_namespace(flags)
    yield from _software()
    yield from _kernel(flags)
    yield from _isolators(flags)
    if startup.has_network_isolator():
        yield from _interfaces(flags)
    yield from _ports(flags)
    yield from _other_agents(flags)


# Software and kernel


def _mount_namespace(flags: AgentFlags) -> Check:
    """Where the agent would be; what follows is looked at from there."""
    host = mounts.eldest_visible()
    if host is None:
        return Check("mount namespace")
    paths = (flags.work_dir, flags.runtime_dir, flags.socket_path)
    if mounts.same_files(host, paths):
        mounts.join_host(paths)
        return Check("mount namespace", detail="a private one, as of ip netns exec; the agent moves to the host's")
    here = os.stat("/proc/self/ns/net")
    handles = (path for path in Path("/run/netns").glob("*") if path.exists())
    named = (str(path) for path in handles if os.path.samestat(path.stat(), here))
    return Check(
        "mount namespace",
        Status.WRONG,
        "a private one, where the agent's directories are not the host's: what it keeps there would end with it",
        f"nsenter --net={next(named, '/run/netns/NAME')} -- portslice agent",
    )


def _software() -> Iterator[Check]:
    yield Check.present("root", os.geteuid() == 0, "the agent needs it, and so do some of these checks", _AS_ROOT)
    yield Check.present(
        "network-isolator",
        startup.has_network_isolator(),
        "the package was installed without this extra: network/port_mapping is unknown",
        "pip install 'portslice[network-isolator]'",
    )
    missing = launcher.missing_programs()
    packages = " ".join(sorted({_PACKAGES.get(program, "util-linux") for program in missing}))
    yield Check.present("programs", not missing, f"without {', '.join(missing)}", f"apt-get install {packages}")


def _kernel(flags: AgentFlags) -> Iterator[Check]:
    kernel = Kernel()
    if os.geteuid() != 0:
        yield Check("kernel", Status.UNKNOWN, "only root can try what it is able to do", _AS_ROOT)
        return
    yield from kernel.required()
    fq_codel = kernel.fq_codel()
    if not fq_codel.ok and not flags.egress_unique_flow_per_container:
        detail = f"{fq_codel.detail}: no bloat_reduction, and no --egress_unique_flow_per_container"
        fq_codel = replace(fq_codel, status=Status.WARNING, detail=detail)
    yield fq_codel
    tbf = kernel.tbf()
    if not tbf.ok:
        detail = f"{tbf.detail}: small ingress limits hold in the long run only"
        tbf = replace(tbf, status=Status.WARNING, detail=detail)
    yield tbf


def _isolators(flags: AgentFlags) -> Iterator[Check]:
    names = []
    try:
        names = startup.isolator_names(flags.isolation)
        yield Check("isolators", detail=", ".join(names))
    except PortsliceError as error:
        yield Check("isolators", Status.WRONG, str(error), "see --isolation in portslice agent --help")
    wanted = {startup.CGROUPS[name] for name in names if name in startup.CGROUPS}
    tree = cgroups.detect(flags.cgroups_hierarchy, flags.cgroups_root)
    sampling: dict[str, Callable[[AgentFlags], object]] = {
        Du.name: startup.disk,
        PerfEvent.name: partial(startup.perf_event, tree=tree),
    }
    for name in (each for each in names if each in sampling):
        try:
            sampling[name](flags)
            yield Check(name)
        except PortsliceError as error:
            yield Check(name, Status.WRONG, str(error), f"leave {name} out of --isolation, or change its flags")
    second = isinstance(tree, CgroupsV2)
    missing = tree.missing(set(startup.CGROUPS.values()))
    if not missing:
        yield Check("cgroup controllers", detail="version 2" if second else "version 1")
        return
    status = Status.MISSING if tree.missing(wanted) else Status.WARNING
    hierarchy = flags.cgroups_hierarchy
    mounts = (f"mkdir -p {hierarchy}/{name} && mount -t cgroup -o {name} {name} {hierarchy}/{name}" for name in missing)
    boot = "boot with " + " ".join(f"cgroup_enable={name}" for name in missing)
    yield Check("cgroup controllers", status, f"without {', '.join(missing)}", boot if second else " && ".join(mounts))


# The network


def _interfaces(flags: AgentFlags) -> Iterator[Check]:
    from portslice.network import host

    try:
        nics, loopback = host.interfaces(flags.eth0_name, flags.lo_name)
    except PortsliceError as error:
        remedy = "--lo_name=lo" if "loopback" in str(error) else "ip route add default via GATEWAY, or --eth0_name=NIC"
        yield Check("public interface", Status.WRONG, str(error), remedy)
        return
    nic = nics[0]
    yield Check("public interface", detail=f"{', '.join(nics)}; the loopback is {loopback}")
    try:
        shared = host.discover(flags.eth0_name, flags.lo_name)
        yield Check("address and gateway", detail=f"{shared.address} via {shared.gateway}")
    except PortsliceError as error:
        what = "address add ADDRESS/LENGTH" if "IP network" in str(error) else "route add default via GATEWAY"
        yield Check("address and gateway", Status.WRONG, str(error), f"ip {what} dev {nic}")
    yield _link_speed(flags, nic, host.link_speed(nic))
    if flags.egress_unique_flow_per_container:
        try:
            startup.flow_parent(flags)
        except PortsliceError as error:
            yield Check("flow classifier", Status.WRONG, str(error), "--egress_flow_classifier_parent=root")
    try:
        startup.rate_sampling(flags)
    except PortsliceError as error:
        remedy = "--network_rate_statistics_window=5mins --network_rate_statistics_interval=1secs"
        yield Check("rate statistics", Status.WRONG, str(error), remedy)


def _link_speed(flags: AgentFlags, nic: str, speed: int | None) -> Check:
    known = flags.network_link_speed or speed
    speed_flag = "--network_link_speed=125000000B (for 1 Gbit/s)"
    try:
        limits(flags, nic, speed)
    except SpeedError as error:
        remedy = speed_flag if known is None else f"limits of {known}B at most, or the true --network_link_speed"
        return Check("link speed", Status.WRONG, str(error), remedy)
    except PortsliceError as error:
        return Check("limits", Status.WRONG, str(error), "see portslice agent --help")
    if known is None and uses_speed(flags):
        detail = f"the driver of {nic} does not tell: the limit is not checked against it"
        return Check("link speed", Status.WARNING, detail, speed_flag)
    return Check("link speed", detail="unknown" if known is None else f"{known * 8 // 10**6} Mbit/s")


# Ports


def _ports(flags: AgentFlags) -> Iterator[Check]:
    try:
        assigned, ephemeral = startup.port_resources(flags)
        yield Check("port resources", detail=f"ports:{assigned};ephemeral_ports:{ephemeral}")
    except PortsliceError as error:
        example = "--resources='ports:[31000-32000];ephemeral_ports:[32768-57344]'"
        yield Check("port resources", Status.WRONG, str(error), example)
        return
    try:
        yield host_range(Ranges(startup.host_port_range(), assigned, ephemeral))
    except startup.StartupError as error:
        yield Check("host's port range", Status.WRONG, str(error), "mount -t proc proc /proc")
    size = flags.ephemeral_ports_per_container
    try:
        startup.check_blocks(flags, ephemeral)
        containers = BlockAllocator(ephemeral, size).capacity
        yield Check("ephemeral blocks", detail=f"{containers} containers with {size} ports each")
    except PortsliceError as error:
        fitting = 1 << max(min(1024, len(ephemeral)).bit_length() - 1, 4)
        yield Check("ephemeral blocks", Status.WRONG, str(error), f"--ephemeral_ports_per_container={fitting}")
    yield _host_sockets(assigned | ephemeral)


def host_range(ranges: Ranges) -> Check:
    """Whether the host keeps its own connections away from the containers' ports. Mesos asks only after the ephemeral
    ones; but from an assigned one, too, a host's connection would never see an answer."""
    conflicts = ranges.conflicts()
    if not conflicts:
        return Check("host's port range", detail=str(ranges.host))
    detail = f"the host's own connections begin at {ranges.host}, which contains {conflicts} of the containers"
    room = _room(ranges.assigned | ranges.ephemeral)
    if room is None:
        return Check("host's port range", Status.WRONG, detail, "leave the host some ports in --resources")
    value = f"{room.begin} {room.end}"
    remedy = (
        f"sysctl -w net.ipv4.ip_local_port_range='{value}' && "
        f"echo 'net.ipv4.ip_local_port_range = {value}' >> /etc/sysctl.conf"
    )
    return Check("host's port range", Status.WRONG, detail, remedy)


def _room(taken: PortSet) -> PortRange | None:
    """The longest run of ports that is left for the host: where it is customary, if there are enough."""
    everywhere = ~(taken | PortSet((startup.WELL_KNOWN_PORTS,)))
    customary = max((everywhere & _CUSTOMARY).ranges, key=len, default=None)
    if customary is not None and len(customary) >= _ENOUGH_PORTS:
        return customary
    return max(everywhere.ranges, key=len, default=None)


def _host_sockets(slices: PortSet) -> Check:
    """Sockets of the host on the containers' ports: no container gets such a port while they last."""
    name = "host's sockets"
    try:
        found = sockets.held(slices)
    except NetworkError as error:
        return Check(name, Status.WARNING, str(error), "modprobe -a tcp_diag udp_diag")
    if not found:
        return Check(name)
    ports = " or ".join(f"sport = :{port}" for port in sorted({each.port for each in found})[: sockets.SHOWN])
    detail = f"the host holds ports of the containers: {sockets.describe(found)}"
    return Check(name, Status.WARNING, detail, f"stop what this shows: ss -antup '{ports}'")


# Other agents


def _other_agents(flags: AgentFlags) -> Iterator[Check]:
    running = _locked(flags.runtime_dir / "agent.lock")
    own = "another agent here needs its own --runtime_dir, --work_dir and --port"
    if running:
        yield Check("runtime directory", Status.WARNING, f"an agent is running with '{flags.runtime_dir}'", own)
    else:
        yield Check("runtime directory", detail=str(flags.runtime_dir))
    name = f"TCP port {flags.port}"
    try:
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the agent binds it
            attempt.bind((flags.ip or "0.0.0.0", flags.port))
    except OSError as error:
        status = Status.WARNING if running else Status.WRONG
        yield Check(name, status, error.strerror or str(error), own if running else "--port=N, or --ip=ADDRESS")
    else:
        yield Check(name)


def _locked(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
