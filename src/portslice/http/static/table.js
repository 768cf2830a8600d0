// All containers, a row each. Only the rows in sight are in the document, so a thousand cost what thirty do; two empty
// rows keep the place of those above and below.

import { element, link, setText } from "./dom.js";
import * as format from "./format.js";
import { sparkline } from "./sparkline.js";
import { colourOf } from "./theme.js";

const MARGIN = 8; // rows above and below those in sight
const HELD_MSECS = 3000; // no row moves away from a pointer or the keyboard
const collator = new Intl.Collator("en", { numeric: true });

const positive = (value) => (value > 0 ? value : 0);

// Each: what it is sorted by, and how a cell is filled. `wide`: the width of the page from which it is shown.
const COLUMNS = [
  { key: "name", title: "Container", value: (c) => c.name, make: makeName, fill: fillName },
  { key: "rx", title: "Receives", value: (c) => c.last("rx"), make: makeFlow, fill: fillFlow("rx"), number: true },
  { key: "rxFull", title: "of limit", label: "receives: of limit", value: (c) => c.full("rx"), make: makeMeter, fill: fillFull("rx"), wide: 2 },
  { key: "tx", title: "Sends", value: (c) => c.last("tx"), make: makeFlow, fill: fillFlow("tx"), number: true },
  { key: "txFull", title: "of limit", label: "sends: of limit", value: (c) => c.full("tx"), make: makeMeter, fill: fillFull("tx"), wide: 2 },
  { key: "queue", title: "Queued", value: (c) => c.queued, fill: (cell, c) => setText(cell, format.bytes(c.queued)), number: true, wide: 1 },
  { key: "drops", title: "Dropped", value: (c) => c.dropped, fill: fillCount((c) => c.dropped, ["rxDrops", "txDrops"]), number: true, wide: 1 },
  { key: "refused", title: "Refused", value: (c) => c.refusals, fill: fillCount((c) => c.refusals, ["refused"]), number: true, wide: 1 },
  { key: "ports", title: "Ports in use", value: (c) => c.last("inUse") / c.blockSize, make: makeMeter, fill: fillPorts, wide: 2 },
  { key: "rtt", title: "RTT p50", value: (c) => c.last("p50"), fill: (cell, c) => setText(cell, format.milliseconds(c.last("p50"))), number: true, wide: 3 },
  { key: "cpu", title: "CPU", value: (c) => c.last("cpu"), fill: (cell, c) => setText(cell, format.cores(c.last("cpu"))), number: true, wide: 1 },
  { key: "mem", title: "Memory", value: (c) => c.last("mem"), fill: (cell, c) => setText(cell, format.bytes(c.last("mem"))), number: true, wide: 1 },
];

function makeName(cell) {
  cell.append(element("span", { className: "swatch" }), element("a"));
}

function fillName(cell, container) {
  const [swatch, anchor] = cell.children;
  swatch.style.background = colourOf(container);
  setText(anchor, container.name);
  anchor.href = link(container);
  anchor.title = container.overview.command ?? "";
}

function makeFlow(cell) {
  cell.append(element("canvas", { ariaHidden: "true" }), element("span"));
}

function fillFlow(way) {
  return (cell, container) => {
    const [canvas, text] = cell.children;
    setText(text, format.rate(container.last(way)));
    sparkline(canvas, container.ring(way), `--${way}`);
  };
}

function makeMeter(cell) {
  cell.append(element("span", { className: "meter", ariaHidden: "true" }, element("span")), element("span"));
}

function fillMeter(cell, share, text) {
  const [meter, label] = cell.children;
  meter.hidden = !Number.isFinite(share);
  meter.firstChild.style.width = `${Math.min(100, 100 * share)}%`;
  meter.dataset.level = share >= 0.95 ? "full" : share >= 0.8 ? "high" : "";
  setText(label, text);
}

function fillFull(way) {
  return (cell, container) => {
    const limit = container.last(`${way}Limit`);
    fillMeter(cell, container.full(way), limit > 0 ? format.percent(container.full(way)) : "no limit");
    cell.title = limit > 0 ? `limit ${format.rate(limit)}` : "";
  };
}

function fillPorts(cell, container) {
  const used = container.last("inUse");
  const known = Number.isFinite(used);
  fillMeter(cell, used / container.blockSize, known ? `${format.count(used)} / ${format.count(container.blockSize)}` : format.count(NaN));
}

function fillCount(total, rings) {
  return (cell, container) => {
    const now = rings.map((name) => positive(container.last(name))).reduce((a, b) => a + b);
    setText(cell, now > 0 ? `${format.perSecond(now)} · ${format.count(total(container))}` : format.count(total(container)));
    cell.classList.toggle("alert", now > 0);
  };
}

export class Table {
  #rows = new Map(); // by id, those in the document
  #order = []; // of all that match the filter
  #rowHeight = 34;
  #heldUntil = 0;
  #above = element("tr", { className: "space", ariaHidden: "true" }, element("td"));
  #below = element("tr", { className: "space", ariaHidden: "true" }, element("td"));
  filter = "";
  sorted = { key: "name", ascending: true };

  /** @param onChange when the order is another one; @param onPoint with the id of the row under the pointer, or none. */
  constructor(table, onChange, onPoint) {
    this.table = table;
    this.body = table.tBodies[0];
    this.body.append(this.#above, this.#below);
    const heads = element("tr");
    for (const column of COLUMNS) {
      const button = element("button", { type: "button", textContent: column.title });
      const head = element("th", { scope: "col" }, button);
      if (column.label) button.ariaLabel = column.label;
      mark(head, column);
      head.dataset.key = column.key;
      button.addEventListener("click", () => {
        const same = this.sorted.key === column.key;
        this.sorted = { key: column.key, ascending: same ? !this.sorted.ascending : column.key === "name" };
        this.#heldUntil = 0;
        onChange();
      });
      heads.append(head);
    }
    table.tHead.append(heads);
    for (const kind of ["pointermove", "focusin"]) {
      this.body.addEventListener(kind, () => {
        this.#heldUntil = performance.now() + HELD_MSECS;
      });
    }
    this.body.addEventListener("pointerover", (event) => {
      const row = event.target.closest("tr");
      onPoint([...this.#rows].find(([, each]) => each === row)?.[0]);
    });
    this.body.addEventListener("pointerleave", () => {
      this.#heldUntil = 0;
      onPoint(undefined);
    });
  }

  /** The containers that match the filter, in order. */
  #arrange(containers) {
    const wanted = this.filter.trim().toLowerCase();
    const matching = [...containers.values()].filter((each) => matches(each, wanted));
    if (performance.now() < this.#heldUntil) {
      const places = new Map(this.#order.map((each, place) => [each, place]));
      const place = (each) => places.get(each) ?? Infinity;
      this.#order = matching.sort((a, b) => (place(a) === place(b) ? 0 : place(a) - place(b)));
      return;
    }
    const { key, ascending } = this.sorted;
    const { value } = COLUMNS.find((column) => column.key === key);
    const sign = ascending ? 1 : -1;
    const keyed = matching.map((each) => [value(each), each]);
    keyed.sort(([a, x], [b, y]) => sign * compare(a, b) || collator.compare(x.name, y.name));
    this.#order = keyed.map(([, each]) => each);
  }

  update(containers) {
    this.#arrange(containers);
    for (const head of this.table.tHead.rows[0].cells) {
      if (head.dataset.key !== this.sorted.key) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.sorted.ascending ? "ascending" : "descending");
    }
    this.table.setAttribute("aria-rowcount", this.#order.length + 1);
    this.draw();
    return this.#order.length;
  }

  /** The rows in sight. */
  draw() {
    const offset = -this.body.getBoundingClientRect().top;
    const all = this.#order.length;
    const first = Math.min(all, Math.max(0, Math.floor(offset / this.#rowHeight) - MARGIN));
    const end = Math.min(all, Math.max(first, Math.ceil((offset + innerHeight) / this.#rowHeight) + MARGIN));
    const shown = this.#order.slice(first, end);
    const ids = new Set(shown.map((each) => each.id));
    for (const [id, row] of this.#rows) {
      if (!ids.has(id)) {
        row.remove();
        this.#rows.delete(id);
      }
    }
    this.#above.firstChild.style.height = `${first * this.#rowHeight}px`;
    this.#below.firstChild.style.height = `${(all - end) * this.#rowHeight}px`;
    let before = this.#above.nextSibling;
    shown.forEach((container, place) => {
      let row = this.#rows.get(container.id);
      if (row === undefined) {
        row = makeRow();
        this.#rows.set(container.id, row);
      }
      if (row === before) before = row.nextSibling;
      else this.body.insertBefore(row, before);
      row.setAttribute("aria-rowindex", first + place + 2);
      COLUMNS.forEach((column, at) => column.fill(row.cells[at], container));
    });
    const height = this.#above.nextSibling.getBoundingClientRect().height;
    if (shown.length && height > 0) this.#rowHeight = height;
  }
}

function makeRow() {
  const row = element("tr");
  for (const column of COLUMNS) {
    const cell = element(column.key === "name" ? "th" : "td");
    if (column.key === "name") cell.scope = "row";
    mark(cell, column);
    column.make?.(cell);
    row.append(cell);
  }
  return row;
}

function mark(cell, column) {
  cell.classList.add(column.key);
  if (column.number) cell.classList.add("number");
  if (column.wide) cell.dataset.wide = column.wide;
}

function compare(a, b) {
  if (typeof a === "string") return collator.compare(a, b);
  return (Number.isNaN(a) ? -1 : a) - (Number.isNaN(b) ? -1 : b);
}

/** By a part of the name or command, the id, or a port that is its own. */
function matches({ id, overview }, wanted) {
  if (wanted === "") return true;
  if (/^\d{1,5}$/.test(wanted)) {
    const port = Number(wanted);
    const own = [...(overview.ports ?? []), overview.ephemeral_ports ?? [1, 0]];
    if (own.some(([begin, end]) => begin <= port && port <= end)) return true;
  }
  return [overview.name, overview.command ?? "", id].some((text) => text.toLowerCase().includes(wanted));
}
