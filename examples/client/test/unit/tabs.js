// A tab of a fake browser with a shared stream.
import { SharedSSE } from "../../sse-shared.js";

/** Opens a tab. `seen` has the data of each event, and `gap` with its reason for each gap. */
export function openTab(origin, options = {}, types = ["*"]) {
  const own = origin.tab();
  const client = new SharedSSE("/events", { name: "ann", ...own.sharing, ...options });
  const seen = [];
  for (const type of types) client.on(type, ({ data }) => seen.push(data));
  client.on("hub:gap", ({ data }) => seen.push(`gap ${JSON.parse(data).reason}`));
  client.open();
  return { own, browser: own.browser, client, seen };
}

export const hubOpen = (id, resumed = false, client = "c1") =>
  `event: hub:open\nretry: 1000\ndata: {"client":"${client}","resumed":${resumed}}\nid: ${id}\n\n`;

export const hubGap = (reason, id) => `event: hub:gap\ndata: {"reason":"${reason}"}\nid: ${id}\n\n`;

/** Runs `act` with `globalThis` as the window of a page. Returns the window. */
export async function withPage(act) {
  const page = new EventTarget();
  const { addEventListener, removeEventListener } = globalThis;
  globalThis.addEventListener = (...args) => page.addEventListener(...args);
  globalThis.removeEventListener = (...args) => page.removeEventListener(...args);
  page.tell = (type, persisted = true) => page.dispatchEvent(Object.assign(new Event(type), { persisted }));
  try {
    await act(page);
  } finally {
    Object.assign(globalThis, { addEventListener, removeEventListener });
  }
}
