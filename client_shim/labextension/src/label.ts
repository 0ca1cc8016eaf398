/**
 * What the status bar says: a stream's state as words, a sign, an explanation and advice.
 *
 * Pure. The words carry everything; sign and colour only repeat it. Plain English, no jargon: what
 * happened, and what the reader should do.
 */

import type { KernelStream, StreamState } from './stream';

/** `silent`: the notebook server itself gives no word. `linking`: the page's own websocket is down. */
export type Kind = StreamState | 'silent' | 'linking';

export interface Label {
  readonly kind: Kind;
  /** A sign before the text; never the only carrier of the meaning. */
  readonly sign: string;
  /** In the status bar, with a shortened reason. */
  readonly text: string;
  /** The heading of the popup: the text without "Holdfast" and reason. */
  readonly heading: string;
  /** What this means and what to do. */
  readonly advice: string;
}

/** What the page itself knows about its way to the kernel. */
export interface Way {
  /** The notebook server answers questions. */
  readonly answering: boolean;
  /** The websocket from this page to the notebook server for this kernel is open. */
  readonly linked: boolean;
}

interface Words {
  readonly sign: string;
  readonly heading: string;
  readonly advice: string;
}

const WORDS: Readonly<Record<Kind, Words>> = {
  connected: {
    sign: '●',
    heading: 'connected',
    advice: 'All is well. If this gateway fails, Holdfast reconnects and your cells go on.'
  },
  resuming: {
    sign: '↻',
    heading: 'resuming',
    advice:
      'The gateway went away and another one is taking over. Cells keep running, and their ' +
      'output will follow. There is nothing to do.'
  },
  waiting: {
    sign: '…',
    heading: 'waiting for a kernel',
    advice:
      'The kernel has not started yet. Cells that you run now are kept and start with it. ' +
      'There is nothing to do.'
  },
  unreachable: {
    sign: '!',
    heading: 'kernel unreachable',
    advice:
      'Holdfast keeps trying. The kernel may well be running: then its output arrives when it ' +
      'can be reached again. If this lasts, tell whoever runs the gateway.'
  },
  gone: {
    sign: '✕',
    heading: 'kernel gone',
    advice:
      'The kernel has ended, and its variables are lost. Restart it (menu Kernel) and run the ' +
      'cells again.'
  },
  unknown: {
    sign: '?',
    heading: 'state unknown',
    advice:
      'The notebook server tells a state that this page does not know, probably because it was ' +
      'updated. Reload the page.'
  },
  silent: {
    sign: '?',
    heading: 'no word from the notebook server',
    advice:
      'The notebook server does not answer, so nothing is known about the kernel. Cells that ' +
      'run go on. Check your network, and that the notebook server is running.'
  },
  linking: {
    sign: '↻',
    heading: 'reconnecting to the notebook server',
    advice:
      'The connection between this page and the notebook server broke and is being made again. ' +
      'If it does not come back, choose Reconnect to Kernel in the menu Kernel.'
  }
};

/** Characters of a reason that fit into a status bar. */
const REASON_LENGTH = 48;

/** The label for a stream, seen over `way`. */
export function label(stream: KernelStream, way: Way): Label {
  const kind = kindOf(stream.state, way);
  const { sign, heading, advice } = WORDS[kind];
  const reason = kind === stream.state && kind !== 'connected' ? shorten(stream.reason) : '';
  return {
    kind,
    sign,
    heading,
    advice,
    text: `Holdfast: ${heading}${reason === '' ? '' : ` (${reason})`}`
  };
}

/**
 * The notebook server's word is only as good as the way it came. Without an answer nothing is
 * known. With one, a broken link of this page refutes only "connected": the shim itself closes the
 * link of a kernel that is gone.
 */
function kindOf(state: StreamState, way: Way): Kind {
  if (!way.answering) {
    return 'silent';
  }
  return state === 'connected' && !way.linked ? 'linking' : state;
}

function shorten(reason: string): string {
  const line = reason.replace(/\s+/g, ' ').trim();
  const characters = [...line];
  return characters.length <= REASON_LENGTH
    ? line
    : `${characters.slice(0, REASON_LENGTH - 1).join('').trimEnd()}…`;
}

/** "14:03:07 (2 min ago)"; with the date when it was not today; the text itself when no time. */
export function moment(iso: string, now: Date, locale?: string): string {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) {
    return iso;
  }
  const clock = time.toLocaleTimeString(locale);
  const today = time.toDateString() === now.toDateString();
  return `${today ? '' : `${time.toLocaleDateString(locale)} `}${clock} (${ago(time, now)})`;
}

function ago(time: Date, now: Date): string {
  // The two clocks are of two machines: one that seems ahead is taken for now.
  const seconds = Math.max(0, Math.round((now.getTime() - time.getTime()) / 1000));
  if (seconds < 60) {
    return `${seconds} s ago`;
  }
  if (seconds < 3600) {
    return `${Math.floor(seconds / 60)} min ago`;
  }
  return seconds < 86400
    ? `${Math.floor(seconds / 3600)} h ago`
    : `${Math.floor(seconds / 86400)} d ago`;
}
