"""What perf prints, as versions from 2.6.39 to today's do."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.containers import perf
from portslice.errors import PortsliceError

CGROUP = "portslice/0a1b"


def test_every_form_of_a_line() -> None:
    """As the versions named in the module's text, and perf 6.1 and 6.12, print them."""
    lines = (
        f"3,context-switches,{CGROUP}",
        f"4,,cpu-migrations,{CGROUP}",
        f"5,,page-faults,{CGROUP},62663443,100.00",
        f"2.71,msec,task-clock,{CGROUP},62663443,100.00,2.626,CPUs utilized",
        f"7,,L1-dcache-loads,{CGROUP},0.50%,62663443,100.00,1.2,M/sec,",
    )
    assert perf.parse("\n".join(lines)) == {
        CGROUP: {
            "context_switches": 3,
            "cpu_migrations": 4,
            "page_faults": 5,
            "task_clock": 2.71,
            "l1_dcache_loads": 7,
        }
    }


def test_what_was_not_counted() -> None:
    """<not counted> is none of them; <not supported> is not known."""
    output = (
        f"<not counted>,msec,task-clock,{CGROUP},0,100.00,,\n"
        f"<not counted>,,page-faults,{CGROUP},0,100.00,,\n"
        f"<not supported>,,cycles,{CGROUP},0,100.00,,\n"
        "<not supported>,,cycles,other,0,100.00,,\n"
    )
    counts = perf.parse(output)
    assert counts == {CGROUP: {"task_clock": 0.0, "page_faults": 0}, "other": {}}
    assert [type(counts[CGROUP][name]) for name in ("task_clock", "page_faults")] == [float, int]


def test_lines_that_count_nothing() -> None:
    """Derived metrics (MESOS-8664), and what perf says about itself."""
    output = (
        f"# started on Thu Nov 26 15:00:00 2026\n\n1000,,instructions,{CGROUP},5,100.00,0.70,insn per cycle\n"
        f",,,{CGROUP},,,0.10,stalled cycles per insn\n,,,,,,0.10,stalled cycles per insn\n"
    )
    assert perf.parse(output) == {CGROUP: {"instructions": 1000}}


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ("cpu-cycles", "cycles"),
        ("cs", "context_switches"),
        ("faults", "page_faults"),
        ("migrations", "cpu_migrations"),
        ("branch-instructions", "branches"),
        ("idle-cycles-backend", "stalled_cycles_backend"),
        ("instructions:u", "instructions"),
        ("LLC-load-misses", "llc_load_misses"),
        ("dTLB-prefetch-misses", "dtlb_prefetch_misses"),
    ],
)
def test_aliases(event: str, field: str) -> None:
    assert perf.parse(f"1,,{event},{CGROUP},1,100.00,,") == {CGROUP: {field: 1}}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("1,,cycles,c,5", "Failed to parse perf sample line '1,,cycles,c,5': Unexpected number of fields (5)"),
        ("perf: what?", "Failed to parse perf sample line 'perf: what?': Unexpected number of fields (1)"),
        ("1,,sched:sched_switch,c", "Unexpected event 'sched' in perf output at line: 1,,sched:sched_switch,c"),
        ("1,,timestamp,c", "Unexpected event 'timestamp' in perf output at line: 1,,timestamp,c"),
        ("x,,cycles,c", "Unable to parse perf value at line: x,,cycles,c"),
        ("1.5,,cycles,c", "Unable to parse perf value at line: 1.5,,cycles,c"),
    ],
)
def test_what_makes_no_sense(line: str, text: str) -> None:
    with pytest.raises(PortsliceError) as error:
        perf.parse(line)
    assert str(error.value) == f"Failed to parse perf sample: {text}"


@given(st.text(alphabet="0123456789,.<>-\nabcdefgnotcunedslupr "))
def test_whatever_is_read_is_read_or_refused(output: str) -> None:
    with suppress(PortsliceError):
        assert all(counts.keys() <= perf.FIELDS for counts in perf.parse(output).values())


def test_fields_are_those_of_mesos() -> None:
    """51 of PerfStatistics' 53 members; the others are the time and the duration."""
    assert len(perf.FIELDS) == 51


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("perf version 6.1.187\n", (6, 1, 187)),
        ("perf version 2.6.39", (2, 6, 39)),
        ("perf version 3.10.0-1160.el7.x86_64.debug", (3, 10, 0)),
        ("perf version 5.10.g1f6c8e", (5, 10, 0)),
    ],
)
def test_version(text: str, version: tuple[int, int, int]) -> None:
    assert perf.version(text) == version


def test_no_version() -> None:
    with pytest.raises(PortsliceError, match="is no version of perf"):
        perf.version("perf: command not found")


def test_command() -> None:
    """Each event in each cgroup, as Mesos asks for them."""
    assert " ".join(perf.command(["cycles", "cs"], ["m/a", "m/b"], ["sleep", "10.0"])) == (
        "perf stat --all-cpus --field-separator , --log-fd 1 --event cycles --cgroup m/a --event cycles --cgroup m/b "
        "--event cs --cgroup m/a --event cs --cgroup m/b -- sleep 10.0"
    )
