"""network/port_mapping: a slice of the host's ports, a share of its wire, and the counters of both.

`allocate` is bookkeeping over pure values: a free slot, an ephemeral block, the assigned ports. `prepare` attaches the
container's network, `cleanup` detaches it; what an attachment is made of is the network floor's business.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portslice.containers.container import Container, Network, Request, State
from portslice.containers.isolators import BaseIsolator, Launch, Statistics
from portslice.errors import ConflictError, NoPortsError
from portslice.network import host as shared_host
from portslice.network import namespaces
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_NIC_INDEX, REASONS, SLOTS, DataPlane
from portslice.network.host import FairQueue, Host, routes
from portslice.network.layers.link import GROUP
from portslice.network.qdiscs import htb
from portslice.network.rtnetlink import Queue, Rtnetlink
from portslice.network.stack import Stack
from portslice.ports import BlockAllocator, PortSet, choose_ports

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the operator chose.

    :param tag: names this agent's links among those of other agents on the host.
    :param runtime_directory: below it the namespaces and the maps are kept.
    :param ports: assigned ports that may be given out.
    :param ephemeral: space of the ephemeral blocks.
    :param block: ports of a block.
    :param egress: limit of each container in bytes per second.
    """

    tag: str
    runtime_directory: Path
    ports: PortSet
    ephemeral: PortSet
    block: int
    egress: int | None
    fair_queue: FairQueue | None
    with_fq_codel: bool

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
        try:
            namespaces.make_directory(self._namespaces())
            shared_host.prepare(host, self._plane, options.fair_queue)
        except Exception:
            self._let_go(release=self._plane.is_new)
            raise
        self._stack = Stack.of(host, self._plane, options.fair_queue, with_fq_codel=options.with_fq_codel)
        self._blocks = BlockAllocator(options.ephemeral, options.block)
        self._used_ports = PortSet()
        self._used_slots = {0}
        self._sockets: dict[str, Rtnetlink] = {}

    def allocate(self, container: Container, request: Request) -> Container:
        if isinstance(request.ports, int):
            ports = choose_ports(self._options.ports - self._used_ports, request.ports)
        else:
            ports = request.ports
            if not ports.issubset(self._options.ports):
                raise NoPortsError(
                    f"Some non-ephemeral ports specified in {ports} are not managed by the agent"
                )
            if taken := ports & self._used_ports:
                raise ConflictError(f"The ports {taken} belong to another container")
        slot = next((slot for slot in range(1, SLOTS) if slot not in self._used_slots), None)
        if slot is None:
            raise NoPortsError(f"All {SLOTS - 1} slots are in use")
        try:
            block = self._blocks.allocate()
        except NoPortsError as error:
            raise NoPortsError(f"Failed to allocate ephemeral ports: {error}") from error
        network = Network(slot=slot, ephemeral=block, ports=ports, egress=self._options.egress)
        self._used_ports |= ports
        self._used_slots.add(slot)
        return container.changed(network=network)

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

    def usage(self, container: Container) -> Statistics:
        network = container.network
        if network is None:
            return {}
        netlink = self._sockets.get(container.id)
        if netlink is None:
            netlink = self._sockets[container.id] = Rtnetlink(self._attachment(container, network).namespace)
        statistics: Statistics = {
            f"net_{name}": value for name, value in netlink.link_counters(CONTAINER_NIC_INDEX)._asdict().items()
        }
        statistics["net_ephemeral_ports"] = {"begin": network.ephemeral.begin, "end": network.ephemeral.end}
        if network.egress is not None:
            statistics["net_tx_rate_limit"] = network.egress
            queues = {queue.parent: queue for queue in netlink.qdiscs() if queue.ifindex == CONTAINER_NIC_INDEX}
            statistics["net_traffic_control_statistics"] = [
                _traffic_control(name, queues[parent])
                for name, parent in (("bw_limit", 0xFFFFFFFF), ("bloat_reduction", htb.CLASS))
                if parent in queues
            ]
        return statistics

    def drops(self, container: Container) -> dict[str, Any]:
        """Packets refused by reason, and the last one of each."""
        if container.network is None or container.state is State.EXITED:
            return {"counts": {}, "samples": []}
        slot = container.network.slot
        samples = [sample._asdict() for sample in self._plane.drop_samples(slot)]
        return {"counts": self._plane.drops(slot), "samples": samples}

    def host_drops(self) -> dict[str, int]:
        """Packets refused that concern no container."""
        return self._plane.drops(0)

    def metrics(self, containers: Iterable[Container]) -> dict[str, float]:
        """Values of /metrics/snapshot: blocks and refused packets."""
        drops = [self._plane.drops(container.network.slot) for container in containers if container.network]
        by_reason = {reason: sum(each.get(reason, 0) for each in [*drops, self.host_drops()]) for reason in REASONS}
        return {
            "port_mapping/ephemeral_blocks_total": self._blocks.capacity,
            "port_mapping/ephemeral_blocks_free": self._blocks.available,
            **{f"port_mapping/drops/{reason}": count for reason, count in by_reason.items()},
        }

    def cleanup(self, container: Container) -> list[str]:
        if container.network is None:
            return []
        if netlink := self._sockets.pop(container.id, None):
            netlink.close()
        problems = self._stack.detach(self._attachment(container, container.network))
        self._blocks.release(container.network.ephemeral)
        self._used_ports -= container.network.ports
        self._used_slots.discard(container.network.slot)
        return problems

    def recover(self, containers: Iterable[Container]) -> None:
        attachments = []
        for container in containers:
            if container.network is None:
                log.info("Container %s was started without network/port_mapping and stays so", container.id)
                continue
            self._blocks.reserve(container.network.ephemeral)
            self._used_ports |= container.network.ports
            self._used_slots.add(container.network.slot)
            attachments.append(self._attachment(container, container.network))
        for attachment in attachments:
            self._repair(attachment)
        self._collect_garbage(attachments)
        log.info("Network isolator recovery complete")

    def close(self, *, release: bool) -> None:
        for netlink in self._sockets.values():
            netlink.close()
        self._sockets.clear()
        self._let_go(release=release)

    def _let_go(self, *, release: bool) -> None:
        if release:
            shared_host.release(self._host, self._plane, self._options.fair_queue)
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
                    iproute.link("del", index=link["index"])
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
            egress=htb.Rate(network.egress) if network.egress is not None else None,
        )

    def _namespaces(self) -> Path:
        return self._options.runtime_directory / "netns"

    def _link(self, slot: str) -> str:
        return f"ps{self._options.tag}-{slot}"


def _traffic_control(name: str, queue: Queue) -> Statistics:
    """Mesos' TrafficControlStatistics."""
    return {"id": name, **queue.counters._asdict()}
