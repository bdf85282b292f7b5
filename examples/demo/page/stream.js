// This tab's stream: its options, its client and the state that the page draws.
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
  unauthorized: "the server requires a sign-in",
  "content-type": "the answer is not an event stream",
  "hub:end": "the server ended the stream",
  "hub:refused": "refused",
  "hub:error": "the server failed",
  reconnect: "this page asked for a new connection",
};

const WHY_MISSED = { evicted: "the server no longer holds them", shared: "the tab that holds the stream no longer has them" };

/** The state that the parts of the page draw. */
export const stream = {
  client: null,
  settings: null, // the options of the stream: { user, session, events, topics, by }
  received: 0,
  online: [],
  job: null, // the newest upload job: { id, percent }
  gap: "", // the text of the last gap, until the user dismisses it
  isStalled: false,
};

let lastNoted = "";
let inheritedId = ""; // the client id of the stream before, until the hub assigns one
let requestedTopics = ""; // those in the address of the current stream
let onOpen = () => {};

/** Sets the listener for each stream that opens. */
export function whenOpen(listener) {
  onOpen = listener;
}

export const status = () => stream.client?.status ?? IDLE;

export const isLive = () => !["idle", "closed"].includes(status().state);

/** Returns the reason why the stream is not open, in words. */
export function reasonText({ reason, detail } = status()) {
  const words = REASONS[reason] ?? reason;
  return detail ? `${words} (${detail})` : words;
}

function addressOf({ user, session, events, topics }, client) {
  const query = new URLSearchParams();
  if (user) query.set("user", user);
  if (session) query.set("session", session);
  if (events.length > 0) query.set("events", events.join(","));
  if (topics.length > 0) query.set("topics", topics.join(","));
  if (client) query.set("client", client);
  return `events?${query}`;
}

/** The name under which tabs share a stream. A stream of one tab has none. */
const groupOf = (settings) => (settings.by === "shared" ? addressOf(settings) : "");

/**
 * Opens a stream with these options. The stream resumes from the tab's last position if the owner
 * is the same.
 */
export function connect(settings) {
  const position = leave(settings);
  stream.settings = settings;
  lastNoted = "";
  signedIn = null;
  stop(false);
  const address = (client) => {
    requestedTopics = String(settings.topics);
    return addressOf(settings, client.status.client || inheritedId);
  };
  // ?silence=2000 detects a dead stream sooner, to try this out.
  const silence = Number(new URLSearchParams(location.search).get("silence")) || undefined;
  const options = { silence, headers, renew, lastEventId: position, environment: { fetch: stallable } };
  if (settings.by === "shared") {
    stream.client = new SharedSSE(address, { ...options, name: groupOf(settings) });
  } else {
    stream.client = new SSEClient(address, { ...options, mode: settings.by === "native" ? "native" : "fetch" });
  }
  listen(stream.client);
  stream.client.open();
}

/**
 * Closes the stream. Returns the position to resume from, and keeps the client id for the
 * successor.
 */
function leave(next) {
  const { client, settings } = stream;
  const isSame = settings !== null && settings.user === next.user && settings.session === next.session;
  // The id of a shared stream belongs to all its tabs, and a displaced stream has lost its id.
  const keepsId = isSame && groupOf(settings) === groupOf(next) && status().detail !== "displaced";
  inheritedId = keepsId ? status().client || inheritedId : "";
  // The history must not show that the stream which is replaced is closed.
  stream.client = null;
  client?.close();
  return isSame ? client.lastEventId : "";
}

export function disconnect() {
  stream.client?.close();
}

/** Waits until the stream is open or closed. */
export function settled() {
  return new Promise((done) => {
    const check = ({ state }) => (state === "open" || state === "closed") && done();
    stream.client.onStatus(check);
    check(status());
  });
}

/**
 * Changes the topics of the stream. A shared stream is replaced, because its name contains the
 * topics.
 *
 * Returns true if the open stream must be changed by a request to the server.
 */
export function setTopics(topics) {
  if (!stream.settings) return false;
  if (stream.settings.by === "shared" && isLive()) {
    connect({ ...stream.settings, topics });
    return false;
  }
  stream.settings.topics = topics;
  return status().state === "open";
}

function listen(client) {
  client.on("*", take);
  // A native EventSource delivers only types that have a listener.
  if (stream.settings.by === "native") nativeTypes.forEach((type) => client.on(type, () => {}));
  client.on("hub:open", (event) => {
    const text = event.json().resumed ? "Connected; resumed after the last event." : "Connected.";
    note("hub:open", text, event);
    // The topics changed while the request was under way, or a native stream reused its old
    // address.
    if (stream.settings.by !== "shared" && requestedTopics !== String(stream.settings.topics)) client.reconnect();
    onOpen();
  });
  client.on("hub:gap", (event) => {
    const { reason } = event.json();
    const why = WHY_MISSED[reason] ?? `reason: ${reason}`;
    note("hub:gap", `Missed events; fetch the state again (${why}).`, { id: event.id, kind: "warn" });
    stream.gap = `Some events were missed: ${why}. An application fetches its state here, and continues from ${event.id}.`;
  });
  client.on("hub:degraded", (event) => {
    const text = event.json().degraded ? "Events are held up: the server cannot reach its other instances." : "Events arrive again.";
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

/** Writes changes of the status into the history; a reason that repeats, once. */
function tell(now) {
  const { state, reason, detail } = now;
  if (state === "open") lastNoted = "";
  const text = `${state} ${reason} ${detail}`;
  if (text === lastNoted || (state !== "retrying" && state !== "closed")) return;
  lastNoted = text;
  if (state === "retrying" && reason) {
    note(reason.startsWith("hub:") ? reason : "reconnecting", `Reconnects: ${reasonText(now)}.`, { kind: reason === "hub:refused" ? "warn" : "control" });
  }
  if (state !== "closed") return;
  if (reason === "close") note("disconnected", "Disconnected by this tab.");
  else note("closed", `Closed: ${reasonText(now)}. Press Connect to try again.`, { kind: "warn" });
}

const seenJobs = new Set();

// With several jobs at once, the bar shows the newest.
function noteUpload(data) {
  if (!isRecord(data)) return;
  const { job, percent } = data;
  const isNew = !seenJobs.has(job);
  seenJobs.add(job);
  if (isNew || stream.job?.id === job) stream.job = { id: job, percent: Math.min(100, Math.max(0, Number(percent) || 0)) };
}

const nativeTypes = new Set(["notification", "alert", "upload", "tick", "presence"]);

/** Adds a type that a native stream must deliver. */
export function listenFor(type) {
  if (type.startsWith("hub:") || nativeTypes.has(type)) return;
  nativeTypes.add(type);
  if (stream.settings?.by === "native") stream.client.on(type, () => {});
}

/* ---------- signing in, if the server requires it (--login) ---------- */

const TOKEN_KEY = "sse-hub-demo.token";
let signedIn = null; // continues the stream that waits for a token

function headers() {
  const token = recall(perTab, TOKEN_KEY);
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** Requests a stream of the same owner. */
export function ask(extra, query, signal) {
  const address = addressOf({ ...stream.settings, topics: [], events: [] });
  return fetch(query ? `${address}&${query}` : address, { headers: { ...headers(), ...extra }, signal, cache: "no-store" });
}

/** Waits until the user has signed in, without a limit. */
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

/* ---------- a page that stops reading ---------- */

let gate = Promise.resolve();
let openGate = () => {};

/** Stops reading the stream, as a page that hangs does, or continues. */
export function stop(isStopped) {
  stream.isStalled = isStopped;
  openGate();
  if (isStopped) gate = new Promise((open) => { openGate = open; });
  scheduleDraw();
}

/** `fetch`. The body is not read while the page is stopped. */
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
