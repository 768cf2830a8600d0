"""`portslice top` and `portslice stats --watch` on a terminal, over a real agent with real traffic."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from portslice.cli.main import main
from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, testbed
from tests.kernel.terminal import Terminal, terminal
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

LIMIT = 2500 * 1024
SMALL, WIDE, TINY = (24, 80), (50, 200), (5, 20)


@pytest.fixture(scope="module")
def busy() -> Iterator[Node]:
    """Containers that do nothing, but for `greedy`, which sends as fast as it may to the world."""
    with testbed() as bed, node(bed, f"--egress_rate_limit_per_container={LIMIT}B") as agent:
        bed.start(bed.world, "iperf3", "--server")
        agent.launch("greedy", "sh", "-c", f"until iperf3 -c {WORLD_ADDRESS} -t 3600; do sleep 0.1; done")
        for name in ("quiet-1", "quiet-2", "other"):
            agent.launch(name)
        yield agent


def portslice(
    agent: Node, *arguments: str, size: tuple[int, int] = SMALL, **environment: str
) -> AbstractContextManager[Terminal]:
    """The command on a terminal."""
    lines, columns = size
    command = [sys.executable, "-m", "portslice", *arguments]
    return terminal(command, {"PORTSLICE_SOCKET": str(agent.socket), **environment}, lines=lines, columns=columns)


def names(shown: Terminal) -> list[str]:
    """Those of the rows, from the top."""
    rows = (re.match(r"(greedy|quiet-1|quiet-2|other) ", line) for line in shown.lines())
    return [row[1] for row in rows if row]


def test_the_table(busy: Node) -> None:
    """Who sends most is first, at its limit and red; the keys are shown."""
    with portslice(busy, "top", "--interval", "0.5") as shown:
        until(lambda: re.search(r"greedy +2\.\dM .*█.* 9\d% ", "\n".join(shown.lines())), "rate at the limit")
        until(lambda: shown.colours("greedy") == {"red"}, "colour")
        shown.line("4 containers  1 at a limit")
        assert shown.colours("quiet-1") == {"default"}
        assert names(shown) == ["greedy", "other", "quiet-1", "quiet-2"]
        assert re.match(r"tx 2\.\dMB/s  rx [\d.]+KB/s  refused 0/s, 0 in all  sorted by tx ▼", shown.lines()[1])
        assert shown.lines()[2].split()[:3] == ["NAME", "▼", "TX/s"]
        assert "q quit" in shown.lines()[-1]
        shown.press("N")
        shown.line("sorted by name ▲")
        assert names(shown) == ["greedy", "other", "quiet-1", "quiet-2"]
        shown.press("r")
        until(lambda: names(shown) == ["quiet-2", "quiet-1", "other", "greedy"], "the other way round")
        shown.press("/", "Q", "u")
        until(lambda: names(shown) == ["quiet-2", "quiet-1"], "filter")
        assert "filter: Qu" in shown.lines()[-1]
        shown.press("\r", "down", "\r")
        shown.line("quiet-1  ")  # its id follows
        shown.line("sends  0B/s, 0 packets/s, limit 2.4MB/s")
        shown.line("refused  no packet")
        shown.press("\x1b")
        until(lambda: names(shown) == ["quiet-2", "quiet-1"], "the table again")
        shown.press("h")
        shown.line("Ctrl-L")
        shown.press("\x1b", "\x1b", "p")
        until(lambda: len(names(shown)) == 4 and "paused" in shown.lines()[0], "pause")
        shown.press("p", "q")
        assert shown.wait() == 0
        assert shown.attributes() == shown.mode
        assert shown.sent.count(b"\x1b[?1049h") == shown.sent.count(b"\x1b[?1049l") == 1  # the other screen, and back


def test_sizes(busy: Node) -> None:
    with portslice(busy, "top", size=WIDE) as shown:
        titles = shown.line("NAME").split()
        assert {"RTT", "PORTS", "MEM%", "REFUSED", "DROPS"} <= set(titles)
        for size, there, gone in ((SMALL, "QUEUE", "RTT"), (TINY, "TX/s", "RX/s"), (WIDE, "RTT", "…")):
            shown.resize(*size)
            until(lambda: there in shown.line("NAME") and gone not in shown.line("NAME"), f"{size}")  # noqa: B023
            assert names(shown)[0] == "greedy"
            assert ("q quit" in shown.lines()[-1]) is (size != TINY)
        assert shown.line("NAME").split() == titles


def test_plain(busy: Node) -> None:
    """Without UTF-8 and without colours, where those are not wanted."""
    with portslice(busy, "top", "--interval", "0.5", LC_ALL="C", NO_COLOR="1") as shown:
        until(lambda: re.search(r"greedy +2\.\dM .*#.* 9\d% ", "\n".join(shown.lines())), "rate at the limit")
        assert shown.sent.isascii()
        assert shown.colours("greedy") == {"default"}
        assert not re.search(rb"\x1b\[(\d+;)*3[0-7]m", shown.sent)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
@pytest.mark.parametrize("command", [("top",), ("stats", "greedy", "--watch")], ids=["top", "stats"])
def test_a_signal_restores_the_terminal(busy: Node, command: tuple[str, ...], number: int, status: int) -> None:
    with portslice(busy, *command) as shown:
        shown.line("greedy")
        assert shown.attributes() != shown.mode
        shown.process.send_signal(number)
        assert shown.wait() == status
        assert shown.attributes() == shown.mode
        assert b"\x1b[?1049l" in shown.sent
        assert b"Traceback" not in shown.sent


def test_over_a_restart_of_the_agent(busy: Node) -> None:
    with (
        portslice(busy, "top", "--interval", "0.5") as shown,
        portslice(busy, "stats", "greedy", "--watch", "--interval", "0.5") as watched,
    ):
        shown.line("1 at a limit")
        busy.crash()
        shown.line("agent gone, retrying")
        watched.line("agent gone, retrying")
        assert names(shown)[0] == "greedy"
        shown.press("N", "q")
        assert shown.wait() == 0  # keys are answered meanwhile
        busy.start()
        watched.line("every 0.5 s")
        until(lambda: re.search(r"net_tx_bytes +\d+ +\d+\.\d", "\n".join(scrolled(watched))), "rates again")


def test_an_agent_that_does_not_answer(busy: Node) -> None:
    assert busy.process
    with portslice(busy, "top", "--interval", "0.5") as shown:
        shown.line("1 at a limit")
        busy.process.send_signal(signal.SIGSTOP)
        try:
            shown.line("no answer for ")
            shown.press("N")
            shown.line("sorted by name")
        finally:
            busy.process.send_signal(signal.SIGCONT)
        shown.line("every 0.5 s")


def test_stopped_and_continued(busy: Node) -> None:
    """Ctrl-Z gives the terminal back to the shell, fg takes it again."""
    script = f"{sys.executable} -m portslice top; stty -a; echo status $?; fg; echo status $?"
    with terminal(["bash", "-mc", script], {"PORTSLICE_SOCKET": str(busy.socket)}) as shown:
        shown.line("greedy")
        shown.press("\x1a")
        until(lambda: shown.lines() and b"status 0" in shown.sent, "shell")
        assert re.search(rb"\s(icanon)\s.*\secho\s", shown.sent, re.DOTALL)
        shown.press("N")
        shown.line("sorted by name")
        shown.press("q")
        assert shown.wait() == 0
        assert shown.attributes() == shown.mode


def scrolled(shown: Terminal) -> list[str]:
    shown.press("pagedown")
    return shown.lines()


def link_bytes(agent: Node, container: dict[str, Any]) -> int:
    """What the container has sent, as `ip` tells."""
    told = agent.bed.run(agent.namespace(container), "ip", "-s", "-j", "link", "show", "eth0").stdout
    return int(json.loads(told)[0]["stats64"]["tx"]["bytes"])


def test_once(busy: Node) -> None:
    """Rates are those that the kernel's own counters have."""
    greedy = next(each for each in busy.client.containers() if each["name"] == "greedy")
    began, before = busy.client.overview(), link_bytes(busy, greedy)
    told = json.loads(busy.cli("top", "--once", "--json", "--interval", "2").stdout)
    ended, after = busy.client.overview(), link_bytes(busy, greedy)
    assert (told["interval_secs"], told["containers"][0]["name"]) == (2.0, "greedy")
    rates = {each["name"]: each["rates"] for each in told["containers"]}
    seconds = ended[0]["timestamp"] - began[0]["timestamp"]
    assert rates["greedy"]["tx_bytes"] == pytest.approx((after - before) / seconds, rel=0.3)
    assert rates["quiet-1"]["tx_bytes"] < 10_000
    assert told["total"]["rates"]["tx_bytes"] == pytest.approx(sum(each["tx_bytes"] for each in rates.values()))
    plain = busy.cli("top", "--once", "--interval", "0.5", "--sort", "name", "--reverse").stdout
    header, *rows = plain.splitlines()
    assert header.split()[:2] == ["NAME", "TX/s"]
    assert [row.split()[0] for row in rows] == ["quiet-2", "quiet-1", "other", "greedy"]


def test_refused_packets(busy: Node) -> None:
    """Their rate, their number and their reasons, as `portslice drops` has them."""
    program = f"""
import socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind(("", 2000))
while True:
    sender.sendto(b"", ("{WORLD_ADDRESS}", 9))
    time.sleep(0.05)
"""
    busy.launch("nosy", "python3", "-c", program)
    try:
        with portslice(busy, "top", "--interval", "0.5", "--sort", "refused/s", size=WIDE) as shown:
            until(lambda: figure(shown, "nosy", "REFUSE/s") > 1, "rate")
            assert figure(shown, "nosy", "REFUSED") > 1
            shown.press("\r")
            assert re.search(r"refused  foreign_port: \d+ in all, \d[\d.]*/s", shown.line("foreign_port"))
        before = busy.drops("nosy")["foreign_port"]
        told = json.loads(busy.cli("top", "--once", "--json", "--interval", "1", "--sort", "refused").stdout)
        nosy = told["containers"][0]
        assert nosy["name"] == "nosy"
        assert before <= nosy["refused"]["foreign_port"] <= busy.drops("nosy")["foreign_port"]
        assert nosy["rates"]["refused.foreign_port"] == nosy["rates"]["refused"] > 1
        last = rf"^foreign_port +\d+ +udp +{HOST_ADDRESS}:2000 +{WORLD_ADDRESS}:9 "
        assert re.search(last, busy.cli("stats", "nosy").stdout, re.M)
    finally:
        busy.kill("nosy")


def figure(shown: Terminal, name: str, title: str) -> float:
    """Of a row, in a column whose figures stand to the right."""
    end = shown.line("NAME").index(title) + len(title)
    told = shown.line(name)[:end].split()[-1]
    return float(told) if told != "-" else 0.0


def test_watching_one_container(busy: Node) -> None:
    busy.launch("short", "sleep", "infinity")
    environment = {**os.environ, "PORTSLICE_SOCKET": str(busy.socket)}
    command = [sys.executable, "-m", "portslice", "stats", "short", "--watch", "--json", "--interval", "0.2"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdout
        assert process.stderr
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert first["rates"] == {}
        assert second["rates"]["net_tx_bytes"] >= 0
        assert "mem_limit_bytes" not in second["rates"]
        assert second["statistics"]["timestamp"] > first["statistics"]["timestamp"]
        busy.kill("short")
        assert process.wait(60) == 1
        assert process.stderr.read() == "portslice: The container 'short' is not running\n"


def test_what_ends_while_it_is_watched_ends_the_view(busy: Node) -> None:
    busy.launch("short")
    with portslice(busy, "stats", "short", "--watch", "--interval", "0.2") as shown:
        shown.line("cpus_limit")
        busy.kill("short")
        assert shown.wait() == 1
        assert shown.attributes() == shown.mode
        shown.line("portslice: The container 'short' is not running")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["top"], 1, "portslice: A live view needs a terminal; for a table of one interval: portslice top --once\n"),
        (["top", "--json"], 2, "portslice top: error: --json needs --once\n"),
        (["top", "--sort", "nmae"], 2, "there is no column 'nmae': it is one of name, tx, tx%,"),
        (["top", "--interval", "0"], 2, "'0' is no interval: write seconds, from 0.1 to 3600\n"),
        (["stats", "greedy", "--watch"], 1, "a terminal; for lines of JSON: portslice stats NAME --watch --json\n"),
        (["stats", "greedy", "--interval", "3"], 2, "portslice stats: error: --interval needs --watch\n"),
        (["stats", "nobody", "--watch", "--json"], 1, "portslice: There is no container 'nobody'\n"),
    ],
)
def test_what_cannot_be_shown(
    busy: Node, arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended: int | str | None = main([*arguments, "--socket", str(busy.socket)])
    except SystemExit as error:
        ended = error.code
    output, errors = capsys.readouterr()
    assert (ended, output) == (status, "")
    assert told in errors


def test_terminals_that_cannot_show_it(busy: Node, tmp_path: Path) -> None:
    for kind in ("dumb", "no-such-terminal", ""):
        with portslice(busy, "top", TERM=kind) as shown:
            shown.line("portslice: The terminal's type ")
            assert shown.wait() == 1
            assert shown.attributes() == shown.mode
    with portslice(busy, "top", "--socket", str(tmp_path / "none")) as shown:
        shown.line("portslice: No agent listens on ")
        assert shown.wait() == 1
        assert b"\x1b[?1049h" not in shown.sent
