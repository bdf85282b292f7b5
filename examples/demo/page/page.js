// The page: draws the stream's state, and starts the stream.
import { startChart } from "./chart.js";
import { kick, wireControls } from "./controls.js";
import { clearHistory } from "./feed.js";
import { connect, isLive, isSignedOut, listenFor, reasonText, status, stream, whenOpen } from "./stream.js";
import { $, drawAll, drawsWith, element, parseJson, perBrowser, perTab, recall, scheduleDraw, setText, splitNames, store } from "./tools.js";

const STATS_INTERVAL_MS = 1000;
const REQUEST_TIMEOUT_MS = 10_000;
const USERS = ["alice", "bob", "carol"];
const TYPES_KEY = "sse-hub-demo.types";
const STATUS_TEXT = {
  idle: "Disconnected",
  connecting: "Connecting",
  open: "Connected",
  retrying: "Reconnecting",
  closed: "Closed",
};

const checked = (name) => [...document.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value);

function formSettings() {
  return {
    user: $("user").value.trim(),
    session: $("session").value.trim(),
    events: [...new Set([...checked("filter"), ...splitNames($("filter-more").value)])],
    topics: checked("topic"),
    by: $("by").value,
  };
}

function isEdited() {
  // Topics are changed on the open stream.
  const asked = (settings) => JSON.stringify({ ...settings, topics: [] });
  return asked(formSettings()) !== asked(stream.settings);
}

function apply() {
  const settings = formSettings();
  store(perTab, "user", settings.user);
  store(perTab, "session", settings.session);
  store(perTab, "topics", settings.topics.join(","));
  settings.events.forEach(listenFor);
  document.title = settings.user ? `${settings.user} · sse-hub demo` : "sse-hub demo";
  return settings;
}

/* ---------- drawing ---------- */

function statusText({ state, degraded }) {
  if (isSignedOut()) return "Signed out";
  return degraded ? "Connected, held up" : STATUS_TEXT[state];
}

function whyText({ state, reason, degraded, retryAt }) {
  if (degraded) return "events are held up: the server cannot reach its other instances. The events arrive when it can.";
  if (state === "open" || state === "idle" || !reason) return "";
  const wait = retryAt === undefined ? "" : `, again in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s`;
  return `${reasonText()}${wait}`;
}

function drawStatus() {
  const { state, reason } = status();
  const isClosedHere = state === "closed" && reason === "close";
  const pill = $("status");
  pill.dataset.state = isClosedHere ? "idle" : state;
  pill.dataset.degraded = String(status().degraded);
  setText(pill, isClosedHere ? STATUS_TEXT.idle : statusText(status()));
  const live = isLive();
  $("disconnect").disabled = !live;
  setText($("connect"), !live ? "Connect" : isEdited() ? "Apply" : "Reconnect");
  $("connect").classList.toggle("primary", !live || isEdited());
  const why = isClosedHere ? "" : whyText(status());
  $("why").hidden = !why;
  setText($("why"), why);
}

function drawFacts() {
  const { client, resumed } = status();
  const id = isLive() ? client : "";
  setText($("client-id"), id || "–");
  $("copy").disabled = !id;
  setText($("resumed"), !isLive() || resumed === undefined ? "–" : resumed ? "yes" : "no");
  setText($("last-id"), stream.client?.lastEventId || "–");
  setText($("received"), stream.received.toLocaleString());
  const shared = stream.settings?.by === "shared" && isLive();
  setText($("holder"), !shared ? "this tab" : stream.client.isLeader ? "this tab, for all" : "another tab");
}

function drawJob() {
  const percent = stream.job?.percent ?? 0;
  $("job-progress").value = percent;
  setText($("job-percent"), `${Math.round(percent)} %`);
}

let drawnPeople = "";

function drawPeople() {
  const own = stream.settings?.user;
  const people = JSON.stringify([stream.online, own]);
  if (people === drawnPeople) return;
  drawnPeople = people;
  $("people").replaceChildren(...stream.online.slice(0, 50).map((user) => {
    const row = element("li", "person", "");
    const button = element("button", "small", "Kick");
    button.type = "button";
    button.append(element("span", "visually-hidden", ` ${user}`));
    button.addEventListener("click", () => kick(user, button));
    row.append(element("span", "name", user === own ? `${user} (you)` : user), button);
    return row;
  }));
  setText($("people-count"), String(stream.online.length));
}

function drawTrouble() {
  setText($("gap-text"), stream.gap);
  $("gap-close").hidden = !stream.gap;
  setText($("signed-out-text"), isSignedOut() ? "The server requires a sign-in. Events that are sent meanwhile are not lost." : "");
  $("sign-in").hidden = !isSignedOut();
  const button = $("stall");
  button.setAttribute("aria-pressed", String(stream.isStalled));
  // The page can stop only streams that it reads itself.
  button.disabled = !isLive() || stream.settings?.by === "native";
}

/* ---------- data that is not pushed ---------- */

let statsTimer = 0;

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.json();
}

async function pollStats() {
  clearTimeout(statsTimer);
  if (document.hidden) return;
  try {
    drawStats(await ask("api/stats"));
  } catch { /* The status pill shows that the server is away. */ }
  clearTimeout(statsTimer);
  statsTimer = setTimeout(pollStats, STATS_INTERVAL_MS);
}

function drawStats(stats) {
  for (const node of $("stats").querySelectorAll("[data-stat]")) {
    const value = stats[node.dataset.stat];
    if (typeof value === "number") setText(node, value.toLocaleString());
  }
}

// Fetches the users that are online already. Changes are pushed.
async function listPeople() {
  try {
    stream.online = await ask("api/users");
    scheduleDraw();
  } catch { /* The status pill shows that the server is away. */ }
}

/* ---------- start ---------- */

// The tabs of this browser share the types, so that each tab shows the events that another tab
// sends.
function adoptTypes(json) {
  const names = parseJson(json ?? "");
  if (Array.isArray(names)) names.filter((name) => typeof name === "string").forEach(listenFor);
}

function rememberType(type) {
  listenFor(type);
  const known = parseJson(recall(perBrowser, TYPES_KEY) ?? "");
  const names = new Set([...(Array.isArray(known) ? known : []), type]);
  store(perBrowser, TYPES_KEY, JSON.stringify([...names].slice(-50)));
}

const randomOf = (list) => list[Math.floor(Math.random() * list.length)];
const randomSession = () => `s-${Math.random().toString(36).slice(2, 6).padEnd(4, "0")}`;

function prefill() {
  const query = new URLSearchParams(location.search);
  $("user").value = query.get("user") ?? recall(perTab, "user") ?? randomOf(USERS);
  $("session").value = query.get("session") ?? recall(perTab, "session") ?? randomSession();
  const by = query.get("by");
  if ([...$("by").options].some((option) => option.value === by)) $("by").value = by;
  const topics = splitNames(query.get("topics") ?? recall(perTab, "topics") ?? "");
  for (const box of document.querySelectorAll("input[name=topic]")) box.checked = topics.includes(box.value);
  $("notify-user-name").value = $("user").value;
  $("notify-session-name").value = $("session").value;
}

function refreshTexts() {
  const own = $("user").value.trim();
  const other = USERS[(USERS.indexOf(own) + 1) % USERS.length];
  $("second-tab").href = `?user=${encodeURIComponent(other)}`;
  const same = new URLSearchParams({ user: own, session: $("session").value.trim(), topics: checked("topic").join(","), by: "shared" });
  $("shared-tab").href = `?${same}`;
  const { events } = formSettings();
  setText($("filter-hint"), events.length === 0 ? "Nothing selected: all events are received." : `Received: ${events.join(", ")}.`);
  const [, user, session] = $("custom-target").options;
  setText(user, `User ${$("notify-user-name").value.trim()}`);
  setText(session, `Session ${$("notify-session-name").value.trim()}`);
  scheduleDraw();
}

async function copyClientId() {
  const button = $("copy").firstChild;
  try {
    await navigator.clipboard.writeText(status().client);
    button.textContent = "Copied";
  } catch {
    // Without https, scripts cannot write to the clipboard: select the text.
    getSelection().selectAllChildren($("client-id"));
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

function onVisibility() {
  drawAll();
  if (!document.hidden) pollStats();
}

[drawStatus, drawFacts, drawJob, drawPeople, drawTrouble].forEach(drawsWith);
prefill();
adoptTypes(recall(perBrowser, TYPES_KEY));
listenFor($("custom-type").value);
wireControls(apply);
$("copy").addEventListener("click", copyClientId);
$("clear").addEventListener("click", clearHistory);
$("gap-close").addEventListener("click", () => {
  stream.gap = "";
  scheduleDraw();
});
$("custom-type").addEventListener("change", (event) => event.target.value.trim() && rememberType(event.target.value.trim()));
$("filter-more").addEventListener("change", (event) => splitNames(event.target.value).forEach(rememberType));
document.addEventListener("input", refreshTexts);
document.addEventListener("visibilitychange", onVisibility);
addEventListener("storage", (event) => {
  if (event.key === TYPES_KEY) adoptTypes(event.newValue);
});
// Updates the countdown to the next attempt.
setInterval(() => status().state === "retrying" && scheduleDraw(), 250);

whenOpen(listPeople);
refreshTexts();
connect(apply());
startChart();
pollStats();
