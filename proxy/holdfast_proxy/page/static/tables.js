// The tables of proxies, launchers, kernels and events: cells of text, each row kept by its key.

import { Keyed, drawn, element, icon, setAll, setText } from "./elements.js";
import { kindOf } from "./kinds.js";
import { COLUMNS, NEARLY_FULL, concerns, stateOf } from "./ranking.js";
import { ago, bytes, count, grouped, moment, shortId } from "./words.js";

const PROXY_STATES = {
  ready: { icon: "check", tone: "good", word: "ready" },
  degraded: { icon: "triangle", tone: "warn", word: "degraded" },
  draining: { icon: "dashed", tone: "warn", word: "shutting down" },
  unreachable: { icon: "cross", tone: "bad", word: "does not answer" },
};

/** A table whose rows are made of named columns; each is `[label, class, update(cell, item)]`. */
class Table {
  constructor(body, columns, className = () => null) {
    this.rows = new Keyed(
      body,
      () => element("tr", {}, ...columns.map(([label, name], n) => element(n === 0 ? "th" : "td", { scope: n === 0 ? "row" : null, class: name, "data-label": label }))),
      (row, item) => {
        setAll(row, { class: className(item) });
        columns.forEach(([, , update], n) => update(row.children[n], item));
      },
    );
  }

  show(items) {
    this.rows.show(items);
  }
}

/** Text with more behind it: what is cut off, or the whole of what is shown short. */
function say(cell, text, whole = null) {
  setText(cell, text);
  setAll(cell, { title: whole });
}

/** A sign and a word, remade only when they change. */
function mark(cell, { icon: shape, tone, word }, whole = null) {
  if (cell.dataset.said !== `${shape} ${word}`) {
    cell.dataset.said = `${shape} ${word}`;
    cell.replaceChildren(element("span", { class: "mark-word", "data-tone": tone }, icon(shape), element("span", {}, word)));
  }
  setAll(cell, { title: whole });
}

/** A bar from 0 to 1 and its words; without a limit the words alone. */
function meter(cell, fill, text, whole = null) {
  if (cell.childElementCount === 0) {
    const bar = drawn("svg", { class: "meter", viewBox: "0 0 60 6", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(drawn("rect", { width: 60, height: 6, rx: 1, class: "track" }), drawn("rect", { height: 6, rx: 1, class: "fill" }));
    cell.append(element("span", { class: "measure" }, bar, element("span", {})));
  }
  const [bar, words] = cell.firstChild.children;
  setAll(bar, { class: fill === null ? "meter none" : "meter", "data-full": fill >= NEARLY_FULL ? "" : null });
  setAll(bar.lastChild, { width: fill === null ? 0 : Math.max(fill > 0 ? 1 : 0, fill * 60).toFixed(1) });
  setText(words, text);
  setAll(cell, { title: whole });
}

function proxyName(cell, { id, page, self, role }) {
  const state = `${id} ${page} ${self} ${role}`;
  if (cell.dataset.said === state) return;
  cell.dataset.said = state;
  const name = page === null || self ? element("span", {}, id) : element("a", { href: page, rel: "noreferrer" }, id);
  const notes = [role, self ? "this page" : null].filter(Boolean);
  cell.replaceChildren(name, ...notes.map((note) => element("span", { class: "note" }, note)));
}

export function proxyTable(body) {
  return new Table(body, [
    ["Proxy", "key", proxyName],
    ["Status", "", (cell, row) => mark(cell, PROXY_STATES[row.status] ?? { icon: "ring", tone: "plain", word: row.status }, row.message || null)],
    ["Kernels", "number", (cell, { owned }) => say(cell, grouped(owned))],
    ["Tunnels", "number", (cell, { tunnels }) => say(cell, tunnels === null ? "–" : grouped(tunnels), tunnels === null ? "it did not say" : null)],
    ["Version", "", (cell, { version }) => say(cell, version || "–")],
  ]);
}

export function launcherTable(body) {
  return new Table(body, [
    ["Launcher", "key", (cell, { id, labels }) => say(cell, id, labels.map(([key, value]) => `${key} = ${value}`).join("\n") || null)],
    ["Status", "", (cell, { alive, lastSeen, now }) => {
      const heard = lastSeen === null ? null : `last heard ${ago(lastSeen, now)}`;
      mark(cell, alive ? { icon: "check", tone: "good", word: "ready" } : { icon: "cross", tone: "bad", word: heard ?? "no heartbeat" }, heard);
    }],
    ["Kernels", "", (cell, { kernels, capacity }) => meter(cell, capacity ? Math.min(1, kernels / capacity) : null, capacity ? `${grouped(kernels)} of ${grouped(capacity)}` : grouped(kernels))],
    ["Engine", "", (cell, { engine }) => say(cell, engine || "–")],
  ]);
}

function kernelName(cell, kernel) {
  if (cell.childElementCount === 0) cell.append(element("span", { class: "spec" }), element("code", {}), element("span", { class: "why" }));
  const [name, id, why] = cell.children;
  setText(name, kernel.name || "–");
  setText(id, shortId(kernel.id));
  setAll(id, { title: kernel.id });
  const reasons = concerns(kernel).join("; ");
  const said = reasons || (kernel.reason ?? "");
  setText(why, said);
  setAll(why, { "data-tone": reasons ? "warn" : null, title: said.length > 90 ? said : null });
}

function logCell(cell, { log }) {
  if (log === null) meter(cell, null, "–", "its keeper has not said");
  else if (log.fill === null) meter(cell, null, bytes(log.bytes));
  else meter(cell, log.fill, bytes(log.bytes), `${bytes(log.bytes)} of ${bytes(log.limit)}`);
}

function activityCell(cell, { lastActivity, connections, incarnation, now }) {
  const more = [connections === null ? null : count(connections, "connection"), incarnation > 1 ? `started ${incarnation} times` : null];
  say(cell, lastActivity === null ? "–" : ago(lastActivity, now), [lastActivity === null ? null : moment(lastActivity, now), ...more].filter(Boolean).join("\n") || null);
}

const KERNEL_COLUMNS = {
  state: ["State", "state", (cell, { state }) => mark(cell, { ...stateOf(state), word: state })],
  kernel: ["Kernel", "key", kernelName],
  user: ["User", "clip", (cell, { user }) => say(cell, user || "–", user)],
  owner: ["Owner", "clip", (cell, { owner }) => say(cell, owner ?? "none", owner)],
  launcher: ["Launcher", "clip", (cell, { launcher }) => say(cell, launcher || "–", launcher)],
  log: ["Log", "", logCell],
  activity: ["Last active", "number", activityCell],
};

export function kernelTable(body) {
  return new Table(body, Object.values(KERNEL_COLUMNS), (kernel) => (kernel.state === "dead" ? "over" : null));
}

/** The heads of the kernels' table: buttons that sort. */
export class KernelHeads {
  constructor(row, select, onOrder) {
    this.heads = Object.entries(KERNEL_COLUMNS).map(([by, [label, name]]) => {
      const button = element("button", { type: "button" }, label, element("span", { class: "arrow", "aria-hidden": "true" }));
      button.addEventListener("click", () => onOrder(by));
      const head = element("th", { scope: "col", class: name === "number" ? "number" : null }, button);
      row.append(head);
      return { by, head };
    });
    const labels = { attention: "Attention first", ...Object.fromEntries(Object.entries(KERNEL_COLUMNS).map(([by, [label]]) => [by, `By ${label.toLowerCase()}`])) };
    for (const by of COLUMNS) select.append(element("option", { value: by }, labels[by]));
    this.select = select;
  }

  show({ by, reversed }) {
    for (const { by: own, head } of this.heads) {
      setAll(head, { "aria-sort": own !== by ? null : reversed ? "descending" : "ascending" });
    }
    if (this.select.value !== by) this.select.value = by;
  }
}

export function eventTable(body) {
  return new Table(body, [
    ["Time", "number", (cell, { time, now }) => say(cell, moment(time, now))],
    ["What", "", (cell, { kind }) => say(cell, kindOf(kind).word)],
    ["Kernel", "", (cell, { kernel }) => say(cell, kernel === null ? "–" : shortId(kernel), kernel)],
    ["Proxy", "", (cell, { proxy, launcher, kind }) => say(cell, (kind.startsWith("launcher") ? launcher : proxy) ?? "–")],
    ["Detail", "detail", (cell, { detail }) => say(cell, detail)],
  ]);
}
