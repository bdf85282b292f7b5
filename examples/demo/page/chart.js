// The events of each second, and their delay from the server to this page.
import { $, setText } from "./tools.js";

const SECONDS = 60;
const AT = /"at":(\d{13})/;

const seconds = Array.from({ length: SECONDS }, () => ({ events: 0, delay: null }));
let counted = 0;
let delays = [];

/** Counts an event. The event's time is found without parsing the data. */
export function count(message) {
  counted += 1;
  const at = AT.exec(message.data);
  if (at && delays.length < 1000) delays.push(Math.max(0, Date.now() - Number(at[1])));
}

function turn() {
  delays.sort((a, b) => a - b);
  const delay = delays.length > 0 ? delays[delays.length >> 1] : null;
  seconds.push({ events: counted, delay });
  seconds.shift();
  counted = 0;
  delays = [];
  draw();
}

function draw() {
  if (document.hidden) return;
  const { events, delay } = seconds.at(-1);
  const recent = seconds.findLast((second) => second.delay !== null);
  setText($("rate"), events.toLocaleString());
  setText($("delay"), recent ? `${recent.delay} ms` : "–");
  plot($("rate-chart"), seconds.map((second) => second.events), 10);
  plot($("delay-chart"), seconds.map((second) => second.delay ?? 0), 10);
  const most = Math.max(...seconds.map((second) => second.events));
  $("rate-chart").setAttribute("aria-label", `Events per second over a minute: ${events} now, at most ${most}`);
  $("delay-chart").setAttribute("aria-label", `Delivery delay over a minute: ${delay ?? "none"} ms now`);
}

/**
 * Draws bars in a picture of 60 by 20. The full height is the largest value, but at least `least`.
 */
function plot(picture, values, least) {
  const full = Math.max(least, ...values);
  const bars = values.map((value, x) => (value > 0 ? `M${x + 0.5} 20V${(20 - Math.max(0.8, (value / full) * 19)).toFixed(2)}` : ""));
  picture.firstElementChild.setAttribute("d", bars.join("") || "M0 0");
}

export function startChart() {
  draw();
  setInterval(turn, 1000);
}
