/**
 * One kernel stream as the shim tells it, and the checking of what came over the wire.
 *
 * Pure: no DOM, no network, no clock. It must not know where a value came from (an event or the
 * answer to a question): both carry the same object (docs/reference/shim.md).
 */

/** The schema of the events that carry one stream each. */
export const SCHEMA_ID = 'urn:holdfast:kernel-stream:v1';

/** `unknown` is a word of a newer shim: shown as such, never taken for one that we know. */
export type StreamState =
  | 'connected'
  | 'resuming'
  | 'waiting'
  | 'unreachable'
  | 'gone'
  | 'unknown';

const STATES: readonly string[] = ['connected', 'resuming', 'waiting', 'unreachable', 'gone'];

/** What the last failover of a stream came to. */
export interface Resumed {
  /** How long the stream was interrupted. */
  readonly seconds: number;
  /** Messages of that time that arrived afterwards. */
  readonly recovered: number;
  /** Messages of that time that never will; the cells show where. */
  readonly lost: number;
}

export interface KernelStream {
  readonly kernelId: string;
  readonly sessionId: string;
  readonly state: StreamState;
  readonly reason: string;
  readonly gateway: string;
  /** ISO 8601, as the notebook server's clock has it. */
  readonly since: string;
  readonly resumed: Resumed | null;
}

/** The answer to `GET api/holdfast/streams`. */
export interface Snapshot {
  readonly active: boolean;
  readonly version: string;
  readonly gateways: readonly string[];
  readonly streams: readonly KernelStream[];
}

/** What names a stream: two notebooks on one kernel are two streams. */
export function streamKey(stream: { kernelId: string; sessionId: string }): string {
  return `${stream.kernelId} ${stream.sessionId}`;
}

/** A stream out of JSON; null when it does not even name a kernel. */
export function parseStream(value: unknown): KernelStream | null {
  if (!isRecord(value) || typeof value.kernel_id !== 'string' || value.kernel_id === '') {
    return null;
  }
  const state = text(value.state);
  return {
    kernelId: value.kernel_id,
    sessionId: text(value.session_id),
    state: (STATES.includes(state) ? state : 'unknown') as StreamState,
    reason: text(value.reason),
    gateway: text(value.gateway),
    since: text(value.since),
    resumed: parseResumed(value.resumed)
  };
}

/** A snapshot out of JSON; null when it is not one. Streams that are none are left out. */
export function parseSnapshot(value: unknown): Snapshot | null {
  if (!isRecord(value) || typeof value.active !== 'boolean') {
    return null;
  }
  const gateways = Array.isArray(value.gateways) ? value.gateways : [];
  const streams = Array.isArray(value.streams) ? value.streams : [];
  return {
    active: value.active,
    version: text(value.version),
    gateways: gateways.filter((url): url is string => typeof url === 'string'),
    streams: streams.map(parseStream).filter((stream): stream is KernelStream => stream !== null)
  };
}

function parseResumed(value: unknown): Resumed | null {
  if (!isRecord(value)) {
    return null;
  }
  const { seconds, recovered, lost } = value;
  return isCount(seconds) && isCount(recovered) && isCount(lost)
    ? { seconds, recovered, lost }
    : null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
