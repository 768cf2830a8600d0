"""network/port_mapping: a slice of the host's ports, a share of its wire, and the counters of both.

`allocate` is bookkeeping over pure values: a free slot, an ephemeral block, the assigned ports. `prepare` attaches the
container's network, `cleanup` detaches it; what an attachment is made of is the network floor's business.

The host's own sockets are kept away from the containers' ports on both sides: the kernel no longer chooses such a port
for one (portslice.network.reserved), and one that asked for it by number is found before the port is given out
(portslice.network.sockets).
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from portslice.containers.container import Change, Container, Network, Request, State
from portslice.containers.isolators import BaseIsolator, Containers, Launch, Sampler, Statistics
from portslice.errors import ConflictError, ContainerError, NetworkError, NoPortsError
from portslice.network import host as shared_host
from portslice.network import namespaces, port_use, reserved, sockets
from portslice.network.addresses import HostAddresses
from portslice.network.attachment import Attachment
from portslice.network.dataplane import HOST, REASONS, SLOTS, DataPlane
from portslice.network.host import FairQueue, Host
from portslice.network.iproute import routes
from portslice.network.layers.link import GROUP
from portslice.network.layers.link import remove as remove_link
from portslice.network.sockets import HostSocket
from portslice.network.stack import Stack
from portslice.network.statistics import Extras, NetworkStatistics
from portslice.ports import BlockAllocator, PortRange, PortSet, choose_ports
from portslice.rates import RatePolicy

log = logging.getLogger(__name__)

_PORT_USE_SHARE = 0.02  # of one CPU, at most


@dataclass(frozen=True)
class Options:
    """What the operator chose.

    :param tag: names this agent's links among those of other agents on the host.
    :param runtime_directory: below it the namespaces and the maps are kept.
    :param ports: assigned ports that may be given out.
    :param ephemeral: space of the ephemeral blocks.
    :param block: ports of a block.
    :param egress: limits of what containers send.
    :param ingress: limits of what they receive.
    :param ingress_for_existing: whether `ingress` is put on a running container that has no such limit.
    :param statistics: beyond those that are always there.
    :param port_use_secs: between two rounds of counting the ports in use; None: they are not counted.
    """

    tag: str
    runtime_directory: Path
    ports: PortSet
    ephemeral: PortSet
    block: int
    egress: RatePolicy
    ingress: RatePolicy
    ingress_for_existing: bool
    fair_queue: FairQueue | None
    with_fq_codel: bool
    statistics: Extras
    port_use_secs: float | None = None

    @property
    def managed(self) -> PortSet:
        """All ports that containers may get."""
        return self.ports | self.ephemeral

    @property
    def priority(self) -> int:
        """Of our filters: another agent on the host takes another one."""
        return 1 + int(self.tag, 16) % 0xBFFF


class PortMapping(BaseIsolator):
    """The isolator."""

    name = "network/port_mapping"

    def __init__(self, host: Host, options: Options) -> None:
        """Put the data plane on the host.

        :raises NetworkError: with Mesos' words for what failed; a host that had no data plane has none afterwards.
        """
        self._host = host
        self._options = options
        self._plane = DataPlane(options.runtime_directory / "bpf", options.priority)
        self._reservation = options.runtime_directory / "reserved_ports.json"
        self.addresses = HostAddresses(host.nics.values(), ipv6=host.ipv6)
        try:
            namespaces.make_directory(self._namespaces())
            shared_host.prepare(host, self._plane, self.addresses, options.fair_queue)
            reserved.reserve(options.managed, self._reservation)
        except Exception:
            self._let_go(release=self._plane.is_new)
            raise
        self._stack = Stack.of(
            host, self.addresses, self._plane, options.fair_queue, with_fq_codel=options.with_fq_codel
        )
        self._blocks = BlockAllocator(options.ephemeral, options.block)
        self._used_ports = PortSet()
        self._used_slots = {0}
        self._statistics = NetworkStatistics(self._plane, options.statistics)
        self._ports_in_use: dict[str, int] = {}
        if waiting := [each for each in _host_sockets(options.managed) if each.waits]:
            log.warning("The host listens on ports of the containers: %s", sockets.describe(waiting))

    def allocate(self, container: Container, request: Request) -> Container:
        held = _host_sockets(self._options.managed)
        ports = self._choose(request.ports, held, own=PortSet())
        slot = next((slot for slot in range(1, SLOTS) if slot not in self._used_slots), None)
        if slot is None:
            raise NoPortsError(f"All {SLOTS - 1} slots are in use")
        block = self._allocate_block(held)
        network = Network(
            slot=slot,
            ephemeral=block,
            ports=ports,
            egress=self._options.egress.rate(request.cpus, request.egress),
            ingress=self._options.ingress.rate(request.cpus, request.ingress),
        )
        self._used_ports |= ports
        self._used_slots.add(slot)
        return container.changed(network=network)

    def _allocate_block(self, held: list[HostSocket]) -> PortRange:
        """The lowest free block on which the host has no socket."""
        free = list(self._blocks.free_blocks())
        try:
            block = self._blocks.allocate(avoid=sockets.ports_of(held))
        except NoPortsError as error:
            text = f"Failed to allocate ephemeral ports: {error}"
            if free:
                text += f": sockets of the host hold ports of every free block: {_holders(held, PortSet(free))}"
            raise NoPortsError(text) from error
        if skipped := PortSet(each for each in free if each.begin < block.begin):
            log.warning(
                "Skipped the ephemeral ports %s: sockets of the host hold some: %s", skipped, _holders(held, skipped)
            )
        return block

    def prepare(self, container: Container) -> Launch:
        if container.network is None:
            return Launch()
        attachment = self._attachment(container, container.network)
        self._stack.attach(attachment)
        log.info(
            "Using non-ephemeral ports %s and ephemeral ports [%s] for container %s of executor '%s'",
            container.network.ports,
            container.network.ephemeral,
            container.id,
            container.name,
        )
        ports = [str(port) for port in container.network.ports]
        environment = {f"PORT{index}": port for index, port in enumerate(ports)}
        if ports:
            environment["PORT"] = ports[0]
        environment["PORTS"] = ",".join(ports)
        return Launch(namespace=attachment.namespace, environment=environment)

    def reallocate(self, container: Container, change: Change) -> Container:
        """The limits follow the flags, and the CPUs where they are per CPU, unless others were asked for."""
        network = container.network
        if network is None:
            if (change.ports, change.egress, change.ingress) != (None, None, None):
                raise ContainerError(f"The container '{container.name}' was started without network/port_mapping")
            return container
        ports = network.ports
        if change.ports is not None:
            ports = self._choose(change.ports, _host_sockets(self._options.managed), own=ports)
        ingress = self._options.ingress.rate(container.cpus, container.ingress)
        if network.ingress is None and change.ingress is None and not self._options.ingress_for_existing:
            ingress = None
        return container.changed(
            network=replace(
                network,
                ports=ports,
                egress=self._options.egress.rate(container.cpus, container.egress),
                ingress=ingress,
            )
        )

    def update(self, old: Container, new: Container) -> None:
        if old.network is None or new.network is None or old.network == new.network:
            return
        self._stack.update(self._attachment(old, old.network), self._attachment(new, new.network))
        self._used_ports = (self._used_ports - old.network.ports) | new.network.ports

    def usage(self, container: Container) -> Statistics:
        if container.network is None:
            return {}
        statistics = self._statistics.usage(self._attachment(container, container.network))
        if (in_use := self._ports_in_use.get(container.id)) is not None:
            statistics["net_ephemeral_ports_in_use"] = in_use  # beyond Mesos
        return statistics

    def samplers(self) -> Sequence[Sampler]:
        rates, port_use_secs = self._options.statistics.rates, self._options.port_use_secs
        samplers = [Sampler(rates.interval_secs, self._sample_rates)] if rates else []
        if port_use_secs is not None:
            samplers.append(Sampler(port_use_secs, self._sample_port_use))
        return samplers

    async def _sample_rates(self, containers: Containers) -> None:
        def all_of_them() -> None:
            for each in containers.living():
                with containers.holding(each.id) as container:
                    if container is not None and container.network is not None:
                        self._statistics.sample(self._attachment(container, container.network))

        await asyncio.to_thread(all_of_them)

    async def _sample_port_use(self, containers: Containers) -> None:
        for container in containers.living():
            spent_secs = await asyncio.to_thread(self._count_ports, containers, container)
            await asyncio.sleep(spent_secs * (1 / _PORT_USE_SHARE - 1))

    def _count_ports(self, containers: Containers, container: Container) -> float:
        """Note how many ports it holds; the CPU time that it took to find out."""
        if container.network is None:
            return 0.0
        began = time.thread_time()
        in_use = problem = None
        try:
            in_use = port_use.in_use(self._namespaces() / container.id, container.network.ephemeral)
        except (OSError, NetworkError) as error:
            problem = error
        spent_secs = time.thread_time() - began
        with containers.holding(container.id) as now:
            if now is None:
                pass  # it may have been too late
            elif in_use is None:
                self._ports_in_use.pop(now.id, None)
                log.warning("The ports that container %s uses cannot be counted: %s", now.id, problem)
            else:
                self._ports_in_use[now.id] = in_use
        return spent_secs

    def drops(self, container: Container | None) -> dict[str, Any]:
        """Packets refused by reason, and the last one of each; None: those that concern no container."""
        if container is not None and (container.network is None or container.state is State.EXITED):
            return {"counts": {}, "samples": []}
        slot = container.network.slot if container is not None and container.network is not None else HOST
        samples = [sample._asdict() for sample in self._plane.drop_samples(slot)]
        return {"counts": self._plane.drops(slot), "samples": samples}

    def metrics(self, containers: Iterable[Container]) -> dict[str, float]:
        """Values of /metrics/snapshot: blocks and refused packets."""
        slots = [HOST, *(container.network.slot for container in containers if container.network)]
        drops = [self._plane.drops(slot) for slot in slots]
        by_reason = {reason: sum(each.get(reason, 0) for each in drops) for reason in REASONS}
        return {
            "port_mapping/per_cpu_egress_rate_limit": self._options.egress.per_cpu or 0,
            "port_mapping/per_cpu_ingress_rate_limit": self._options.ingress.per_cpu or 0,
            "port_mapping/ephemeral_blocks_total": self._blocks.capacity,
            "port_mapping/ephemeral_blocks_free": self._blocks.available,
            **{f"port_mapping/drops/{reason}": count for reason, count in by_reason.items()},
        }

    def cleanup(self, container: Container) -> list[str]:
        if container.network is None:
            return []
        attachment = self._attachment(container, container.network)
        self._statistics.forget(attachment)
        self._ports_in_use.pop(container.id, None)
        problems = self._stack.detach(attachment)
        self._blocks.release(container.network.ephemeral)
        self._used_ports -= container.network.ports
        self._used_slots.discard(container.network.slot)
        return problems

    def recover(self, containers: Iterable[Container], orphans: Iterable[str]) -> None:
        attachments = []
        for container in containers:
            if container.network is None:
                log.info("Container %s was started without network/port_mapping and stays so", container.id)
                continue
            self._blocks.reserve(container.network.ephemeral)
            self._used_ports |= container.network.ports
            self._used_slots.add(container.network.slot)
            attachments.append(self._attachment(container, container.network))
        held = _host_sockets(self._options.managed)
        for attachment in attachments:
            self._repair(attachment)
            if clashes := _holders(held, attachment.slice):
                log.warning("Sockets of the host hold ports of container %s: %s", attachment.id, clashes)
        self._collect_garbage(attachments)
        log.info("Network isolator recovery complete")

    def close(self, *, release: bool) -> None:
        self._statistics.close()
        self._let_go(release=release)

    def follow(self, containers: Iterable[Container]) -> None:
        """The programs and the containers get the addresses that the host has now."""
        self.addresses.drain()
        if not self.addresses.refresh():
            return
        log.info("The host's addresses are now %s", ", ".join(map(str, self.addresses.shared)))
        self._plane.set_host_addresses(self.addresses.own, self.addresses.broadcast)
        for container in containers:
            if container.network is not None:
                self._repair(self._attachment(container, container.network))

    def _choose(self, wanted: PortSet | int, held: list[HostSocket], own: PortSet) -> PortSet:
        """These ports, or so many: rather such as the container owns already.

        :param held: the host's sockets on ports that are managed.
        :raises NoPortsError, ConflictError: they cannot be had.
        """
        held_ports = sockets.ports_of(held)
        if isinstance(wanted, int):
            kept = choose_ports(own, min(wanted, len(own)))
            free = self._options.ports - self._used_ports - held_ports
            return kept | choose_ports(free, wanted - len(kept))
        added = wanted - own
        if not added.issubset(self._options.ports):
            raise NoPortsError(f"Some non-ephemeral ports specified in {wanted} are not managed by the agent")
        if taken := added & self._used_ports:
            raise ConflictError(f"The ports {taken} belong to another container")
        if taken := added & held_ports:
            raise ConflictError(f"The ports {taken} are held by sockets of the host: {_holders(held, taken)}")
        return wanted

    def _let_go(self, *, release: bool) -> None:
        self.addresses.close()
        if release:
            shared_host.release(self._host, self._plane, self._options.fair_queue)
            try:
                reserved.release(self._reservation)
            except NetworkError as error:
                log.error("%s", error)
            namespaces.remove_directory(self._namespaces())
        self._plane.close(remove=release)

    def _repair(self, attachment: Attachment) -> None:
        """What cannot be repaired costs only the container that it belongs to."""
        try:
            for problem in self._stack.repair(attachment):
                log.warning("Repaired container %s: %s", attachment.id, problem)
        except Exception as error:
            log.error("Failed to repair container %s: %s", attachment.id, error)

    def _collect_garbage(self, attachments: list[Attachment]) -> None:
        """Remove links and namespaces that bear our mark and belong to no container on record."""
        links = {attachment.link for attachment in attachments}
        with routes() as iproute:
            for link in iproute.get_links():
                name = link.get("ifname")
                if link.get("group") == GROUP and name.startswith(self._link("")) and name not in links:
                    log.warning("Removing the orphaned link %s", name)
                    remove_link(link["index"])
        known = {attachment.namespace for attachment in attachments}
        for path in self._namespaces().glob("*"):
            if path not in known:
                log.warning("Removing the orphaned network namespace '%s'", path)
                namespaces.remove(path)
        for slot in set(range(1, SLOTS)) - self._used_slots:
            if self._plane.slot(slot) is not None:
                self._plane.close_slot(slot)

    def _attachment(self, container: Container, network: Network) -> Attachment:
        return Attachment(
            id=container.id,
            slot=network.slot,
            namespace=self._namespaces() / container.id,
            link=self._link(str(network.slot)),
            ephemeral=network.ephemeral,
            ports=network.ports,
            egress=network.egress,
            ingress=network.ingress,
        )

    def _namespaces(self) -> Path:
        return self._options.runtime_directory / "netns"

    def _link(self, slot: str) -> str:
        return f"ps{self._options.tag}-{slot}"


def _host_sockets(ports: PortSet) -> list[HostSocket]:
    """The host's sockets on these ports; none, and a warning, if the kernel does not list them."""
    try:
        return sockets.held(ports)
    except NetworkError as error:
        log.warning("Ports are given out without a look at the host's sockets: %s", error)
        return []


def _holders(held: list[HostSocket], ports: PortSet) -> str:
    """Those of the sockets that hold one of these ports, in words."""
    return sockets.describe([each for each in held if each.port in ports])
