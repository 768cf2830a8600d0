"""The page at `/` as a browser shows it: a real agent, real traffic, headless Chromium in the host's namespace."""

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import WORLD_ADDRESS, testbed
from tests.kernel.asking import ask, connection, over_socket
from tests.kernel.browser import Page, browser
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

PAGE = "http://127.0.0.1:5051/"
LIMIT = 512 << 10
HOSTILE = """<b>&lt;"'%2e#?<script>alert(1)"""
FLOOD = f"""
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while not os.path.exists("stop"): s.sendto(bytes(1000), ("{WORLD_ADDRESS}", 9))
print("ready", flush=True)
open("stopped", "w")
s.recv(1)
"""
ROGUE = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 40000))
for _ in range(7): s.sendto(b"not mine", ("{WORLD_ADDRESS}", 9))
s.recv(1)
"""
# Plays what a real agent said of a few containers for a thousand, by the agent's own code for events.
PLAY = """
import itertools, json, sys, time
from types import SimpleNamespace
from aiohttp import web
from portslice.http import dashboard

recorded = json.load(open(sys.argv[1]))

class Recorded:
    async def take(self):
        now = time.time()
        return [
            {**each, "name": f"c-{number}", "id": f"i-{number}", "timestamp": now, "tx_bytes": int(number * 1000 * now)}
            for number, each in zip(range(1000), itertools.cycle(recorded))
        ]

dashboard.overview = lambda each: each
flags = SimpleNamespace(port=5052)
agent = SimpleNamespace(hostname="recorded", started=0, flags=flags, port_mapping=None, snapshots=Recorded())
application = web.Application()
application.add_routes(dashboard.Dashboard(agent).routes())
web.run_app(application, host="127.0.0.1", port=5052, print=None)
"""
# How many pixels of a canvas have a colour, more or less; the colour is a custom property of the style sheet.
PIXELS = """
(canvas, name) => {
  if (!canvas?.width) return 0;
  const probe = document.body.appendChild(document.createElement("span"));
  probe.style.color = `var(${name})`;
  const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
  probe.remove();
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (wanted.every((value, channel) => Math.abs(value - data[at + channel]) < 24) && data[at + 3] > 128) found += 1;
  }
  return found;
}
"""
# The colour of a port on the map, and where on the page it is.
PORT = """
(canvas, port) => {
  const box = canvas.getBoundingClientRect();
  const x = 44 + ((port % 1024) + 0.5) * (box.width - 44) / 1024;
  const y = (Math.floor(port / 1024) + 0.5) * box.height / 64;
  const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, -Math.floor(x * devicePixelRatio), -Math.floor(y * devicePixelRatio));
  const [red, green, blue] = copy.getImageData(0, 0, 1, 1).data;
  return { colour: `rgb(${red}, ${green}, ${blue})`, x: box.left + x, y: box.top + y };
}
"""


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent that limits and measures."""
    flags = (f"--egress_rate_limit_per_container={LIMIT}B", "--network_enable_socket_statistics_details")
    with testbed() as bed, node(bed, *flags, "--hostname=the-host.example") as agent:
        yield agent


@pytest.fixture(scope="module")
def shared_page(shared_node: Node) -> Iterator[Page]:
    with browser(shared_node.bed, shared_node.bed.host) as page:
        yield page


@pytest.fixture
def page(agent: Node, shared_page: Page) -> Iterator[Page]:
    """The page of the agent, live; nothing on it may be complained of."""
    shared_page.complaints.clear()
    shared_page.size(1600, 1000)
    shared_page.prefer("light")
    shared_page.open("about:blank")
    shared_page.open(PAGE)
    live(shared_page)
    yield shared_page
    shared_page.run("localStorage.clear()")
    assert shared_page.complaints == []


def live(page: Page) -> None:
    page.until("document.getElementById('connection').dataset.state === 'live'")


def cell(name: str, column: str) -> str:
    """An expression: the text in a container's row."""
    return (
        f"[...document.querySelectorAll('#containers tbody tr:not(.space)')].find(row => row.querySelector('a')"
        f".textContent === {json.dumps(name)})?.querySelector('.{column}').innerText"
    )


def fact(term: str) -> str:
    """An expression: one of the facts on a container."""
    return (
        f"[...document.querySelectorAll('#facts dt')].find(each => each.textContent === {json.dumps(term)})"
        "?.nextSibling.textContent"
    )


def flooding(agent: Node) -> dict[str, Any]:
    """A container that sends as much as it may until `stop`."""
    return agent.launch("flood", sys.executable, "-c", FLOOD, ports=3, cpus=0.5, mem=128 << 20)


def stop(container: dict[str, Any]) -> None:
    Path(container["sandbox"], "stop").touch()
    until(lambda: Path(container["sandbox"], "stopped").exists(), "the end of the flood")


def test_the_figures_are_those_of_the_endpoints(agent: Node, page: Page) -> None:
    flood = flooding(agent)
    agent.launch("rogue", sys.executable, "-c", ROGUE)
    page.until(f"parseFloat({cell('flood', 'txFull')}) >= 80", "the limit reached")
    page.until(f"{cell('rogue', 'refused')} === '7'", "what was refused")
    page.run("location.hash = '#/flood'")
    page.until(f"{fact('Assigned ports')} === '31000-31002'")
    assert page.run(fact("Sends")).endswith("/s of 512 KB/s")
    page.until(f"{fact('CPUs')}.endsWith(' of 0.50') && {fact('Memory')}.endsWith(' of 128 MB')")
    assert page.text("#hostname") == "the-host.example"
    stop(flood)

    def same() -> bool:
        statistics = agent.statistics("flood")
        packets = f"{statistics['net_tx_packets']:,} packets"
        return packets in page.run(fact("Sent")) and page.run(fact("Queued")) == "0 B"

    until(same, "the counters of /monitor/statistics, once all is sent")
    page.run("location.hash = '#/rogue'")
    page.until("document.querySelector('#refusals tbody')?.innerText.includes('does not own the source port')")
    assert page.run("document.querySelector('#refusals tbody').rows.length") == 1


def test_the_plots_show_the_rate_and_its_limit(agent: Node, page: Page) -> None:
    flooding(agent)
    page.run("location.hash = '#/flood'")
    sends = "[...document.querySelectorAll('#plots figure')].find(each => each.innerText.startsWith('Sends'))"
    page.until(f"({PIXELS})({sends}?.querySelector('canvas'), '--tx') > 10", "a line of the rate")
    page.until(f"({PIXELS})({sends}?.querySelector('canvas'), '--limit') > 10", "a line of the limit")
    assert "512 KB/s" in page.run(f"{sends}.querySelector('.u-legend').innerText")
    queues = "[...document.querySelectorAll('#plots figure')].find(each => each.innerText.startsWith('Waiting'))"
    page.until(f"({PIXELS})({queues}?.querySelector('canvas'), '--tx') > 10", "a line of the queue")


def test_the_map_shows_whose_the_ports_are(agent: Node, page: Page) -> None:
    web = agent.launch("web", ports=40)
    agent.launch("other")
    first = web["ephemeral_ports"][0]
    canvas = "document.querySelector('#overview-map canvas')"
    swatch = f"getComputedStyle({cell('web', 'name').replace('.innerText', '')}?.querySelector('.swatch')).background"
    page.until(f"{cell('web', 'name')} === 'web' && {cell('other', 'name')} === 'other'")
    for port in (first, first + 1023, 31000, 31039):
        assert page.run(f"({PORT})({canvas}, {port})")["colour"] in page.run(swatch), port
    for port in (first + 1024, 31040, 80, 60000):
        assert page.run(f"({PORT})({canvas}, {port})")["colour"] not in page.run(swatch), port
    readout = "document.querySelector('#overview-map output').textContent"
    for port, text in (
        (first, f"{first}-{first + 1023} (1,024): ephemeral block of web"),
        (31010, "31000-31039 (40): assigned to web"),
        (31500, "31040-32000 (961): free to be assigned"),
        (443, "0-1023 (1,024): the host's, well known"),
        (60000, "57345-61000 (3,656): the host's, ephemeral"),
    ):
        place = page.run(f"({PORT})({canvas}, {port})")
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=place["x"], y=place["y"])
        page.until(f"{readout} === {json.dumps(text)}")
    outline = f"({PIXELS})({canvas}, '--text')"
    assert page.run(outline) == 0
    box = f"{cell('web', 'name').replace('.innerText', '')}.getBoundingClientRect()"
    row = page.run(f"({{ x: {box}.x, y: {box}.y }})")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=row["x"] + 30, y=row["y"] + 9)
    page.until(f"{outline} > 100", "of its slice")
    page.run(f"{canvas}.focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Home")
    page.until(f"{canvas}.getAttribute('aria-valuetext').startsWith('0-1023')")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    page.until(f"{canvas}.getAttribute('aria-valuetext') === '1024-30999 (29,976): the host\\'s'")
    place = page.run(f"({PORT})({canvas}, {first})")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=place["x"], y=place["y"], button="left", clickCount=1)
    page.until("document.getElementById('detail-name').textContent === 'web'", "the container whose slice was clicked")
    own = "document.querySelector('#detail-map canvas')"
    page.until(f"({PIXELS})({own}, '--map-other') > 100", "the other one stands back")
    assert page.run(f"({PORT})({own}, 31010)")["colour"] == page.run(f"({PORT})({own}, {first})")["colour"]


def test_a_restarted_agent_is_found_again(agent: Node, page: Page) -> None:
    page.run("window.same = true")
    agent.launch("web")
    page.until(f"{cell('web', 'name')} === 'web'", "a container that came later")
    page.run("location.hash = '#/web'")
    agent.stop()
    page.until("document.getElementById('connection').dataset.state === 'gone'")
    agent.start()
    live(page)
    assert page.run("window.same"), "the page was not loaded again: its history is still there"
    page.complaints.clear()  # that the agent was gone
    agent.kill("web")
    page.until("document.getElementById('detail-state').textContent === 'This container has ended.'")
    page.run("location.hash = '#/'")
    page.until("document.getElementById('none').textContent === 'No container runs.'")


def test_a_name_or_command_is_never_markup(agent: Node, page: Page) -> None:
    command = ("sh", "-c", "sleep infinity # <img src=x onerror=window.hit=1></textarea>")
    agent.launch(HOSTILE, *command)
    page.until(f"{cell(HOSTILE, 'name')} !== undefined")
    page.run("document.querySelector('#containers tbody a').click()")
    page.until(f"document.getElementById('detail-name').textContent === {json.dumps(HOSTILE)}")
    page.until(f"{fact('Command')} === {json.dumps(' '.join(command))}")
    page.reload()
    live(page)
    page.until(f"document.title.startsWith({json.dumps(HOSTILE)}) && {fact('Id')}", "the same one, by its address")
    assert page.run("location.hash") == f"#/{quote(HOSTILE, safe='()')}".replace("%27", "'")
    assert page.run("document.querySelectorAll('#content img, #content script, #content b, textarea').length") == 0
    assert page.run("window.hit") is None


def test_dark_and_light(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.run(background)
    page.prefer("dark")
    page.until(f"{background} !== '{light}'", "the system's choice")
    for label in ("light", "dark", "auto", "light"):
        page.run("document.getElementById('theme').click()")
        page.until(f"document.getElementById('theme').ariaLabel === 'Colours: {label}'")
        assert (page.run(background) == light) == (label == "light")
    page.reload()
    live(page)
    assert page.run(background) == light, "the reader's choice is remembered"


def test_on_a_phone_nothing_is_cut_off(agent: Node, page: Page) -> None:
    agent.launch("web")
    page.size(360, 740, 2)
    for address in ("#/", "#/web"):
        page.run(f"location.hash = '{address}'")
        page.until(f"location.hash === '{address}' && document.title.includes('web') === ('{address}' !== '#/')")
        assert page.run("document.documentElement.scrollWidth") == 360


def test_a_thousand_containers(agent: Node, page: Page) -> None:
    agent.launch("web", ports=1)
    agent.launch("other")
    bed = agent.bed
    recorded = bed.directory / "recorded.json"
    recorded.write_text(json.dumps(agent.get("/overview")))
    bed.start(bed.host, sys.executable, "-c", PLAY, str(recorded))
    until(lambda: bed.run(bed.host, "curl", "-s", "127.0.0.1:5052/", check=False).returncode == 0, "the player")
    page.open("http://127.0.0.1:5052/")
    live(page)
    rows = "[...document.querySelectorAll('#containers tbody tr:not(.space)')]"
    names = f"{rows}.map(row => row.querySelector('a').textContent)"
    page.until(f"{names}[0] === 'c-0' && parseFloat({cell('c-9', 'tx')}) > 0")
    assert page.run("document.getElementById('containers').getAttribute('aria-rowcount')") == "1001"
    assert page.run(f"{rows}.length") < 60, "those in sight"
    assert page.run("document.documentElement.scrollHeight") > 1000 * 30, "as high as all of them"
    page.run("scrollTo(0, document.documentElement.scrollHeight)")
    page.until(f"{names}.at(-1) === 'c-999'")
    page.run("document.querySelector('#containers thead .tx button').click()")
    page.run("scrollTo(0, 0)")
    page.until(f"{names}[0] === 'c-999' && {names}[1] === 'c-998'", "who sends most comes first")
    assert page.run("document.querySelector('#containers thead .tx').getAttribute('aria-sort')") == "descending"
    page.call("Input.dispatchKeyEvent", type="keyDown", key="/")
    page.call("Input.insertText", text="c-77")
    page.until("document.getElementById('shown').textContent === '11 of 1,000'")
    assert page.run(names) == [f"c-{number}" for number in (*range(779, 769, -1), 77)]


# Without a browser


def test_files_are_kept_by_the_browser_and_nothing_else_is_served(agent: Node) -> None:
    page = ask(agent, "/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    files = re.findall(r'(?:src|href)="(dashboard/[^"]+)"', page.text)
    assert "dashboard/uplot/uPlot.iife.min.js" in files
    for path in ("", *files):
        answer = ask(agent, f"/{path}", Accept_Encoding="gzip")
        assert (answer.status, answer.headers["Content-Security-Policy"]) == (200, policy)
        assert gzip.decompress(answer.body) == ask(agent, f"/{path}").body
        unchanged = ask(agent, f"/{path}", If_None_Match=answer.headers["Etag"])
        assert (unchanged.status, unchanged.body) == (304, b"")
        assert ask(agent, f"/{path}", "POST").status == 405
    head = ask(agent, "/overview/events", "HEAD")
    assert (head.status, head.body) == (200, b"")
    for path in ("/dashboard/../dashboard.py", "/dashboard/%2e%2e/dashboard.py", "/dashboard/uplot/README.md"):
        assert ask(agent, path).status == 404


def test_the_page_is_not_on_the_socket_where_it_could_do_harm(agent: Node) -> None:
    for path in ("/", "/overview/events"):
        kind = over_socket(agent, path).headers.get("Content-Type", "")
        assert kind.partition(";")[0] not in ("text/html", "text/event-stream")


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_events_tell_what_the_overview_tells(agent: Node, encoding: str) -> None:
    web = agent.launch("web", ports=2)
    opened = connection(agent)
    opened.request("GET", "/overview/events", headers={"Accept-Encoding": encoding})
    response = opened.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    decode = zlib.decompressobj(wbits=31).decompress if encoding == "gzip" else bytes
    text = ""
    while text.count("\n\n") < 4:
        text += decode(response.read1()).decode()
    opened.close()
    assert text.startswith("retry: 2000\n")
    events = [re.fullmatch(r"event: (\w+)\ndata: (.*)", each) for each in text.partition("\n")[2].split("\n\n")[:4]]
    assert [event[1] for event in events if event] == ["agent", *3 * ["overview"]]
    # The first overview is the latest that there was, up to a second old.
    about, _, now, later = (json.loads(event[2]) for event in events if event)
    assert (about["ports"], about["ephemeral_ports"]) == ([[31000, 32000]], [[32768, 57344]])
    assert (about["host_ephemeral_ports"], about["ephemeral_block"]) == ([57345, 61000], 1024)
    assert [each["name"] for each in later] == ["web"]
    assert now[0].keys() == later[0].keys() == agent.get("/overview")[0].keys()
    assert later[0]["timestamp"] > now[0]["timestamp"]
    assert (later[0]["id"], later[0]["ports"]) == (web["id"], web["ports"])
