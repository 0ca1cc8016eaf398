import assert from "node:assert/strict";
import { test } from "node:test";
import { KEPT, merged, presence, watched } from "../../../../proxy/holdfast_proxy/page/static/history.js";
import { ago, bytes, count, grouped, listed, shortId, span } from "../../../../proxy/holdfast_proxy/page/static/words.js";

function event(kind, time, changes = {}) {
  return { time, kind, kernel: null, proxy: "p1", launcher: null, detail: "", from: null, ...changes };
}

test("lines that come twice are there once, in order of time", () => {
  const first = merged([], [event("a", 1), event("b", 3)]);
  const second = merged(first, [event("b", 3), event("c", 2)]);
  assert.deepEqual(second.map(({ kind }) => kind), ["a", "c", "b"]);
  assert.equal(merged(second, [event("b", 3)]), second, "nothing new is the same list");
});

test("two kernels at the same moment are two lines, and the list is bounded", () => {
  assert.equal(merged([event("died", 1, { kernel: "a" })], [event("died", 1, { kernel: "b" })]).length, 2);
  const many = Array.from({ length: KEPT + 50 }, (_, n) => event("x", n));
  const kept = merged(merged([], many), [event("new", 1e9)]);
  assert.equal(kept.length, KEPT);
  assert.equal(kept.at(-1).kind, "new");
});

const spans = (map, id) => map.get(id).map(({ from, to, status }) => [from, to, status]);

test("a proxy is there from joining to going, and from then on again", () => {
  const events = [event("proxy joined", 100), event("proxy gone", 200), event("proxy joined", 300), event("proxy draining", 350)];
  assert.deepEqual(spans(presence(events, [], new Map(), { since: 0, now: 999 }), "p1"), [[100, 200, "there"], [300, 350, "there"]]);
});

test("one that is there now was there since it joined, or for as long as is known", () => {
  const now = presence([event("proxy joined", 100)], [{ id: "p1" }, { id: "p2" }], new Map(), { since: 50, now: 999 });
  assert.deepEqual(spans(now, "p1"), [[100, 999, "there"]]);
  assert.deepEqual(spans(now, "p2"), [[50, 999, "there"]]);
});

test("one whose end nobody wrote was there when it last wrote; one whose beginning nobody wrote, before", () => {
  const events = [event("proxy joined", 100), event("started", 150), event("proxy gone", 300, { proxy: "p2" })];
  const found = presence(events, [], new Map(), { since: 50, now: 999 });
  assert.deepEqual(spans(found, "p1"), [[100, 150, "there"]]);
  assert.deepEqual(spans(found, "p2"), [[50, 300, "there"]]);
});

test("what was watched: only what is not ready, and no guess about a time of no looks", () => {
  const look = (seen, status, now) => watched(seen, [{ id: "p1", status }], now);
  let seen = look(new Map(), "ready", 0);
  assert.deepEqual(spans(seen, "p1"), []);
  for (const now of [1000, 2000, 3000]) seen = look(seen, "unreachable", now);
  seen = look(seen, "degraded", 4000);
  seen = look(seen, "ready", 5000);
  seen = look(seen, "ready", 6000);
  assert.deepEqual(spans(seen, "p1"), [[1000, 4000, "unreachable"], [4000, 5000, "degraded"]]);
  seen = look(look(seen, "unreachable", 7000), "unreachable", 60_000);
  assert.deepEqual(spans(seen, "p1").slice(2), [[7000, 7000, "unreachable"], [60_000, 60_000, "unreachable"]]);
});

test("where it was watched not to be ready, it is not drawn as there as well", () => {
  const seen = new Map([["p1", [{ from: 200, to: 300, status: "unreachable" }, { from: 300, to: 400, status: "degraded" }, { from: 990, to: 999, status: "unreachable" }]]]);
  const found = presence([event("proxy joined", 100)], [{ id: "p1" }], seen, { since: 0, now: 999 });
  assert.deepEqual(spans(found, "p1"), [
    [100, 200, "there"],
    [400, 990, "there"],
    [200, 300, "unreachable"],
    [300, 400, "degraded"],
    [990, 999, "unreachable"],
  ]);
});

test("words", () => {
  assert.equal(count(1, "kernel"), "1 kernel");
  assert.equal(count(0, "kernel"), "0 kernels");
  assert.equal(count(2, "kernel that dies", "kernels that die"), "2 kernels that die");
  assert.equal(grouped(1234567), "1\u202f234\u202f567");
  assert.deepEqual([0, 1023, 1024, 10_240, 1_047_552, 1 << 30].map(bytes), ["0 B", "1.0 KiB", "1.0 KiB", "10 KiB", "1.0 MiB", "1.0 GiB"]);
  assert.deepEqual([-5, 89, 90, 5399, 5400, 200_000].map(span), ["0 s", "89 s", "2 min", "90 min", "2 h", "2 d"]);
  assert.deepEqual([ago(null, 5), ago(9000, 5000), ago(0, 60_000)], ["never", "just now", "60 s ago"]);
  assert.equal(shortId("12345678-1234-4123-8123-123456789abc"), "12345678");
  assert.equal(shortId("<img>"), "<img>");
  assert.deepEqual([listed([]), listed(["a"]), listed(["a", "b", "c"])], ["", "a", "a, b and c"]);
});
