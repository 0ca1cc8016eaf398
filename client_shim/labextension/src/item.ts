/**
 * The item in the status bar: a button with a sign and words, and a voice for screen readers.
 *
 * It shows labels and tells of clicks; it does not know where labels come from. All text is set as
 * text, never as HTML: reasons come from gateways and schedulers.
 */

import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';

import type { Label } from './label';

/** Milliseconds that a state must last to be spoken: a failover of 0.1 s is no news by then. */
const STEADY = 1000;

export class StatusItem extends Widget {
  private readonly _pressed = new Signal<this, void>(this);
  private readonly button: HTMLButtonElement;
  private readonly sign: HTMLSpanElement;
  private readonly words: HTMLSpanElement;
  private readonly voice: HTMLSpanElement;
  private timer: number | undefined;

  constructor() {
    super();
    this.addClass('hf-StatusItem');
    this.button = document.createElement('button');
    this.button.type = 'button';
    this.button.setAttribute('aria-haspopup', 'dialog');
    this.button.addEventListener('click', () => this._pressed.emit());
    this.sign = this.button.appendChild(document.createElement('span'));
    this.sign.className = 'hf-StatusItem-sign';
    this.sign.setAttribute('aria-hidden', 'true');
    this.words = this.button.appendChild(document.createElement('span'));
    this.voice = document.createElement('span');
    this.voice.className = 'hf-StatusItem-voice';
    this.voice.setAttribute('role', 'status');
    this.voice.setAttribute('aria-live', 'polite');
    this.node.append(this.button, this.voice);
    this.expanded = false;
  }

  /** The button was clicked, or Enter or Space pressed on it. */
  get pressed(): ISignal<this, void> {
    return this._pressed;
  }

  set expanded(open: boolean) {
    this.button.setAttribute('aria-expanded', String(open));
  }

  focus(): void {
    this.button.focus();
  }

  /** Show a label; `title` is the longer text under the pointer. */
  display(label: Label, title: string): void {
    this.node.dataset.state = label.kind;
    this.button.title = title;
    this.sign.textContent = label.sign;
    if (this.words.textContent !== label.text) {
      this.words.textContent = label.text;
      this.speak(label.text);
    }
  }

  override dispose(): void {
    window.clearTimeout(this.timer);
    super.dispose();
  }

  private speak(text: string): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      if (this.voice.textContent !== text) {
        this.voice.textContent = text;
      }
    }, STEADY);
  }
}
