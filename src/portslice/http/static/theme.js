// Dark or light: the system's choice, or the reader's. Canvases ask here for the colours of the style sheet.

const CHOICES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };
const KEY = "portslice-theme";
const changes = new EventTarget();
const probe = document.createElement("span");
const resolved = new Map();

function changed() {
  resolved.clear();
  changes.dispatchEvent(new Event("change"));
}

/** The value of a custom property such as --tx, as a canvas takes it. */
export function colour(name) {
  if (!resolved.has(name)) {
    probe.style.color = `var(${name})`;
    resolved.set(name, getComputedStyle(probe).color);
  }
  return resolved.get(name);
}

/** A container's colour, the same wherever it is shown; by the golden angle, so that those of neighbours differ. */
export function colourOf({ id, overview, blockSize }) {
  const number = overview.ephemeral_ports ? Math.floor(overview.ephemeral_ports[0] / blockSize) : parseInt(id.slice(0, 6), 16) || 0;
  return `hsl(${((number * 137.508) % 360).toFixed()} 58% ${colour("--is-dark") === colour("--yes") ? 62 : 46}%)`;
}

export function onThemeChange(listener) {
  changes.addEventListener("change", listener);
}

export function startTheme(button) {
  probe.hidden = true;
  document.body.append(probe);
  let choice = "auto";
  try {
    choice = localStorage.getItem(KEY) ?? "auto";
  } catch {
    // no storage here: the choice holds until the page is closed
  }
  const apply = (name) => {
    choice = name in CHOICES ? name : "auto";
    document.documentElement.dataset.theme = choice;
    button.textContent = CHOICES[choice];
    button.setAttribute("aria-label", `Colours: ${choice}`);
    changed();
  };
  button.addEventListener("click", () => {
    const names = Object.keys(CHOICES);
    apply(names[(names.indexOf(choice) + 1) % names.length]);
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // as above
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  apply(choice);
}
