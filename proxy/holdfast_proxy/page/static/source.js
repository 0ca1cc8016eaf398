// The wire to the proxy: one EventSource at a time, and the state of the connection.
// What is true of the connection is decided in connection.js; here are sockets and timers only.

import { FIRST, SILENCE, isDue, isOver, step } from "./connection.js";

const TICK = 500;
const ANSWER = 4000;

export class Source {
  /**
   * `base`: the page's own address. `onData(kind, value)`: "history" (a snapshot with many lines),
   * "snapshot", "beat" or "stale". It may throw for what it cannot read. `onState(state)`: after
   * each change. `isOutdated(error)`: whether only a reload helps.
   */
  constructor({ base, onData, onState, isOutdated }) {
    Object.assign(this, { base, onData, onState, isOutdated });
    this.state = FIRST;
    this.events = null;
    this.openedAt = 0;
    this.dialing = false;
  }

  start() {
    setInterval(() => this.tick(), TICK);
    const wake = () => {
      this.move({ type: "woken", now: Date.now() });
      this.tick();
    };
    addEventListener("online", wake);
    addEventListener("pageshow", wake);
    document.addEventListener("visibilitychange", wake);
    addEventListener("offline", () => {
      this.hangUp();
      this.move({ type: "broken", now: Date.now() });
    });
    this.tick();
  }

  tick() {
    const now = Date.now();
    this.move({ type: "tick", now });
    if (isOver(this.state)) this.hangUp();
    // Opened and never a word, or no word any more.
    if (this.events !== null && this.state.phase !== "live" && now - this.openedAt > SILENCE) this.lose();
    if (this.events === null && !this.dialing && isDue(this.state, now)) this.dial();
  }

  move(event) {
    const before = this.state;
    this.state = step(before, event);
    if (this.state !== before || event.type === "heard") this.onState(this.state);
  }

  /** First one plain answer, which says why when it is no, then the stream. */
  async dial() {
    this.dialing = true;
    try {
      const options = { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(ANSWER) };
      const answer = await fetch(`${this.base}/snapshot?timeline=2000`, options);
      if (answer.ok) {
        this.take("history", await answer.json());
        this.listen();
      } else {
        this.move({ type: "answered", status: answer.status, now: Date.now() });
      }
    } catch {
      this.move({ type: "broken", now: Date.now() });
    } finally {
      this.dialing = false;
    }
  }

  listen() {
    this.hangUp();
    if (isOver(this.state)) return;
    const events = new EventSource(`${this.base}/events`);
    this.events = events;
    this.openedAt = Date.now();
    const current = (act) => (event) => {
      if (this.events === events) act(event);
    };
    for (const kind of ["snapshot", "beat", "stale"]) {
      events.addEventListener(kind, current((event) => this.take(kind, parsed(event.data))));
    }
    // Its own way of coming back waits for seconds and gives up on some answers; ours does not.
    events.addEventListener("error", current(() => this.lose()));
    events.addEventListener("bye", current(() => this.lose()));
  }

  take(kind, value) {
    const now = Date.now();
    if (kind === "stale") {
      this.onData(kind, value);
      return; // the proxy lives, what is shown is old: silence, as far as the reader is concerned
    }
    try {
      this.onData(kind, value);
      this.move({ type: kind === "history" ? "polled" : "heard", now });
    } catch (error) {
      if (!this.isOutdated(error)) throw error;
      this.hangUp();
      this.move({ type: "outdated", now });
    }
  }

  lose() {
    this.hangUp();
    this.move({ type: "mute", now: Date.now() });
  }

  hangUp() {
    this.events?.close();
    this.events = null;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
