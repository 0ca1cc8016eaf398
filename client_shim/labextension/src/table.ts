/**
 * What is known of every kernel stream, from events and snapshots.
 *
 * Pure: no DOM, no network, no clock. The rule that keeps it right: an event that came while a
 * question was under way is believed over the answer. If the answer was the newer of the two, the
 * event that announced it is still to come.
 */

import type { Failover } from './failover';
import type { KernelStream } from './stream';
import { streamKey } from './stream';

/** What a snapshot told of failovers. */
export interface Told {
  /** Nobody was told of these yet. */
  readonly fresh: readonly Failover[];
  /** From before this page looked: for the list, not for a toast. */
  readonly old: readonly Failover[];
}

export class StreamTable {
  private readonly streams = new Map<string, KernelStream>();
  /** Stream → `since` of the last failover that was told. */
  private readonly told = new Map<string, string>();

  /** Take in one event. The failover that it tells of, unless that was told before. */
  put(stream: KernelStream): Failover | null {
    const key = streamKey(stream);
    this.streams.set(key, stream);
    return this.untold(key, stream);
  }

  /**
   * Take in a snapshot: streams that it lacks are gone, except those in `newer` (keys of events
   * that came while it was under way). `first`: nothing was known before.
   */
  replace(streams: readonly KernelStream[], newer: ReadonlySet<string>, first: boolean): Told {
    const fresh: Failover[] = [];
    const old: Failover[] = [];
    const kept = new Set(newer);
    for (const stream of streams) {
      const key = streamKey(stream);
      kept.add(key);
      if (newer.has(key)) {
        continue;
      }
      const known = this.streams.has(key);
      this.streams.set(key, stream);
      const failover = this.untold(key, stream);
      if (failover !== null) {
        (known && !first ? fresh : old).push(failover);
      }
    }
    for (const key of [...this.streams.keys()]) {
      if (!kept.has(key)) {
        this.streams.delete(key);
        this.told.delete(key);
      }
    }
    return { fresh, old };
  }

  /**
   * The stream of this front end's session; else the latest one of the kernel, because all
   * streams of a kernel share its fate and a page may ask a moment before its own is known.
   */
  find(kernelId: string, sessionId: string): KernelStream | null {
    const exact = this.streams.get(streamKey({ kernelId, sessionId }));
    if (exact !== undefined) {
      return exact;
    }
    let latest: KernelStream | null = null;
    for (const stream of this.streams.values()) {
      if (stream.kernelId === kernelId && (latest === null || stream.since > latest.since)) {
        latest = stream;
      }
    }
    return latest;
  }

  clear(): void {
    this.streams.clear();
    this.told.clear();
  }

  get size(): number {
    return this.streams.size;
  }

  private untold(key: string, stream: KernelStream): Failover | null {
    if (stream.resumed === null || this.told.get(key) === stream.since) {
      return null;
    }
    this.told.set(key, stream.since);
    return {
      kernelId: stream.kernelId,
      sessionId: stream.sessionId,
      at: Date.parse(stream.since),
      ...stream.resumed
    };
  }
}
