/**
 * Failovers: which belong together, and the words for a toast.
 *
 * One dead gateway interrupts every notebook that went through it, and each stream tells of its
 * own resumption. Streams whose interruptions overlap were hit by one failure and make one group,
 * one toast and one line in the list. Pure; times are those of the notebook server.
 */

/** One stream's interruption that ended well. */
export interface Failover {
  readonly kernelId: string;
  readonly sessionId: string;
  /** When it was connected again, in milliseconds since 1970; NaN when the server told no time. */
  readonly at: number;
  readonly seconds: number;
  readonly recovered: number;
  readonly lost: number;
}

/** The streams that one failure interrupted, each once. Never empty. */
export type Group = readonly Failover[];

export interface Toast {
  readonly level: 'info' | 'warning';
  readonly message: string;
}

export interface Sum {
  readonly kernels: number;
  readonly seconds: number;
  readonly recovered: number;
  readonly lost: number;
}

/** Interruptions of one failure begin and end within this of each other, in milliseconds. */
const SLACK = 1000;

/**
 * Whether `failover` belongs to `group`. A stream that is in it already was interrupted a second
 * time: that is another failover, however soon it came.
 */
export function belongs(group: Group, failover: Failover): boolean {
  const [from, to] = span(failover);
  return (
    group.some(other => {
      const [otherFrom, otherTo] = span(other);
      return from <= otherTo + SLACK && to >= otherFrom - SLACK;
    }) &&
    !group.some(
      other => other.kernelId === failover.kernelId && other.sessionId === failover.sessionId
    )
  );
}

/**
 * A group in figures: the longest interruption; messages summed over kernels. Two notebooks on
 * one kernel get the same output, so of their figures the greater counts, not the sum.
 */
export function sum(group: Group): Sum {
  const kernels = new Map<string, { recovered: number; lost: number }>();
  for (const one of group) {
    const before = kernels.get(one.kernelId) ?? { recovered: 0, lost: 0 };
    kernels.set(one.kernelId, {
      recovered: Math.max(before.recovered, one.recovered),
      lost: Math.max(before.lost, one.lost)
    });
  }
  const each = [...kernels.values()];
  return {
    kernels: each.length,
    seconds: Math.max(...group.map(one => one.seconds)),
    recovered: each.reduce((total, one) => total + one.recovered, 0),
    lost: each.reduce((total, one) => total + one.lost, 0)
  };
}

/** "resumed in 0.1 s, 14 messages recovered, 0 lost", with how many kernels when several. */
export function describe(group: Group): string {
  const { kernels, seconds, recovered, lost } = sum(group);
  const who = kernels > 1 ? `${kernels} kernels ` : '';
  const messages = recovered === 1 ? '1 message' : `${recovered} messages`;
  return `${who}resumed in ${duration(seconds)}, ${messages} recovered, ${lost} lost`;
}

export function toast(group: Group): Toast {
  const message = `Holdfast: ${describe(group)}`;
  return sum(group).lost > 0
    ? { level: 'warning', message: `${message}. The cells show where.` }
    : { level: 'info', message };
}

/** Seconds for people: "0.1 s", "12 s", "2 min 5 s". */
export function duration(seconds: number): string {
  if (seconds < 9.95) {
    return `${Math.max(seconds, seconds > 0 ? 0.1 : 0).toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function span(failover: Failover): [number, number] {
  // A server that tells no time: all such failovers count as one moment.
  const to = Number.isNaN(failover.at) ? 0 : failover.at;
  return [to - failover.seconds * 1000, to];
}
