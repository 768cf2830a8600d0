// The page: events come in, the model learns, and what is in sight is drawn. Nothing here changes anything on the host.

import { element, setText, Terms } from "./dom.js";
import { Detail } from "./detail.js";
import * as format from "./format.js";
import { Model, sum } from "./history.js";
import { PortMap } from "./portmap.js";
import { sparkline } from "./sparkline.js";
import { Table } from "./table.js";
import { onThemeChange, startTheme } from "./theme.js";

const EVENTS = "overview/events";
const AGAIN_MSECS = 2000;
const SILENT_MSECS = 15000; // without an event: the connection is taken for dead
const GONE = "Agent gone; trying again";

const $ = (id) => document.getElementById(id);

startTheme($("theme"));
const model = new Model();
const map = new PortMap($("overview-map"));
const table = new Table($("containers"), () => draw(), (id) => map.mark(model.containers.get(id)));
const detail = new Detail($("detail"));
const totals = new Terms($("totals"));
let heard = performance.now();
let page = null;
let drawing = false;

// Drawing

function chosen() {
  const [, name = ""] = location.hash.split("#/");
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const name = chosen();
    $("overview").hidden = name !== "";
    $("detail").hidden = name === "";
    document.title = [name, model.agent.hostname, "Portslice"].filter(Boolean).join(" · ");
    if (name !== "") detail.update(model, name);
    else drawOverview();
  });
}

function drawOverview() {
  const { containers, agent } = model;
  drawTotals();
  map.update(model);
  const shown = table.update(containers);
  setText($("shown"), shown === containers.size ? "" : `${format.count(shown)} of ${format.count(containers.size)}`);
  const none = shown > 0 || !agent.hostname ? "" : containers.size ? "No container matches." : "No container runs.";
  setText($("none"), none);
  $("none").hidden = none === "";
  $("containers").hidden = shown === 0;
}

function drawTotals() {
  const { agent, containers } = model;
  const all = [...containers.values()];
  const last = (name) => model.totals.last(name);
  totals.set("Containers", format.count(all.length));
  for (const [term, way] of [["Receive", "rx"], ["Send", "tx"]]) {
    const value = totals.set(term, format.rate(last(way)));
    const canvas = value.parentElement.querySelector("canvas") ?? element("canvas", { ariaHidden: "true" });
    if (!canvas.isConnected) value.after(canvas);
    sparkline(canvas, model.totals.ring(way), `--${way}`, value.clientWidth, 22);
  }
  totals.set("Queued", format.bytes(last("rxQueue") + last("txQueue")));
  const dropped = last("rxDrops") + last("txDrops");
  totals.set("Dropped", format.perSecond(dropped), { alert: dropped > 0 });
  totals.set("Refused", format.perSecond(last("refused")), { alert: last("refused") > 0 });
  totals.set("CPUs", format.cores(last("cpu")), { of: agent.cpus });
  totals.set("Memory", format.bytes(last("mem")), { of: format.bytes(agent.mem_bytes) });
  if (agent.ephemeral_block) {
    const size = agent.ephemeral_block;
    const blocks = sum(agent.ephemeral_ports.map(([begin, end]) => Math.floor((end + 1) / size) - Math.ceil(begin / size)));
    totals.set("Ephemeral blocks", format.count(all.filter((each) => each.overview.ephemeral_ports).length), { of: format.count(blocks) });
    const length = (ranges) => sum((ranges ?? []).map(([begin, end]) => end - begin + 1));
    totals.set("Assigned ports", format.count(sum(all.map((each) => length(each.overview.ports)))), { of: format.count(length(agent.ports)) });
  }
}

// The agent

function setConnection(state, text) {
  $("connection").dataset.state = state;
  setText($("connection"), text);
}

function connect() {
  const source = new EventSource(EVENTS);
  source.addEventListener("agent", (event) => {
    const agent = JSON.parse(event.data);
    heard = performance.now();
    if (page !== null && page !== agent.page) location.reload(); // the agent is a newer one, with another page
    page = agent.page;
    model.setAgent(agent);
    setText($("hostname"), agent.hostname);
    draw();
  });
  source.addEventListener("overview", (event) => {
    heard = performance.now();
    model.update(JSON.parse(event.data));
    setConnection("live", "Live");
    draw();
  });
  source.addEventListener("error", () => {
    setConnection("gone", GONE);
    if (source.readyState === EventSource.CLOSED) again(); // otherwise it tries again by itself
  });
  const watch = setInterval(() => {
    if (performance.now() - heard > SILENT_MSECS) {
      setConnection("gone", GONE);
      source.close();
      again();
    }
  }, 1000);
  function again() {
    clearInterval(watch);
    heard = performance.now() + AGAIN_MSECS;
    setTimeout(connect, AGAIN_MSECS);
  }
}

// The reader

$("filter").addEventListener("input", (event) => {
  table.filter = event.target.value;
  draw();
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "/" && event.target.tagName !== "INPUT" && chosen() === "") {
    event.preventDefault();
    $("filter").focus();
  } else if (event.key === "Escape" && chosen() !== "") {
    location.hash = "#/";
  }
});
let scrolled = 0;
addEventListener("hashchange", () => {
  if (chosen() !== "" && !$("overview").hidden) scrolled = scrollY;
  draw();
  requestAnimationFrame(() => scrollTo(0, chosen() === "" ? scrolled : 0));
});
addEventListener("scroll", () => $("overview").hidden || table.draw(), { passive: true });
addEventListener("resize", draw);
onThemeChange(draw);
connect();
