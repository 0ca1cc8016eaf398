import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Failover } from '../src/failover';
import type { Answer } from '../src/monitor';
import { Monitor, POLL, RETRY } from '../src/monitor';
import type { KernelStream, StreamState } from '../src/stream';

const AT = '2026-01-02T03:04:05Z';
const LATER = '2026-01-02T03:05:05Z';

function stream(state: StreamState, changes: Partial<KernelStream> = {}): KernelStream {
  return {
    kernelId: 'k1',
    sessionId: 's1',
    state,
    reason: '',
    gateway: 'http://a',
    since: AT,
    resumed: null,
    ...changes
  };
}

function resumed(since = AT, changes: Partial<KernelStream> = {}): KernelStream {
  return stream('connected', {
    since,
    resumed: { seconds: 0.1, recovered: 3, lost: 0 },
    ...changes
  });
}

function snapshot(...streams: KernelStream[]): Answer {
  return { active: true, version: '1', gateways: ['http://a', 'http://b'], streams };
}

/** A monitor whose questions are answered by hand and whose time passes by hand. */
class Stage {
  readonly told: Failover[] = [];
  readonly past: Failover[] = [];
  readonly timers: Array<{ delay: number; call: () => void }> = [];
  questions = 0;
  changes = 0;
  private answers: Array<(answer: Answer) => void> = [];
  readonly monitor = new Monitor({
    ask: () => {
      this.questions += 1;
      return new Promise(resolve => this.answers.push(resolve));
    },
    schedule: (delay, call) => this.timers.push({ delay, call }),
    changed: () => (this.changes += 1),
    failover: failover => this.told.push(failover),
    past: failover => this.past.push(failover)
  });

  /** Answer the oldest question, and let the monitor act on it. */
  async answer(answer: Answer): Promise<void> {
    const resolve = this.answers.shift();
    assert.ok(resolve, 'nobody asked');
    resolve(answer);
    await new Promise(done => setImmediate(done));
  }

  async asked(answer: Answer): Promise<void> {
    void this.monitor.ask();
    await this.answer(answer);
  }

  get state(): StreamState | undefined {
    return this.monitor.find('k1', 's1')?.state;
  }

  /** The latest timer goes off. */
  pass(): number {
    const timer = this.timers.at(-1);
    assert.ok(timer);
    timer.call();
    return timer.delay;
  }
}

test('the first answer is shown; its failovers are listed and not told', async () => {
  const stage = new Stage();
  await stage.asked(snapshot(resumed()));
  assert.equal(stage.state, 'connected');
  assert.deepEqual(stage.monitor.gateways, ['http://a', 'http://b']);
  assert.equal(stage.past.length, 1);
  assert.equal(stage.told.length, 0);
});

test('an event changes the state, and tells of a failover once', async () => {
  const stage = new Stage();
  await stage.asked(snapshot(stream('connected')));
  stage.monitor.event(stream('resuming', { since: AT }));
  assert.equal(stage.state, 'resuming');
  stage.monitor.event(resumed(LATER));
  stage.monitor.event(resumed(LATER));
  await stage.asked(snapshot(resumed(LATER)));
  assert.equal(stage.state, 'connected');
  assert.equal(stage.told.length, 1);
  assert.equal(stage.told[0].at, Date.parse(LATER));
});

test('a failover whose event was missed is told by the next answer', async () => {
  const stage = new Stage();
  await stage.asked(snapshot(stream('connected')));
  await stage.asked('silent');
  await stage.asked(snapshot(resumed(LATER)));
  assert.equal(stage.told.length, 1);
});

test('an event that comes during a question is believed over its answer', async () => {
  const stage = new Stage();
  await stage.asked(snapshot(stream('connected')));
  void stage.monitor.ask();
  stage.monitor.event(stream('unreachable', { since: LATER }));
  await stage.answer(snapshot(stream('connected')));
  assert.equal(stage.state, 'unreachable');
  await stage.asked(snapshot(stream('connected')));
  assert.equal(stage.state, 'connected', 'the next answer holds again');
});

test('a new stream of an event outlives an answer that does not know it yet', async () => {
  const stage = new Stage();
  void stage.monitor.ask();
  stage.monitor.event(stream('waiting'));
  await stage.answer(snapshot());
  assert.equal(stage.state, 'waiting');
  assert.equal(stage.questions, 2, 'an event before the first answer asks once more');
  await stage.answer(snapshot());
  assert.equal(stage.state, undefined);
});

test('where there is no shim, nothing is known and nobody asks again', async () => {
  const stage = new Stage();
  await stage.asked('absent');
  assert.equal(stage.monitor.phase, 'absent');
  assert.equal(stage.timers.length, 0);
});

test('a shim that is not active counts as none', async () => {
  const stage = new Stage();
  await stage.asked({ active: false, version: '1', gateways: [], streams: [stream('connected')] });
  assert.equal(stage.monitor.phase, 'absent');
  assert.equal(stage.state, undefined);
});

test('an event proves that there is a shim after all', async () => {
  const stage = new Stage();
  await stage.asked('absent');
  stage.monitor.event(stream('connected'));
  assert.equal(stage.state, 'connected');
  assert.equal(stage.questions, 2);
});

test('a notebook server that goes away and comes back without a shim', async () => {
  const stage = new Stage();
  await stage.asked(snapshot(stream('connected')));
  await stage.asked('silent');
  assert.equal(stage.monitor.phase, 'silent');
  assert.equal(stage.state, 'connected', 'still known, for the popup');
  await stage.asked('absent');
  assert.equal(stage.state, undefined);
});

test('it asks at POLL, and sooner after silence, with growing waits', async () => {
  const stage = new Stage();
  await stage.asked(snapshot());
  assert.equal(stage.pass(), POLL);
  const waits = [];
  for (let round = 0; round < 6; round += 1) {
    await stage.answer('silent');
    waits.push(stage.pass());
  }
  assert.deepEqual(waits, [RETRY, 2 * RETRY, 4 * RETRY, 8 * RETRY, POLL, POLL]);
  await stage.answer(snapshot());
  assert.equal(stage.pass(), POLL);
  await stage.answer('silent');
  assert.equal(stage.pass(), RETRY, 'an answer resets the waits');
});

test('hints during a question make one more question, not many', async () => {
  const stage = new Stage();
  void stage.monitor.ask();
  void stage.monitor.ask();
  void stage.monitor.ask();
  assert.equal(stage.questions, 1);
  await stage.answer(snapshot());
  assert.equal(stage.questions, 2);
  await stage.answer(snapshot());
  assert.equal(stage.questions, 2);
});

test('a question out of turn replaces the timer', async () => {
  const stage = new Stage();
  await stage.asked(snapshot());
  await stage.asked(snapshot());
  assert.equal(stage.timers.length, 2);
  stage.timers[0].call();
  assert.equal(stage.questions, 2, 'the overtaken timer asks nothing');
  stage.timers[1].call();
  assert.equal(stage.questions, 3);
});

test('a front end whose own stream is not known yet sees the latest of its kernel', async () => {
  const stage = new Stage();
  await stage.asked(
    snapshot(
      stream('connected', { sessionId: 'a', since: AT }),
      stream('resuming', { sessionId: 'b', since: LATER }),
      stream('gone', { kernelId: 'k2', since: LATER })
    )
  );
  assert.equal(stage.monitor.find('k1', 'a')?.state, 'connected');
  assert.equal(stage.monitor.find('k1', 'new')?.state, 'resuming');
  assert.equal(stage.monitor.find('k3', 'a'), null);
});

test('a stream that an answer lacks is forgotten', async () => {
  const stage = new Stage();
  await stage.asked(snapshot(stream('connected'), stream('gone', { kernelId: 'k2' })));
  await stage.asked(snapshot(stream('connected')));
  assert.equal(stage.monitor.find('k2', 's1'), null);
});

test('held by Holdfast is what the last answer said, also while there is none', async () => {
  const stage = new Stage();
  assert.equal(stage.monitor.held, false);
  await stage.asked(snapshot(stream('connected')));
  assert.equal(stage.monitor.held, true);
  await stage.asked('silent');
  assert.equal(stage.monitor.held, true);
  await stage.asked('absent');
  assert.equal(stage.monitor.held, false);
});
