"""The syntax, the texts and the rules of Mesos' flags."""


from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.agent.flags import AgentFlags
from portslice.errors import FlagError
from portslice.flags import (
    as_strings,
    boolean,
    bytes_,
    duration,
    flag,
    integer,
    json_object,
    load,
    number,
    path,
    startup_line,
    text,
    uint16,
    usage,
)
from portslice.units import INT64_MAX, UINT64_MAX, Bytes, Duration


@dataclass(frozen=True)
class Flags:
    master: str | None = flag(None, parse=text, help="Where the master is.")
    ephemeral_ports_per_container: int = flag(1024, parse=uint16, help="Ports in a container's ephemeral block.")
    egress_rate_limit_per_container: Bytes | None = flag(None, parse=bytes_, help="Bytes per second.")
    gc_delay: Duration = flag(Duration.parse("1weeks"), parse=duration, help="How long sandboxes are kept.")
    gc_disk_headroom: float = flag(0.1, parse=number, help="Part of the disk to keep free.")
    logbufsecs: int = flag(0, parse=integer, help="Seconds to buffer the log.")
    quiet: bool = flag(False, parse=boolean, help="Do not log.")
    hostname_lookup: bool = flag(True, parse=boolean, help="Ask the resolver.")
    credential: dict[str, Any] | None = flag(None, parse=json_object, help="Who we are.")
    agent_subsystems: str | None = flag(None, parse=text, help="Subsystems.", aliases=("slave_subsystems",))
    runtime_dir: Path = flag(Path("/run/x"), parse=path, help="State.")
    not_a_flag: int = 7


@dataclass(frozen=True)
class Required:
    work_dir: Path = flag(parse=path, required=True, help="Where to work.")
    port: int = flag(5051, parse=uint16, help="Port.")


def loaded(*argv: str, **environ: str) -> Flags:
    return load(Flags, argv, environ)[0]


def test_defaults() -> None:
    assert load(Flags, [], {}) == (Flags(), [])
    assert Flags().ephemeral_ports_per_container == 1024


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--master=127.0.0.1:5050", "master", "127.0.0.1:5050"),
        ("--master=a=b", "master", "a=b"),
        ("--master=", "master", ""),
        ("--MASTER=X", "master", "X"),
        ("--ephemeral_ports_per_container=512", "ephemeral_ports_per_container", 512),
        ("--egress_rate_limit_per_container=37500KB", "egress_rate_limit_per_container", Bytes(38_400_000)),
        ("--gc_delay=1.5hrs", "gc_delay", Duration(5400 * 10**9)),
        ("--gc_disk_headroom=.25", "gc_disk_headroom", 0.25),
        ("--logbufsecs=-3", "logbufsecs", -3),
        ("--quiet", "quiet", True),
        ("--quiet=", "quiet", True),
        ("--quiet=true", "quiet", True),
        ("--quiet=1", "quiet", True),
        ("--hostname_lookup=false", "hostname_lookup", False),
        ("--hostname_lookup=0", "hostname_lookup", False),
        ("--no-hostname_lookup", "hostname_lookup", False),
        ("--no-hostname_lookup=", "hostname_lookup", False),
        ('--credential={"principal": "p"}', "credential", {"principal": "p"}),
        ("--runtime_dir=file:///x", "runtime_dir", Path("file:///x").absolute()),
    ],
)
def test_values_are_read(argument: str, name: str, value: object) -> None:
    assert getattr(loaded(argument), name) == value


def test_what_is_not_a_flag_is_ignored() -> None:
    assert loaded("agent", "-x", "--quiet", "more", "--", "--unknown") == loaded("--quiet")


def test_the_environment() -> None:
    assert loaded(MESOS_QUIET="1", MESOS_UNKNOWN="1", MESOS_not_a_flag="1", QUIET="0").quiet is True
    assert loaded(MESOS_quiet="1").quiet is True
    assert loaded("--no-quiet", MESOS_QUIET="1").quiet is False
    assert load(Flags, [], {"X_QUIET": "1"}, "X_")[0].quiet is True
    with pytest.raises(FlagError, match=r"^Failed to load flag 'quiet': Failed to load value 'x': Expecting a boolean"):
        loaded(MESOS_QUIET="x")


def test_the_command_line_beats_the_environment_under_an_alias_too() -> None:
    assert loaded("--slave_subsystems=a", MESOS_AGENT_SUBSYSTEMS="b").agent_subsystems == "a"


def test_a_deprecated_alias_warns() -> None:
    flags, warnings = load(Flags, ["--slave_subsystems=memory"], {})
    assert flags.agent_subsystems == "memory"
    assert warnings == ["Loaded deprecated flag 'slave_subsystems'"]


def test_values_from_files(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"512\r\n")
    assert loaded(f"--ephemeral_ports_per_container=file://{file}").ephemeral_ports_per_container == 512
    assert loaded(f"--master=file://{file}").master == "512\r\n"
    assert loaded(MESOS_MASTER=f"file://{file}").master == "512\r\n"
    file.write_text('{"principal": "p"}')
    assert load(Flags, [f"--credential=file://{file}"], {}) == (Flags(credential={"principal": "p"}), [])
    flags, warnings = load(Flags, [f"--credential={file}"], {})
    assert flags.credential == {"principal": "p"}
    assert warnings == [f"Flag 'credential' names a file by its bare path: write 'file://{file}' instead"]


def test_a_file_of_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(b"\xff")
    with pytest.raises(FlagError, match=f"Error reading file '{tmp_path}/value': 'utf-8' codec"):
        loaded(f"--master=file://{tmp_path}/value")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--zzz"], "Failed to load unknown flag 'zzz'"),
        (["--zzz=1"], "Failed to load unknown flag 'zzz'"),
        (["--no-zzz"], "Failed to load unknown flag 'zzz' via 'no-zzz'"),
        (["--not_a_flag=1"], "Failed to load unknown flag 'not_a_flag'"),
        (["--runtime-dir=/x"], "Failed to load unknown flag 'runtime-dir'. Did you mean --runtime_dir?"),
        (["--hostnam_lookup"], "Failed to load unknown flag 'hostnam_lookup'. Did you mean --hostname_lookup?"),
        (["--quiet", "--quiet"], "Flag 'quiet' is already loaded via name 'quiet'"),
        (["--quiet", "--no-quiet"], "Flag 'quiet' is already loaded via name 'quiet'"),
        (
            ["--slave_subsystems=a", "--agent_subsystems=b"],
            "Flag 'agent_subsystems' is already loaded via name 'slave_subsystems'",
        ),
        (["--master", "127.0.0.1:5050"], "Failed to load non-boolean flag 'master': Missing value"),
        (["--no-master"], "Failed to load non-boolean flag 'master' via 'no-master'"),
        (["--no-quiet=true"], "Failed to load boolean flag 'quiet' via 'no-quiet' with value 'true'"),
        (
            ["--quiet=yes"],
            "Failed to load flag 'quiet': Failed to load value 'yes': Expecting a boolean (e.g., true or false)",
        ),
        (
            ["--logbufsecs=x"],
            "Failed to load flag 'logbufsecs': Failed to load value 'x': Failed to convert 'x' to number",
        ),
        (
            ["--logbufsecs=9223372036854775808"],
            "Failed to load flag 'logbufsecs': Failed to load value '9223372036854775808':"
            " Failed to convert '9223372036854775808' to number",
        ),
        (
            ["--gc_disk_headroom=nan"],
            "Failed to load flag 'gc_disk_headroom': Failed to load value 'nan': Failed to convert 'nan' to number",
        ),
        *(
            (
                [f"--ephemeral_ports_per_container={bad}"],
                f"Failed to load flag 'ephemeral_ports_per_container': Failed to load value '{bad}':"
                " Failed to convert into required type",
            )
            for bad in ("", "x", "65536", "-1", "1.5")
        ),
        (
            ["--egress_rate_limit_per_container=1.5MB"],
            "Failed to load flag 'egress_rate_limit_per_container': Failed to load value '1.5MB':"
            " Fractional bytes '1.5MB'",
        ),
        (
            ["--gc_delay=100"],
            "Failed to load flag 'gc_delay': Failed to load value '100': Invalid duration '100'",
        ),
        (
            ["--credential=[]"],
            "Failed to load flag 'credential': Failed to load value '[]': Expecting a JSON object",
        ),
        (["--runtime_dir="], "Failed to load flag 'runtime_dir': Failed to load value '': Expecting a path"),
        (
            ["--slave_subsystems=file:///no/such"],
            "Failed to load flag 'slave_subsystems': Failed to load value 'file:///no/such':"
            " Error reading file '/no/such': No such file or directory",
        ),
    ],
)
def test_errors(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        load(Flags, argv, {})
    assert str(caught.value) == message


def test_broken_json_says_where() -> None:
    with pytest.raises(FlagError, match=r"Failed to parse JSON: .*column 2"):
        loaded("--credential={")


def test_a_required_flag() -> None:
    with pytest.raises(FlagError, match=r"^Flag 'work_dir' is required, but it was not provided$"):
        load(Required, [], {})
    assert load(Required, [], {"MESOS_WORK_DIR": "/w"})[0].work_dir == Path("/w")


def test_flags_as_strings_are_sorted_and_leave_out_what_is_not_set() -> None:
    flags = loaded("--quiet", "--egress_rate_limit_per_container=2000B", '--credential={"a": [1, 2]}')
    assert list(as_strings(flags).items()) == [
        ("credential", '{"a":[1,2]}'),
        ("egress_rate_limit_per_container", "2000B"),
        ("ephemeral_ports_per_container", "1024"),
        ("gc_delay", "1weeks"),
        ("gc_disk_headroom", "0.1"),
        ("hostname_lookup", "true"),
        ("logbufsecs", "0"),
        ("quiet", "true"),
        ("runtime_dir", "/run/x"),
    ]


def test_the_startup_line() -> None:
    assert startup_line(load(Required, ["--work_dir=/w"], {})[0]) == 'Flags at startup: --port="5051" --work_dir="/w"'


def test_usage() -> None:
    @dataclass(frozen=True)
    class Some:
        work_dir: Path = flag(parse=path, required=True, help="Where to work.")
        quiet: bool = flag(False, parse=boolean, help="Do not log.")
        agent_subsystems: str | None = flag(
            None, parse=text, aliases=("slave_subsystems",), help="Subsystems of the cgroups that " + "are used " * 4
        )

    assert (
        usage(Some, "mesos-agent", "An agent.")
        == """\
Usage: mesos-agent [options]

An agent.

  --agent_subsystems=VALUE, --slave_subsystems=VALUE
                              Subsystems of the cgroups that are used are used
                              are used are used
  --[no-]quiet                Do not log. (default: false)
  --work_dir=VALUE            Where to work. (required)
"""
    )
    assert max(map(len, usage(Flags, "mesos-agent", "intro " * 40).splitlines())) <= 80


# A text that begins with file:// would name a file.
plain = st.text(max_size=20).filter(lambda s: not s.startswith("file://"))


@given(
    st.builds(
        Flags,
        master=st.none() | plain,
        ephemeral_ports_per_container=st.integers(0, 65535),
        egress_rate_limit_per_container=st.none() | st.integers(0, UINT64_MAX).map(Bytes),
        gc_delay=st.integers(0, INT64_MAX).map(Duration),
        gc_disk_headroom=st.floats(allow_nan=False, allow_infinity=False),
        logbufsecs=st.integers(-(2**63), INT64_MAX),
        quiet=st.booleans(),
        hostname_lookup=st.booleans(),
        credential=st.none() | st.dictionaries(plain, st.integers() | plain, max_size=3),
        agent_subsystems=st.none() | plain,
        runtime_dir=st.text("abc/", min_size=1).map(lambda value: Path("/", value)),
    )
)
def test_what_is_shown_loads_back(flags: Flags) -> None:
    shown = as_strings(flags)
    assert load(Flags, [f"--{name}={value}" for name, value in shown.items()], {}) == (flags, [])
    assert load(Flags, [], {f"MESOS_{name.upper()}": value for name, value in shown.items()}) == (flags, [])


@dataclass(frozen=True)
class Secretive:
    key: dict[str, Any] | None = flag(None, parse=json_object, secret=True, help="A secret.")


def test_a_secret_is_read_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text('{"a":"swordfish"}')
    file.chmod(0o600)
    flags, warnings = load(Secretive, [f"--key=file://{file}"], {})
    assert (flags.key, warnings) == ({"a": "swordfish"}, [])
    assert as_strings(flags) == {"key": "(hidden)"}
    assert "swordfish" not in startup_line(flags)
    with pytest.raises(FlagError) as caught:
        load(Secretive, ["--key=swordfish"], {})
    assert "swordfish" not in str(caught.value)


def test_a_password_for_zookeeper_is_not_shown() -> None:
    flags, _ = load(AgentFlags, ["--master=zk://mesos:sword:fish@a:2181,b:2181/mesos"], {})
    assert flags.master == "zk://mesos:sword:fish@a:2181,b:2181/mesos"
    assert as_strings(flags)["master"] == "zk://mesos:(hidden)@a:2181,b:2181/mesos"
    assert "fish" not in startup_line(flags)


def test_a_secret_that_others_can_read_warns(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("{}")
    file.chmod(0o640)
    (bare, open_) = load(Secretive, [f"--key={file}"], {})[1]
    assert bare == f"Flag 'key' names a file by its bare path: write 'file://{file}' instead"
    assert open_.startswith(f"Permissions on credentials file '{file}' are too open")
    (shown,) = load(Secretive, ["--key={}"], {})[1]
    assert "lists processes" in shown
