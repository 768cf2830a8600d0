"""/metrics, read by Debian's Prometheus and checked by its promtool; the rules and the dashboard that come with it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, testbed
from portslice.http.families import FAMILIES, NOT_SHOWN, leaves
from tests.kernel.conftest import NETWORK_STATISTICS
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / ".venv/prometheus"
RULES = ROOT / "docs/prometheus/portslice.rules.yml"
MONITORING = ROOT / "docs/monitoring.md"
DASHBOARD = ROOT / "docs/prometheus/grafana-dashboard.json"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - {{job_name: portslice, static_configs: [{{targets: ["127.0.0.1:5051"]}}]}}
"""
# 50 datagrams to a port on which nobody listens; for a container, 3 from a port that it does not own, and life goes on.
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(50): s.sendto(bytes(500), (sys.argv[1], 31000))
"""
TRESPASS = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 99))
for _ in range(3): s.sendto(bytes(500), (sys.argv[1], 9))
time.sleep(10000)
"""


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent with all the statistics that there are."""
    flags = (
        "--cgroups_enable_cfs",
        "--egress_rate_limit_per_container=37500KB",
        "--ingress_rate_limit_per_container=37500KB",
        *NETWORK_STATISTICS,
        "--network_rate_statistics_window=5secs",
        "--network_rate_statistics_interval=50ms",
    )
    with testbed() as bed, node(bed, *flags) as agent:
        yield agent


def metrics(agent: Node, *options: str) -> str:
    """What curl prints of /metrics."""
    command = ("curl", "-sS", "--fail", *options, "http://127.0.0.1:5051/metrics")
    return agent.bed.run(agent.bed.host, *command).stdout


def promtool(*arguments: str, text: str = "") -> None:
    """Run it; whatever it finds is a failure."""
    result = subprocess.run(
        [PROMETHEUS / "promtool", *arguments], input=text, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""


def samples(families: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Values by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def expressions() -> set[str]:
    """Every query of the dashboard, with values for its variables."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = {target["expr"] for panel in panels for target in panel.get("targets", [])}
    variables = {"$instance": ".*", "$container": "web", "$__rate_interval": "30s"}
    return {re.sub("|".join(map(re.escape, variables)), lambda name: variables[name[0]], each) for each in found}


# What is served


def test_both_formats_say_the_same_and_promtool_finds_nothing_wrong(agent: Node) -> None:
    agent.launch("web", cpus=1.0, ports=2)
    until(lambda: "rate_bytes_per_second" in metrics(agent), "rates")
    text, openmetrics = metrics(agent), metrics(agent, "-H", f"Accept: {OPENMETRICS}")
    promtool("check", "metrics", text=text)
    assert openmetrics.endswith("# EOF\n")
    plain, open_ = samples(parse_text(text)), samples(parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
    assert plain.keys() == open_.keys()
    still = {"portslice_container_info", "portslice_start_time_seconds", "portslice_container_memory_limit_bytes"}
    assert {key: value for key, value in plain.items() if key[0] in still} == {
        key: value for key, value in open_.items() if key[0] in still
    }
    assert metrics(agent, "--compressed", "-D", "-").lower().count("content-encoding: gzip") == 1
    on_the_socket = metrics(agent, "--unix-socket", str(agent.socket))
    assert samples(parse_text(on_the_socket)).keys() == plain.keys()


def test_names_of_any_kind_and_versions_of_none(agent: Node) -> None:
    name = 'a"b{c="d"},ü#'
    agent.launch(name)
    for version in ("0.0.4", "1.0.0", "..", "abc", "99.9"):
        for kind in ("text/plain", "application/openmetrics-text"):
            text = metrics(agent, "-H", f"Accept: {kind};version={version}")
            parse = parse_openmetrics if text.endswith("# EOF\n") else parse_text
            found = samples(parse(text))
            assert any(("container", name) in labels for _, labels in found)


def test_no_field_is_forgotten(agent: Node) -> None:
    """Of those that this agent serves; the unit test has those that it could."""
    agent.launch("web")
    until(lambda: "tx_rate" in agent.statistics("web")["net_rate_statistics"], "rates")
    statistics = agent.statistics("web")
    known = {field for family in FAMILIES for field in family.fields} | NOT_SHOWN.keys()
    assert {field for field, _, _ in leaves(statistics)} - known == set()
    nested = {name for name, value in statistics.items() if isinstance(value, dict | list)}
    assert [name for name in nested if not any(field.partition(".")[0] == name for field in known)] == []


def test_only_living_containers_have_series(agent: Node) -> None:
    agent.launch("web", ports=2)
    agent.launch("db")
    shown = samples(parse_text(metrics(agent)))
    assert shown["portslice_containers", (("state", "running"),)] == 2
    names = {dict(labels)["container"] for name, labels in shown if name.startswith("portslice_container_")}
    assert names == {"web", "db"}
    free = shown["portslice_ephemeral_blocks_free", ()], shown["portslice_assigned_ports_free", ()]
    agent.kill("web")
    shown = samples(parse_text(metrics(agent)))
    assert {dict(labels).get("container", "db") for _, labels in shown} == {"db"}
    assert (shown["portslice_ephemeral_blocks_free", ()], shown["portslice_assigned_ports_free", ()]) == (
        free[0] + 1,
        free[1] + 2,
    )


def test_the_agents_own_metrics_are_documented(agent: Node) -> None:
    """With their kinds; the containers' are in the unit test."""
    own = r"portslice_(?!container_)\w+"
    served = re.findall(rf"^# TYPE ({own}) (\w+)$", metrics(agent), re.M)
    assert served == re.findall(rf"^\| `({own})` \| (\w+) \|", MONITORING.read_text(), re.M)


def test_an_agent_without_port_mapping_has_metrics_too() -> None:
    with testbed() as bed, node(bed, "--isolation=posix/cpu,posix/mem") as agent:
        agent.launch("web")
        text = metrics(agent)
        promtool("check", "metrics", text=text)
        assert 'portslice_container_memory_rss_bytes{container="web"}' in text
        assert "portslice_slots" not in text


# No process is started to answer


def waited_for(agent: Node) -> tuple[int, int]:
    """(page faults of the agent's ended children, living children): proc(5), stat field 11, and children. No process
    begins and ends without a page fault."""
    assert agent.process is not None
    process = Path(f"/proc/{agent.process.pid}")
    faults = int((process / "stat").read_text().rpartition(")")[2].split()[8])
    return faults, sum(len(task.read_text().split()) for task in process.glob("task/*/children"))


def test_no_answer_starts_a_process(agent: Node) -> None:
    before = waited_for(agent)
    agent.launch("web")
    after = waited_for(agent)
    assert after != before, "a launch does, and so it would be noticed"
    for path in ("/metrics", "/monitor/statistics", "/containers", "/overview", "/metrics/snapshot"):
        agent.bed.run(agent.bed.host, "curl", "-sS", "--fail", f"http://127.0.0.1:5051{path}")
    assert waited_for(agent) == after


# A real Prometheus


class Prometheus:
    """One on the host, which scrapes the agent every second."""

    def __init__(self, agent: Node, directory: Path) -> None:
        self._bed = agent.bed
        configuration = directory / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(rules=RULES))
        self._bed.start(
            self._bed.host,
            str(PROMETHEUS / "prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'data'}",
            "--web.listen-address=127.0.0.1:9090",
            "--log.level=error",
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str) -> Any:
        """The data of an answer of its API; None while it starts."""
        url = f"http://127.0.0.1:9090/api/v1/{path}"
        answer = self._bed.run(self._bed.host, "curl", "-sS", url, check=False).stdout
        if not answer.startswith("{"):
            return None
        decoded = json.loads(answer)
        assert decoded["status"] == "success", answer
        return decoded["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression has now."""
        answer = self.get(f"query?query={quote(expression)}")
        return list(answer["result"]) if answer else []

    def value(self, expression: str) -> float | None:
        """That of an expression with one."""
        found = self.query(expression)
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else None


def queue(statistics: dict[str, Any], name: str) -> dict[str, int]:
    return dict(next(each for each in statistics["net_traffic_control_statistics"] if each["id"] == name))


# What stands still when nobody sends; each with its place in /monitor/statistics.
FIGURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "network_receive_bytes_total": lambda each: each["net_rx_bytes"],
    "network_receive_packets_total": lambda each: each["net_rx_packets"],
    "network_transmit_bytes_total": lambda each: each["net_tx_bytes"],
    "network_transmit_limit_bytes_per_second": lambda each: each["net_tx_rate_limit"],
    "refused_packets_total": lambda each: each["net_drops"].get("foreign_port"),
    "queue_bytes_total queue=bw_limit": lambda each: queue(each, "bw_limit")["bytes"],
    "queue_packets_total queue=ingress_bw_limit": lambda each: queue(each, "ingress_bw_limit")["packets"],
    "snmp_udp_total counter=NoPorts": lambda each: each["net_snmp_statistics"]["udp_stats"]["NoPorts"],
    "ephemeral_ports": lambda each: each["net_ephemeral_ports"]["end"] - each["net_ephemeral_ports"]["begin"] + 1,
    "ephemeral_ports_in_use": lambda each: each.get("net_ephemeral_ports_in_use"),
    "tcp_connections state=active": lambda each: each["net_tcp_active_connections"],
    "cpu_limit_cores": lambda each: each["cpus_limit"],
    "memory_limit_bytes": lambda each: each["mem_limit_bytes"],
    "memory_rss_bytes": lambda each: each["mem_rss_bytes"],
}


def test_a_real_prometheus_has_the_statistics(agent: Node, tmp_path: Path) -> None:
    agent.launch("web", sys.executable, "-c", TRESPASS, WORLD_ADDRESS, ports="31000-31000", cpus=1.0)
    agent.launch("db")
    agent.bed.run(agent.bed.world, sys.executable, "-c", SEND, HOST_ADDRESS)
    until(lambda: agent.drops("web").get("foreign_port") == 3, "refused packets")
    prometheus = Prometheus(agent, tmp_path)

    def differences() -> dict[str, tuple[float | None, float | None]]:
        found: dict[str, tuple[float | None, float | None]] = {}
        for container in ("web", "db"):
            statistics = agent.statistics(container)
            for name, figure in FIGURES.items():
                metric, _, label = name.partition(" ")
                more = re.sub("(.+)=(.+)", r', \1="\2"', label)
                expression = f'portslice_container_{metric}{{container="{container}"{more}}}'
                values = prometheus.value(expression), figure(statistics)
                if values[0] != values[1]:
                    found[expression] = values
        return found

    seen: dict[str, tuple[float | None, float | None]] = {}

    def agrees() -> bool:
        seen.clear()
        seen.update(differences())
        return not seen

    try:
        until(agrees, "agreement")
    finally:
        assert not seen
    assert prometheus.value('portslice_container_network_receive_packets_total{container="web"}') == 50

    # The rules and the dashboard work on it
    until(lambda: {each["health"] for each in rules(prometheus)} == {"ok"}, "evaluated rules")
    for expression in expressions():
        prometheus.query(expression)
    (joined,) = prometheus.query(
        'portslice_container_network_transmit_bytes_total{container="web"}'
        " * on (instance, container) group_left (id, ports) portslice_container_info"
    )
    assert joined["metric"]["ports"] == "[31000-31000]"

    # A container's series end with it, and go on with the next of its name
    agent.kill("web")
    until(lambda: not prometheus.query('portslice_container_info{container="web"}'), "end of the series")
    agent.launch("web")
    received = 'portslice_container_network_receive_bytes_total{container="web"}'
    until(lambda: prometheus.value(received) == 0, "the new container's figures")
    assert prometheus.value(f"count(count_over_time({received}[1h]))") == 1
    assert prometheus.value(f"resets({received}[1h])") == 1


def rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    """All rules, as far as it has them."""
    answer = prometheus.get("rules") or {"groups": []}
    return [rule for group in answer["groups"] for rule in group["rules"]]


# What comes with it


def test_alerts_are_raised_when_they_should_be() -> None:
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(Path(__file__).with_name("portslice.rules.test.yml")))


def test_rules_and_dashboard_name_metrics_that_there_are(agent: Node) -> None:
    agent.launch("web")
    known = {sample.name for family in parse_text(metrics(agent)) for sample in family.samples}
    known |= {"portslice_host_refused_packets_total", *(family.shown_name for family in FAMILIES)}
    text = RULES.read_text()
    recorded = set(re.findall(r"record: (\S+)", text))
    used = set(re.findall(r"[\w:]*portslice_\w+[\w:]*", text)) | {
        name for expression in expressions() for name in re.findall(r"\bportslice_\w+", expression)
    }
    assert used - known - recorded == set()
    alerts = set(re.findall(r"alert: (\w+)", text))
    tests = Path(__file__).with_name("portslice.rules.test.yml").read_text()
    assert alerts == set(re.findall(r"alertname: (\w+)", tests)), "each alert has its test"
