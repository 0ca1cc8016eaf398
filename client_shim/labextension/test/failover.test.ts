import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Failover } from '../src/failover';
import { belongs, describe, duration, sum, toast } from '../src/failover';

function failover(changes: Partial<Failover> = {}): Failover {
  return {
    kernelId: 'k1',
    sessionId: 's1',
    at: 100_000,
    seconds: 0.1,
    recovered: 14,
    lost: 0,
    ...changes
  };
}

test('one notebook: the toast says how long, how many and that nothing is lost', () => {
  assert.deepEqual(toast([failover()]), {
    level: 'info',
    message: 'Holdfast: resumed in 0.1 s, 14 messages recovered, 0 lost'
  });
});

test('a loss makes a warning that says where to look', () => {
  assert.deepEqual(toast([failover({ lost: 3 })]), {
    level: 'warning',
    message: 'Holdfast: resumed in 0.1 s, 14 messages recovered, 3 lost. The cells show where.'
  });
});

test('several notebooks: the longest time and the sums', () => {
  const group = [
    failover(),
    failover({ kernelId: 'k2', sessionId: 's2', seconds: 0.42, recovered: 6, lost: 1 }),
    failover({ kernelId: 'k3', sessionId: 's3', recovered: 0 })
  ];
  assert.equal(describe(group), '3 kernels resumed in 0.4 s, 20 messages recovered, 1 lost');
});

test('two notebooks on one kernel get the same messages, which count once', () => {
  const group = [failover(), failover({ sessionId: 's2', recovered: 12, lost: 2 })];
  assert.deepEqual(sum(group), { kernels: 1, seconds: 0.1, recovered: 14, lost: 2 });
});

test('one message is one message', () => {
  assert.match(describe([failover({ recovered: 1 })]), /, 1 message recovered,/);
});

test('interruptions that overlap belong together', () => {
  const group = [failover({ at: 100_000, seconds: 5 })];
  const other = { kernelId: 'k2', sessionId: 's2' };
  assert.ok(belongs(group, failover({ ...other, at: 96_000, seconds: 0.5 })));
  assert.ok(belongs(group, failover({ ...other, at: 130_000, seconds: 34 })));
  assert.ok(!belongs(group, failover({ ...other, at: 130_000, seconds: 1 })));
  assert.ok(!belongs(group, failover({ ...other, at: 60_000, seconds: 1 })));
});

test('the same stream interrupted again is another failover', () => {
  assert.ok(!belongs([failover()], failover({ at: 100_500, seconds: 0.2 })));
});

test('failovers without a time are those of one moment', () => {
  const group = [failover({ at: NaN })];
  assert.ok(belongs(group, failover({ kernelId: 'k2', at: NaN })));
  assert.ok(!belongs(group, failover({ kernelId: 'k2', at: 100_000 })));
});

test('durations for people', () => {
  assert.deepEqual(
    [0, 0.004, 0.1, 9.94, 9.96, 59.4, 59.6, 125].map(duration),
    ['0.0 s', '0.1 s', '0.1 s', '9.9 s', '10 s', '59 s', '1 min 0 s', '2 min 5 s']
  );
});
