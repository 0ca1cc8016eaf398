/**
 * Keeps the table of streams true: asks the notebook server, listens to its events, asks again.
 *
 * JupyterLab's event stream reconnects by itself but does not tell that it had broken, and it may
 * take half a minute to come back. So events are for speed and asking is for truth: once on load,
 * whenever something hints at a break (a kernel's link changed, a request failed, the page was
 * shown again), and every POLL in between. A notebook server without an active shim says 404; then
 * nothing is shown and nobody asks again, until an event or a restored link hints otherwise.
 *
 * Knows no DOM and no JupyterLab: asking and time are handed in.
 */

import type { Failover } from './failover';
import type { KernelStream, Snapshot } from './stream';
import { streamKey } from './stream';
import { StreamTable } from './table';
import type { Schedule } from './toaster';

/** A snapshot; `absent`: there is no shim; `silent`: no usable answer. */
export type Answer = Snapshot | 'absent' | 'silent';

export interface MonitorOptions {
  readonly ask: () => Promise<Answer>;
  readonly schedule: Schedule;
  /** Something that is shown may have changed. */
  readonly changed: () => void;
  /** A failover that nobody was told of. */
  readonly failover: (failover: Failover) => void;
  /** A failover from before this page looked. */
  readonly past: (failover: Failover) => void;
}

/** Milliseconds between two questions when all is well. */
export const POLL = 15000;
/** Milliseconds until the next question after one without an answer; doubles up to POLL. */
export const RETRY = 1000;

export type Phase = 'unasked' | 'absent' | 'answering' | 'silent';

export class Monitor {
  private readonly table = new StreamTable();
  private _phase: Phase = 'unasked';
  private _gateways: readonly string[] = [];
  private asking = false;
  private again = false;
  private hadAnswer = false;
  private newer = new Set<string>();
  private retry = RETRY;
  /** Timers that are not this one any more have been overtaken. */
  private turn = 0;

  constructor(private readonly options: MonitorOptions) {}

  get phase(): Phase {
    return this._phase;
  }

  /** The shim was active when the notebook server last answered. */
  get held(): boolean {
    return this.hadAnswer;
  }

  /** All gateways that the shim knows. */
  get gateways(): readonly string[] {
    return this._gateways;
  }

  /** What is known of a kernel; null also when the shim is not active. */
  find(kernelId: string, sessionId: string): KernelStream | null {
    return this._phase === 'absent' ? null : this.table.find(kernelId, sessionId);
  }

  /** An event came. It proves that there is a shim and that the notebook server speaks. */
  event(stream: KernelStream): void {
    this.newer.add(streamKey(stream));
    const failover = this.table.put(stream);
    if (this._phase !== 'answering') {
      this._phase = 'answering';
      void this.ask();
    }
    if (failover !== null) {
      this.options.failover(failover);
    }
    this.options.changed();
  }

  /** Ask now, or once more when a question is under way: what hinted may be newer than it. */
  async ask(): Promise<void> {
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    do {
      this.again = false;
      this.newer = new Set();
      this.take(await this.options.ask());
    } while (this.again);
    this.asking = false;
    this.next();
  }

  private take(answer: Answer): void {
    if (answer === 'silent') {
      this._phase = 'silent';
    } else if (answer === 'absent' || !answer.active) {
      this._phase = 'absent';
      this.hadAnswer = false;
      this.table.clear();
    } else {
      this._phase = 'answering';
      this.retry = RETRY;
      this._gateways = answer.gateways;
      const { fresh, old } = this.table.replace(answer.streams, this.newer, !this.hadAnswer);
      this.hadAnswer = true;
      old.forEach(this.options.past);
      fresh.forEach(this.options.failover);
    }
    this.options.changed();
  }

  private next(): void {
    const turn = ++this.turn;
    if (this._phase === 'absent') {
      return;
    }
    let delay = POLL;
    if (this._phase === 'silent') {
      delay = this.retry;
      this.retry = Math.min(2 * this.retry, POLL);
    }
    this.options.schedule(delay, () => {
      if (turn === this.turn) {
        void this.ask();
      }
    });
  }
}
