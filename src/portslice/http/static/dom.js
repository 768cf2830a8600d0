// Elements. Text is only ever set as text: a container's name may look like markup.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function link(container) {
  return `#/${encodeURIComponent(container.name)}`;
}

/** The terms of a <dl>, made once and filled often. */
export class Terms {
  #values = new Map();

  constructor(list) {
    this.list = list;
  }

  set(term, text, { of = "", alert = false } = {}) {
    let value = this.#values.get(term);
    if (value === undefined) {
      value = element("dd", {}, element("span"), element("small"));
      this.list.append(element("div", {}, element("dt", { textContent: term }), value));
      this.#values.set(term, value);
    }
    setText(value.firstChild, text);
    setText(value.lastChild, of && ` of ${of}`);
    value.classList.toggle("alert", alert);
    return value;
  }

  clear() {
    this.#values.clear();
    this.list.replaceChildren();
  }
}
