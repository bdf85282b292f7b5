// The buttons, and their requests to the server.
import { examine } from "./doctor.js";
import { connect, disconnect, isLive, listenFor, setTopics, settled, signIn, stop, status, stream } from "./stream.js";
import { $, element, isRecord, joined, parseJson, scheduleDraw, shorten } from "./tools.js";

const POST_TIMEOUT_MS = 10_000;

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(POST_TIMEOUT_MS),
    });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "The server did not answer in time." : "The server cannot be reached.");
  }
  const answer = parseJson(await response.text());
  if (response.ok) return answer;
  const detail = isRecord(answer) && answer.error ? answer.error : answer || "no further details";
  throw new Error(isRecord(answer) ? String(detail) : `HTTP ${response.status}: ${detail}`);
}

function showReceipt(output, kind, text) {
  output.dataset.kind = kind;
  output.replaceChildren();
  // Short parts do not wrap: a narrow screen then breaks between the parts, not inside an id.
  shorten(text, 300).split(" · ").forEach((part, index) => {
    if (index > 0) output.append(" · ");
    output.append(element("span", part.length < 24 ? "whole" : "", part));
  });
}

function receiptText({ matched }) {
  const clients = `reached ${matched} ${matched === 1 ? "client" : "clients"}`;
  return clients;
}

/**
 * Runs the action of a button, and shows its result. `act` returns [kind, text], or throws an Error
 * with a text for the user.
 */
async function run(button, output, act) {
  if (button.classList.contains("busy")) return;
  button.classList.add("busy");
  try {
    showReceipt(output, "busy", "sending…");
    showReceipt(output, ...(await act()));
  } catch (error) {
    showReceipt(output, "error", error.message);
  } finally {
    button.classList.remove("busy");
  }
}

// `request` returns { path, body, note? }.
function onClickSend(buttonId, receiptId, request) {
  const button = $(buttonId);
  button.addEventListener("click", () => run(button, $(receiptId), async () => {
    const { path, body, note } = request();
    const receipt = await post(path, body);
    return [note || receipt.matched === 0 ? "none" : "ok", joined(receiptText(receipt), note)];
  }));
}

function required(id, message) {
  const value = $(id).value.trim();
  if (value) return value;
  $(id).focus();
  throw new Error(message);
}

function ownClient() {
  if (status().state !== "open" || !status().client) throw new Error("This tab is not connected. Press Connect first.");
  return status().client;
}

function target(kind) {
  const [, topic] = kind.split("topic:");
  if (topic) return { kind: "topic", name: topic };
  if (kind === "user") return { kind, name: required("notify-user-name", "Enter a user’s name first.") };
  if (kind === "session") return { kind, name: required("notify-session-name", "Enter a session first.") };
  if (kind === "client") return { kind, name: ownClient() };
  return { kind };
}

function notification(kind) {
  const to = target(kind);
  const message = required("notify-text", "Enter a message first.");
  const title = stream.settings?.user ? `From ${stream.settings.user}` : "Notification";
  return { path: "api/notify", body: { to, title, message } };
}

// Returns the reason why this tab does not receive the event.
function filteredOut(type) {
  const events = stream.settings?.events ?? [];
  return events.length > 0 && !events.includes(type) ? `this tab’s filter leaves out “${type}”` : "";
}

function alertRequest() {
  const message = required("alert-text", "Enter the alert’s text first.");
  return { path: "api/alert", body: { level: $("alert-level").value, message }, note: filteredOut("alert") };
}

function jobRequest() {
  const file = required("job-file", "Enter a file name first.");
  const body = { client: ownClient(), file };
  stream.job = null;
  scheduleDraw();
  return { path: "api/jobs", body, note: filteredOut("upload") };
}

function customRequest() {
  const event = required("custom-type", "Enter an event type first.");
  const data = readJson();
  const to = target($("custom-target").value);
  listenFor(event);
  return { path: "api/custom", body: { event, data, to }, note: filteredOut(event) };
}

function readJson() {
  const field = $("custom-json");
  try {
    const data = JSON.parse(field.value);
    field.removeAttribute("aria-invalid");
    return data;
  } catch (error) {
    field.setAttribute("aria-invalid", "true");
    throw new Error(`Not valid JSON: ${error.message}`);
  }
}

function checkJson() {
  const output = $("custom-receipt");
  try {
    readJson();
    if (output.dataset.kind !== "error") return;
    delete output.dataset.kind;
    output.textContent = "";
  } catch (error) {
    showReceipt(output, "error", error.message);
  }
}

/* ---------- topics, people ---------- */

let changes = Promise.resolve();

/**
 * Joins or leaves topics one after the other, so that the server ends with the state of the boxes.
 */
function follow(box) {
  changes = changes.then(() => change(box));
}

async function change(box) {
  const { value: topic, checked } = box;
  const topics = new Set(stream.settings?.topics);
  if (checked) topics.add(topic);
  else topics.delete(topic);
  const verb = checked ? "joined" : "left";
  await run(box, $("topics-receipt"), async () => {
    const isOpenChanged = setTopics([...topics]);
    if (isOpenChanged) await post("api/topics", { client: ownClient(), topic, follow: checked });
    else if (stream.settings?.by === "shared" && isLive()) await settled();
    return ["ok", isOpenChanged ? `${verb} ${topic}, on the open stream` : `${verb} ${topic}, with another stream`];
  });
}

export function kick(user, button) {
  return run(button, $("people-receipt"), async () => {
    const { changed } = await post("api/kick", { user });
    return [changed ? "ok" : "none", `ended ${changed} ${changed === 1 ? "stream" : "streams"} of ${user}`];
  });
}

/* ---------- failures ---------- */

async function drain() {
  const { changed } = await post("api/drain", { seconds: 4 });
  return ["ok", `ends ${changed} ${changed === 1 ? "stream" : "streams"} within 4 seconds, then opens a new hub`];
}

async function flood() {
  const { changed } = await post("api/flood", { events: 20_000, per_second: 10_000, size: 20 });
  return ["ok", `${changed.toLocaleString()} events in two seconds`];
}

/** Disconnects, publishes more events than the server retains, and connects again. */
async function miss() {
  const settings = stream.settings;
  ownClient();
  if (settings.by !== "fetch") throw new Error("Select “This tab’s own, by fetch” first.");
  const { retains } = await (await fetch("api/stats")).json();
  disconnect();
  const events = retains + 1000;
  await post("api/flood", { events, per_second: 100_000, size: 0 });
  const until = Date.now() + POST_TIMEOUT_MS;
  for (let steady = 0, last = -1; steady < 3 && Date.now() < until;) {
    await new Promise((done) => setTimeout(done, 100));
    const { published } = await (await fetch("api/stats")).json();
    steady = published === last ? steady + 1 : 0;
    last = published;
  }
  stream.client.open();
  return ["ok", `disconnected for ${events.toLocaleString()} events, more than the server retains: see the gap`];
}

/* ---------- the connection ---------- */

/** Examines the way to the server, and lists each check with the lines to change. */
async function check() {
  const advice = await (await fetch("doctor.json")).json();
  const list = $("findings");
  list.replaceChildren();
  let count = 0;
  for await (const [name, cause, detail] of examine()) {
    const row = element("li", "", "");
    row.append(element("b", "", name), ` ${cause ? `${advice[cause].says} (${detail})` : detail}`);
    if (cause) {
      count += 1;
      row.dataset.cause = cause;
      const { says, ...lines } = advice[cause];
      for (const [place, line] of Object.entries(lines)) row.append(element("code", "", `${place}: ${line}`));
    }
    list.append(row);
  }
  return [count ? "none" : "ok", `${count} ${count === 1 ? "finding" : "findings"}`];
}

export function wireControls(apply) {
  onClickSend("notify-user", "notify-receipt", () => notification("user"));
  onClickSend("notify-session", "notify-receipt", () => notification("session"));
  onClickSend("notify-me", "notify-receipt", () => notification("client"));
  onClickSend("alert", "alert-receipt", alertRequest);
  onClickSend("job", "job-receipt", jobRequest);
  onClickSend("custom-send", "custom-receipt", customRequest);
  $("custom-json").addEventListener("change", checkJson);
  $("custom-json").addEventListener("input", (event) => {
    if (event.target.hasAttribute("aria-invalid")) checkJson();
  });
  for (const box of document.querySelectorAll("input[name=topic]")) box.addEventListener("change", () => follow(box));
  for (const [id, act] of Object.entries({ drain, flood, miss })) {
    $(id).addEventListener("click", () => run($(id), $("trouble-receipt"), act));
  }
  $("check").addEventListener("click", () => run($("check"), $("check-receipt"), check));
  $("stall").addEventListener("click", () => {
    stop(!stream.isStalled);
    showReceipt($("trouble-receipt"), "ok", stream.isStalled ? "this tab does not read" : "this tab reads again");
  });
  $("connection").addEventListener("submit", (event) => {
    event.preventDefault();
    connect(apply());
  });
  $("disconnect").addEventListener("click", disconnect);
  $("sign-in").addEventListener("click", () => run($("sign-in"), $("sign-in-receipt"), async () => {
    const { token, seconds } = await post("api/token", {});
    signIn(token);
    return ["ok", `signed in for ${seconds} seconds`];
  }));
}
