// What the timeline's kinds mean: a sign, a tone and a word. Pure data.
// The shape alone tells the kind; colour only repeats it. Paths are drawn around 0,0, radius 7.

const KINDS = {
  "taken over": { tone: "key", path: "M0-7L7 0L0 7L-7 0z", solid: true },
  started: { tone: "good", path: "M-4.5-6L6.5 0L-4.5 6z", solid: true },
  "start failed": { tone: "bad", path: "M-4.5-6L6.5 0L-4.5 6zM-7 7L7-7", solid: false },
  restarted: { tone: "warn", path: "M5.5-1.5A5.5 5.5 0 1 0 4 4M6.5-6V-1H1.5", solid: false },
  died: { tone: "bad", path: "M-5-5L5 5M5-5L-5 5", solid: false, heavy: true },
  gap: { tone: "bad", path: "M-7 0H-2.5M2.5 0H7M-2.5-4V4M2.5-4V4", solid: false, heavy: true },
  deleted: { tone: "plain", path: "M-5-5H5V5H-5z", solid: false },
  "deleted kernel ended": { tone: "plain", path: "M-4-4H4V4H-4z", solid: true },
  "keeper replaced": { tone: "warn", path: "M-3.5-6H3.5L7 0L3.5 6H-3.5L-7 0z", solid: false },
  "record restored": { tone: "warn", path: "M0-6V6M-6 0H6", solid: false, heavy: true },
  leader: {
    word: "became leader",
    tone: "key",
    path: "M0-7L2-2L7-2L3 1.5L4.5 6.5L0 3.5L-4.5 6.5L-3 1.5L-7-2L-2-2z",
    solid: true,
  },
  "proxy joined": { tone: "good", path: "M-6 3L0-4L6 3", solid: false, heavy: true },
  "proxy draining": { tone: "warn", path: "M-6-3L0 4L6-3", solid: false, heavy: true },
  "proxy gone": { tone: "bad", path: "M-6-6H6V6H-6zM-3-3L3 3M3-3L-3 3", solid: false },
  "launcher joined": { tone: "good", path: "M-7 5H7M-5 1L0-5L5 1", solid: false, heavy: true },
  "launcher restarted": { tone: "warn", path: "M-7 6H7M4-1A4 4 0 1 0 2.5 2", solid: false },
  "launcher gone": { tone: "bad", path: "M-7 6H7M-4-5L4 3M4-5L-4 3", solid: false, heavy: true },
};

const OTHER = { tone: "plain", path: "M-3.5 0A3.5 3.5 0 1 0 3.5 0A3.5 3.5 0 1 0-3.5 0z", solid: true };

/** How a kind is drawn and said; one that is not known yet is a dot with its own word. */
export function kindOf(kind) {
  const found = Object.hasOwn(KINDS, kind) ? KINDS[kind] : OTHER;
  return { word: kind || "something", heavy: false, ...found };
}

/** Kinds in the order of the table, then the others, for the legend. */
export function ordered(kinds) {
  const known = Object.keys(KINDS).filter((kind) => kinds.has(kind));
  return [...known, ...[...kinds].filter((kind) => !Object.hasOwn(KINDS, kind)).sort()];
}
