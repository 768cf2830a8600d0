// What the page remembers. The agent sends counters; two of them and their timestamps make a rate, which is kept for
// ten minutes, in rings that grow with what they hold: a thousand containers take some 40 MB.

export const KEPT = 600; // samples, one a second
const GAP_SECS = 5; // between two samples: more, and a line is broken there
const GAUGES = {
  rxQueue: (o) => o.rx_queue?.bytes,
  txQueue: (o) => o.tx_queue?.bytes,
  rxLimit: (o) => o.rx_limit,
  txLimit: (o) => o.tx_limit,
  p50: (o) => o.rtt_microsecs_p50,
  p90: (o) => o.rtt_microsecs_p90,
  p99: (o) => o.rtt_microsecs_p99,
  mem: (o) => o.mem_bytes,
  memLimit: (o) => o.mem_limit_bytes,
  cpuLimit: (o) => o.cpus_limit,
  inUse: (o) => o.ephemeral_ports_in_use,
};
const COUNTERS = {
  rx: (o) => o.rx_bytes,
  tx: (o) => o.tx_bytes,
  rxPackets: (o) => o.rx_packets,
  txPackets: (o) => o.tx_packets,
  rxDrops: (o) => o.rx_queue?.drops,
  txDrops: (o) => o.tx_queue?.drops,
  cpu: (o) => o.cpu_secs,
  refused: (o) => (o.refused ? sum(Object.values(o.refused)) : undefined),
};
const SUMMED = ["rx", "tx", "rxDrops", "txDrops", "refused", "cpu", "mem", "rxQueue", "txQueue"];

export function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

export class Ring {
  #kept;
  #next = 0;
  length = 0;

  constructor(Numbers = Float32Array) {
    this.#kept = new Numbers(32);
  }

  push(value = NaN) {
    if (this.length === this.#kept.length && this.length < KEPT) {
      const grown = new this.#kept.constructor(Math.min(2 * this.length, KEPT));
      grown.set(this.#kept);
      this.#kept = grown;
      this.#next = this.length;
    }
    this.#kept[this.#next] = value;
    this.#next = (this.#next + 1) % this.#kept.length;
    this.length = Math.min(this.length + 1, this.#kept.length);
  }

  /** The value so many samples before the last. */
  back(steps = 0) {
    if (steps >= this.length) return NaN;
    return this.#kept[(this.#next - 1 - steps + 2 * this.#kept.length) % this.#kept.length];
  }

  get last() {
    return this.back();
  }

  /** The last so many values, oldest first, null where there is none: as uPlot wants them. */
  values(length = this.length) {
    const values = new Array(length);
    for (let at = 0; at < length; at += 1) {
      const value = this.back(length - 1 - at);
      values[at] = Number.isNaN(value) ? null : value;
    }
    return values;
  }
}

class Series {
  times = new Ring(Float64Array);
  #rings = {};

  /** A ring of this name; one that begins later than the others is simply shorter. */
  ring(name) {
    return (this.#rings[name] ??= new Ring());
  }

  last(name) {
    return this.#rings[name]?.last ?? NaN;
  }

  push(time, values) {
    this.times.push(time);
    for (const name of new Set([...Object.keys(this.#rings), ...Object.keys(values)])) {
      this.ring(name).push(values[name]);
    }
  }

  get names() {
    return Object.keys(this.#rings);
  }

  /** [times, ...values] as uPlot wants them. */
  columns(names) {
    const length = this.times.length;
    return [this.times.values(), ...names.map((name) => this.ring(name).values(length))];
  }
}

/** A container: what the agent last said of it, and its history. */
export class Container extends Series {
  constructor(overview) {
    super();
    this.id = overview.id;
    this.name = overview.name;
    this.ended = false;
    this.update(overview);
  }

  update(overview) {
    const earlier = this.overview;
    this.overview = overview;
    const elapsed = earlier ? overview.timestamp - earlier.timestamp : 0;
    if (earlier && elapsed <= 0) return; // the same snapshot again
    if (elapsed > GAP_SECS) this.push(earlier.timestamp + 1, {});
    const values = {};
    for (const [name, read] of Object.entries(GAUGES)) {
      const value = read(overview);
      if (value !== undefined) values[name] = value;
    }
    const grown = (read) => {
      const growth = earlier ? read(overview) - read(earlier) : NaN;
      return growth >= 0 ? growth / elapsed : NaN;
    };
    for (const [name, read] of Object.entries(COUNTERS)) {
      if (read(overview) !== undefined) values[name] = grown(read);
    }
    for (const [reason, packets] of Object.entries(overview.refused ?? {})) {
      if (packets > 0) values[`refused:${reason}`] = grown((o) => o.refused?.[reason] ?? 0);
    }
    this.push(overview.timestamp, values);
  }

  /** How full a limit is, 0 to 1 and more; NaN without one. */
  full(way) {
    return this.last(way) / this.last(`${way}Limit`);
  }

  get queued() {
    return sum(["rxQueue", "txQueue"].map((name) => this.last(name)).filter(Number.isFinite));
  }

  /** Packets that the queues dropped and that were refused, since the start. */
  get dropped() {
    const { rx_queue: rx, tx_queue: tx } = this.overview;
    return (rx?.drops ?? 0) + (tx?.drops ?? 0);
  }

  get refusals() {
    return sum(Object.values(this.overview.refused ?? {}));
  }

  get blockSize() {
    const block = this.overview.ephemeral_ports;
    return block ? block[1] - block[0] + 1 : NaN;
  }
}

/** All containers, and the agent. */
export class Model {
  agent = {};
  containers = new Map();
  totals = new Series();
  slices = 0; // changes when a container or its ports do: the map is drawn anew

  setAgent(agent) {
    this.agent = agent;
    this.slices += 1;
  }

  update(overviews) {
    const gone = new Set(this.containers.keys());
    for (const overview of overviews) {
      gone.delete(overview.id);
      const container = this.containers.get(overview.id);
      if (container === undefined) {
        this.containers.set(overview.id, new Container(overview));
        this.slices += 1;
      } else {
        if (JSON.stringify(container.overview.ports) !== JSON.stringify(overview.ports)) this.slices += 1;
        container.update(overview);
      }
    }
    for (const id of gone) {
      this.containers.get(id).ended = true;
      this.containers.delete(id);
      this.slices += 1;
    }
    const totals = {};
    for (const name of SUMMED) {
      totals[name] = sum([...this.containers.values()].map((each) => each.last(name)).filter(Number.isFinite));
    }
    this.totals.push(Date.now() / 1000, totals);
  }

  named(name) {
    return [...this.containers.values()].find((each) => each.name === name);
  }
}
