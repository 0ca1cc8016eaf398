import assert from "node:assert/strict";
import { test } from "node:test";
import { OtherVersion, compare, readSnapshot, webUrl } from "../../../../proxy/holdfast_proxy/page/static/snapshot.js";

test("what is absent is empty or null, and nothing throws", () => {
  const read = readSnapshot({ version: 1 });
  assert.deepEqual([read.proxies, read.launchers, read.kernels, read.timeline], [[], [], [], []]);
  assert.deepEqual(read.etcd, { reachable: false, version: null, warnings: [], leaseAge: null });
  const wrong = { version: 1, cluster: 7, time: "noon", etcd: [], proxies: "x", kernels: [null, 3, {}], timeline: [{}, { time: "x" }] };
  const odd = readSnapshot(wrong);
  assert.equal(odd.kernels.length, 1);
  assert.equal(odd.kernels[0].state, "unknown");
  assert.deepEqual(odd.timeline, []);
});

test("another version is told apart from rubbish", () => {
  assert.throws(() => readSnapshot({ version: 2 }), OtherVersion);
  assert.throws(() => readSnapshot({}), OtherVersion);
  assert.throws(() => readSnapshot(null), TypeError);
  assert.throws(() => readSnapshot("<html>"), TypeError);
});

test("a URL that runs a script is no link", () => {
  assert.equal(webUrl("https://proxy.example:8888/"), "https://proxy.example:8888");
  assert.equal(webUrl("http://127.0.0.1:8900/hub"), "http://127.0.0.1:8900/hub");
  for (const bad of ["javascript:alert(1)", "data:text/html,x", "proxy", "", null, 4, " javascript:alert(1)"]) {
    assert.equal(webUrl(bad), null, String(bad));
  }
});

test("the timeline is in order of time, and a log's share is between 0 and 1", () => {
  const read = readSnapshot({
    version: 1,
    timeline: [{ time: "2026-01-02T03:04:06.000001Z", kind: "b" }, { time: "2026-01-02T03:04:05Z", kind: "a" }],
    kernels: [{ id: "k", log: { bytes: 30, limit: 10 } }, { id: "l", log: { bytes: 30, limit: null } }, { id: "m", log: { bytes: "x" } }],
  });
  assert.deepEqual(read.timeline.map(({ kind }) => kind), ["a", "b"]);
  assert.deepEqual(read.kernels.map(({ log }) => log?.fill), [1, null, undefined]);
});

test("very long text is cut", () => {
  assert.equal(readSnapshot({ version: 1, kernels: [{ reason: "x".repeat(10_000) }] }).kernels[0].reason.length, 2000);
});

test("numbers in names count", () => {
  assert.deepEqual(["p10", "p2", "p1"].sort(compare), ["p1", "p2", "p10"]);
});
