// The timeline as shapes: lanes, marks, links, ticks. Pure: events and a width in, numbers out.
//
// Each proxy has a lane. An event is a mark in the lane of the proxy that wrote it; events of one
// kind that would lie upon each other are one mark with a count. A takeover also has a link from
// the lane of the proxy that owned the kernel before, as far as the timeline tells.

import { compare } from "./snapshot.js";
import { kindOf } from "./kinds.js";

const MAX_LANES = 12;
const MARK = 18;
const AXIS = 26;
const ROWS = [0, -16, 16];
const STEPS = [5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600].map((s) => s * 1000);
/** Kinds by which a proxy becomes the owner of a kernel, or shows that it is. */
const OWNING = new Set(["started", "taken over", "restarted"]);
/** The lane of proxies beyond the last one that has a lane of its own, and of what has none. */
const ELSEWHERE = "";
/** What happens to launchers is seen by some proxy, but is not that proxy's. No id has a space. */
const LAUNCHERS = "the launchers";

/**
 * `events`: oldest first, `proxies`: ids that exist now, `presence`: id → segments,
 * `from`, `to`: ms since 1970, `offset`: ms that local time is ahead of UTC, for round ticks.
 */
export function layout({ events, proxies, presence = new Map(), from, to, width, offset = 0 }) {
  const narrow = width < 600;
  const sizes = narrow ? { left: 10, right: 30, lane: 64, line: 40 } : { left: 132, right: 40, lane: 56, line: 28 };
  const scale = (time) => sizes.left + ((time - from) / (to - from)) * (width - sizes.left - sizes.right);
  const owned = withFormer(events);
  const visible = owned.filter(({ event }) => event.time >= from && event.time <= to);
  const lanes = lanesOf(visible, proxies, presence, from, sizes);
  const laneOf = (id) => lanes.byId.get(id) ?? lanes.byId.get(ELSEWHERE);
  const groups = grouped(owned, (to - from) / (width - sizes.left - sizes.right), laneOf);
  const shown = groups.filter(({ last }) => last >= from && last <= to);
  const marks = placed(shown, scale, sizes.left);
  return {
    width,
    height: lanes.list.length * sizes.lane + AXIS,
    narrow,
    left: sizes.left,
    right: width - sizes.right,
    lanes: lanes.list,
    bars: barsOf(lanes.list, presence, from, to, scale),
    ticks: ticksOf(from, to, width - sizes.left - sizes.right, offset, scale),
    marks,
    links: marks.flatMap((mark) => linksOf(mark, laneOf)),
  };
}

/** Each event with the proxy that owned its kernel before, where the timeline tells. */
function withFormer(events) {
  const owner = new Map();
  return events.map((event) => {
    // A line of an earlier version does not say from whom.
    const former = event.from ?? owner.get(event.kernel) ?? null;
    if (event.kernel !== null && OWNING.has(event.kind)) owner.set(event.kernel, event.proxy);
    return { event, former, home: homeOf(event) };
  });
}

function homeOf({ kind, proxy }) {
  return kind.startsWith("launcher") ? LAUNCHERS : (proxy ?? ELSEWHERE);
}

function lanesOf(visible, proxies, presence, from, sizes) {
  const present = [...proxies].sort(compare);
  const named = new Set(visible.flatMap(({ home, former }) => [home, former]));
  for (const [id, segments] of presence) if (segments.some(({ to }) => to >= from)) named.add(id);
  named.delete(null);
  const hasLaunchers = named.delete(LAUNCHERS);
  const hasNone = named.delete(ELSEWHERE);
  const gone = [...named].filter((id) => !present.includes(id)).sort(compare);
  const all = [...present, ...gone];
  const kept = all.length > MAX_LANES ? all.slice(0, MAX_LANES - 1) : all;
  const rest = all.length - kept.length;
  const list = kept.map((id) => ({ id, label: id, gone: !present.includes(id) }));
  if (rest > 0 || hasNone || list.length === 0) {
    list.push({ id: ELSEWHERE, label: rest > 0 ? `${rest} others` : "cluster", gone: false });
  }
  if (hasLaunchers) list.push({ id: LAUNCHERS, label: "launchers", gone: false });
  const lanes = list.map((lane, n) => ({ ...lane, top: n * sizes.lane, y: n * sizes.lane + sizes.line }));
  return { list: lanes, byId: new Map(lanes.map((lane) => [lane.id, lane])) };
}

/**
 * Events of one lane and kind within a mark's width. Built from all events, also those outside the
 * window, and by differences of time, so that groups keep together while the window moves.
 */
function grouped(owned, perPixel, laneOf) {
  const open = new Map();
  const groups = [];
  for (const { event, former, home } of owned) {
    const lane = laneOf(home);
    if (lane === undefined) continue; // of a proxy that is outside the window as a whole
    const name = `${lane.id}\n${event.kind}`;
    let group = open.get(name);
    if (group === undefined || event.time - group.first > MARK * perPixel) {
      group = { key: `${name}\n${event.time}`, lane, kind: event.kind, first: event.time, last: event.time, events: [], formers: [] };
      open.set(name, group);
      groups.push(group);
    }
    group.last = event.time;
    group.events.push(event);
    group.formers.push(former);
  }
  return groups.sort((a, b) => a.first - b.first);
}

/** Marks with a place: in the middle of the lane, or above or below what is there already. */
function placed(groups, scale, left) {
  const ends = new Map();
  return groups.map((group) => {
    const x = Math.max(left + 2, scale(group.last));
    const count = group.events.length;
    const room = MARK + (count > 1 ? 6 + 7 * String(count).length : 0);
    const rows = ends.get(group.lane.id) ?? ROWS.map(() => -Infinity);
    ends.set(group.lane.id, rows);
    let row = rows.findIndex((end) => end <= x - MARK / 2);
    if (row < 0) row = rows.indexOf(Math.min(...rows));
    rows[row] = x - MARK / 2 + room;
    return { ...group, x, y: group.lane.y + ROWS[row], count, ...kindOf(group.kind) };
  });
}

function linksOf(mark, laneOf) {
  if (mark.kind !== "taken over") return [];
  const counts = new Map();
  for (const former of mark.formers) {
    const lane = former === null ? undefined : laneOf(former);
    if (lane !== undefined && lane.id !== mark.lane.id) counts.set(lane, (counts.get(lane) ?? 0) + 1);
  }
  return [...counts].map(([lane, count]) => ({
    key: `${mark.key}\n${lane.id}`,
    from: lane.id,
    to: mark.lane.id,
    count,
    path: curve(mark.x, lane.y, mark.y),
  }));
}

/** Leaves the old lane a little earlier and ends at the mark's edge. */
function curve(x, start, end) {
  const side = end > start ? -1 : 1;
  const tip = end + side * 12;
  const bend = Math.min(26, Math.abs(tip - start) / 2);
  return `M${round(x - 16)} ${round(start)}C${round(x - 4)} ${round(start)} ${round(x)} ${round(start - side * 6)} ${round(x)} ${round(start - side * bend)}L${round(x)} ${round(tip)}`;
}

function barsOf(lanes, presence, from, to, scale) {
  return lanes.flatMap((lane) =>
    (presence.get(lane.id) ?? [])
      .filter((segment) => segment.to >= from && segment.from <= to)
      .map((segment) => ({
        key: `${lane.id}\n${segment.from}\n${segment.status}`,
        x1: scale(Math.max(segment.from, from)),
        x2: scale(Math.min(segment.to, to)),
        y: lane.y,
        status: segment.status,
      })),
  );
}

function ticksOf(from, to, pixels, offset, scale) {
  const wanted = ((to - from) / pixels) * 84;
  const step = STEPS.find((each) => each >= wanted) ?? STEPS.at(-1);
  const ticks = [];
  const begin = Math.ceil((from + offset) / step) * step - offset;
  for (let time = begin; time <= to; time += step) ticks.push({ time, x: scale(time), seconds: step < 60_000 });
  return ticks;
}

/** The picture in words, for who does not see it: what happened, lane by lane. */
export function described(picture) {
  const total = new Map();
  for (const { lane, word, count } of picture.marks) {
    const words = total.get(lane.label) ?? new Map();
    words.set(word, (words.get(word) ?? 0) + count);
    total.set(lane.label, words);
  }
  if (total.size === 0) return "Nothing happened in this time.";
  const lines = [...total].map(([label, words]) => {
    const said = [...words].map(([word, count]) => `${count} ${word}`);
    return `${label}: ${said.join(", ")}.`;
  });
  return lines.join(" ");
}

function round(number) {
  return Math.round(number * 10) / 10;
}
