// What the page knows of the past: the timeline's lines, and how proxies were. Pure.
//
// A snapshot brings the newest lines only, so that it stays small; the page asks for many once and
// then adds what comes. When a proxy was there is read from the lines about it; whether it
// answered is only what the page itself saw since it was opened.

/** Lines that are kept: as many as a proxy keeps. */
export const KEPT = 2000;
const SEGMENTS = 200;
/** Two looks that are further apart (ms) leave a hole between them. */
const HOLE = 10_000;

/** Both lists without what is twice, oldest first. */
export function merged(known, fresh) {
  if (known.length === 0) return fresh.slice(-KEPT);
  const names = new Set(known.map(nameOf));
  const added = fresh.filter((event) => !names.has(nameOf(event)));
  if (added.length === 0) return known;
  return [...known, ...added].sort((a, b) => a.time - b.time).slice(-KEPT);
}

function nameOf({ time, kind, kernel, proxy, launcher, detail }) {
  return JSON.stringify([time, kind, kernel, proxy, launcher, detail]);
}

/** proxy → segments in which it was not simply ready, one look later. */
export function watched(seen, proxies, now) {
  const next = new Map(seen);
  for (const { id, status } of proxies) {
    const segments = next.get(id) ?? [];
    const last = segments.at(-1);
    const open = last?.open === true && now >= last.to && now - last.to <= HOLE;
    const before = open ? [...segments.slice(0, -1), { ...last, to: now, open: last.status === status }] : segments;
    const goesOn = status === "ready" || (open && last.status === status);
    next.set(id, goesOn ? before : [...before, { from: now, to: now, status, open: true }].slice(-SEGMENTS));
  }
  return next;
}

/**
 * proxy → segments `{from, to, status}`: "there" as far as the lines tell, then what was watched.
 * A proxy that is there now and of whose beginning nothing is known was there since `since`.
 */
export function presence(events, proxies, seen, { since, now }) {
  const found = new Map();
  const open = new Map();
  const heard = new Map();
  const close = (id, to) => {
    const from = open.get(id);
    open.delete(id);
    if (from !== undefined) found.set(id, [...(found.get(id) ?? []), { from, to, status: "there" }]);
  };
  for (const { kind, proxy, time } of events) {
    if (proxy === null) continue;
    heard.set(proxy, time);
    if (kind === "proxy joined" && !open.has(proxy)) open.set(proxy, time);
    if (kind === "proxy gone" || kind === "proxy draining") {
      if (!open.has(proxy) && !found.has(proxy)) open.set(proxy, since);
      close(proxy, time);
    }
  }
  for (const { id } of proxies) {
    if (!open.has(id)) open.set(id, lastEnd(found.get(id)) ?? since);
    close(id, now);
  }
  // Its end was never written down: it was there when it last wrote.
  for (const id of [...open.keys()]) close(id, heard.get(id));
  for (const [id, watching] of seen) {
    const there = (found.get(id) ?? []).flatMap((segment) => without(segment, watching));
    found.set(id, [...there, ...watching]);
  }
  return found;
}

/** What is left of a segment beside others, which are in order of time. */
function without(segment, others) {
  const left = [];
  let { from } = segment;
  for (const other of others) {
    if (other.to <= from || other.from >= segment.to) continue;
    if (other.from > from) left.push({ ...segment, from, to: other.from });
    from = other.to;
  }
  return from < segment.to ? [...left, { ...segment, from }] : left;
}

function lastEnd(segments) {
  return segments?.at(-1)?.to;
}
