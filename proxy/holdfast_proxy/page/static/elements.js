// Making elements. Text goes in as text nodes and attributes by setAttribute, never as markup:
// names of kernels, users and reasons come from elsewhere and may hold anything.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Children are elements or strings; undefined and null attributes are left out. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  setAll(made, attributes);
  made.append(...children);
  return made;
}

/** Set attributes that differ; null takes one away. */
export function setAll(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) target.removeAttribute(name);
    else if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value);
  }
}

/** Change text only when it differs, so that selections and screen readers stay undisturbed. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// 12 × 12. A shape for each meaning: no state is told by colour alone.
const SHAPES = {
  full: ["circle", { cx: 6, cy: 6, r: 4.5, class: "fill" }],
  ring: ["circle", { cx: 6, cy: 6, r: 4, class: "line" }],
  dashed: ["circle", { cx: 6, cy: 6, r: 4, class: "line", "stroke-dasharray": "2.5 2.5" }],
  half: ["path", { d: "M6 1.5a4.5 4.5 0 0 1 0 9zM6 2a4 4 0 0 0 0 8", class: "fill line" }],
  cross: ["path", { d: "M2.5 2.5l7 7M9.5 2.5l-7 7", class: "line thick" }],
  triangle: ["path", { d: "M6 1.5L11 10.5H1z", class: "fill" }],
  square: ["rect", { x: 2, y: 2, width: 8, height: 8, class: "line" }],
  check: ["path", { d: "M2 6.5L5 9.5L10 3", class: "line thick" }],
};

/** A small sign beside a word; screen readers are given the word only. */
export function icon(shape) {
  const [tag, attributes] = SHAPES[shape] ?? SHAPES.ring;
  const box = { viewBox: "0 0 12 12", class: "icon", "aria-hidden": "true", focusable: "false" };
  return drawn("svg", box, drawn(tag, attributes));
}

/** Show a list of items as children of `parent`, each made once by its key and then kept. */
export class Keyed {
  constructor(parent, make, update) {
    this.parent = parent;
    this.make = make;
    this.update = update;
    this.kept = new Map();
  }

  show(items) {
    const next = new Map();
    for (const item of items) {
      const node = this.kept.get(item.key) ?? this.make(item);
      this.update(node, item);
      next.set(item.key, node);
    }
    for (const [key, node] of this.kept) if (!next.has(key)) node.remove();
    this.kept = next;
    let place = this.parent.firstChild;
    for (const node of next.values()) {
      if (node === place) place = place.nextSibling;
      else this.parent.insertBefore(node, place);
    }
  }
}
