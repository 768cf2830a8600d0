// Numbers as people read them. Bytes are counted in 1024s, as in the agent's flags.

const UNKNOWN = "–";
const GROUPED = new Intl.NumberFormat("en");

function scaled(value, base, units) {
  let unit = 0;
  while (Math.abs(value) >= base - 0.5 && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`.trim();
}

const known = (format) => (value) => (Number.isFinite(value) ? format(value) : UNKNOWN);

export const bytes = known((value) => scaled(value, 1024, ["B", "KB", "MB", "GB", "TB", "PB"]));
export const rate = known((value) => `${bytes(value)}/s`);
export const perSecond = known((value) => `${value && value < 9.95 ? value.toFixed(1) : scaled(value, 1000, ["", "k", "M"])}/s`);
export const count = known((value) => (value < 1e6 ? GROUPED.format(value) : scaled(value, 1000, ["", "k", "M", "G", "T"])));
export const cores = known((value) => (value < 9.995 ? value.toFixed(2) : value.toFixed(1)));
export const milliseconds = known((microseconds) => `${(microseconds / 1000).toFixed(microseconds < 9950 ? 2 : microseconds < 99500 ? 1 : 0)} ms`);
export const percent = known((share) => `${Math.round(share * 100)} %`);

export function range([begin, end]) {
  return begin === end ? `${begin}` : `${begin}-${end}`;
}

export function ports(ranges) {
  return ranges?.length ? ranges.map(range).join(", ") : "none";
}

export function age(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}
