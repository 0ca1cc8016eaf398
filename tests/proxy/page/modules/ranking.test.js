import assert from "node:assert/strict";
import { test } from "node:test";
import { concerns, found, paged, problems, sorted, stateOf, tally } from "../../../../proxy/holdfast_proxy/page/static/ranking.js";
import { readSnapshot } from "../../../../proxy/holdfast_proxy/page/static/snapshot.js";

function kernel(id, changes = {}) {
  return { id, name: "python3", user: "ada", launcher: "node-1", owner: "proxy-1", state: "idle", reason: null, lastActivity: 1000, connections: 0, incarnation: 1, since: null, log: null, ...changes };
}

const ids = (kernels) => kernels.map(({ id }) => id).join("");

test("what needs attention comes first, the most urgent of it at the top", () => {
  const kernels = [
    kernel("g", { state: "idle" }),
    kernel("f", { state: "busy" }),
    kernel("e", { state: "starting" }),
    kernel("d", { log: { bytes: 95, limit: 100, fill: 0.95 } }),
    kernel("c", { owner: null }),
    kernel("b", { state: "unreachable" }),
    kernel("a", { state: "dead" }),
  ];
  assert.equal(ids(sorted(kernels)), "abcdefg");
  assert.equal(ids(sorted(kernels, { reversed: true })), "fgedcba", "equal ones keep their order");
  assert.equal(ids(kernels), "gfedcba", "the argument stays as it was");
});

test("equal rows keep one order, whatever order they came in", () => {
  const kernels = ["c", "a", "b"].map((id) => kernel(id));
  assert.equal(ids(sorted(kernels)), "abc");
  assert.equal(ids(sorted(kernels.toReversed())), "abc");
});

test("going busy and idle moves no row", () => {
  const order = (states) => ids(sorted(states.map((state, n) => kernel("abcd"[n], { state }))));
  assert.equal(order(["idle", "busy", "idle", "busy"]), "abcd");
  assert.equal(order(["busy", "idle", "busy", "idle"]), "abcd");
});

test("numbers in names sort as numbers, absent values last", () => {
  const owners = [kernel("b", { owner: "proxy-10" }), kernel("a", { owner: "proxy-2" })];
  assert.equal(ids(sorted(owners, { by: "owner" })), "ab");
  const logs = [kernel("a"), kernel("b", { log: { bytes: 1, fill: 0.1 } }), kernel("c", { log: { bytes: 9, fill: 0.9 } })];
  assert.equal(ids(sorted(logs, { by: "log" })), "cba");
  const times = [kernel("a", { lastActivity: null }), kernel("b", { lastActivity: 1 }), kernel("c", { lastActivity: 2 })];
  assert.equal(ids(sorted(times, { by: "activity" })), "cba");
  assert.equal(ids(sorted(times, { by: "no such column" })), "abc");
});

test("every word must be somewhere, in any field and case", () => {
  const kernels = [kernel("a", { user: "Ada" }), kernel("b", { user: "Grace", reason: "out of memory" }), kernel("c", { owner: null })];
  assert.equal(ids(found(kernels, { words: "GRACE  memory" })), "b");
  assert.equal(ids(found(kernels, { words: "grace node-2" })), "");
  assert.equal(ids(found(kernels, { words: "no owner" })), "c");
  assert.equal(ids(found(kernels, { words: "   " })), "abc");
  assert.equal(ids(found(kernels, { words: ".*" })), "", "words are no pattern");
  assert.equal(ids(found([kernel("a", { state: "dead" }), kernel("b")], { state: "dead" })), "a");
});

test("a page that is gone is the last one", () => {
  const items = Array.from({ length: 120 }, (_, n) => n);
  assert.deepEqual(paged(items, 0, 50).rows.length, 50);
  assert.deepEqual(paged(items, 9, 50), { rows: items.slice(100), page: 2, pages: 3, first: 101 });
  assert.deepEqual(paged([], 3, 50), { rows: [], page: 0, pages: 1, first: 1 });
  assert.equal(paged(items, -1, 50).page, 0);
});

test("states are counted with the urgent ones first; a strange one is no error", () => {
  const kernels = [kernel("a"), kernel("b"), kernel("c", { state: "dead" }), kernel("d", { state: "toString" })];
  assert.deepEqual(tally(kernels), [["dead", 1], ["toString", 1], ["idle", 2]]);
  assert.equal(stateOf("__proto__").urgency, 3);
});

test("concerns are said for the kernel, also several at a time", () => {
  assert.deepEqual(concerns(kernel("a")), []);
  assert.deepEqual(concerns(kernel("a", { state: "dead", reason: "OOM", owner: null })), ["OOM"]);
  const log = { bytes: 9, limit: 10, fill: 0.9, lost: 1 };
  assert.deepEqual(concerns(kernel("a", { owner: null, log })), ["no proxy owns it", "its log is nearly full", "1 message left its log unread"]);
});

function cluster(changes) {
  return readSnapshot({
    version: 1,
    etcd: { reachable: true },
    proxies: [{ id: "proxy-1", status: "ready" }],
    launchers: [{ id: "node-1", alive: true, capacity: { kernels: 2 }, kernels: 1 }],
    ...changes,
  });
}

test("a cluster that is well has no problems", () => {
  assert.deepEqual(problems(cluster({ kernels: [{ id: "a", state: "idle", owner: "proxy-1" }] })), []);
});

test("problems name what is wrong, the worst first", () => {
  const said = problems(
    cluster({
      etcd: { reachable: false, warnings: ["etcd 3.5.1 can lose data"] },
      proxies: [{ id: "proxy-1", status: "degraded", message: "no lease" }, { id: "proxy-2", status: "unreachable" }, { id: "proxy-3", status: "draining" }],
      launchers: [{ id: "n1", alive: false }, { id: "n2", alive: true, capacity: { kernels: 2 }, kernels: 2 }],
      kernels: [{ id: "a", state: "dead", reason: "OOM", owner: null }, { id: "b", state: "idle", owner: null }, { id: "c", state: "unreachable", owner: "p", reason: "silent" }, { id: "d", state: "dead" }],
    }),
  );
  assert.deepEqual(said.map(({ tone }) => tone), ["bad", "bad", "bad", "bad", "bad", "warn", "warn", "warn", "warn", "warn"]);
  const text = said.map((problem) => problem.text).join("\n");
  for (const part of ["etcd cannot be reached", "proxy-2 does not answer", "No heartbeat from n1", "2 dead kernels: a and others", "1 kernel that does not answer: c, silent.", "proxy-1: no lease.", "proxy-3 is shutting down", "n2: no room", "1 kernel without an owner: b.", "3.5.1 can lose"]) {
    assert.ok(text.includes(part), `${part} in ${text}`);
  }
});

test("no launcher at all is said, too", () => {
  assert.match(problems(cluster({ launchers: [] }))[0].text, /No launcher/);
});
