// Small things that all parts of the page use.

export const $ = (id) => document.getElementById(id);

export const perTab = () => sessionStorage;
export const perBrowser = () => localStorage;

export function store(area, key, value) {
  try { area().setItem(key, value); } catch { /* storage may be blocked; the page works without it */ }
}

export function recall(area, key) {
  try { return area().getItem(key); } catch { return null; }
}

export function parseJson(text) {
  try { return JSON.parse(text); } catch { return text; }
}

export function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function shorten(text, limit) {
  return text.length > limit ? `${text.slice(0, limit)}…` : text;
}

export function compact(value) {
  if (typeof value === "string") return value;
  return JSON.stringify(value, null, 1).replace(/\n\s*/g, " ");
}

export function joined(...parts) {
  return parts.filter(Boolean).join(" · ");
}

export function splitNames(text) {
  return text.split(",").map((part) => part.trim()).filter(Boolean);
}

export function element(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

export function setText(node, text) {
  // Writing the same text again would make screen readers repeat it.
  if (node.textContent !== text) node.textContent = text;
}

const drawers = [];
let drawScheduled = false;

/** Adds what draws a part of the page. */
export function drawsWith(draw) {
  drawers.push(draw);
}

/** Draws all that has changed, at most once per frame, however much happens. */
export function scheduleDraw() {
  if (drawScheduled) return;
  drawScheduled = true;
  // A hidden tab gets no animation frames.
  if (document.hidden) setTimeout(drawAll, 250);
  else requestAnimationFrame(drawAll);
}

export function drawAll() {
  drawScheduled = false;
  for (const draw of drawers) draw();
}
