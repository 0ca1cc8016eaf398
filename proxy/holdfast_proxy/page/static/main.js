// The page: takes what the source says, keeps it, and shows it. Everything that decides is pure
// and elsewhere (snapshot, history, ranking, geometry, connection); here it is put together.

import { Keyed, element, icon, setText } from "./elements.js";
import { KEPT, merged, presence, watched } from "./history.js";
import { Picture } from "./picture.js";
import { found, paged, problems, sorted, tally } from "./ranking.js";
import { OtherVersion, readSnapshot, time } from "./snapshot.js";
import { Source } from "./source.js";
import { KernelHeads, eventTable, kernelTable, launcherTable, proxyTable } from "./tables.js";
import { ago, clock, count, span } from "./words.js";

const ROWS = 50;
const EVENT_ROWS = 100;
const at = (id) => document.getElementById(id);
const base = `${document.documentElement.dataset.base}cluster`;

const view = {
  snapshot: null,
  heardAt: 0, // Date.now() when `snapshot.time` was true
  events: [],
  seen: new Map(),
  stale: null,
  range: 300,
  words: "",
  state: "",
  order: { by: "attention", reversed: false },
  page: 0,
};

const proxyRows = proxyTable(at("proxy-rows"));
const launcherRows = launcherTable(at("launcher-rows"));
const kernelRows = kernelTable(at("kernel-rows"));
const eventRows = eventTable(at("event-rows"));
const heads = new KernelHeads(at("kernel-heads"), at("order"), orderBy);
const facts = new Keyed(at("facts"), makeFact, updateFact);
const problemRows = new Keyed(at("problems"), ({ tone, text }) => element("li", { "data-tone": tone }, icon(tone === "bad" ? "cross" : tone === "warn" ? "triangle" : "check"), element("span", {}, text)), () => {});
const picture = new Picture({ place: at("picture"), words: at("picture-words"), empty: at("picture-empty"), legend: at("legend"), tip: at("tip") });

const source = new Source({ base, onData: take, onState: showConnection, isOutdated: (error) => error instanceof OtherVersion });

// --- what comes ---

function take(kind, value) {
  if (kind === "stale") {
    view.stale = typeof value?.message === "string" ? value.message : "the proxy cannot see the cluster";
    return;
  }
  if (kind === "beat") {
    if (view.snapshot === null) return;
    beat(value);
  } else {
    const snapshot = readSnapshot(value);
    view.events = merged(view.events, snapshot.timeline);
    view.snapshot = snapshot;
  }
  view.stale = null;
  view.heardAt = Date.now();
  view.seen = watched(view.seen, view.snapshot.proxies, view.snapshot.time);
  schedule();
}

function beat(value) {
  const { snapshot } = view;
  const heard = value?.last_seen ?? {};
  const launchers = snapshot.launchers.map((launcher) => ({ ...launcher, lastSeen: time(heard[launcher.id]) ?? launcher.lastSeen }));
  const leaseAge = typeof value?.lease_age === "number" ? value.lease_age : null;
  view.snapshot = { ...snapshot, time: time(value?.time) ?? snapshot.time, launchers, etcd: { ...snapshot.etcd, leaseAge } };
}

/** The cluster's time now: the proxy's clock, moved on by ours. It stands while nothing is heard. */
function now() {
  const moving = ["live", "polled"].includes(source.state.phase) ? Date.now() - view.heardAt : 0;
  return view.snapshot.time + Math.max(0, moving);
}

// --- what is shown ---

let scheduled = false;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  // Not requestAnimationFrame: a page in the background keeps its title and its table true.
  setTimeout(() => {
    scheduled = false;
    if (view.snapshot !== null) show();
  }, 50);
}

function show() {
  const { snapshot } = view;
  const trouble = problems(snapshot);
  setText(document.querySelector("h1"), snapshot.cluster);
  setText(at("about"), `Holdfast cluster · ${snapshot.mode} · seen by ${snapshot.self}`);
  document.title = `${trouble.length ? `(${trouble.length}) ` : ""}${snapshot.cluster} · Holdfast`;
  facts.show(factsOf(snapshot));
  const shown = trouble.length ? trouble : [{ tone: "good", text: "Nothing. All proxies and launchers answer." }];
  problemRows.show(shown.map((problem) => ({ ...problem, key: `${problem.tone} ${problem.text}` })));
  const time_ = now();
  proxyRows.show(snapshot.proxies.map((proxy) => ({ ...proxy, key: proxy.id, page: proxy.url === null ? null : `${proxy.url}/cluster` })));
  launcherRows.show(snapshot.launchers.map((launcher) => ({ ...launcher, key: launcher.id, now: time_ })));
  showKernels(time_);
  showPicture();
  showEvents(time_);
}

function factsOf({ proxies, launchers, kernels, etcd, era }) {
  const ready = proxies.filter(({ status }) => status === "ready").length;
  const alive = launchers.filter((launcher) => launcher.alive).length;
  const states = tally(kernels).map(([state, number]) => `${number} ${state}`);
  const lease = etcd.leaseAge === null ? "no lease" : `lease renewed ${span(etcd.leaseAge)} ago`;
  return [
    { key: "Proxies", value: `${proxies.length}`, note: `${ready} ready` },
    { key: "Launchers", value: `${launchers.length}`, note: `${alive} ready` },
    { key: "Kernels", value: `${kernels.length}`, note: states.join(" · ") || "none yet" },
    { key: "etcd", value: etcd.reachable ? (etcd.version ?? "reachable") : "away", note: era === null ? lease : `${lease} · era ${era}` },
  ];
}

function makeFact({ key }) {
  return element("div", {}, element("dt", {}, key), element("dd", { class: "value" }), element("dd", { class: "quiet" }));
}

function updateFact(node, { value, note }) {
  setText(node.children[1], value);
  setText(node.children[2], note);
}

function showKernels(time_) {
  const { kernels } = view.snapshot;
  showStates(kernels);
  const wanted = found(kernels, { words: view.words, state: view.state });
  const { rows, page, pages, first } = paged(sorted(wanted, view.order), view.page, ROWS);
  view.page = page;
  heads.show(view.order);
  kernelRows.show(rows.map((kernel) => ({ ...kernel, key: kernel.id, now: time_ })));
  at("kernel-none").hidden = rows.length > 0;
  setText(at("kernel-none"), kernels.length === 0 ? "No kernel runs yet." : "No kernel is like that.");
  const all = count(kernels.length, "kernel");
  const part = wanted.length === kernels.length ? all : `${wanted.length} of ${all}`;
  setText(at("kernel-count"), pages > 1 ? `${first}–${first + rows.length - 1} · ${part}` : part);
  at("pages").hidden = pages < 2;
  at("earlier").disabled = page === 0;
  at("later").disabled = page === pages - 1;
}

const stateChoices = new Keyed(at("state"), ({ key }) => element("option", { value: key }), (node, { text }) => setText(node, text));

function showStates(kernels) {
  const counts = tally(kernels);
  if (view.state !== "" && !counts.some(([state]) => state === view.state)) counts.push([view.state, 0]);
  const all = { key: "", text: "All states" };
  stateChoices.show([all, ...counts.map(([state, number]) => ({ key: state, text: `${state} (${number})` }))]);
  at("state").value = view.state;
}

function showPicture() {
  const to = now();
  const from = to - view.range * 1000;
  const { proxies } = view.snapshot;
  const oldest = view.events[0]?.time ?? to;
  picture.show({
    events: view.events,
    proxies: proxies.map(({ id }) => id),
    presence: presence(view.events, proxies, view.seen, { since: oldest, now: to }),
    from,
    to,
    width: at("picture").clientWidth,
    waiting: false,
  });
}

function showEvents(time_) {
  if (!at("events").open) return;
  const newest = view.events.slice(-EVENT_ROWS).reverse();
  const seen = new Map();
  eventRows.show(newest.map((event) => {
    const name = JSON.stringify([event.time, event.kind, event.kernel, event.proxy]);
    seen.set(name, (seen.get(name) ?? 0) + 1);
    return { ...event, key: `${name} ${seen.get(name)}`, now: time_ };
  }));
  const more = view.events.length - newest.length;
  setText(at("event-more"), newest.length === 0 ? "Nothing is written down yet." : more > 0 ? `The newest ${newest.length} of ${view.events.length}${view.events.length >= KEPT ? " or more" : ""}.` : "");
}

// --- the connection ---

const PHASES = {
  connecting: ["dashed", "Connecting"],
  live: ["full", "Live"],
  polled: ["triangle", "Not live"],
  lost: ["cross", "Not connected"],
  "signed-out": ["cross", "Signed out"],
  refused: ["cross", "No access"],
  outdated: ["cross", "Reload needed"],
};

function showConnection(state) {
  // Between the first answer and the stream's first word there is nothing to worry about yet.
  const phase = state.phase === "polled" && state.tries === 0 ? "connecting" : state.phase;
  document.body.dataset.connection = phase;
  const badge = at("badge");
  if (badge.dataset.phase !== phase) {
    badge.dataset.phase = phase;
    const [shape, words] = PHASES[phase];
    badge.replaceChildren(icon(shape), element("span", {}, words));
    showNotice(phase, state);
  }
  showAge();
}

function showNotice(phase, state) {
  const notice = at("lost");
  notice.hidden = phase === "live" || phase === "connecting";
  if (notice.hidden) return;
  const since = clock(state.lostAt);
  const seen = view.snapshot === null ? " " : ` What you see is of ${since}. `;
  const [title, ...rest] = {
    polled: ["No live updates come through.", " What you see is asked for again every few seconds."],
    lost: [`Not connected since ${since}.`, view.snapshot === null ? "" : " What you see is from then.", " The page keeps trying."],
    "signed-out": ["You are signed out.", seen, element("a", { href: base }, "Sign in again")],
    refused: ["This user may not see the cluster any more.", seen],
    outdated: ["The proxy has another version than this page.", seen, element("a", { href: base }, "Load the page anew")],
  }[phase];
  notice.replaceChildren(element("p", {}, element("strong", {}, title), ...rest), ...otherPages(phase));
}

/** The same page on the other proxies: a link each, because a script may not ask them. */
function otherPages(phase) {
  const others = (view.snapshot?.proxies ?? []).filter(({ self, url }) => !self && url !== null);
  if (!["lost", "polled"].includes(phase) || others.length === 0) return [];
  const links = others.flatMap(({ id, url }) => [" ", element("a", { href: `${url}/cluster`, rel: "noreferrer" }, id)]);
  return [element("p", {}, "The same page elsewhere:", ...links)];
}

function showAge() {
  const { phase, heard } = source.state;
  const old = phase === "live" || heard === null ? "" : `, ${ago(heard, Date.now())}`;
  const age = heard === null ? "" : `as of ${clock(heard)}${old}`;
  setText(at("updated"), view.stale === null ? age : `${age} · ${view.stale}`);
}

// --- what the reader does ---

function orderBy(by) {
  view.order = view.order.by === by ? { by, reversed: !view.order.reversed } : { by, reversed: false };
  view.page = 0;
  schedule();
}

function changed(change) {
  return (event) => {
    change(event);
    schedule();
  };
}

at("filter").addEventListener("input", changed((event) => Object.assign(view, { words: event.target.value, page: 0 })));
at("state").addEventListener("change", changed((event) => Object.assign(view, { state: event.target.value, page: 0 })));
at("order").addEventListener("change", changed((event) => Object.assign(view, { order: { by: event.target.value, reversed: false }, page: 0 })));
at("earlier").addEventListener("click", changed(() => (view.page -= 1)));
at("later").addEventListener("click", changed(() => (view.page += 1)));
at("ranges").addEventListener("change", changed((event) => (view.range = Number(event.target.value))));
at("events").addEventListener("toggle", changed(() => {}));
addEventListener("resize", changed(() => {}));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  at("filter").focus();
});

setInterval(() => {
  if (view.snapshot === null) return;
  showAge();
  if (source.state.phase === "live" && !document.hidden) showPicture();
}, 1000);
source.start();
