"""/metrics: the agent and its containers as Prometheus reads them.

A request is answered from one snapshot, as every other view. The text, of a megabyte or more where a thousand
containers live, is made in a thread, so that meanwhile the agent launches and answers others.

There is no global registry: each answer has its own, which holds what was true for it. So the series of a container
end when it does.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.registry import Collector

import portslice
from portslice.agent.service import Agent
from portslice.agent.startup import port_resources
from portslice.containers.container import Container, State
from portslice.http.answers import COMPRESSED_IN_A_THREAD, takes_gzip
from portslice.http.families import PREFIX, families
from portslice.network.dataplane import SLOTS
from portslice.ports import PortSet
from portslice.statistics import Snapshot

_MB = 1 << 20


class Prometheus:
    """The endpoint of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._process = ProcessCollector(registry=None)

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [web.get("/metrics", self.metrics)]

    async def metrics(self, request: web.Request) -> web.Response:
        """Text format 0.0.4, or OpenMetrics where the request prefers it."""
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # it names a version that is none
            encode, content_type = choose_encoder("")
        if content_type.startswith("application/openmetrics-text"):
            # Our names need no escaping, and to see that again of each of them takes two thirds of the library's time.
            encode = partial(encode, escaping=ALLOWUTF8)  # type: ignore[call-arg]
        registry = CollectorRegistry()
        registry.register(self._process)
        registry.register(_View(self._agent, await self._agent.snapshots.take()))
        body = await asyncio.to_thread(encode, registry)
        headers = {"Content-Type": content_type}
        response = web.Response(body=body, headers=headers, zlib_executor_size=COMPRESSED_IN_A_THREAD)
        if takes_gzip(request.headers.get("Accept-Encoding", "")):
            response.enable_compression(web.ContentCoding.gzip)
        return response


class _View(Collector):
    """An agent and a snapshot of its containers."""

    def __init__(self, agent: Agent, snapshot: Snapshot) -> None:
        self._agent = agent
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        containers = self._agent.containerizer.all()
        yield from self._about_the_agent(containers)
        yield from self._about_resources(containers)
        if self._agent.port_mapping is not None:
            yield from self._about_port_mapping(containers)
        yield from self._about_containers()
        yield from families(self._snapshot)

    def _about_the_agent(self, containers: list[Container]) -> Iterator[Metric]:
        agent = self._agent
        build = GaugeMetricFamily("portslice_build_info", "The agent's version; always 1.", labels=("version",))
        build.add_metric((portslice.__version__,), 1)
        yield build
        yield _gauge("portslice_start_time_seconds", "When the agent started, in Unix time.", agent.started)
        yield _gauge("portslice_recovery_seconds", "How long it took up earlier containers.", agent.recovery_secs)
        states = GaugeMetricFamily(
            "portslice_containers", "Containers on record; of those that exited, the last.", labels=("state",)
        )
        counts = Counter(container.state for container in containers)
        for state in State:
            states.add_metric((state,), counts[state])
        yield states
        errors = agent.containerizer.launch_errors, agent.containerizer.destroy_errors
        yield CounterMetricFamily("portslice_launch_errors", "Launches that failed.", errors[0])
        yield CounterMetricFamily("portslice_destroy_errors", "Parts of containers left behind.", errors[1])

    def _about_resources(self, containers: list[Container]) -> Iterator[Metric]:
        offered = self._agent.offer.resources
        living = [container for container in containers if container.state is not State.EXITED]
        yield _gauge("portslice_cpu_cores", "CPUs for containers.", offered.scalar("cpus") or 0)
        yield _gauge(
            "portslice_cpu_cores_allocated",
            "CPUs that containers asked for.",
            sum(container.cpus or 0 for container in living),
        )
        yield _gauge("portslice_memory_bytes", "Memory for containers.", (offered.scalar("mem") or 0) * _MB)
        yield _gauge(
            "portslice_memory_allocated_bytes",
            "Memory that containers asked for.",
            sum(container.mem or 0 for container in living),
        )

    def _about_port_mapping(self, containers: list[Container]) -> Iterator[Metric]:
        isolator = self._agent.port_mapping
        assert isolator is not None
        networks = [each.network for each in containers if each.network and each.state is not State.EXITED]
        ports, _ephemeral = port_resources(self._agent.flags)
        taken = sum(len(network.ports) for network in networks)
        blocks = isolator.metrics(())
        yield _gauge(
            "portslice_ephemeral_blocks",
            "Blocks of ephemeral ports; every container has one.",
            blocks["port_mapping/ephemeral_blocks_total"],
        )
        yield _gauge(
            "portslice_ephemeral_blocks_free",
            "Blocks of ephemeral ports that no container has.",
            blocks["port_mapping/ephemeral_blocks_free"],
        )
        yield _gauge("portslice_assigned_ports", "Ports to assign to containers.", len(ports))
        yield _gauge("portslice_assigned_ports_free", "Those that no container has.", len(ports) - taken)
        yield _gauge("portslice_slots", "How many containers the data plane has room for.", SLOTS - 1)
        yield _gauge("portslice_slots_free", "How many more it has room for.", SLOTS - 1 - len(networks))
        refused = CounterMetricFamily(
            "portslice_host_refused_packets", "Packets refused that concern no container.", labels=("reason",)
        )
        for reason, count in isolator.drops(None)["counts"].items():
            refused.add_metric((reason,), count)
        yield refused

    def _about_containers(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            f"{PREFIX}info",
            "Its id and ports; always 1.",
            labels=("container", "id", "ports", "ephemeral_ports"),
        )
        created = GaugeMetricFamily(
            f"{PREFIX}start_time_seconds", "When it was launched, in Unix time.", labels=("container",), unit="seconds"
        )
        for container in (usage.container for usage in self._snapshot):
            network = container.network
            ports, block = (network.ports, PortSet([network.ephemeral])) if network else ("", "")
            info.add_metric((container.name, container.id, str(ports), str(block)), 1)
            created.add_metric((container.name,), container.created)
        yield info
        yield created


def _gauge(name: str, help_: str, value: float) -> GaugeMetricFamily:
    unit = name.rpartition("_")[2]
    return GaugeMetricFamily(name, help_, value, unit=unit if unit in ("seconds", "bytes") else "")
