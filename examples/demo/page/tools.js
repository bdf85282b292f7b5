// Helpers of all parts of the page.

export const $ = (id) => document.getElementById(id);

export const perTab = () => sessionStorage;
export const perBrowser = () => localStorage;

export function store(area, key, value) {
  try { area().setItem(key, value); } catch { /* The page works without storage, which may be blocked. */ }
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
let drawTimer = 0;

/** Adds a function that draws a part of the page. */
export function drawsWith(draw) {
  drawers.push(draw);
}

/**
 * Draws all changes, at most once per frame. A page that is hidden or not drawn gets no frames: a
 * timer draws it then.
 */
export function scheduleDraw() {
  if (drawScheduled) return;
  drawScheduled = true;
  const draw = () => {
    clearTimeout(timer);
    // A frame may come after the timer.
    if (timer === drawTimer && drawScheduled) drawAll();
  };
  const timer = setTimeout(draw, 250);
  drawTimer = timer;
  if (!document.hidden) requestAnimationFrame(draw);
}

export function drawAll() {
  drawScheduled = false;
  for (const draw of drawers) draw();
}
