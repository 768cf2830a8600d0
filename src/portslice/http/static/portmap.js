// The 65,536 ports, a row for each 1,024 of them, and whose each is. By pointer or arrow keys one learns of a range.

import { element, link, setText } from "./dom.js";
import * as format from "./format.js";
import { sharp } from "./sparkline.js";
import { colour, colourOf, onThemeChange } from "./theme.js";

const PORTS = 65536;
const ROW = 1024;
const ROWS = PORTS / ROW;
const MARGIN = 44; // for the numbers of the ports, left

const KINDS = {
  wellKnown: { colour: "--map-well-known", text: "the host's, well known" },
  host: { colour: "--map-host", text: "the host's" },
  hostEphemeral: { colour: "--map-host-ephemeral", text: "the host's, ephemeral" },
  freeAssigned: { colour: "--map-free-assigned", text: "free to be assigned" },
  freeEphemeral: { colour: "--map-free-ephemeral", text: "free, for ephemeral blocks" },
  assigned: { text: "assigned to" },
  ephemeral: { text: "ephemeral block of" },
};

/** All ports as ranges that do not overlap, in order: {begin, end, kind, container}. */
export function segments(agent, containers) {
  const regions = [{ kind: "host" }];
  const owner = new Uint16Array(PORTS);
  const paint = (ranges, kind, container) => {
    regions.push({ kind, container });
    for (const [begin, end] of ranges) owner.fill(regions.length - 1, begin, end + 1);
  };
  paint([[0, 1023]], "wellKnown");
  if (agent.host_ephemeral_ports) paint([agent.host_ephemeral_ports], "hostEphemeral");
  paint(agent.ports ?? [], "freeAssigned");
  paint(agent.ephemeral_ports ?? [], "freeEphemeral");
  for (const container of containers.values()) {
    const { ports, ephemeral_ports: block } = container.overview;
    if (ports) paint(ports, "assigned", container);
    if (block) paint([block], "ephemeral", container);
  }
  const found = [];
  for (let begin = 0; begin < PORTS; ) {
    let end = begin;
    while (end + 1 < PORTS && owner[end + 1] === owner[begin]) end += 1;
    found.push({ begin, end, ...regions[owner[begin]] });
    begin = end + 1;
  }
  return found;
}

export class PortMap {
  #place;
  #segments = [];
  #at = 0; // the segment under the pointer or the keys
  #active = false;
  #drawn = -1;
  #marked = null;
  own = null; // a container, of which this is the map: all others stand back

  constructor(place) {
    this.canvas = element("canvas", { tabIndex: 0, role: "slider", ariaLabel: "Map of the ports" });
    this.canvas.setAttribute("aria-valuemin", 0);
    this.canvas.setAttribute("aria-valuemax", PORTS - 1);
    this.readout = element("output");
    this.legend = element("ul", { className: "legend" });
    this.#place = place;
    place.classList.add("portmap");
    place.append(this.canvas, element("div", { className: "under" }, this.readout, this.legend));
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => this.#leave());
    this.canvas.addEventListener("blur", () => this.#leave());
    this.canvas.addEventListener("focus", () => this.#select(this.#at));
    this.canvas.addEventListener("click", () => this.#open());
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    onThemeChange(() => {
      this.#legend();
      this.draw();
    });
  }

  update(model, own = null) {
    this.#place.hidden = !model.agent.ephemeral_ports; // no container has ports of its own
    if (this.#drawn === model.slices && this.own === own) return;
    const { begin } = this.#segments[this.#at] ?? { begin: 0 };
    this.#drawn = model.slices;
    this.own = own;
    this.#segments = segments(model.agent, model.containers);
    this.#at = this.#find(begin);
    this.#legend();
    this.draw();
    this.#say();
  }

  /** Outline a container's slice, or none. */
  mark(container = null) {
    if (container === this.#marked) return;
    this.#marked = container;
    this.draw();
  }

  #legend() {
    const kinds = new Set(this.#segments.map((each) => each.kind));
    const items = Object.entries(KINDS).filter(([kind, { colour: own }]) => own && kinds.has(kind));
    const entries = items.map(([, { colour: own, text }]) => [`var(${own})`, text]);
    if (this.own) entries.push([colourOf(this.own), "its own"], ["var(--map-other)", "other containers'"]);
    else if (kinds.has("ephemeral")) entries.push(["conic-gradient(#c66,#cc6,#6c6,#6cc,#66c,#c6c,#c66)", "the containers', by colour"]);
    this.legend.replaceChildren(
      ...entries.map(([background, text]) => {
        const swatch = element("span", { className: "swatch" });
        swatch.style.background = background;
        return element("li", {}, swatch, text);
      }),
    );
  }

  #find(port) {
    let [low, high] = [0, this.#segments.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#segments[middle].end < port) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - MARGIN, event.clientY - box.top];
    if (x < 0 || x >= box.width - MARGIN || y < 0 || y >= box.height || !this.#segments.length) return this.#leave();
    const row = Math.floor((y / box.height) * ROWS);
    return this.#select(this.#find(row * ROW + Math.floor((x / (box.width - MARGIN)) * ROW)));
  }

  #key(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (event.key === "Enter") this.#open();
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.#select(Math.max(0, Math.min(this.#segments.length - 1, this.#at + steps[event.key])));
  }

  #select(at) {
    if (this.#active && this.#at === at) return;
    [this.#at, this.#active] = [at, true];
    this.#say();
    this.draw();
  }

  #leave() {
    if (!this.#active) return;
    this.#active = false;
    this.#say();
    this.draw();
  }

  #open() {
    const { container } = this.#segments[this.#at] ?? {};
    if (this.#active && container && container !== this.own) location.hash = link(container);
  }

  #say() {
    const segment = this.#segments[this.#at];
    if (!segment) return;
    const size = segment.end - segment.begin + 1;
    const whose = `${KINDS[segment.kind].text} ${segment.container?.name ?? ""}`.trim();
    const text = `${format.range([segment.begin, segment.end])} (${format.count(size)}): ${whose}`;
    this.canvas.setAttribute("aria-valuenow", segment.begin);
    this.canvas.setAttribute("aria-valuetext", text);
    this.canvas.style.cursor = this.#active && segment.container ? "pointer" : "";
    setText(this.readout, this.#active ? text : `Each row is ${format.count(ROW)} of the 65,536 ports`);
  }

  draw() {
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width || !this.#segments.length) return;
    const context = sharp(this.canvas, width, height);
    const unit = (width - MARGIN) / ROW;
    const rowHeight = height / ROWS;
    const fill = ({ begin, end }, grown = 0) => {
      for (let row = Math.floor(begin / ROW); row <= Math.floor(end / ROW); row += 1) {
        const from = Math.max(begin, row * ROW) - row * ROW;
        const to = Math.min(end, row * ROW + ROW - 1) - row * ROW + 1;
        const wide = Math.max(1, (to - from) * unit);
        context.fillRect(MARGIN + from * unit - grown, row * rowHeight - grown, wide + 2 * grown, rowHeight + 2 * grown);
      }
    };
    for (const segment of this.#segments) {
      const { kind, container } = segment;
      context.fillStyle = KINDS[kind].colour
        ? colour(KINDS[kind].colour)
        : this.own && container !== this.own
          ? colour("--map-other")
          : colourOf(container);
      fill(segment);
    }
    const one = this.own ?? this.#marked;
    const outlined = this.#segments.filter(({ container }) => one && container === one);
    const active = this.#active ? [this.#segments[this.#at]] : [];
    for (const [those, style, rim] of [[outlined, "--text", 1.5], [active, "--accent", 2]]) {
      context.fillStyle = colour(style);
      for (const segment of those) fill(segment, rim);
    }
    for (const segment of [...outlined, ...active]) {
      const { kind, container } = segment;
      context.fillStyle = container ? colourOf(container) : colour(KINDS[kind].colour);
      fill(segment);
    }
    context.fillStyle = colour("--muted");
    context.font = `10px ${getComputedStyle(this.canvas).fontFamily}`;
    context.textAlign = "right";
    for (let row = 0; row < ROWS; row += 8) {
      context.textBaseline = row ? "middle" : "top";
      context.fillText(row * ROW, MARGIN - 6, row ? (row + 0.5) * rowHeight : 0);
    }
  }
}
