import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Failover, Toast } from '../src/failover';
import type { Sink } from '../src/toaster';
import { GATHER, KEPT, Toaster } from '../src/toaster';

/** Toasts as a reader has them: those that were put away cannot be changed. */
class Screen implements Sink {
  readonly shown: Toast[] = [];
  readonly away = new Set<string>();

  show(toast: Toast): string {
    this.shown.push(toast);
    return String(this.shown.length - 1);
  }

  update(id: string, toast: Toast): boolean {
    if (this.away.has(id)) {
      return false;
    }
    this.shown[Number(id)] = toast;
    return true;
  }
}

function stage(): { screen: Screen; toaster: Toaster; pass: () => void } {
  const calls: Array<() => void> = [];
  const screen = new Screen();
  const toaster = new Toaster(screen, (delay, call) => {
    assert.equal(delay, GATHER);
    calls.push(call);
  });
  return { screen, toaster, pass: () => calls.splice(0).forEach(call => call()) };
}

function failover(number: number, changes: Partial<Failover> = {}): Failover {
  return {
    kernelId: `k${number}`,
    sessionId: `s${number}`,
    at: 100_000,
    seconds: 0.2,
    recovered: 2,
    lost: 0,
    ...changes
  };
}

test('five notebooks, one failover, one toast', () => {
  const { screen, toaster, pass } = stage();
  [1, 2, 3, 4, 5].forEach(number => toaster.tell(failover(number)));
  assert.equal(screen.shown.length, 0, 'it waits for companions');
  pass();
  assert.deepEqual(screen.shown, [
    {
      level: 'info',
      message: 'Holdfast: 5 kernels resumed in 0.2 s, 10 messages recovered, 0 lost'
    }
  ]);
});

test('a straggler changes the toast that is there', () => {
  const { screen, toaster, pass } = stage();
  toaster.tell(failover(1));
  pass();
  toaster.tell(failover(2, { at: 101_500, seconds: 1.7, lost: 4 }));
  pass();
  assert.equal(screen.shown.length, 1);
  assert.equal(screen.shown[0].level, 'warning');
  assert.match(screen.shown[0].message, /2 kernels resumed in 1\.7 s, 4 messages recovered, 4 lost/);
});

test('a toast that was put away stays away, unless something was lost', () => {
  const { screen, toaster, pass } = stage();
  toaster.tell(failover(1));
  pass();
  screen.away.add('0');
  toaster.tell(failover(2));
  pass();
  assert.equal(screen.shown.length, 1);
  toaster.tell(failover(3, { lost: 1 }));
  pass();
  assert.equal(screen.shown.length, 2);
  assert.equal(screen.shown[1].level, 'warning');
  screen.away.add('1');
  toaster.tell(failover(4, { lost: 1 }));
  assert.equal(screen.shown.length, 2, 'a warning that was put away is not repeated');
});

test('two failovers, two toasts', () => {
  const { screen, toaster, pass } = stage();
  toaster.tell(failover(1));
  toaster.tell(failover(1, { at: 100_600, recovered: 9 }));
  pass();
  assert.equal(screen.shown.length, 2);
  assert.deepEqual(
    toaster.groups.map(group => group[0].recovered),
    [9, 2],
    'newest first'
  );
});

test('what happened before the page looked is listed and not told', () => {
  const { screen, toaster, pass } = stage();
  toaster.remember(failover(1));
  toaster.remember(failover(2));
  pass();
  assert.equal(screen.shown.length, 0);
  assert.equal(toaster.groups.length, 1);
  toaster.tell(failover(3));
  pass();
  assert.equal(screen.shown.length, 1);
  assert.match(screen.shown[0].message, /: resumed in/);
});

test('a failover that is told of again is neither listed nor shown again', () => {
  const { screen, toaster, pass } = stage();
  toaster.tell(failover(1));
  pass();
  toaster.tell(failover(1));
  toaster.remember(failover(1));
  pass();
  assert.equal(screen.shown.length, 1);
  assert.equal(toaster.groups.length, 1);
  assert.equal(toaster.groups[0].length, 1);
});

test('the list is bounded and in order', () => {
  const { toaster, pass } = stage();
  for (let number = KEPT + 5; number > 0; number -= 1) {
    toaster.tell(failover(number, { at: number * 100_000 }));
  }
  pass();
  assert.equal(toaster.groups.length, KEPT);
  assert.equal(toaster.groups[0][0].at, (KEPT + 5) * 100_000);
});
