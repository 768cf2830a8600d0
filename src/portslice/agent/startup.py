"""From flags to isolators: every check in Mesos' order, with Mesos' words, before anything on the host is changed.

`network/port_mapping` needs the package's extra `network-isolator`, as it needed a configure option in Mesos; without
it the isolator is unknown. What the kernel lacks is found by trying (portslice.network.probe), never by its version.
"""

import importlib.util
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from portslice.agent.flags import AgentFlags
from portslice.containers import cgroups, launcher
from portslice.containers.isolators import Isolator
from portslice.containers.isolators.cgroups import CgroupsIsolator
from portslice.containers.isolators.posix import PosixCpu, PosixMem
from portslice.errors import PortsliceError
from portslice.ports import BlockAllocator, PortRange, PortSet
from portslice.resources import Resources

if TYPE_CHECKING:
    from portslice.containers.isolators.port_mapping import Options, PortMapping

log = logging.getLogger(__name__)

PORT_MAPPING = "network/port_mapping"
DEFAULT_PORTS = PortSet((PortRange(31000, 32000),))
WELL_KNOWN_PORTS = PortRange(0, 1023)
MIN_BLOCK = 16
DEFAULT_MINIMUM_RATE = 125000
_CGROUPS = {"cgroups/cpu": "cpu", "cgroups/mem": "memory"}
_ALIASES = {"process": ("posix/cpu", "posix/mem"), "cgroups": ("cgroups/cpu", "cgroups/mem")}
_PROC = Path("/proc")


class StartupError(PortsliceError):
    """The agent cannot start."""


def isolators(flags: AgentFlags) -> list[Isolator]:
    """The isolators of --isolation.

    :raises StartupError: with Mesos' words.
    """
    if flags.containerizers != "mesos":
        raise StartupError(
            f"Failed to create a containerizer: Unknown or unsupported containerizer: {flags.containerizers}"
        )
    try:
        return _isolators(flags)
    except PortsliceError as error:
        raise StartupError(
            f"Failed to create a containerizer: Could not create MesosContainerizer: {error}"
        ) from error


def _isolators(flags: AgentFlags) -> list[Isolator]:
    if flags.launcher not in (None, "linux"):
        raise StartupError(f"Unknown or unsupported launcher: {flags.launcher}")
    if missing := launcher.missing_programs():
        raise StartupError(f"Programs are missing: {', '.join(missing)}. Install them: apt-get install util-linux tini")
    names = _names(flags.isolation)
    made: list[Isolator] = []
    controllers = {_CGROUPS[name] for name in names if name in _CGROUPS}
    if controllers:
        tree = cgroups.detect(flags.cgroups_hierarchy, flags.cgroups_root)
        if missing := tree.missing(controllers):
            raise StartupError(
                f"Failed to create isolator 'cgroups': the controllers {', '.join(missing)} are not mounted below "
                f"'{flags.cgroups_hierarchy}'"
            )
        made.append(CgroupsIsolator(tree, controllers, quota=flags.cgroups_enable_cfs))
    for name in names:
        if name == "posix/cpu":
            made.append(PosixCpu())
        elif name == "posix/mem":
            made.append(PosixMem())
        elif name == PORT_MAPPING:
            try:
                made.append(port_mapping(flags))
            except PortsliceError as error:
                raise StartupError(f"Failed to create isolator '{PORT_MAPPING}': {error}") from error
    return made


def _names(isolation: str) -> list[str]:
    given = [name.strip() for name in isolation.split(",") if name.strip()]
    names = [name for each in given for name in _ALIASES.get(each, (each,))]
    if len(set(names)) != len(names):
        raise StartupError(f"Duplicate entries found in --isolation flag '[ {', '.join(names)} ]'")
    known = {"posix/cpu", "posix/mem", *_CGROUPS, "filesystem/posix"}
    if importlib.util.find_spec("pyroute2") is not None:
        known.add(PORT_MAPPING)
    for name in names:
        if name not in known:
            raise StartupError(f"Unknown or unsupported isolator: {name}")
    return names


def find_port_mapping(isolators: Sequence[Isolator]) -> "PortMapping | None":
    """The port_mapping isolator among others. Its module needs the extra: it is not imported to look for it."""
    found = next((isolator for isolator in isolators if isolator.name == PORT_MAPPING), None)
    return cast("PortMapping | None", found)


def port_mapping(flags: AgentFlags) -> "PortMapping":
    """The port_mapping isolator; the data plane is on the host afterwards."""
    from portslice.containers.isolators.port_mapping import PortMapping
    from portslice.network import host, probe

    if os.geteuid() != 0:
        raise StartupError("Using network isolator requires root permissions")
    if not Path("/proc/self/ns/net").exists():
        raise StartupError("Using network isolator requires network namespace. Make sure your kernel is newer than 3.4")
    kernel = probe.Kernel()
    for check in kernel.required():
        if not check.ok:
            raise StartupError(f"{check.name} is missing: {check.detail}. {check.remedy}")
    options = port_mapping_options(flags, with_fq_codel=kernel.has_fq_codel())
    shared = host.discover(flags.eth0_name, flags.lo_name)
    log.info("Using %s as the public interface, %s as the loopback interface", shared.nic, shared.loopback)
    _check_rate(flags, options.egress, shared.nic, host.link_speed(shared.nic))
    if options.egress is not None and not options.with_fq_codel:
        log.warning("This kernel has no fq_codel: egress is limited, bloat_reduction is not available")
    return PortMapping(shared, options)


def port_mapping_options(flags: AgentFlags, *, with_fq_codel: bool = True) -> "Options":
    """Everything that flags and the host's port range decide; reads, and changes nothing."""
    from portslice.containers.isolators.port_mapping import Options
    from portslice.network.host import FairQueue

    ports, ephemeral = port_spaces(flags)
    if flags.egress_unique_flow_per_container and not with_fq_codel:
        raise StartupError(
            "--egress_unique_flow_per_container needs fq_codel, a queueing discipline that this kernel does not have: "
            "load sch_fq_codel, or start without the flag"
        )
    return Options(
        tag=flags.tag,
        runtime_directory=flags.runtime_dir,
        ports=ports,
        ephemeral=ephemeral,
        block=flags.ephemeral_ports_per_container,
        egress=egress_rate(flags),
        fair_queue=FairQueue(_parent(flags)) if flags.egress_unique_flow_per_container else None,
        with_fq_codel=with_fq_codel,
    )


def port_spaces(flags: AgentFlags, host_range: PortRange | None = None) -> tuple[PortSet, PortSet]:
    """(assigned ports, ephemeral ports) to give out; Mesos' checks 7 to 17 in their order.

    :param host_range: the host's own ephemeral ports; read from the kernel if None.
    """
    try:
        resources = Resources.parse(flags.resources, flags.default_role)
    except PortsliceError as error:
        raise StartupError(f"Failed to parse --resources: {error}") from error
    ports, ephemeral = resources.ports("ports"), resources.ports("ephemeral_ports")
    size = flags.ephemeral_ports_per_container
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
    host = host_range or host_port_range()
    if not ephemeral.isdisjoint(PortSet((host,))):
        raise StartupError(
            f"The specified ephemeral ports {ephemeral.icl()} intersect with the ephemeral ports used by the host "
            f"{host.icl()}"
        )
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
    # Mesos manages no assigned ports unless told to, though it advertises these (its isolator parses the bare flag).
    return (ports if ports is not None else DEFAULT_PORTS - ephemeral), ephemeral


def host_port_range() -> PortRange:
    """The host's own ephemeral ports.

    :raises StartupError: with Mesos' words.
    """
    try:
        value = (_PROC / "sys/net/ipv4/ip_local_port_range").read_text().strip()
    except OSError as error:
        raise StartupError(f"Failed to read host ip_local_port_range: {error.strerror}") from error
    if not re.fullmatch(r"\d+\s+\d+", value):
        raise StartupError(f"Unexpected format from host ip_local_port_range: {value}")
    begin, end = map(int, value.split())
    return PortRange(begin, end)


def egress_rate(flags: AgentFlags) -> int | None:
    """Bytes per second for each container; None without a limit (Mesos' "0 means unlimited", which its code forgot)."""
    rate = flags.egress_rate_limit_per_container
    if not rate:
        return None
    minimum = flags.minimum_egress_rate_limit
    return max(int(rate), DEFAULT_MINIMUM_RATE if minimum is None else int(minimum))


def _check_rate(flags: AgentFlags, rate: int | None, nic: str, speed: int | None) -> None:
    speed = int(flags.network_link_speed) if flags.network_link_speed else speed
    if rate is not None and speed is not None and rate > speed:
        raise StartupError(
            f"The given egress traffic limit for containers {rate} Bytes/s is greater than the host link speed "
            f"{speed} Bytes/s"
        )
    if rate is not None and speed is None:
        log.warning("The link speed of %s is unknown: the egress limit is not checked against it", nic)


def _parent(flags: AgentFlags) -> int:
    from portslice.network.rtnetlink import TC_H_ROOT

    text = flags.egress_flow_classifier_parent
    if text == "root":
        return TC_H_ROOT
    tokens: Sequence[str] = text.split(":")
    if len(tokens) != 2:
        raise StartupError(f"Failed to parse egress_flow_classifier_parent: Failed to tokenize string: {text}")
    numbers = []
    for token in tokens:
        if not re.fullmatch(r"[0-9a-fA-F]{1,4}", token):
            raise StartupError(
                f"Failed to parse egress_flow_classifier_parent: Failed to convert {token} to a hex integer"
            )
        numbers.append(int(token, 16))
    return numbers[0] << 16 | numbers[1]
