"""From flags to isolators: every check in Mesos' order, with Mesos' words, before anything on the host is changed.

`isolators` checks, and returns what makes them: the agent takes its directories in between, so that one that cannot
start leaves no trace. What the kernel lacks is found by trying (portslice.network.probe), never by its version.

`network/port_mapping` needs the package's extra `network-isolator`, as it needed a configure option in Mesos; without
it the isolator is unknown.
"""

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from portslice.agent.flags import AgentFlags
from portslice.agent.limits import limits
from portslice.containers import cgroups, launcher
from portslice.containers.isolators import Isolator
from portslice.containers.isolators.cgroups import CgroupsIsolator
from portslice.containers.isolators.disk import Du
from portslice.containers.isolators.disk import check as check_du
from portslice.containers.isolators.perf_event import PerfEvent, PerfSampling
from portslice.containers.isolators.perf_event import check as check_perf
from portslice.containers.isolators.posix import PosixCpu, PosixMem
from portslice.errors import PortsliceError
from portslice.ports import BlockAllocator, PortRange, PortSet
from portslice.resources import Resources
from portslice.sampling import Sampling
from portslice.units import Duration

if TYPE_CHECKING:
    from portslice.containers.isolators.port_mapping import PortMapping

log = logging.getLogger(__name__)

PORT_MAPPING = "network/port_mapping"
CGROUPS = {"cgroups/blkio": "io", "cgroups/cpu": "cpu", "cgroups/mem": "memory"}
DEFAULT_PORTS = PortSet((PortRange(31000, 32000),))
WELL_KNOWN_PORTS = PortRange(0, 1023)
MIN_BLOCK = 16
MIN_SAMPLING_INTERVAL = Duration.parse("20ms")
_ALIASES = {
    "process": ("posix/cpu", "posix/mem"),
    "cgroups": ("cgroups/cpu", "cgroups/mem"),
    "posix/disk": ("disk/du",),
}
_CONTAINERIZER = "Failed to create a containerizer"
_MESOS_CONTAINERIZER = f"{_CONTAINERIZER}: Could not create MesosContainerizer"
_ISOLATOR = f"Failed to create isolator '{PORT_MAPPING}'"
_HOST_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_Maker: TypeAlias = Callable[[], Isolator]


class StartupError(PortsliceError):
    """The agent cannot start."""


@contextmanager
def _failing(words: str) -> Iterator[None]:
    """Put `words` before the message of whatever fails inside."""
    try:
        yield
    except PortsliceError as error:
        raise StartupError(f"{words}: {error}") from error


# Which isolators


def isolators(flags: AgentFlags) -> Callable[[], list[Isolator]]:
    """Check all that the isolators of --isolation need; changes nothing.

    :return: makes them, which puts the data plane on the host; it raises StartupError, too.
    :raises StartupError: with Mesos' words.
    """
    if flags.containerizers != "mesos":
        raise StartupError(f"{_CONTAINERIZER}: Unknown or unsupported containerizer: {flags.containerizers}")
    with _failing(_MESOS_CONTAINERIZER):
        makers = list(_makers(flags))

    def make() -> list[Isolator]:
        with _failing(_MESOS_CONTAINERIZER):
            return [make_one() for make_one in makers]

    return make


def _makers(flags: AgentFlags) -> Iterator[_Maker]:
    if flags.launcher not in (None, "linux"):
        raise StartupError(f"Unknown or unsupported launcher: {flags.launcher}")
    if missing := launcher.missing_programs():
        raise StartupError(f"Programs are missing: {', '.join(missing)}. Install them: apt-get install util-linux tini")
    names = isolator_names(flags.isolation)
    controllers = {CGROUPS[name] for name in names if name in CGROUPS}
    if controllers or PerfEvent.name in names or os.geteuid() == 0:
        # A container has cgroups of its own even where nothing is limited.
        tree = cgroups.detect(flags.cgroups_hierarchy, flags.cgroups_root)
        if lacking := tree.missing(controllers):
            raise StartupError(
                f"Failed to create isolator 'cgroups': the controllers {', '.join(lacking)} are not mounted below "
                f"'{flags.cgroups_hierarchy}'"
            )
        if flags.cgroups_limit_swap and "memory" in controllers and not tree.limits_swap():
            raise StartupError(
                "Failed to create isolator 'cgroups/mem': 'memory.memsw.limit_in_bytes' is not available: version 2 of "
                "cgroups does not limit memory and swap together. Start without --cgroups_limit_swap"
                if tree.version == 2
                else "Failed to create isolator 'cgroups/mem': 'memory.memsw.limit_in_bytes' is not available: boot "
                "with swapaccount=1, or start without --cgroups_limit_swap"
            )
        yield partial(
            CgroupsIsolator,
            tree,
            controllers,
            quota=flags.cgroups_enable_cfs,
            limit_swap=flags.cgroups_limit_swap,
            count_tasks=flags.cgroups_cpu_enable_pids_and_tids_count,
        )
    for name in names:
        if name == "posix/cpu":
            yield PosixCpu
        elif name == "posix/mem":
            yield PosixMem
        elif name == Du.name:
            with _failing(f"Failed to create isolator '{name}'"):
                yield disk(flags)
        elif name == PerfEvent.name:
            with _failing(f"Failed to create isolator '{name}'"):
                yield perf_event(flags, tree)
        elif name == PORT_MAPPING:
            with _failing(_ISOLATOR):
                yield port_mapping(flags)


def isolator_names(isolation: str) -> list[str]:
    """The isolators of --isolation by their own names.

    :raises StartupError: one is unknown, or there twice.
    """
    given = [name.strip() for name in isolation.split(",") if name.strip()]
    names = [name for each in given for name in _ALIASES.get(each, (each,))]
    if len(set(names)) != len(names):
        raise StartupError(f"Duplicate entries found in --isolation flag '[ {', '.join(names)} ]'")
    known = {"posix/cpu", "posix/mem", *CGROUPS, "filesystem/posix", Du.name, PerfEvent.name}
    if has_network_isolator():
        known.add(PORT_MAPPING)
    for name in names:
        if name not in known:
            raise StartupError(f"Unknown or unsupported isolator: {name}")
    return names


def has_network_isolator() -> bool:
    """Whether the package was installed with its extra."""
    return importlib.util.find_spec("pyroute2") is not None


def find_port_mapping(isolators: Sequence[Isolator]) -> "PortMapping | None":
    """The port_mapping isolator among others. Its module needs the extra: it is not imported to look for it."""
    found = next((isolator for isolator in isolators if isolator.name == PORT_MAPPING), None)
    return cast("PortMapping | None", found)


# Isolators that sample


def disk(flags: AgentFlags) -> _Maker:
    """Check what the disk/du isolator needs."""
    check_du()
    interval = flags.container_disk_watch_interval
    check_sampling("container_disk_watch_interval", interval)
    return partial(Du, interval.seconds, enforce=flags.enforce_container_disk_quota)


def perf_event(flags: AgentFlags, tree: cgroups.Cgroups) -> _Maker:
    """Check what the cgroups/perf_event isolator needs: nothing, as long as there is nothing to count."""
    events = tuple(sorted({event for event in (flags.perf_events or "").split(",") if event}))
    if not events:
        return partial(PerfEvent, tree, None)
    sampling = PerfSampling(events, flags.perf_interval, flags.perf_duration)
    check_perf(tree, sampling)
    check_sampling("perf_duration", flags.perf_duration)
    log.info(
        "perf_event subsystem will profile for '%s' every '%s' for events: { %s }",
        flags.perf_duration, flags.perf_interval, ", ".join(events),
    )
    return partial(PerfEvent, tree, sampling)


def check_sampling(name: str, interval: Duration) -> None:
    """:raises StartupError: that would be no sampling any more, but a load."""
    if interval < MIN_SAMPLING_INTERVAL:
        raise StartupError(f"--{name}={interval} is too short: it should not be smaller than {MIN_SAMPLING_INTERVAL}")


# network/port_mapping


def port_mapping(flags: AgentFlags) -> _Maker:
    """Check what the port_mapping isolator needs, in Mesos' order; what is returned puts the data plane on the host.

    :raises PortsliceError: with Mesos' words.
    """
    from portslice.containers.isolators.port_mapping import Options, PortMapping
    from portslice.network import host, probe, protocols
    from portslice.network.statistics import Extras

    if os.geteuid() != 0:
        raise StartupError("Using network isolator requires root permissions")
    if not Path("/proc/self/ns/net").exists():
        raise StartupError("Using network isolator requires network namespace. Make sure your kernel is newer than 3.4")
    kernel = probe.Kernel()
    for check in kernel.required():
        if not check.ok:
            raise StartupError(f"{check.name}: {check.detail}. Remedy: {check.remedy}")
    ports, ephemeral = port_spaces(flags)
    nics, loopback = host.interfaces(flags.eth0_name, flags.lo_name)
    log.info("Using %s as the public interface", ", ".join(nics))
    log.info("Using %s as the loopback interface", loopback)
    egress, ingress = limits(flags, nics[0], host.link_speed(nics[0]))
    extras = Extras(
        connections=flags.network_enable_socket_statistics_summary,
        round_trips=flags.network_enable_socket_statistics_details,
        snmp=flags.network_enable_snmp_statistics,
        rates=rate_sampling(flags),
    )
    if extras.round_trips:
        protocols.round_trips()  # a kernel that does not list its sockets is to say so now
    shared = host.discover(flags.eth0_name, flags.lo_name, ipv6=flags.ipv6, host_loopback=flags.host_loopback)
    if flags.ipv6 and not shared.ipv6:
        log.info("Containers have no IPv6, since the host has it switched off")
    parent = flow_parent(flags) if flags.egress_unique_flow_per_container else None
    with_fq_codel = kernel.has_fq_codel()
    if parent is not None and not with_fq_codel:
        raise StartupError(
            "--egress_unique_flow_per_container needs fq_codel, a queueing discipline that this kernel does not have: "
            "load sch_fq_codel, or start without the flag"
        )
    options = Options(
        tag=flags.tag,
        runtime_directory=flags.runtime_dir,
        ports=ports,
        ephemeral=ephemeral,
        block=flags.ephemeral_ports_per_container,
        egress=egress,
        ingress=ingress,
        ingress_for_existing=flags.ingress_isolate_existing_containers,
        fair_queue=None if parent is None else host.FairQueue(parent),
        with_fq_codel=with_fq_codel,
        statistics=extras,
        port_use_secs=port_use_secs(flags),
    )
    if (egress.limits_any or ingress.limits_any) and not with_fq_codel:
        log.warning("This kernel has no fq_codel: traffic is limited, bloat_reduction is not available")
    if ingress.limits_any and not kernel.tbf().ok:
        log.warning("This kernel has no TBF: small ingress limits hold in the long run only (modprobe sch_tbf)")

    def make() -> PortMapping:
        with _failing(_ISOLATOR):
            return PortMapping(shared, options)

    return make


def port_spaces(flags: AgentFlags) -> tuple[PortSet, PortSet]:
    """(assigned ports, ephemeral ports) to give out: Mesos' checks 7 to 17 in their order."""
    ports, ephemeral = port_resources(flags)
    host = host_port_range()
    if not ephemeral.isdisjoint(PortSet((host,))):
        raise StartupError(
            f"The specified ephemeral ports {ephemeral.icl()} intersect with the ephemeral ports used by the host "
            f"{host.icl()}"
        )
    check_blocks(flags, ephemeral)
    if flags.port in ports | ephemeral:
        raise StartupError(
            f"The agent's own port {flags.port} is among the ports of the containers, {(ports | ephemeral).icl()}: "
            "choose another one with --port"
        )
    return ports, ephemeral


def port_resources(flags: AgentFlags) -> tuple[PortSet, PortSet]:
    """(assigned ports, ephemeral ports) of --resources.

    :raises StartupError: they are not specified, or not apart from each other.
    """
    with _failing("Failed to parse --resources"):
        resources = Resources.parse(flags.resources, flags.default_role)
    ports, ephemeral = resources.ports("ports"), resources.ports("ephemeral_ports")
    if not ephemeral:
        raise StartupError("Ephemeral ports are not specified")
    if ports is not None and not ports.isdisjoint(ephemeral):
        raise StartupError(
            f"The specified ephemeral ports {ephemeral.icl()} intersect with the specified non-ephemeral ports "
            f"{ports.icl()}"
        )
    if not ephemeral.isdisjoint(PortSet((WELL_KNOWN_PORTS,))):
        raise StartupError(
            f"The specified ephemeral ports {ephemeral.icl()} intersect with well known ports {WELL_KNOWN_PORTS.icl()}"
        )
    # Mesos manages no assigned ports unless told to, though it advertises these (its isolator parses the bare flag).
    return (ports if ports is not None else DEFAULT_PORTS - ephemeral), ephemeral


def check_blocks(flags: AgentFlags, ephemeral: PortSet) -> None:
    """Whether --ephemeral_ports_per_container is a size of blocks that the space has room for.

    :raises StartupError: with Mesos' words.
    """
    size = flags.ephemeral_ports_per_container
    if flags.strict_mesos and size & (size - 1):
        raise StartupError(f"The number of ephemeral ports for each container ({size}) is not a power of 2")
    if len(ephemeral) < size:
        raise StartupError(
            f"Network Isolator is given ephemeral ports of size: {len(ephemeral)}, but asked to allocate {size} "
            "ephemeral ports for a container"
        )
    if size < MIN_BLOCK:
        raise StartupError(f"Each container has only {size} ephemeral ports. The minimum required is: {MIN_BLOCK}")
    if not BlockAllocator(ephemeral, size).capacity:
        raise StartupError(
            f"The ephemeral ports {ephemeral.icl()} hold no block of {size} ports that begins at a multiple of {size}"
        )


def host_port_range() -> PortRange:
    """The host's own ephemeral ports.

    :raises StartupError: with Mesos' words.
    """
    try:
        value = _HOST_RANGE.read_text().strip()
    except OSError as error:
        raise StartupError(f"Failed to read host ip_local_port_range: {error.strerror}") from error
    if not re.fullmatch(r"\d+\s+\d+", value):
        raise StartupError(f"Unexpected format from host ip_local_port_range: {value}")
    begin, end = map(int, value.split())
    return PortRange(begin, end)


def rate_sampling(flags: AgentFlags) -> Sampling | None:
    """How the rates are sampled; None: not at all.

    :raises StartupError: with Mesos' words.
    """
    if not flags.network_enable_rate_statistics:
        return None
    window, interval = flags.network_rate_statistics_window, flags.network_rate_statistics_interval
    if window is None or interval is None:
        raise StartupError("Window size and sampling interval for rate statistics are required")
    if window <= interval:
        raise StartupError("Rate statistics window size should be bigger than the sampling interval")
    if interval < MIN_SAMPLING_INTERVAL:
        raise StartupError(f"Rate statistics interval should not be smaller than {MIN_SAMPLING_INTERVAL}")
    return Sampling(window.seconds, interval.seconds)


def port_use_secs(flags: AgentFlags) -> float | None:
    """How often the ports in use are counted; None: not at all.

    :raises StartupError: too often.
    """
    from portslice.network import port_use

    interval = flags.network_port_statistics_interval
    if not interval.ns:
        return None
    check_sampling("network_port_statistics_interval", interval)
    try:
        port_use.held(WELL_KNOWN_PORTS)
    except PortsliceError as error:
        log.warning("It is not known how many ports containers use: %s", error)
        return None
    return interval.seconds


def flow_parent(flags: AgentFlags) -> int:
    """--egress_flow_classifier_parent as a tc handle.

    :raises StartupError: with Mesos' words.
    """
    from portslice.network.rtnetlink import TC_H_ROOT

    text = flags.egress_flow_classifier_parent
    if text == "root":
        return TC_H_ROOT
    tokens: Sequence[str] = text.split(":")
    with _failing("Failed to parse egress_flow_classifier_parent"):
        if len(tokens) != 2:
            raise StartupError(f"Failed to tokenize string: {text}")
        for token in tokens:
            if not re.fullmatch(r"[0-9a-fA-F]{1,4}", token):
                raise StartupError(f"Failed to convert {token} to a hex integer")
    major, minor = (int(token, 16) for token in tokens)
    return major << 16 | minor
