"""The thinnest whole: one container, one slice, one limit, one figure over HTTP, on real packets."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from portslice.demo.node import node
from portslice.demo.testbed import HOST_ADDRESS, Testbed

LIMIT = 37500 * 1024


@pytest.mark.native
def test_one_container_end_to_end(bed: Testbed) -> None:
    with node(bed, "--egress_rate_limit_per_container=37500KB") as agent:
        web = agent.launch("web", "python3", "-m", "http.server", "31000", ports="31000-31004")
        assert web["ports"] == [[31000, 31004]]
        assert web["ephemeral_ports"] == [32768, 33791]
        page = ["curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1"]
        assert "Directory listing" in bed.run(bed.world, *page, f"http://{HOST_ADDRESS}:31000/").stdout
        statistics = agent.statistics("web")
        assert statistics["net_tx_rate_limit"] == LIMIT
        assert statistics["net_rx_packets"] > 0
        assert statistics["net_traffic_control_statistics"][0]["id"] == "bw_limit"
        assert statistics["net_traffic_control_statistics"][0]["bytes"] > 0


def test_an_agent_of_ip_netns_exec_keeps_its_containers(bed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ip netns exec` gives the agent a private mount namespace, which ends with it."""
    name = Path("/run/netns", bed.directory.name)
    name.parent.mkdir(exist_ok=True)
    name.symlink_to(bed.host)

    def command(namespace: Path, arguments: Sequence[str]) -> list[str]:
        if namespace == bed.host:
            return ["ip", "netns", "exec", name.name, *arguments]
        return ["nsenter", f"--net={namespace}", "--", *arguments]

    try:
        monkeypatch.setattr(bed, "command", command)
        with node(bed) as agent:
            started = agent.launch("stays")
            assert agent.stop() == 0
            agent.start()
            assert [each["pid"] for each in agent.client.containers()] == [started["pid"]]
            assert agent.statistics("stays")["net_rx_packets"] == 0
    finally:
        name.unlink()
