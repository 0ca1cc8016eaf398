// Whether what is on the page is true now. A state machine: events and times in, state out. Pure.
// Times are ms since 1970. "Live" is never a guess: it ends when nothing has been heard for
// SILENCE, however healthy the connection looks, because a frozen proxy closes nothing.

export const SILENCE = 6000;
const WAITS = [250, 500, 1000, 2000, 3000];

/** `heard`: when the proxy last said something. `lostAt`: since when it has not been live. */
export const FIRST = Object.freeze({ phase: "connecting", heard: null, lostAt: null, tries: 0, retryAt: 0 });

/** What ends the trying until the reader does something. */
const FINAL = new Set(["signed-out", "refused", "outdated"]);

export function step(state, event) {
  if (FINAL.has(state.phase)) return state;
  switch (event.type) {
    case "heard":
      return { ...state, phase: "live", heard: event.now, lostAt: null, tries: 0, retryAt: 0 };
    case "broken":
      return broken(state, event.now);
    case "answered":
      return answered(state, event);
    case "outdated":
      return { ...state, phase: "outdated", lostAt: state.lostAt ?? event.now };
    case "tick":
      return isSilent(state, event.now) ? broken(state, event.now) : state;
    case "woken":
      return state.phase === "lost" ? { ...state, retryAt: event.now } : state;
    default:
      return state;
  }
}

function isSilent(state, now) {
  return state.phase === "live" && now - state.heard > SILENCE;
}

function broken(state, now) {
  const wait = WAITS[Math.min(state.tries, WAITS.length - 1)];
  // What was last heard is as old as that, not as old as our noticing.
  return { ...state, phase: "lost", lostAt: state.lostAt ?? state.heard ?? now, tries: state.tries + 1, retryAt: now + wait };
}

/** The status of an HTTP answer that was no stream. */
function answered(state, { status, now }) {
  if (status === 401) return { ...state, phase: "signed-out", lostAt: state.lostAt ?? state.heard ?? now };
  if (status === 403) return { ...state, phase: "refused", lostAt: state.lostAt ?? state.heard ?? now };
  return broken(state, now);
}

/** Whether it is time to dial. */
export function isDue(state, now) {
  return !FINAL.has(state.phase) && state.phase !== "live" && now >= state.retryAt;
}
