// Which kernels come first, which are found, and what an admin should look at. Pure.

import { compare } from "./snapshot.js";
import { bytes, count, listed, shortId } from "./words.js";

/** From this share on, a log is nearly full: whoever is away for long will see a gap. */
export const NEARLY_FULL = 0.9;

// State → how urgent (0 first), sign, tone. Other words are shown as they are.
const STATES = {
  dead: { urgency: 0, icon: "cross", tone: "bad" },
  unreachable: { urgency: 1, icon: "triangle", tone: "warn" },
  unknown: { urgency: 2, icon: "triangle", tone: "warn" },
  deleting: { urgency: 4, icon: "dashed", tone: "plain" },
  restarting: { urgency: 4, icon: "dashed", tone: "warn" },
  starting: { urgency: 4, icon: "dashed", tone: "plain" },
  busy: { urgency: 5, icon: "full", tone: "live" },
  // As urgent as busy: kernels that go to and fro between the two would change places all the time.
  idle: { urgency: 5, icon: "ring", tone: "plain" },
};
const OTHER = { urgency: 3, icon: "square", tone: "plain" };

/** How a state is drawn and how urgent it is. */
export function stateOf(word) {
  return Object.hasOwn(STATES, word) ? STATES[word] : OTHER;
}

/** Why somebody should look at this kernel, as short phrases; empty when all is well. */
export function concerns(kernel) {
  const found = [];
  if (kernel.state === "dead") found.push(kernel.reason ?? "dead");
  else if (stateOf(kernel.state).urgency <= 2) found.push(kernel.reason ?? "its keeper does not answer");
  if (kernel.owner === null && kernel.state !== "dead") found.push("no proxy owns it");
  if (kernel.log?.fill >= NEARLY_FULL) found.push("its log is nearly full");
  if (kernel.log?.lost > 0) found.push(`${count(kernel.log.lost, "message")} left its log unread`);
  return found;
}

function urgency(kernel) {
  const state = stateOf(kernel.state).urgency;
  if (state <= 2) return state;
  if (kernel.owner === null) return 2.5;
  if (kernel.log?.fill >= NEARLY_FULL) return 2.7;
  return state;
}

const down = (value) => (value === null || value === undefined ? Infinity : -value);
// Column → what it is sorted by; "up" is what one click gives.
const KEYS = {
  attention: (kernel) => urgency(kernel),
  state: (kernel) => kernel.state,
  kernel: (kernel) => kernel.name,
  user: (kernel) => kernel.user,
  owner: (kernel) => kernel.owner ?? "",
  launcher: (kernel) => kernel.launcher,
  log: (kernel) => down(kernel.log?.fill ?? kernel.log?.bytes ?? null),
  activity: (kernel) => down(kernel.lastActivity),
};
export const COLUMNS = Object.keys(KEYS);

/** Sorted by one column, then by newest activity and id, so that equal rows keep their places. */
export function sorted(kernels, { by = "attention", reversed = false } = {}) {
  const key = KEYS[by] ?? KEYS.attention;
  const sign = reversed ? -1 : 1;
  return kernels
    .map((kernel) => ({ kernel, value: key(kernel) }))
    .sort((a, b) => sign * order(a.value, b.value) || tie(by, a.kernel, b.kernel))
    .map(({ kernel }) => kernel);
}

function order(a, b) {
  if (typeof a === "string" || typeof b === "string") return compare(String(a), String(b));
  return a === b ? 0 : a < b ? -1 : 1;
}

function tie(by, a, b) {
  // Activity changes all the time: only where it is asked for may it move rows.
  const newest = by === "attention" ? order(urgency(a), urgency(b)) : 0;
  return newest || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** Kernels that have every word somewhere, and the state if one is asked for. */
export function found(kernels, { words = "", state = "" } = {}) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return kernels.filter((kernel) => {
    if (state !== "" && kernel.state !== state) return false;
    if (wanted.length === 0) return true;
    const parts = [kernel.id, kernel.name, kernel.user, kernel.launcher, kernel.owner ?? "no owner"];
    const all = [...parts, kernel.state, kernel.reason ?? ""].join("\n").toLowerCase();
    return wanted.every((word) => all.includes(word));
  });
}

/** One page of a list: the rows, and where they are. A page that is gone becomes the last one. */
export function paged(items, page, size) {
  const pages = Math.max(1, Math.ceil(items.length / size));
  const at = Math.min(Math.max(0, page), pages - 1);
  return { rows: items.slice(at * size, (at + 1) * size), page: at, pages, first: at * size + 1 };
}

/** state → how many, most urgent first. */
export function tally(kernels) {
  const counts = new Map();
  for (const { state } of kernels) counts.set(state, (counts.get(state) ?? 0) + 1);
  const rank = ([state]) => stateOf(state).urgency;
  return [...counts].sort((a, b) => rank(a) - rank(b) || compare(a[0], b[0]));
}

/** What is wrong in the cluster: `{tone, text}`, the worst first. */
export function problems(snapshot) {
  const bad = [];
  const warn = [];
  if (!snapshot.etcd.reachable) {
    bad.push("etcd cannot be reached. Open notebooks go on; kernels cannot be started or deleted.");
  }
  for (const proxy of snapshot.proxies) proxyProblem(proxy, bad, warn);
  if (snapshot.launchers.length === 0) warn.push("No launcher has joined: no kernel can be started.");
  const away = snapshot.launchers.filter((launcher) => !launcher.alive).map(({ id }) => id);
  if (away.length) bad.push(`No heartbeat from ${listed(away)}. New kernels go elsewhere.`);
  const full = snapshot.launchers.filter(isFull).map(({ id }) => id);
  if (full.length) warn.push(`${listed(full)}: no room for more kernels.`);
  kernelProblems(snapshot.kernels, bad, warn);
  warn.push(...snapshot.etcd.warnings);
  return [...bad.map((text) => ({ tone: "bad", text })), ...warn.map((text) => ({ tone: "warn", text }))];
}

function isFull(launcher) {
  return launcher.alive && launcher.capacity !== null && launcher.kernels >= launcher.capacity;
}

function proxyProblem(proxy, bad, warn) {
  if (proxy.status === "unreachable") bad.push(`${proxy.id} does not answer. Other proxies take its kernels over.`);
  if (proxy.status === "degraded") warn.push(`${proxy.id}: ${proxy.message || "it starts and deletes nothing now"}.`);
  if (proxy.status === "draining") warn.push(`${proxy.id} is shutting down; its clients move to other proxies.`);
}

function kernelProblems(kernels, bad, warn) {
  const dead = kernels.filter(({ state }) => state === "dead");
  const lost = kernels.filter(({ state }) => state !== "dead" && stateOf(state).urgency <= 2);
  const free = kernels.filter(({ state, owner }) => owner === null && state !== "dead");
  const full = kernels.filter(({ log }) => log?.fill >= NEARLY_FULL);
  if (dead.length) bad.push(named(dead, "dead kernel"));
  if (lost.length) bad.push(named(lost, "kernel that does not answer", "kernels that do not answer"));
  if (free.length) warn.push(named(free, "kernel without an owner", "kernels without an owner"));
  if (full.length) {
    const worst = full.reduce((a, b) => (b.log.fill > a.log.fill ? b : a));
    warn.push(`${count(full.length, "log")} nearly full, the fullest ${bytes(worst.log.bytes)} (${shortId(worst.id)}).`);
  }
}

function named(kernels, one, many) {
  const first = kernels[0];
  const said = `${count(kernels.length, one, many)}: ${shortId(first.id)}`;
  if (kernels.length > 1) return `${said} and others.`;
  return first.reason === null ? `${said}.` : `${said}, ${first.reason}.`;
}
