// Draws the timeline as SVG, and keeps it while it moves: marks are made once, so that one that
// has the focus or the pointer keeps it. What is where is decided in geometry.js.

import { Keyed, drawn, element, setAll, setText } from "./elements.js";
import { described, layout } from "./geometry.js";
import { kindOf, ordered } from "./kinds.js";
import { clock, count, moment, shortId } from "./words.js";

const NAMED = 4;

export class Picture {
  constructor({ place, words, empty, legend, tip }) {
    Object.assign(this, { place, words, empty, legend, tip });
    this.svg = drawn("svg", { role: "group", "aria-label": "Timeline. Arrow keys move from mark to mark." });
    this.svg.append(arrowHead());
    const layer = (name) => this.svg.appendChild(drawn("g", { class: name }));
    this.ticks = new Keyed(layer("ticks"), makeTick, updateTick);
    this.lanes = new Keyed(layer("lanes"), makeLane, updateLane);
    this.bars = new Keyed(layer("bars"), () => drawn("line"), updateBar);
    this.links = new Keyed(layer("links"), () => drawn("path", { "marker-end": "url(#arrow)" }), (node, { path }) => setAll(node, { d: path }));
    this.marks = new Keyed(layer("marks"), makeMark, updateMark);
    this.legendItems = new Keyed(legend, makeLegend, () => {});
    place.append(this.svg);
    this.marked = [];
    this.focused = null;
    this.now = 0;
    this.listen();
  }

  /** Draw what is known now. `width` in CSS pixels; 0 (a hidden page) draws nothing. */
  show({ events, proxies, presence, from, to, width, waiting }) {
    if (width < 40) return;
    const offset = -new Date(to).getTimezoneOffset() * 60_000;
    const picture = layout({ events, proxies, presence, from, to, width, offset });
    this.now = to;
    this.marked = picture.marks;
    setAll(this.svg, { width, height: picture.height, viewBox: `0 0 ${width} ${picture.height}`, class: picture.narrow ? "narrow" : "wide" });
    this.ticks.show(picture.ticks.map((tick) => ({ ...tick, key: tick.time, height: picture.height })));
    this.lanes.show(picture.lanes.map((lane) => ({ ...lane, key: lane.id, left: picture.left, right: picture.right, narrow: picture.narrow })));
    this.bars.show(picture.bars);
    this.links.show(picture.links);
    this.marks.show(picture.marks);
    this.rove();
    this.legendItems.show(ordered(new Set(picture.marks.map(({ kind }) => kind))).map((kind) => ({ key: kind, kind })));
    this.empty.hidden = waiting || picture.marks.length > 0;
    setText(this.empty, "Nothing happened in this time.");
    setText(this.words, described(picture));
    this.explain();
  }

  listen() {
    const over = (event) => event.target.closest?.("[data-mark]") ?? null;
    // On the place around it: Chromium lets the Tab key stop at an SVG that listens to the focus.
    this.place.addEventListener("pointerover", (event) => this.point(over(event)));
    this.place.addEventListener("pointerleave", () => this.point(null));
    this.place.addEventListener("focusin", (event) => this.focus(over(event)));
    this.place.addEventListener("focusout", () => this.focus(null));
    this.place.addEventListener("keydown", (event) => this.press(event));
  }

  point(node) {
    this.pointed = node;
    this.explain();
  }

  focus(node) {
    this.focused = node;
    if (node !== null) this.last = node;
    this.explain();
  }

  press(event) {
    const nodes = this.inTime();
    const at = nodes.indexOf(this.focused);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: nodes.length - 1 }[event.key];
    if (event.key === "Escape") this.hide();
    if (to === undefined || at < 0) return;
    event.preventDefault();
    nodes[Math.min(nodes.length - 1, Math.max(0, to))].focus();
    this.rove();
  }

  inTime() {
    return this.marked.map(({ key }) => this.marks.kept.get(key)).filter(Boolean);
  }

  /** One mark only is a stop of the Tab key: the last one visited, else the newest. */
  rove() {
    const nodes = this.inTime();
    const stop = nodes.includes(this.last) ? this.last : nodes.at(-1);
    for (const node of nodes) setAll(node, { tabindex: node === stop ? 0 : -1 });
  }

  /** Put the tip beside the mark that is pointed at or has the focus. */
  explain() {
    const node = this.pointed?.isConnected ? this.pointed : this.focused?.isConnected ? this.focused : null;
    const mark = node === null ? undefined : this.marked.find(({ key }) => key === node.dataset.mark);
    if (mark === undefined) {
      this.hide();
      return;
    }
    const lines = tipLines(mark, this.now);
    this.tip.replaceChildren(...lines.map((line, n) => element(n === 0 ? "strong" : "span", {}, line)));
    this.tip.hidden = false;
    const frame = this.tip.parentElement.getBoundingClientRect();
    const picture = this.svg.getBoundingClientRect();
    const x = picture.left - frame.left + mark.x - this.tip.offsetWidth / 2;
    const most = frame.width - this.tip.offsetWidth - 8;
    this.tip.style.left = `${Math.max(8, Math.min(most, x))}px`;
    const above = picture.top - frame.top + mark.y - this.tip.offsetHeight - 14;
    this.tip.style.top = `${above >= 0 ? above : picture.top - frame.top + mark.y + 16}px`;
  }

  hide() {
    this.tip.hidden = true;
  }
}

/** What a mark stands for, as lines of text. */
export function tipLines(mark, now) {
  const first = mark.events[0];
  const several = mark.count > 1;
  const title = several ? `${count(mark.count, "time", "times")} ${mark.word}` : mark.word;
  const when = several && clock(mark.first) !== clock(mark.last) ? `${moment(mark.first, now)} to ${clock(mark.last)}` : moment(mark.last, now);
  const lines = [title, `${when} · ${mark.lane.label}`];
  if (!several) {
    if (first.kernel !== null) lines.push(`kernel ${shortId(first.kernel)}`);
    const former = mark.formers[0];
    if (mark.kind === "taken over" && former !== null) lines.push(`before: ${former}`);
    if (first.detail) lines.push(first.detail);
    return lines;
  }
  const named = mark.events.slice(0, NAMED).map(({ kernel, detail }) => (kernel === null ? detail : shortId(kernel)));
  const more = mark.count - named.length;
  lines.push(named.filter(Boolean).join(", ") + (more > 0 ? ` and ${more} more` : ""));
  return lines;
}

function arrowHead() {
  const head = { id: "arrow", viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" };
  return drawn("defs", {}, drawn("marker", head, drawn("path", { d: "M0 0L8 4L0 8z", class: "arrow" })));
}

function makeTick() {
  return drawn("g", {}, drawn("line"), drawn("text", { "text-anchor": "middle" }));
}

function updateTick(node, { x, height, time, seconds }) {
  setAll(node.firstChild, { x1: x, x2: x, y1: 0, y2: height - 22 });
  setAll(node.lastChild, { x, y: height - 6 });
  setText(node.lastChild, seconds ? clock(time) : clock(time).slice(0, 5));
}

function makeLane() {
  return drawn("g", {}, drawn("line", { class: "lane" }), drawn("text", { class: "lane-name" }));
}

function updateLane(node, { y, top, left, right, label, gone, narrow }) {
  const [line, text] = node.childNodes;
  setAll(node, { class: gone ? "gone" : null });
  setAll(line, { x1: left, x2: right, y1: y, y2: y });
  setAll(text, narrow ? { x: left, y: top + 14 } : { x: 0, y: y + 4 });
  const most = narrow ? Math.floor((right - left) / 8) : 16;
  const said = gone ? `${label} (gone)` : label;
  setText(text, said.length > most ? `${said.slice(0, most - 1)}…` : said);
  if (text.dataset.whole !== said) {
    text.dataset.whole = said;
    text.append(drawn("title", {}, said));
  }
}

function updateBar(node, { x1, x2, y, status }) {
  setAll(node, { x1, x2: Math.max(x2, x1 + 1), y1: y, y2: y, class: "bar-line", "data-status": status });
}

function makeMark({ key, tone, path, solid, heavy }) {
  const node = drawn("g", { class: "mark", "data-tone": tone, tabindex: -1, role: "img" });
  node.dataset.mark = key;
  node.append(
    drawn("circle", { class: "halo", r: 11 }),
    drawn("path", { d: path, class: `${solid ? "solid" : "open"}${heavy ? " heavy" : ""}` }),
    drawn("text", { x: 11, y: 4 }),
  );
  return node;
}

function updateMark(node, mark) {
  setAll(node, { transform: `translate(${mark.x.toFixed(1)} ${mark.y})`, "aria-label": tipLines(mark, mark.last).join(", ") });
  setText(node.lastChild, mark.count > 1 ? `×${mark.count}` : "");
}

function makeLegend({ kind }) {
  const { word, tone, path, solid, heavy } = kindOf(kind);
  const sign = drawn("svg", { viewBox: "-8 -8 16 16", class: "mark", "data-tone": tone, "aria-hidden": "true" });
  sign.append(drawn("path", { d: path, class: `${solid ? "solid" : "open"}${heavy ? " heavy" : ""}` }));
  return element("li", {}, sign, word);
}
