// A snapshot as the proxy sent it → one with every field present and of its type. Pure.
// What is absent becomes null or empty: a proxy that knows less must not break the page.

/** The page and the proxy speak different versions: only loading the page anew helps. */
export class OtherVersion extends Error {}

const LONGEST = 2000;

function text(value, otherwise = "") {
  return typeof value === "string" ? value.slice(0, LONGEST) : otherwise;
}

function maybe(value) {
  return typeof value === "string" && value !== "" ? value.slice(0, LONGEST) : null;
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** ms since 1970, or null. */
export function time(value) {
  const found = typeof value === "string" ? Date.parse(value) : NaN;
  return Number.isNaN(found) ? null : found;
}

function list(value, read) {
  return Array.isArray(value) ? value.filter((item) => item !== null && typeof item === "object").map(read) : [];
}

function object(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

/** Links lead to other proxies; a URL of another scheme is no link. */
export function webUrl(value) {
  try {
    const url = new URL(value);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href.replace(/\/$/, "") : null;
  } catch {
    return null;
  }
}

function readProxy(raw) {
  return {
    id: text(raw.id),
    url: webUrl(raw.url),
    version: text(raw.version),
    bootId: text(raw.boot_id),
    self: raw.self === true,
    status: text(raw.status, "unknown"),
    message: text(raw.message),
    role: maybe(raw.role),
    tunnels: number(raw.tunnels),
    owned: number(raw.owned) ?? 0,
  };
}

function readLauncher(raw) {
  return {
    id: text(raw.id),
    engine: text(raw.engine),
    labels: Object.entries(object(raw.labels)).map(([key, value]) => [text(key), text(String(value))]),
    capacity: number(object(raw.capacity).kernels),
    kernels: number(raw.kernels) ?? 0,
    alive: raw.alive === true,
    lastSeen: time(raw.last_seen),
  };
}

function readLog(raw) {
  if (raw === null || typeof raw !== "object") return null;
  const held = number(raw.bytes);
  const limit = number(raw.limit);
  if (held === null) return null;
  const lost = number(raw.lost) ?? 0;
  return { bytes: held, limit, lost, fill: limit ? Math.min(1, Math.max(0, held / limit)) : null };
}

function readKernel(raw) {
  return {
    id: text(raw.id),
    name: text(raw.name),
    user: text(raw.user),
    launcher: text(raw.launcher),
    owner: maybe(raw.owner),
    state: text(raw.state, "unknown") || "unknown",
    reason: maybe(raw.reason),
    lastActivity: time(raw.last_activity),
    connections: number(raw.connections),
    incarnation: number(raw.incarnation) ?? 0,
    since: time(raw.started) ?? time(raw.changed),
    log: readLog(raw.log),
  };
}

function readEvent(raw) {
  return {
    time: time(raw.time),
    kind: text(raw.kind),
    kernel: maybe(raw.kernel),
    proxy: maybe(raw.proxy),
    launcher: maybe(raw.launcher),
    detail: text(raw.detail),
    from: maybe(raw.from),
  };
}

/** Throws OtherVersion, or TypeError for what is no snapshot at all. */
export function readSnapshot(raw) {
  if (raw === null || typeof raw !== "object") throw new TypeError("no snapshot");
  if (raw.version !== 1) throw new OtherVersion(String(raw.version));
  const etcd = object(raw.etcd);
  const events = list(raw.timeline, readEvent).filter((event) => event.time !== null);
  return {
    cluster: text(raw.cluster),
    self: text(raw.self),
    mode: text(raw.mode),
    era: number(raw.era),
    time: time(raw.time) ?? 0,
    etcd: {
      reachable: etcd.reachable === true,
      version: maybe(etcd.version),
      warnings: Array.isArray(etcd.warnings) ? etcd.warnings.map((line) => text(line)).filter(Boolean) : [],
      leaseAge: number(etcd.lease_age),
    },
    proxies: list(raw.proxies, readProxy).sort((a, b) => compare(a.id, b.id)),
    launchers: list(raw.launchers, readLauncher).sort((a, b) => compare(a.id, b.id)),
    kernels: list(raw.kernels, readKernel),
    timeline: events.sort((a, b) => a.time - b.time),
  };
}

/** Names in the order that people expect: proxy-2 before proxy-10. */
export function compare(a, b) {
  return NATURAL.compare(a, b);
}

const NATURAL = new Intl.Collator("en", { numeric: true });
