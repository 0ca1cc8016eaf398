/**
 * Puts together what is in front, what is known of it, the status item and the popup.
 */

import { Popup, showPopup } from '@jupyterlab/statusbar';
import { Signal } from '@lumino/signaling';

import type { View } from './details';
import { Details } from './details';
import { describe } from './failover';
import type { FrontKernel } from './front';
import { StatusItem } from './item';
import type { Label } from './label';
import { label, moment } from './label';
import type { Monitor } from './monitor';
import type { KernelStream } from './stream';
import type { Toaster } from './toaster';

/** Lines of the list of failovers in the popup. */
const LINES = 5;

export class Status {
  readonly item = new StatusItem();
  /** The item should be shown now, or should not any more. */
  readonly activeChanged = new Signal<this, void>(this);
  private popup: Popup | null = null;
  private details: Details | null = null;
  private shown = false;

  constructor(
    private readonly front: FrontKernel,
    private readonly monitor: Monitor,
    private readonly toaster: Toaster
  ) {
    front.changed.connect(() => this.refresh());
    this.item.pressed.connect(() => this.toggle());
  }

  /** There is a kernel in front, and the shim has told of it. */
  get active(): boolean {
    return this.shown;
  }

  refresh(): void {
    const seen = this.see();
    if (seen !== null) {
      const { stream, label: words } = seen;
      this.item.display(words, title(words, stream));
      this.details?.draw(this.view(words, stream));
    } else {
      this.popup?.dispose();
    }
    if ((seen !== null) !== this.shown) {
      this.shown = seen !== null;
      this.activeChanged.emit();
    }
  }

  private see(): { stream: KernelStream; label: Label } | null {
    const front = this.front.current;
    const stream = front && this.monitor.find(front.kernelId, front.sessionId);
    if (front === null || stream === null) {
      return null;
    }
    const answering = this.monitor.phase === 'answering';
    return { stream, label: label(stream, { answering, linked: front.linked }) };
  }

  private toggle(): void {
    if (this.popup !== null) {
      this.popup.dispose();
      return;
    }
    const seen = this.see();
    if (seen === null) {
      return;
    }
    const details = new Details();
    details.draw(this.view(seen.label, seen.stream));
    const popup = showPopup({
      body: details,
      anchor: this.item,
      align: 'left',
      hasDynamicSize: true
    });
    this.details = details;
    this.popup = popup;
    this.item.expanded = true;
    details.node.focus();
    popup.disposed.connect(() => this.closed(details));
  }

  private closed(details: Details): void {
    // Focus goes back to the button, unless the reader has put it elsewhere by a click.
    if (document.activeElement === document.body || details.node.contains(document.activeElement)) {
      this.item.focus();
    }
    this.popup = null;
    this.details = null;
    this.item.expanded = false;
  }

  private view(words: Label, stream: KernelStream): View {
    const now = new Date();
    const others = this.monitor.gateways.filter(url => url !== stream.gateway);
    const past = words.kind === 'silent';
    return {
      label: words,
      facts: [
        [past ? 'Last known state' : 'State', past ? stream.state : ''],
        ['Reason', stream.reason],
        ['Gateway', stream.gateway],
        ['Other gateways', others.join(', ')],
        ['Since', stream.since === '' ? '' : moment(stream.since, now)]
      ],
      failovers: this.toaster.groups.slice(0, LINES).map(group => {
        const at = group[0].at;
        const when = Number.isNaN(at) ? '' : moment(new Date(at).toISOString(), now);
        return [when, describe(group)] as const;
      })
    };
  }
}

function title(words: Label, stream: KernelStream): string {
  const reason = words.kind === stream.state && stream.reason !== '' ? `\n${stream.reason}` : '';
  const gateway = stream.gateway === '' ? '' : `\nGateway: ${stream.gateway}`;
  return `Holdfast: ${words.heading}${reason}${gateway}\n${words.advice}`;
}
