// The latest event, and the history.
import { $, compact, drawsWith, element, isRecord, joined, parseJson, scheduleDraw, setText, shorten } from "./tools.js";

const HISTORY_LIMIT = 200;
/** More new entries than this are drawn a few times a second, without an animation. */
const FOLLOWED = 20;
const BULK_INTERVAL_MS = 100;
const HUES = { notification: 215, alert: 32, upload: 265, message: 190, tick: 150 };
const CUSTOM_HUES = [160, 335, 190, 95, 290, 50, 5];
const LEVEL_HUES = { info: 215, warning: 32, critical: 0 };

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

let latest = null;
let pending = []; // new entries of the history, oldest first
let drawnAt = -Infinity;

/**
 * Shows an event of the application. Only drawn events are parsed: thousands may arrive between two
 * frames.
 */
export function show(message) {
  latest = { message, drawn: false };
  record({ type: message.type, id: message.id, kind: "app", message });
}

/** Adds an entry about the stream to the history. */
export function note(type, text, { id = "", kind = "control" } = {}) {
  record({ type, id, kind, text });
}

function record(entry) {
  pending.push({ ...entry, time: Date.now() });
  // Entries beyond the limit are never drawn.
  if (pending.length > 2 * HISTORY_LIMIT) pending.splice(0, HISTORY_LIMIT);
  scheduleDraw();
}

export function clearHistory() {
  pending = [];
  $("history").replaceChildren();
  drawCount();
}

function hueOf(type) {
  if (Object.hasOwn(HUES, type)) return HUES[type];
  let sum = 0;
  for (const char of type) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  return CUSTOM_HUES[sum % CUSTOM_HUES.length];
}

function eventTime(data) {
  const date = new Date(isRecord(data) && typeof data.at === "number" ? data.at : NaN);
  return Number.isNaN(date.getTime()) ? new Date() : date;
}

function describeRecord(data) {
  const words = Object.entries(data).map(([key, value]) => `${key} ${compact(value)}`);
  return words.join(", ") || "(empty)";
}

const describers = {
  notification: ({ title, message, to }) => ({ text: message, sub: joined(title, to && `to ${to}`) }),
  alert: ({ level, message }) => ({ text: message, sub: "Sent to everybody", level }),
  upload: ({ job, file, percent, state: progress }) => ({
    text: progress === "done" ? `${file} has finished uploading` : `${file} is ${Math.round(percent) || 0} % uploaded`,
    sub: joined(job && `Job ${job}`, "reported to this tab only"),
    quiet: progress !== "done",
  }),
  tick: ({ n }) => ({ text: `Event ${n + 1} of many`, sub: "Drawn once per frame", quiet: true }),
};

function describe(type, data) {
  const plain = { text: isRecord(data) ? describeRecord(data) : compact(data) || "(empty)", sub: `Event “${type}”` };
  if (!isRecord(data) || !Object.hasOwn(describers, type)) return plain;
  const wording = describers[type](data);
  return wording.text ? wording : plain;
}

function drawLatest() {
  if (!latest || latest.drawn) return;
  latest.drawn = true;
  const { type, data: raw } = latest.message;
  const data = parseJson(raw);
  const time = eventTime(data);
  const { text, sub, level, quiet } = describe(type, data);
  const box = $("latest");
  // Screen readers do not read progress aloud.
  box.setAttribute("aria-live", quiet ? "off" : "polite");
  box.classList.remove("waiting");
  const badge = $("latest-type");
  badge.classList.remove("quiet");
  badge.style.setProperty("--h", hueOf(type));
  setText(badge, type);
  $("latest-level").hidden = !level;
  $("latest-level").style.setProperty("--h", LEVEL_HUES[level] ?? 215);
  setText($("latest-level"), String(level ?? ""));
  $("latest-time").dateTime = time.toISOString();
  setText($("latest-time"), clock.format(time));
  setText($("latest-text"), shorten(String(text), 400));
  setText($("latest-sub"), capitalise(shorten(String(sub), 200)));
}

function capitalise(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function drawHistory() {
  if (pending.length === 0) return;
  const isBulk = pending.length > FOLLOWED;
  if (isBulk && performance.now() - drawnAt < BULK_INTERVAL_MS) return scheduleDraw();
  drawnAt = performance.now();
  const list = $("history");
  const rows = document.createDocumentFragment();
  for (const entry of pending.slice(-HISTORY_LIMIT).reverse()) {
    const row = entryRow(entry);
    if (!isBulk) row.classList.add("arrives");
    rows.append(row);
  }
  pending = [];
  list.prepend(rows);
  while (list.children.length > HISTORY_LIMIT) list.lastElementChild.remove();
  drawCount();
}

function drawCount() {
  const count = $("history").children.length;
  setText($("history-count"), count === 0 ? "" : count < HISTORY_LIMIT ? String(count) : `last ${HISTORY_LIMIT}`);
}

function entryRow({ type, time, id, text, kind, message }) {
  const data = message && parseJson(message.data);
  const at = message ? eventTime(data) : new Date(time);
  const row = element("li", `entry ${kind}`, "");
  const stamp = element("time", "", clock.format(at));
  stamp.dateTime = at.toISOString();
  const what = element("span", "what", "");
  const badge = element("span", kind === "control" ? "badge quiet" : "badge", type);
  if (kind === "app") badge.style.setProperty("--h", hueOf(type));
  what.append(badge);
  row.append(stamp, what, element("span", "id", id), dataNode(text ?? shorten(compact(data), 1500)));
  return row;
}

// Dims the keys, so that the values stand out.
function dataNode(text) {
  const node = element("div", "data", "");
  for (const part of text.split(/("(?:[^"\\]|\\.)*": )/)) {
    node.append(part.endsWith('": ') ? element("span", "key", part) : part);
  }
  return node;
}

drawsWith(drawLatest);
drawsWith(drawHistory);
