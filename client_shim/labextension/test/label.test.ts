import assert from 'node:assert/strict';
import { test } from 'node:test';

import { label, moment } from '../src/label';
import type { KernelStream, StreamState } from '../src/stream';

const UP = { answering: true, linked: true };

function stream(state: StreamState, reason = ''): KernelStream {
  return {
    kernelId: 'k1',
    sessionId: 's1',
    state,
    reason,
    gateway: 'http://a.example',
    since: '2026-01-02T03:04:05Z',
    resumed: null
  };
}

test('each state has words of its own, and a sign', () => {
  const states: StreamState[] = [
    'connected',
    'resuming',
    'waiting',
    'unreachable',
    'gone',
    'unknown'
  ];
  const labels = states.map(state => label(stream(state), UP));
  assert.deepEqual(
    labels.map(one => one.text),
    [
      'Holdfast: connected',
      'Holdfast: resuming',
      'Holdfast: waiting for a kernel',
      'Holdfast: kernel unreachable',
      'Holdfast: kernel gone',
      'Holdfast: state unknown'
    ]
  );
  assert.equal(new Set(labels.map(one => one.sign)).size, states.length);
  assert.ok(labels.every(one => one.advice.endsWith('.')));
});

test('the reason is in the text, on one line, and shortened', () => {
  const { text } = label(stream('waiting', 'no launcher has\n room'), UP);
  assert.equal(text, 'Holdfast: waiting for a kernel (no launcher has room)');
  const long = label(stream('gone', '✂'.repeat(300)), UP).text;
  assert.equal(long, `Holdfast: kernel gone (${'✂'.repeat(47)}…)`);
});

test('connected needs no reason', () => {
  assert.equal(label(stream('connected', 'took over'), UP).text, 'Holdfast: connected');
});

test('without an answer of the notebook server nothing is claimed', () => {
  for (const state of ['connected', 'waiting', 'gone'] as const) {
    const { kind, text } = label(stream(state, 'x'), { answering: false, linked: true });
    assert.equal(kind, 'silent');
    assert.equal(text, 'Holdfast: no word from the notebook server');
  }
});

test('a broken link of the page refutes "connected" and nothing else', () => {
  const down = { answering: true, linked: false };
  assert.equal(label(stream('connected'), down).kind, 'linking');
  assert.equal(label(stream('gone'), down).kind, 'gone');
  assert.equal(label(stream('waiting'), down).kind, 'waiting');
});

test('moments are in local time with their age', () => {
  const now = new Date('2026-01-02T03:06:10Z');
  const say = (iso: string): string => moment(iso, now, 'en-GB');
  const clock = (iso: string): string => new Date(iso).toLocaleTimeString('en-GB');
  const iso = '2026-01-02T03:04:05Z';
  assert.equal(say(iso), `${clock(iso)} (2 min ago)`);
  assert.match(say('2026-01-02T03:06:20Z'), /\(0 s ago\)$/, 'a clock that is ahead');
  assert.match(say('2026-01-02T03:06:01Z'), /\(9 s ago\)$/);
  const old = '2025-12-30T03:04:05Z';
  assert.equal(say(old), `30/12/2025 ${clock(old)} (3 d ago)`);
  assert.equal(say('yesterday'), 'yesterday');
});
