"""The operator API's pure parts: the order of members, and from JSON to a call."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from portslice.agent.flags import AgentFlags
from portslice.agent.service import Agent
from portslice.errors import ParseError
from portslice.http.operator import Operator
from portslice.http.operator.calls import AGENT
from portslice.http.operator.fields import RESOURCE_STATISTICS, in_order

# ResourceStatistics of Mesos 1.11 as its descriptor lists it, without repeated messages of messages.
DECLARED = """
    timestamp processes threads cpus_user_time_secs cpus_system_time_secs cpus_limit cpus_soft_limit cpus_nr_periods
    cpus_nr_throttled cpus_throttled_time_secs mem_total_bytes mem_total_memsw_bytes mem_limit_bytes
    mem_soft_limit_bytes mem_file_bytes mem_anon_bytes mem_cache_bytes mem_rss_bytes mem_mapped_file_bytes
    mem_swap_bytes mem_unevictable_bytes mem_low_pressure_counter mem_medium_pressure_counter
    mem_critical_pressure_counter disk_limit_bytes disk_used_bytes disk_statistics blkio_statistics perf net_rx_packets
    net_rx_bytes net_rx_errors net_rx_dropped net_tx_packets net_tx_bytes net_tx_errors net_tx_dropped
    net_tcp_rtt_microsecs_p50 net_tcp_rtt_microsecs_p90 net_tcp_rtt_microsecs_p95 net_tcp_rtt_microsecs_p99
    net_tcp_active_connections net_tcp_time_wait_connections net_traffic_control_statistics net_snmp_statistics
    """.split()  # noqa: SIM905 - a table


def test_the_description_names_the_calls_that_are_served() -> None:
    described = yaml.safe_load((Path(__file__).parents[2] / "docs/openapi.yaml").read_text())
    content = described["paths"]["/api/v1"]["post"]["requestBody"]["content"]
    named = content["application/json"]["schema"]["properties"]["type"]["enum"]
    assert set(named) == AGENT.arguments.keys() | AGENT.without
    assert set(named) == Operator(Agent(AgentFlags())).calls


def test_members_are_declared_in_mesos_order() -> None:
    assert [name for name in RESOURCE_STATISTICS if name in DECLARED] == DECLARED


@given(st.permutations([*DECLARED, "net_drops", "net_last_foreign_port"]))
def test_members_are_put_in_order_and_none_is_lost(names: list[str]) -> None:
    ordered = list(in_order(dict.fromkeys(names, 0), RESOURCE_STATISTICS))
    assert ordered[: len(DECLARED)] == DECLARED
    assert ordered[len(DECLARED) :] == [name for name in names if name not in DECLARED], "what is ours comes last"


def test_members_of_members_are_put_in_order() -> None:
    value = {"net_traffic_control_statistics": [{"bytes": 1, "own": 2, "backlog": 3, "id": "bw_limit"}]}
    (entry,) = in_order(value, RESOURCE_STATISTICS)["net_traffic_control_statistics"]
    assert list(entry.items()) == [("id", "bw_limit"), ("backlog", 3), ("bytes", 1), ("own", 2)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.sampled_from(["value", "container_id", "type", "path"]), each),
    max_leaves=8,
)


@given(st.sampled_from(sorted(AGENT.arguments)), JSON)
def test_any_json_is_a_call_or_refused(kind: str, argument: object) -> None:
    refusal, call = "", None
    try:
        call = AGENT.read(json.dumps({"type": kind, kind.lower(): argument}))
    except ParseError as error:
        refusal = str(error)
    if call is None:
        assert refusal.startswith(("Failed to convert JSON into Call protobuf", "Failed to validate agent::Call"))
    else:
        assert call.type == kind
        assert isinstance(call.argument, dict)


@given(st.text())
def test_any_text_is_a_call_or_refused(text: str) -> None:
    with pytest.raises(ParseError, match="Failed to"):
        AGENT.read(text)


def test_nulls_and_unknown_members_are_as_if_they_were_not_there() -> None:
    given_ = {"container_id": {"value": "a", "parent": None, "more": 1}, "command": None, "resources": None}
    call = AGENT.read(json.dumps({"type": "LAUNCH_CONTAINER", "launch_container": given_, "kill_container": None}))
    assert call.argument == {"container_id": {"value": "a"}}


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 10_000, '{"type":"\\ud800"}'])
def test_json_that_is_too_much_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="Failed to parse body into JSON"):
        AGENT.read(text)
