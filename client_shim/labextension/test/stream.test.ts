import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseSnapshot, parseStream } from '../src/stream';

const WIRE = {
  schema_id: 'urn:holdfast:kernel-stream:v1',
  kernel_id: 'k1',
  session_id: 's1',
  state: 'connected',
  reason: 'gateway died',
  gateway: 'http://127.0.0.1:1',
  since: '2026-01-02T03:04:05.678Z',
  resumed: { seconds: 0.13, recovered: 14, lost: 0 }
};

test('an event as the shim emits it', () => {
  assert.deepEqual(parseStream(WIRE), {
    kernelId: 'k1',
    sessionId: 's1',
    state: 'connected',
    reason: 'gateway died',
    gateway: 'http://127.0.0.1:1',
    since: '2026-01-02T03:04:05.678Z',
    resumed: { seconds: 0.13, recovered: 14, lost: 0 }
  });
});

test('what is missing or of the wrong kind is empty, not an error', () => {
  const poor = parseStream({ kernel_id: 'k1', reason: null, gateway: 7, resumed: [] });
  assert.deepEqual(poor, {
    kernelId: 'k1',
    sessionId: '',
    state: 'unknown',
    reason: '',
    gateway: '',
    since: '',
    resumed: null
  });
});

test('a word of a newer shim is not taken for a known one', () => {
  assert.equal(parseStream({ ...WIRE, state: 'migrating' })?.state, 'unknown');
});

test('figures that are none are no failover', () => {
  for (const seconds of [-1, NaN, Infinity, '1', null]) {
    const resumed = { seconds, recovered: 1, lost: 0 };
    assert.equal(parseStream({ ...WIRE, resumed })?.resumed, null);
  }
});

test('what names no kernel is no stream', () => {
  for (const value of [null, [], 'x', {}, { kernel_id: '' }, { kernel_id: 3 }]) {
    assert.equal(parseStream(value), null);
  }
});

test('a snapshot keeps what is sound', () => {
  const snapshot = parseSnapshot({
    active: true,
    version: '0.1.0',
    gateways: ['http://a', 5],
    streams: [WIRE, 'rubbish', {}]
  });
  assert.equal(snapshot?.streams.length, 1);
  assert.deepEqual(snapshot?.gateways, ['http://a']);
  assert.deepEqual(parseSnapshot({ active: false }), {
    active: false,
    version: '',
    gateways: [],
    streams: []
  });
  assert.equal(parseSnapshot({ message: 'Not found' }), null);
  assert.equal(parseSnapshot(null), null);
});
