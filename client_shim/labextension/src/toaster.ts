/**
 * At most one toast for a failover, however many notebooks it hit, and the list of the last ones.
 *
 * The first resumption waits a moment for its companions; whoever comes later changes the toast
 * that is there. One that the reader has put away stays away, unless it turns out that something
 * was lost. Rejected: waiting until every stream is back, because one that stays away (its node is
 * gone) would keep the good news of all others from being told.
 *
 * Knows no DOM and no JupyterLab: where toasts go and how time passes are handed in.
 */

import type { Failover, Group, Toast } from './failover';
import { belongs, toast } from './failover';

/** Where toasts are shown. */
export interface Sink {
  /** Show one and return what names it. */
  show(toast: Toast): string;
  /** Change one; false when it is not there any more. */
  update(id: string, toast: Toast): boolean;
}

/** Milliseconds, then the call. */
export type Schedule = (delay: number, call: () => void) => void;

/** How long the first resumption waits for others of the same failover. */
export const GATHER = 400;
/** How many failovers the list keeps. */
export const KEPT = 20;

interface Entry {
  group: Group;
  /** null: nobody was told, nor will be. */
  shown: { id: string; level: Toast['level'] } | 'gathering' | null;
}

export class Toaster {
  /** Newest last. */
  private entries: Entry[] = [];

  constructor(
    private readonly sink: Sink,
    private readonly schedule: Schedule
  ) {}

  /** The last failovers, newest first. */
  get groups(): readonly Group[] {
    return this.entries.map(entry => entry.group).reverse();
  }

  /** Put one on the list that happened before this page looked. */
  remember(failover: Failover): void {
    if (!this.knows(failover)) {
      this.place(failover, null);
    }
  }

  /** One that has just happened. */
  tell(failover: Failover): void {
    if (this.knows(failover)) {
      return;
    }
    const entry = this.place(failover, 'gathering');
    if (entry.shown === 'gathering' && entry.group.length === 1) {
      this.schedule(GATHER, () => this.show(entry));
    } else if (typeof entry.shown === 'object' && entry.shown !== null) {
      this.change(entry, entry.shown);
    }
  }

  /** A stream that was forgotten and is known again tells of its last failover once more. */
  private knows({ kernelId, sessionId, at }: Failover): boolean {
    return this.entries.some(entry =>
      entry.group.some(
        one => one.kernelId === kernelId && one.sessionId === sessionId && one.at === at
      )
    );
  }

  private place(failover: Failover, shown: 'gathering' | null): Entry {
    // A page that is loaded in the middle of a failover has some of it on the list, untold: what
    // comes after is told.
    const entry = this.entries.find(
      one => (one.shown === null) === (shown === null) && belongs(one.group, failover)
    );
    if (entry !== undefined) {
      entry.group = [...entry.group, failover];
      return entry;
    }
    const added: Entry = { group: [failover], shown };
    this.entries = [...this.entries, added]
      .sort((a, b) => latest(a.group) - latest(b.group))
      .slice(-KEPT);
    return added;
  }

  private show(entry: Entry): void {
    const made = toast(entry.group);
    entry.shown = { id: this.sink.show(made), level: made.level };
  }

  private change(entry: Entry, shown: { id: string; level: Toast['level'] }): void {
    const made = toast(entry.group);
    const worse = made.level === 'warning' && shown.level === 'info';
    if (this.sink.update(shown.id, made)) {
      entry.shown = { id: shown.id, level: made.level };
    } else if (worse) {
      this.show(entry);
    }
  }
}

function latest(group: Group): number {
  return Math.max(...group.map(one => (Number.isNaN(one.at) ? 0 : one.at)));
}
