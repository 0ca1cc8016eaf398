// Whether what is on the page is true now. A state machine: events and times in, state out. Pure.
// Times are ms since 1970, of the reader's own clock. "Live" is never a guess: it begins with the
// stream's first word, not with its connection, and ends when nothing has been heard for SILENCE,
// however healthy the connection looks, because a frozen proxy closes nothing.

export const SILENCE = 6000;
const WAITS = [250, 500, 1000, 2000, 3000];

/**
 * `phase`: "connecting", "live", "polled" (the proxy answers, its stream is mute), "lost", or one of
 * FINAL. `heard`: when the proxy last said something. `lostAt`: of when what is shown is, while it
 * is not live. `tries`: dials since it was live.
 */
export const FIRST = Object.freeze({ phase: "connecting", heard: null, lostAt: null, tries: 0, retryAt: 0 });

/** What ends the trying until the reader does something. */
const FINAL = new Set(["signed-out", "refused", "outdated"]);

export function step(state, event) {
  if (FINAL.has(state.phase)) return state;
  const { now } = event;
  switch (event.type) {
    case "heard":
      return { phase: "live", heard: now, lostAt: null, tries: 0, retryAt: 0 };
    case "polled":
      return state.phase === "live" ? state : { ...state, phase: "polled", heard: now, lostAt: now };
    case "mute":
      return state.phase === "polled" ? later(state, now) : broken(state, now);
    case "broken":
      return broken(state, now);
    case "answered":
      return answered(state, event);
    case "outdated":
      return ended(state, "outdated", now);
    case "tick":
      return state.phase === "live" && now - state.heard > SILENCE ? broken(state, now) : state;
    case "woken":
      return state.phase === "live" ? state : { ...state, retryAt: Math.min(state.retryAt, now) };
    default:
      return state;
  }
}

function later(state, now) {
  const wait = WAITS[Math.min(state.tries, WAITS.length - 1)];
  return { ...state, tries: state.tries + 1, retryAt: now + wait };
}

function broken(state, now) {
  return { ...later(state, now), phase: "lost", lostAt: since(state, now) };
}

/** What was last heard is as old as that, not as old as our noticing. */
function since(state, now) {
  return state.lostAt ?? state.heard ?? now;
}

function ended(state, phase, now) {
  return { ...state, phase, lostAt: since(state, now) };
}

/** The status of an HTTP answer that was no snapshot. */
function answered(state, { status, now }) {
  if (status === 401) return ended(state, "signed-out", now);
  if (status === 403) return ended(state, "refused", now);
  return broken(state, now);
}

/** Whether it is time to dial. */
export function isDue(state, now) {
  return !isOver(state) && state.phase !== "live" && now >= state.retryAt;
}

/** Whether only the reader can bring it back. */
export function isOver(state) {
  return FINAL.has(state.phase);
}
