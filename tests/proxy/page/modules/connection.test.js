import assert from "node:assert/strict";
import { test } from "node:test";
import { FIRST, SILENCE, isDue, step } from "../../../../proxy/holdfast_proxy/page/static/connection.js";

const play = (events, state = FIRST) => events.reduce(step, state);

test("live from the first word on, and not before", () => {
  assert.equal(FIRST.phase, "connecting");
  assert.ok(isDue(FIRST, 0));
  const live = play([{ type: "heard", now: 100 }]);
  assert.equal(live.phase, "live");
  assert.equal(isDue(live, 1e9), false);
});

test("silence ends being live, though nothing broke; what was heard is as old as that", () => {
  const live = play([{ type: "heard", now: 100 }]);
  assert.equal(step(live, { type: "tick", now: 100 + SILENCE }).phase, "live");
  const lost = step(live, { type: "tick", now: 101 + SILENCE });
  assert.deepEqual([lost.phase, lost.lostAt], ["lost", 100]);
});

test("since when it is lost does not move while it tries", () => {
  let state = play([{ type: "heard", now: 100 }, { type: "broken", now: 200 }]);
  const waits = [];
  for (let now = 1000; now < 8000; now += 1000) {
    state = step(state, { type: "broken", now });
    waits.push(state.retryAt - now);
  }
  assert.equal(state.lostAt, 100);
  assert.deepEqual(waits, [500, 1000, 2000, 3000, 3000, 3000, 3000]);
  assert.equal(isDue(state, state.retryAt - 1), false);
  assert.equal(isDue(state, state.retryAt), true);
  assert.equal(step(state, { type: "woken", now: 7001 }).retryAt, 7001);
});

test("an answer is not yet a stream: it is shown, and not called live", () => {
  const polled = play([{ type: "polled", now: 100 }]);
  assert.deepEqual([polled.phase, polled.heard, polled.lostAt], ["polled", 100, 100]);
  assert.equal(step(polled, { type: "heard", now: 101 }).phase, "live");
  assert.equal(play([{ type: "heard", now: 1 }, { type: "polled", now: 2 }]).phase, "live");
});

test("a stream that stays mute leaves it polled, asked less and less often", () => {
  let state = FIRST;
  const waits = [];
  for (let now = 0; now < 60_000; now += 10_000) {
    state = step(step(state, { type: "polled", now }), { type: "mute", now });
    waits.push(state.retryAt - now);
  }
  assert.deepEqual([state.phase, state.lostAt], ["polled", 50_000]);
  assert.deepEqual(waits, [250, 500, 1000, 2000, 3000, 3000]);
  assert.equal(step(state, { type: "broken", now: 60_000 }).phase, "lost");
  assert.equal(play([{ type: "heard", now: 1 }, { type: "mute", now: 2 }]).phase, "lost");
});

test("coming back forgets the loss", () => {
  const back = play([{ type: "heard", now: 1 }, { type: "broken", now: 2 }, { type: "heard", now: 9 }]);
  assert.deepEqual(back, { phase: "live", heard: 9, lostAt: null, tries: 0, retryAt: 0 });
});

test("an answer that says why ends the trying; another one does not", () => {
  for (const [status, phase] of [[401, "signed-out"], [403, "refused"]]) {
    const state = play([{ type: "heard", now: 1 }, { type: "answered", status, now: 2 }]);
    assert.equal(state.phase, phase);
    assert.equal(isDue(state, 1e12), false);
    assert.equal(step(state, { type: "heard", now: 3 }), state, "a late word changes nothing");
  }
  for (const status of [404, 429, 500, 502, 503]) {
    const state = play([{ type: "answered", status, now: 2 }]);
    assert.equal(state.phase, "lost");
    assert.ok(isDue(state, state.retryAt));
  }
  assert.equal(play([{ type: "outdated", now: 5 }]).phase, "outdated");
});

test("a clock that jumps back does not end it", () => {
  assert.equal(play([{ type: "heard", now: 1e6 }, { type: "tick", now: 0 }]).phase, "live");
});
