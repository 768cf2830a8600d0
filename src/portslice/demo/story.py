"""The demo: three containers behind one address, each kept to its own ports and its limit, on real packets.

    greedy   sends as fast as it may (an iperf3 server, asked by the world to send)
    quiet    answers small requests, and must not notice
    nosy     uses ports that are not its own

Every step shows what it does and claims what must be so. Figures come from where an operator reads them: the agent's
endpoints, `ip -s`, iperf3's report. The limit is compared with the bytes that HTB charged, headers included, between
two readings of /monitor/statistics, by the readings' own timestamps.

An emulated machine may be too slow for the documentation's limit. What it can do is measured beforehand without any
limit: where that leaves no room for this one, the demo says what was reached and repeats the step with a limit there
is room for.
"""

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from portslice.cli.table import ports
from portslice.demo import services
from portslice.demo.console import Console
from portslice.demo.node import RESOURCES, Node
from portslice.demo.testbed import HOST_ADDRESS, HOST_PORTS, NIC, WORLD_ADDRESS, Testbed
from portslice.demo.world import Iperf, Latency, Sink, ask, bytes_from_host, latency, wait_for_echo
from portslice.network.probe import Kernel
from portslice.units import Bytes

LIMIT = Bytes.parse("37500KB")
TOLERANCE = 0.02
_LIMIT_FLAG = "--egress_rate_limit_per_container"
_FAIR_FLAG = "--egress_unique_flow_per_container"
_SERVICES = [sys.executable, str(Path(services.__file__))]
_GREEDY_PORT, _QUIET_PORT, _NOSY_PORT = 31000, 31005, 31010  # the first of five each
_HOST_IPERF_PORT = 5201
_SSH_PORT = 22
_ROOM = 16  # a machine that carries so many times the limit is not what falls short of it
_SETTLE_SECS = 1.0
_START_SECS = 180.0


class Hold(NamedTuple):
    """How a limit was held, in bytes per second."""

    limit: int
    charged: float
    goodput: float
    latency: Latency

    @property
    def ratio(self) -> float:
        """1.0 is exactly the limit."""
        return self.charged / self.limit


class Story:
    """The steps, in order, and the figures they leave."""

    def __init__(self, bed: Testbed, console: Console, seconds: float) -> None:
        """:param seconds: how long greedy sends."""
        self.figures: dict[str, Any] = {}
        self._bed = bed
        self._console = console
        self._seconds = seconds
        self._has_fq_codel = Kernel().has_fq_codel()
        self.agent = Node(
            bed,
            "--isolation=cgroups/cpu,cgroups/mem,network/port_mapping",
            f"--resources={RESOURCES}",
            "--ephemeral_ports_per_container=1024",
            f"{_LIMIT_FLAG}={LIMIT}",
            *([_FAIR_FLAG] if self._has_fq_codel else []),
        )
        self._containers: dict[str, dict[str, Any]] = {}
        self._agent_start_secs = 0.0
        self.cleaned_up = False

    def tell(self) -> None:
        """All of it.

        :raises RuntimeError: a step could not be done at all.
        """
        self._start_agent()
        self._launch_all()
        self._listen_to_quiet()
        capacity = self._measure_capacity()
        self._show_limit(capacity)
        self._trespass()
        self._show_statistics()
        self._restart_agent()
        self._clean_up()

    # Setting up

    def _start_agent(self) -> None:
        show = self._console
        show.step("Starting the agent on the host")
        show.say(f"world {WORLD_ADDRESS} --- {NIC} {HOST_ADDRESS} host (itself: ports {'-'.join(HOST_PORTS.split())})")
        show.command(self.agent.command)
        if not self._has_fq_codel:
            show.say(f"This kernel lacks fq_codel: left out {_FAIR_FLAG} (script/demo --vm has it).")
        began = time.monotonic()
        self.agent.start()
        self._agent_start_secs = time.monotonic() - began

    def _launch_all(self) -> None:
        show = self._console
        show.step("Launching three containers")
        self._launch("greedy", _GREEDY_PORT, "iperf3", "--server", "--port", str(_GREEDY_PORT))
        self._launch("quiet", _QUIET_PORT, *_SERVICES, "echo")
        self._sink = Sink(self._bed.world, WORLD_ADDRESS)
        foreign = [str(_QUIET_PORT), str(self._containers["greedy"]["ephemeral_ports"][0]), str(_SSH_PORT)]
        nosy = [*_SERVICES, "trespass", f"{WORLD_ADDRESS}:{self._sink.port}", *foreign]
        self._launch("nosy", _NOSY_PORT, *nosy)
        rows = [
            (name, ports(each["ports"]), ports([each["ephemeral_ports"]]), each["pid"])
            for name, each in self._containers.items()
        ]
        show.table(("CONTAINER", "ASSIGNED PORTS", "EPHEMERAL PORTS", "PID"), rows)
        slices = [_slice(each) for each in self._containers.values()]
        disjoint = len(set().union(*slices)) == sum(map(len, slices))
        show.claim("one address for all, and no port belongs to two of them", disjoint)
        self.figures["containers"] = {
            name: {key: each[key] for key in ("ports", "ephemeral_ports")} for name, each in self._containers.items()
        }
        wait_for_echo(self._bed.world, HOST_ADDRESS, _QUIET_PORT)
        self._wait_for_greedy()

    def _launch(self, name: str, first_port: int, *command: str) -> None:
        assigned = f"{first_port}-{first_port + 4}"
        arguments = ["run", "-d", "--name", name, "--ports", assigned, "--", *command]
        self._console.command(["portslice", *arguments])
        self.agent.cli(*arguments, timeout=_START_SECS)
        self._containers[name] = self.agent.client.container(name)

    def _wait_for_greedy(self) -> None:
        self._wait_for_listener(self.agent.namespace(self._containers["greedy"]), _GREEDY_PORT)

    def _wait_for_listener(self, namespace: Path, port: int) -> None:
        deadline = time.monotonic() + _START_SECS
        while not self._bed.run(namespace, "ss", "-Hltn", f"sport = :{port}").stdout:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Nothing listens on TCP port {port}")
            time.sleep(0.05)

    # The limit, and who notices

    def _listen_to_quiet(self) -> None:
        show = self._console
        show.step("Requests from the world to quiet, while nothing else happens")
        self._idle = latency(self._bed.world, HOST_ADDRESS, _QUIET_PORT, min(3.0, self._seconds))
        show.say(_latency(self._idle))
        self.figures["idle_latency"] = self._idle._asdict()

    def _measure_capacity(self) -> float:
        """Bytes per second that the machine carries from the host to the world without containers and limits."""
        show = self._console
        show.step("What the host itself sends to the world, without any limit")
        server = f"iperf3 --server --one-off --port {_HOST_IPERF_PORT}".split()
        self._bed.start(self._bed.host, *server)
        self._wait_for_listener(self._bed.host, _HOST_IPERF_PORT)
        capacity = Iperf(self._bed, HOST_ADDRESS, _HOST_IPERF_PORT, 2).goodput()
        show.say(f"goodput {_mbit(capacity)}")
        self.figures["host_goodput"] = capacity
        return capacity

    def _show_limit(self, capacity: float) -> None:
        show = self._console
        hold = self._hold(int(LIMIT))
        self.figures["limit"] = _figures(hold)
        if abs(hold.ratio - 1) <= TOLERANCE or capacity >= _ROOM * int(LIMIT):
            self._claim_hold(hold)
            return
        show.say(
            f"This machine has no room for {_mbit(int(LIMIT))}: greedy reached {_mbit(hold.charged)}, and was "
            "held back by the processor. So once more with a smaller limit."
        )
        smaller = Bytes.parse(f"{max(int(min(capacity, hold.charged) / 3 / 1024), 125)}KB")
        self._lower_limit(smaller)
        hold = self._hold(int(smaller))
        self.figures["smaller_limit"] = _figures(hold)
        self._claim_hold(hold)

    def _lower_limit(self, limit: Bytes) -> None:
        """With another flag the agent limits the containers launched from then on."""
        flag = f"{_LIMIT_FLAG}={limit}"
        self._console.step("Starting the agent and greedy again with a smaller limit")
        self._console.say(flag)
        self.agent.flags = [flag if each.startswith(f"{_LIMIT_FLAG}=") else each for each in self.agent.flags]
        self.agent.kill("greedy")
        self.agent.stop()
        self.agent.start()
        self._launch("greedy", _GREEDY_PORT, *self._containers["greedy"]["command"])
        self._wait_for_greedy()

    def _hold(self, limit: int) -> Hold:
        show = self._console
        show.step(f"greedy sends for {self._seconds:g} s; its limit is {Bytes(limit)}/s = {_mbit(limit)}")
        began = time.monotonic()
        self.agent.statistics("greedy")
        reading_secs = time.monotonic() - began
        iperf = Iperf(self._bed, HOST_ADDRESS, _GREEDY_PORT, self._seconds + 2 * _SETTLE_SECS + 3 * reading_secs + 1)
        show.command(iperf.command)
        time.sleep(_SETTLE_SECS + reading_secs)
        before = self.agent.statistics("greedy")
        meanwhile = latency(self._bed.world, HOST_ADDRESS, _QUIET_PORT, self._seconds)
        after = self.agent.statistics("greedy")
        charged = (_charged(after) - _charged(before)) / (after["timestamp"] - before["timestamp"])
        return Hold(limit, charged, iperf.goodput(), meanwhile)

    def _claim_hold(self, hold: Hold) -> None:
        show = self._console
        idle, busy = self._idle, hold.latency
        show.say(f"HTB charged {_mbit(hold.charged)} = {hold.ratio:.2%} of the limit; goodput {_mbit(hold.goodput)}")
        show.claim(f"the limit holds within {TOLERANCE:.0%}", abs(hold.ratio - 1) <= TOLERANCE)
        show.say("Requests from the world to quiet:")
        rows = [
            (name, each.answered, f"{each.p50_ms:.3f}", f"{each.p99_ms:.3f}")
            for name, each in (("nothing else happens", idle), ("greedy sends", busy))
        ]
        show.table(("WHILE", "ANSWERED", "P50 MS", "P99 MS"), rows)
        show.claim("quiet answered every request", idle.sent == idle.answered and busy.sent == busy.answered)

    # Ports

    def _trespass(self) -> None:
        show = self._console
        show.step(f"nosy uses quiet's port {_QUIET_PORT}, a port of greedy's, and the host's {_SSH_PORT}")
        with closing(self._sink):
            told = ask(self._bed.world, HOST_ADDRESS, _NOSY_PORT)
            owned, foreign = len(told["own"]) * services.DATAGRAMS, 3 * services.DATAGRAMS
            self._sink.settle(owned)
        answer = self.agent.client.statistics("nosy")
        counts, samples = answer["drops"]["counts"], answer["drops"]["samples"]
        arrived = dict(self._sink.received)
        block = self._containers["nosy"]["ephemeral_ports"]
        show.say(f"Sent to the world: {foreign} datagrams from those ports, {owned} from its own.")
        rows = [
            (
                each["reason"],
                counts[each["reason"]],
                f"{each['source']}:{each['source_port']}",
                f"{each['destination']}:{each['destination_port']}",
            )
            for each in samples
        ]
        show.table(("REFUSED", "PACKETS", "LAST ONE FROM", "TO"), rows)
        show.claim(f"{foreign} of {foreign} refused, counted and sampled", counts.get("foreign_port") == foreign)
        expected = dict.fromkeys(told["own"], services.DATAGRAMS)
        show.claim(f"{owned} of {owned} arrived from its own ports, none from another", arrived == expected)
        inside = all(block[0] <= port <= block[1] for port in told["chosen"])
        show.claim(f"{len(told['chosen'])} ports that the kernel chose lie in its block {ports([block])}", inside)
        after = latency(self._bed.world, HOST_ADDRESS, _QUIET_PORT, 0.5)
        undisturbed = after.sent == after.answered
        show.claim(f"quiet still gets what is sent to {_QUIET_PORT}, though nosy listens there", undisturbed)
        self.figures["trespass"] = {"sent": foreign, "refused": counts, "samples": samples, "arrived": arrived}

    # Figures

    def _show_statistics(self) -> None:
        show = self._console
        show.step("What the agent's statistics say")
        show.command(["curl", "-s", "http://localhost:5051/monitor/statistics"])
        elements = self.agent.get("/monitor/statistics")
        found = {each["executor_id"]: _flat(each["statistics"]) for each in elements}
        names = list(self._containers)
        shown = (
            *("cpus_user_time_secs", "cpus_system_time_secs", "mem_rss_bytes"),
            *("net_rx_packets", "net_rx_bytes", "net_tx_packets", "net_tx_bytes"),
            *("bw_limit.bytes", "bw_limit.overlimits", "bw_limit.drops", "bloat_reduction.drops"),
        )
        rows = [(field, *(found[name][field] for name in names)) for field in shown if field in found[names[0]]]
        show.table(("", *names), rows)
        ours, kernels = {}, {}
        for name in names:
            namespace = self.agent.namespace(self._containers[name])
            output = self._bed.run(namespace, *f"ip -s -j link show dev {NIC}".split()).stdout
            counters = json.loads(output)[0]["stats64"]
            kernels[name] = [counters[way][what] for way in ("rx", "tx") for what in ("packets", "bytes")]
            ours[name] = [found[name][f"net_{way}_{what}"] for way in ("rx", "tx") for what in ("packets", "bytes")]
        show.claim(f"they agree with `ip -s link show {NIC}` inside each container", ours == kernels)
        self.figures["statistics"] = elements

    # The agent's death

    def _restart_agent(self) -> None:
        show = self._console
        show.step("Stopping the agent for a second while greedy sends")
        seconds = 3 * _SETTLE_SECS + 1.5 * self._agent_start_secs + 1
        iperf = Iperf(self._bed, HOST_ADDRESS, _GREEDY_PORT, seconds)
        time.sleep(_SETTLE_SECS)
        before = self.agent.statistics("greedy")
        self.agent.stop()
        alone = bytes_from_host(self._bed)
        time.sleep(_SETTLE_SECS)
        alone = bytes_from_host(self._bed) - alone
        self.agent.start()
        after = self.agent.statistics("greedy")
        now = {each["name"]: each for each in self.agent.client.containers() if each["state"] == "running"}
        report = iperf.result()
        moved = [interval["sum"]["bytes"] for interval in report["intervals"]]
        show.say(f"{alone / 1e6:.1f} MB passed while no agent ran.")
        show.claim("greedy's connections went on", alone > 0 and all(moved))
        kept = all(
            now.get(name, {}).get(key) == each[key]
            for name, each in self._containers.items()
            for key in ("pid", "ports", "ephemeral_ports")
        )
        show.claim("the new agent knows the same containers, processes and ports", kept)
        show.claim("their counters go on", after["net_tx_bytes"] >= before["net_tx_bytes"] + alone)
        self.figures["restart"] = {"bytes_without_agent": alone}

    def _clean_up(self) -> None:
        show = self._console
        show.step("Ending the containers and the agent")
        names = list(self._containers)
        show.command(["portslice", "kill", *names])
        self.agent.cli("kill", *names, timeout=_START_SECS)
        self.agent.stop()
        left = self.agent.leftovers()
        for each in left:
            show.say(each)
        show.claim("no link, filter, namespace, cgroup, mount or process is left", not left)
        self.figures["left"] = left
        self.cleaned_up = not left


def _slice(container: dict[str, Any]) -> set[int]:
    ranges = [*container["ports"], container["ephemeral_ports"]]
    return {port for begin, end in ranges for port in range(begin, end + 1)}


def _charged(statistics: dict[str, Any]) -> int:
    return int(_flat(statistics)["bw_limit.bytes"])


def _flat(statistics: dict[str, Any]) -> dict[str, Any]:
    """The fields, with those of traffic control as `bw_limit.bytes`."""
    queues = statistics.get("net_traffic_control_statistics", [])
    return {**statistics, **{f"{queue['id']}.{name}": value for queue in queues for name, value in queue.items()}}


def _figures(hold: Hold) -> dict[str, Any]:
    return {**hold._asdict(), "ratio": hold.ratio, "latency": hold.latency._asdict()}


def _latency(measured: Latency) -> str:
    return (
        f"{measured.answered} of {measured.sent} answered, p50 {measured.p50_ms:.3f} ms, p99 {measured.p99_ms:.3f} ms"
    )


def _mbit(rate: float) -> str:
    return f"{rate * 8 / 1e6:.1f} Mbit/s"
