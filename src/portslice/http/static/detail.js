// One container: what it is, what it does against what it may, and its slice of the ports.

import { element, setText, Terms } from "./dom.js";
import * as format from "./format.js";
import { PortMap } from "./portmap.js";
import { colour, onThemeChange } from "./theme.js";

/* global uPlot */

const LEAST_SECS = 60; // on the axis of time, however little is known yet
const HEIGHT = 180;
const REASON_COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];
// Between two marks of an axis; undefined: as uPlot has them.
const BYTES = Array.from({ length: 50 }, (_, power) => 2 ** power);
const COUNTS = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].flatMap((power) => [power, 2 * power, 5 * power]);

const FAR = 20; // times what is used: a limit so far above is in the legend only

const limit = (name) => ({ name, label: "limit", colour: "--limit", dash: [6, 4], limit: true });

/** From 0 to a little above the highest of the lines. */
function height(plot, lines) {
  const highest = (limits) =>
    Math.max(0, ...lines.map((line, at) => (Boolean(line.limit) === limits && plot.series[at + 1].show ? Math.max(...plot.data[at + 1]) : 0)));
  const [used, limited] = [highest(false), highest(true)];
  const most = used > 0 && limited > FAR * used ? used : Math.max(used, limited);
  return [0, most > 0 ? most * 1.08 : 1];
}

// Each: its lines by the names of the history, how a value reads, and when it is there at all.
const PLOTS = [
  { title: "Receives", lines: [{ name: "rx", label: "receives", colour: "--rx", area: true }, limit("rxLimit")], format: format.rate, incrs: BYTES },
  { title: "Sends", lines: [{ name: "tx", label: "sends", colour: "--tx", area: true }, limit("txLimit")], format: format.rate, incrs: BYTES },
  {
    title: "Waiting in the queues",
    lines: [{ name: "rxQueue", label: "to be received", colour: "--rx", area: true }, { name: "txQueue", label: "to be sent", colour: "--tx", area: true }],
    format: format.bytes,
    incrs: BYTES,
    missing: "Without a limit there is no queue.",
  },
  { title: "Dropped and refused packets", lines: dropLines, format: format.perSecond, incrs: COUNTS },
  {
    title: "Round-trip time of its TCP connections",
    lines: [
      { name: "p50", label: "p50", colour: "--c1" },
      { name: "p90", label: "p90", colour: "--c2" },
      { name: "p99", label: "p99", colour: "--c3" },
    ],
    format: format.milliseconds,
    missing: "No connection was seen, or the agent runs without --network_enable_socket_statistics_details.",
  },
  { title: "CPUs", lines: [{ name: "cpu", label: "used", colour: "--c1", area: true }, limit("cpuLimit")], format: format.cores },
  { title: "Memory", lines: [{ name: "mem", label: "used", colour: "--c2", area: true }, limit("memLimit")], format: format.bytes, incrs: BYTES },
  {
    title: "Ephemeral ports in use",
    lines: [{ name: "inUse", label: "in use", colour: "--c4", area: true }],
    format: format.count,
    incrs: COUNTS,
    missing: "Not counted by this agent.",
  },
];

function dropLines(container) {
  const reasons = container.names.filter((name) => name.startsWith("refused:"));
  return [
    { name: "rxDrops", label: "dropped receiving", colour: "--rx" },
    { name: "txDrops", label: "dropped sending", colour: "--tx" },
    ...reasons.map((name, at) => ({
      name,
      label: `refused: ${name.slice("refused:".length)}`,
      colour: REASON_COLOURS[at % REASON_COLOURS.length],
    })),
  ];
}

class Plot {
  #plot = null;
  #drawn = "";

  constructor(place, declared) {
    this.declared = declared;
    this.note = element("p", { className: "note", textContent: declared.missing ?? "Only the isolator network/port_mapping counts it.", hidden: true });
    this.box = element("div");
    this.figure = element("figure", {}, element("figcaption", { textContent: declared.title }), this.box, this.note);
    place.append(this.figure);
    new ResizeObserver(() => {
      const width = this.box.clientWidth;
      if (width) this.#plot?.setSize({ width, height: HEIGHT });
    }).observe(this.box);
    onThemeChange(() => {
      this.#drawn = ""; // the legend's marks are coloured once: a new plot
    });
  }

  update(container) {
    const { lines } = this.declared;
    const wanted = (typeof lines === "function" ? lines(container) : lines).filter(({ name }) => container.names.includes(name));
    const data = container.columns(wanted.map(({ name }) => name));
    const known = data.slice(1).some((values) => values.some((value) => value !== null));
    this.note.hidden = known;
    this.box.hidden = !known;
    if (!known) return;
    const drawn = `${container.id} ${wanted.map(({ name }) => name)}`;
    if (this.#drawn !== drawn) {
      this.#plot?.destroy();
      this.#plot = new uPlot(this.#options(wanted), data, this.box);
      this.#drawn = drawn;
    } else {
      this.#plot.setData(data);
    }
  }

  #options(lines) {
    const axis = { stroke: () => colour("--muted"), grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const value = this.declared.format;
    return {
      width: this.box.clientWidth,
      height: HEIGHT,
      cursor: { sync: { key: "detail" }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
      scales: {
        x: { range: (_, least, most) => [Math.min(least, most - LEAST_SECS), most] },
        y: { range: (plot) => height(plot, lines) },
      },
      axes: [
        { ...axis, size: 30, gap: 8, space: 70, values: (_, splits) => splits.map(format.clock) },
        { ...axis, size: 74, space: 32, values: (_, splits) => splits.map(value), incrs: this.declared.incrs },
      ],
      series: [
        { label: "", value: (_, time) => (time === null ? "" : format.clock(time)) },
        ...lines.map((line) => ({
          label: line.label,
          stroke: () => colour(line.colour),
          fill: line.area ? () => colour(`${line.colour}-area`) : undefined,
          dash: line.dash,
          width: 1.5,
          points: { show: false },
          value: (plot, shown, series, at) => value(at === null ? (plot.data[series].at(-1) ?? NaN) : (shown ?? NaN)),
        })),
      ],
    };
  }
}

export class Detail {
  constructor(section) {
    this.section = section;
    this.name = section.querySelector("#detail-name");
    this.state = section.querySelector("#detail-state");
    this.refusals = section.querySelector("#refusals");
    this.facts = new Terms(section.querySelector("#facts"));
    this.map = new PortMap(section.querySelector("#detail-map"));
    this.plots = PLOTS.map((declared) => new Plot(section.querySelector("#plots"), declared));
    this.container = null;
  }

  /** @param name as the address has it; the one that is shown stays when it has ended. */
  update(model, name) {
    const found = model.named(name);
    if (found && found !== this.container) {
      this.container = found;
      this.facts.clear();
    } else if (this.container?.name !== name) {
      this.container = null;
    }
    setText(this.name, name);
    const { container } = this;
    const missing = container === null ? "No container of this name runs." : container.ended ? "This container has ended." : "";
    setText(this.state, missing);
    this.state.hidden = missing === "";
    for (const part of [this.facts.list, this.map.canvas.parentElement, this.section.querySelector("#plots")]) part.hidden = container === null;
    this.refusals.hidden = true;
    if (container === null) return;
    this.#facts(container);
    this.map.update(model, container);
    for (const plot of this.plots) plot.update(container);
    this.#refusals(container, model.agent.reasons ?? {});
  }

  #facts(container) {
    const o = container.overview;
    const against = (limit, write) => (limit > 0 ? write(limit) : "");
    for (const [term, way] of [["Receives", "rx"], ["Sends", "tx"]]) {
      const alert = container.full(way) >= 0.95;
      this.facts.set(term, format.rate(container.last(way)), { of: against(o[`${way}_limit`], format.rate), alert });
    }
    this.facts.set("Queued", format.bytes(container.queued));
    this.facts.set("CPUs", format.cores(container.last("cpu")), { of: against(o.cpus_limit, format.cores) });
    this.facts.set("Memory", format.bytes(container.last("mem")), { of: against(o.mem_limit_bytes, format.bytes) });
    if (o.ephemeral_ports) {
      this.facts.set("Assigned ports", format.ports(o.ports));
      const used = Number.isFinite(container.last("inUse")) ? ` (${format.count(container.last("inUse"))} in use)` : "";
      this.facts.set("Ephemeral ports", format.range(o.ephemeral_ports) + used);
    }
    for (const [term, way] of [["Received", "rx"], ["Sent", "tx"]]) {
      if (`${way}_bytes` in o) this.facts.set(term, `${format.bytes(o[`${way}_bytes`])}, ${format.count(o[`${way}_packets`])} packets`);
    }
    this.facts.set("Runs for", format.age(o.timestamp - o.created));
    this.facts.set("Command", o.command ?? "");
    this.facts.set("Id", o.id);
  }

  #refusals(container, reasons) {
    const rows = Object.entries(container.overview.refused ?? {}).filter(([, packets]) => packets > 0);
    rows.sort(([, a], [, b]) => b - a);
    this.refusals.hidden = rows.length === 0;
    this.refusals.tBodies[0].replaceChildren(
      ...rows.map(([reason, packets]) =>
        element(
          "tr",
          {},
          element("th", { scope: "row", textContent: reason }),
          element("td", { className: "number", textContent: format.count(packets) }),
          element("td", { textContent: reasons[reason] ?? "" }),
        ),
      ),
    );
  }
}
