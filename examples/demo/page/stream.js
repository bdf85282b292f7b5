// This tab's stream: how it is asked for, and what the page knows of it.
import { count } from "./chart.js";
import { note, show } from "./feed.js";
import { IDLE, SSEClient } from "sse-hub-client";
import { SharedSSE } from "sse-hub-client/shared";
import { isRecord, parseJson, perTab, recall, scheduleDraw, store } from "./tools.js";

const REASONS = {
  network: "the connection was lost",
  eof: "the stream ended",
  silent: "nothing was heard for too long",
  "no-data": "nothing has arrived yet",
  buffered: "nothing arrives: a proxy may hold the stream back",
  "too-large": "an event is too large",
  offline: "the browser is offline",
  http: "the server answered",
  unauthorized: "not let in",
  "content-type": "the answer is no stream",
  "hub:end": "the server ended it",
  "hub:refused": "refused",
  "hub:error": "the server failed",
  reconnect: "asked anew",
};

/** What is shown; the parts of the page read it when they draw. */
export const stream = {
  client: null,
  settings: null, // what it was asked for: { user, session, events, topics, by }
  received: 0,
  online: [],
  job: null, // the newest upload job seen: { id, percent }
  gap: "", // what was said of the last gap, until it is dismissed
  isStalled: false,
};

let toldReason = "";
let onOpen = () => {};

/** Is called with each stream that has opened. */
export function whenOpen(listener) {
  onOpen = listener;
}

export const status = () => stream.client?.status ?? IDLE;

export const isLive = () => !["idle", "closed"].includes(status().state);

/** In words, why the stream is not open. */
export function reasonText({ reason, detail } = status()) {
  const words = REASONS[reason] ?? reason;
  return detail ? `${words} (${detail})` : words;
}

function addressOf({ user, session, events, topics }, client) {
  const query = new URLSearchParams();
  if (user) query.set("user", user);
  if (session) query.set("session", session);
  if (events.length > 0) query.set("events", events.join(","));
  // Topics that were joined meanwhile are asked for with the next stream.
  if (topics.length > 0) query.set("topics", topics.join(","));
  if (client) query.set("client", client);
  return `events?${query}`;
}

export function connect(settings) {
  stream.client?.close();
  stream.settings = settings;
  toldReason = "";
  signedIn = null;
  stop(false);
  const address = (client) => addressOf(stream.settings, client.status.client);
  // For trying out: ?silence=2000 finds a dead stream sooner.
  const silence = Number(new URLSearchParams(location.search).get("silence")) || undefined;
  const options = { silence, headers, renew, environment: { fetch: stallable } };
  if (settings.by === "shared") {
    stream.client = new SharedSSE(address, { ...options, name: addressOf(settings) });
  } else {
    stream.client = new SSEClient(address, { ...options, mode: settings.by === "native" ? "native" : "fetch" });
  }
  listen(stream.client);
  stream.client.open();
}

export function disconnect() {
  stream.client?.close();
}

function listen(client) {
  client.on("*", take);
  // A native EventSource brings only what something listens for.
  if (stream.settings.by === "native") nativeTypes.forEach((type) => client.on(type, () => {}));
  client.on("hub:open", (event) => {
    const text = event.json().resumed ? "Connected; resumed where the stream had stopped." : "Connected.";
    note("hub:open", text, event);
    onOpen();
  });
  client.on("hub:gap", (event) => {
    const { reason } = event.json();
    const why = reason === "evicted" ? "the server no longer holds them" : `reason: ${reason}`;
    note("hub:gap", `Missed events; fetch the state anew (${why}).`, { id: event.id, kind: "warn" });
    stream.gap = `Some events were missed: ${why}. A page fetches its state anew here, and goes on from ${event.id}.`;
  });
  client.on("hub:degraded", (event) => {
    const text = event.json().degraded ? "Events are held up: what is published arrives later." : "Events arrive again.";
    note("hub:degraded", text, { kind: event.json().degraded ? "warn" : "control" });
  });
  client.onStatus((now) => {
    if (client !== stream.client) return;
    tell(now);
    scheduleDraw();
  });
}

function take(event) {
  if (event.type === "presence") {
    stream.online = event.json().users;
  } else {
    stream.received += 1;
    count(event);
    if (event.type === "upload") noteUpload(parseJson(event.data));
    show(event);
  }
  scheduleDraw();
}

/** Says in the history what became of the stream; of a reason that repeats, once. */
function tell(now) {
  const { state, reason, detail } = now;
  if (state === "open") toldReason = "";
  const said = `${state} ${reason} ${detail}`;
  if (said === toldReason || (state !== "retrying" && state !== "closed")) return;
  toldReason = said;
  if (state === "retrying" && reason) note(reason.startsWith("hub:") ? reason : "reconnecting", `Comes back: ${reasonText(now)}.`, { kind: reason === "hub:refused" ? "warn" : "control" });
  if (state !== "closed") return;
  if (reason === "close") note("disconnected", "Disconnected by this tab.");
  else note("closed", `Closed: ${reasonText(now)}. Press Connect to try again.`, { kind: "warn" });
}

const seenJobs = new Set();

// With several jobs at once the bar follows the newest.
function noteUpload(data) {
  if (!isRecord(data)) return;
  const { job, percent } = data;
  const isNew = !seenJobs.has(job);
  seenJobs.add(job);
  if (isNew || stream.job?.id === job) stream.job = { id: job, percent: Math.min(100, Math.max(0, Number(percent) || 0)) };
}

const nativeTypes = new Set(["notification", "alert", "upload", "tick", "presence"]);

/** Names a type that a native stream is to bring. */
export function listenFor(type) {
  if (type.startsWith("hub:") || nativeTypes.has(type)) return;
  nativeTypes.add(type);
  if (stream.settings?.by === "native") stream.client.on(type, () => {});
}

/* ---------- who one is, where the server asks for it (--login) ---------- */

const TOKEN_KEY = "sse-hub-demo.token";
let signedIn = null; // goes on with the stream that waits for it

function headers() {
  const token = recall(perTab, TOKEN_KEY);
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** The stream was not let in: waits until somebody has signed in, as long as it takes. */
function renew() {
  return new Promise((done) => {
    signedIn = done;
    scheduleDraw();
  });
}

export const isSignedOut = () => signedIn !== null && status().state === "connecting" && status().reason === "unauthorized";

export function signIn(token) {
  store(perTab, TOKEN_KEY, token);
  signedIn?.();
  signedIn = null;
  scheduleDraw();
}

/* ---------- a page that does not read ---------- */

let gate = Promise.resolve();
let openGate = () => {};

/** Stops reading, as a page does that hangs; or goes on. */
export function stop(isStopped) {
  stream.isStalled = isStopped;
  openGate();
  if (isStopped) gate = new Promise((open) => { openGate = open; });
  scheduleDraw();
}

/** `fetch`, whose body is not read while the page is stopped. */
async function stallable(address, init) {
  const response = await fetch(address, init);
  if (response.status !== 200) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      await gate;
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  return new Response(body, response);
}
