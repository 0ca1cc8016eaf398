import assert from "node:assert/strict";
import { test } from "node:test";
import { described, layout } from "../../../../proxy/holdfast_proxy/page/static/geometry.js";
import { kindOf, ordered } from "../../../../proxy/holdfast_proxy/page/static/kinds.js";

const T0 = 1_800_000_000_000;
const MINUTES = 5 * 60_000;

function event(kind, seconds, changes = {}) {
  return { time: T0 + seconds * 1000, kind, kernel: null, proxy: "proxy-1", launcher: null, detail: "", from: null, ...changes };
}

function drawnOf(events, changes = {}) {
  return layout({ events, proxies: ["proxy-1", "proxy-2"], from: T0, to: T0 + MINUTES, width: 1000, ...changes });
}

test("each proxy has a lane, in the order of numbers, and one that is gone keeps its own", () => {
  const picture = drawnOf([event("started", 10, { proxy: "proxy-3" })], { proxies: ["proxy-10", "proxy-2"] });
  assert.deepEqual(picture.lanes.map(({ id, gone }) => [id, gone]), [["proxy-2", false], ["proxy-10", false], ["proxy-3", true]]);
});

test("later is further right, and everything stays inside", () => {
  for (const width of [320, 700, 1400]) {
    const picture = drawnOf([0, 60, 150, 300].map((second) => event("died", second)), { width });
    const xs = picture.marks.map(({ x }) => x);
    assert.deepEqual(xs, [...xs].sort((a, b) => a - b));
    assert.ok(xs.every((x) => x >= picture.left && x <= picture.right), `${xs}`);
    assert.ok(picture.marks.every(({ y }) => y > 0 && y < picture.height));
    assert.ok(picture.ticks.every(({ x }) => x >= picture.left && x <= picture.right));
  }
});

test("events of one kind that would lie on each other are one mark with a count", () => {
  const many = Array.from({ length: 200 }, (_, n) => event("taken over", 100 + n / 100, { kernel: `k${n}` }));
  const picture = drawnOf([...many, event("taken over", 250, { kernel: "z" })]);
  assert.deepEqual(picture.marks.map(({ count }) => count), [200, 1]);
});

test("groups stay as they are while the window moves", () => {
  const events = Array.from({ length: 40 }, (_, n) => event("started", n * 2.5, { kernel: `k${n}` }));
  const keys = (shift) => drawnOf(events, { from: T0 + shift, to: T0 + shift + MINUTES }).marks.map(({ key }) => key);
  const before = keys(0);
  for (let shift = 0; shift < 60_000; shift += 700) {
    assert.ok(keys(shift).every((key) => before.includes(key)), `${shift}`);
  }
});

test("a takeover is linked with the proxy that had the kernel before", () => {
  const events = [
    event("started", 10, { kernel: "k", proxy: "proxy-2" }),
    event("taken over", 100, { kernel: "k", proxy: "proxy-1", from: "proxy-2" }),
  ];
  const { links, marks } = drawnOf(events);
  assert.deepEqual(links.map(({ from, to, count }) => [from, to, count]), [["proxy-2", "proxy-1", 1]]);
  assert.deepEqual(marks.at(-1).formers, ["proxy-2"]);
  assert.doesNotMatch(links[0].path, /NaN|undefined/);
});

test("without a word of the former owner the timeline tells; its own again is no link", () => {
  const started = event("started", -4000, { kernel: "k", proxy: "proxy-2" });
  const taken = event("taken over", 100, { kernel: "k", proxy: "proxy-1" });
  assert.equal(drawnOf([started, taken]).links.length, 1);
  assert.equal(drawnOf([taken]).links.length, 0);
  assert.equal(drawnOf([event("taken over", 100, { kernel: "k", from: "proxy-1" })]).links.length, 0);
});

test("one takeover of kernels of two proxies has two links", () => {
  const taken = (n, from) => event("taken over", 100 + n / 10, { kernel: `k${n}`, from });
  const { links } = drawnOf([taken(0, "proxy-2"), taken(1, "proxy-3"), taken(2, "proxy-3")]);
  assert.deepEqual(links.map(({ from, count }) => [from, count]), [["proxy-2", 1], ["proxy-3", 2]]);
});

test("what happens to launchers has a lane of its own", () => {
  const picture = drawnOf([event("launcher gone", 10, { launcher: "node-1" })]);
  assert.deepEqual(picture.lanes.map(({ label }) => label), ["proxy-1", "proxy-2", "launchers"]);
  assert.equal(picture.marks[0].lane.label, "launchers");
});

test("marks of several kinds at one moment are beside each other", () => {
  const picture = drawnOf(["died", "deleted", "started"].map((kind) => event(kind, 100)));
  const places = new Set(picture.marks.map(({ x, y }) => `${Math.round(x)} ${y}`));
  assert.equal(places.size, 3);
});

test("a hundred proxies do not make a hundred lanes", () => {
  const proxies = Array.from({ length: 100 }, (_, n) => `proxy-${n}`);
  const events = proxies.map((proxy, n) => event("died", n, { proxy }));
  const picture = drawnOf(events, { proxies });
  assert.equal(picture.lanes.length, 12);
  assert.equal(picture.lanes.at(-1).label, "89 others");
  assert.equal(picture.marks.reduce((sum, { count }) => sum + count, 0), 100);
});

test("a busy day stays a bounded picture", () => {
  const events = Array.from({ length: 2000 }, (_, n) => event(["started", "died", "deleted", "taken over"][n % 4], n * 43, { kernel: `k${n}`, proxy: `proxy-${n % 3}` }));
  const picture = layout({ events, proxies: ["proxy-0", "proxy-1", "proxy-2"], from: T0, to: T0 + 86_400_000, width: 1100 });
  assert.ok(picture.marks.length < 700, `${picture.marks.length} marks`);
});

test("ticks are at round local times and not crowded", () => {
  const picture = drawnOf([], { from: T0 + 1234, to: T0 + 1234 + MINUTES, offset: 5.5 * 3_600_000 });
  assert.ok(picture.ticks.length >= 3);
  assert.ok(picture.ticks.every(({ time }) => (time + 5.5 * 3_600_000) % 30_000 === 0));
  const gaps = picture.ticks.slice(1).map(({ x }, n) => x - picture.ticks[n].x);
  assert.ok(Math.min(...gaps) >= 60);
});

test("bars are cut to the window", () => {
  const presence = new Map([["proxy-1", [{ from: T0 - 9e6, to: T0 + 60_000, status: "there" }, { from: T0 - 9e6, to: T0 - 1, status: "there" }]]]);
  const { bars, left } = drawnOf([], { presence });
  assert.equal(bars.length, 1);
  assert.equal(bars[0].x1, left);
});

test("in words: lane by lane, how often what happened", () => {
  const events = [event("taken over", 10, { kernel: "a" }), event("taken over", 200, { kernel: "b" }), event("died", 50, { proxy: "proxy-2" })];
  assert.equal(described(drawnOf(events)), "proxy-1: 2 taken over. proxy-2: 1 died.");
  assert.equal(described(drawnOf([])), "Nothing happened in this time.");
});

test("a kind that nobody knows is a dot with its own word, whatever the word is", () => {
  assert.equal(kindOf("quarantined").word, "quarantined");
  assert.equal(kindOf("constructor").word, "constructor");
  assert.equal(kindOf("").word, "something");
  assert.deepEqual(ordered(new Set(["zebra", "died", "taken over", "__proto__"])), ["taken over", "died", "__proto__", "zebra"]);
});
