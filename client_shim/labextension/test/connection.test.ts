import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ABSENT, Absence } from '../src/connection';

class Stage {
  held = true;
  readonly toasts: string[] = [];
  readonly absence = new Absence({
    held: () => this.held,
    toast: message => this.toasts.push(message)
  });
}

test('an absence is told once, whatever fails during it', () => {
  const stage = new Stage();
  assert.equal(stage.absence.lost(true), true);
  assert.equal(stage.absence.lost(true), true);
  assert.deepEqual(stage.toasts, [ABSENT]);
});

test('the next absence is told again', () => {
  const stage = new Stage();
  stage.absence.lost(true);
  stage.absence.over();
  stage.absence.lost(true);
  assert.deepEqual(stage.toasts, [ABSENT, ABSENT]);
});

test('where no shim is active, nothing is kept from JupyterLab', () => {
  const stage = new Stage();
  stage.held = false;
  assert.equal(stage.absence.lost(true), false);
  assert.deepEqual(stage.toasts, []);
});

test('a notebook server that answers without a gateway is no absence', () => {
  const stage = new Stage();
  assert.equal(stage.absence.lost(false), true);
  assert.deepEqual(stage.toasts, []);
  stage.absence.lost(true);
  assert.deepEqual(stage.toasts, [ABSENT]);
});
