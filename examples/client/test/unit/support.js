// A fake browser: the test moves its clock, and answers its requests.
import { SSEClient } from "../../sse-client.js";

/** Waits until all pending promises and streams have run. */
export async function settle() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((done) => setImmediate(done));
}

class FakeEvents extends EventTarget {
  listening = 0;

  addEventListener(type, listener) {
    this.listening += 1;
    super.addEventListener(type, listener);
  }

  removeEventListener(type, listener) {
    this.listening -= 1;
    super.removeEventListener(type, listener);
  }

  tell(type) {
    this.dispatchEvent(new Event(type));
  }
}

export class FakeBrowser {
  time = 1_000_000;
  chance = 0;
  isOffline = false;
  requests = [];
  window = new FakeEvents();
  document = Object.assign(new FakeEvents(), { hidden: false });
  #timers = new Map();
  #serial = 0;

  get environment() {
    return {
      fetch: (url, init) => this.#fetch(url, init),
      setTimeout: (callback, ms) => {
        this.#timers.set(++this.#serial, { at: this.time + ms, callback });
        return this.#serial;
      },
      clearTimeout: (handle) => this.#timers.delete(handle),
      now: () => this.time,
      random: () => this.chance,
      isOffline: () => this.isOffline,
      window: this.window,
      document: this.document,
    };
  }

  get timers() {
    return this.#timers.size;
  }

  /** Moves the clock, and runs each timer at its time. */
  async pass(ms) {
    const until = this.time + ms;
    for (;;) {
      await settle();
      const due = [...this.#timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [handle, { at, callback }] = due;
      this.#timers.delete(handle);
      this.time = Math.max(this.time, at);
      callback();
    }
    this.time = until;
  }

  goOffline() {
    this.isOffline = true;
    this.window.tell("offline");
  }

  goOnline() {
    this.isOffline = false;
    this.window.tell("online");
  }

  /** The latest request. */
  get request() {
    return this.requests.at(-1);
  }

  #fetch(url, init) {
    return new Promise((resolve, reject) => {
      const request = { url, init, headers: new Headers(init.headers), at: this.time, isCancelled: false };
      init.signal.addEventListener("abort", () => {
        request.isCancelled = true;
        const aborted = new DOMException("aborted", "AbortError");
        reject(aborted);
        request.controller?.error(aborted);
      });
      request.fail = (text = "no route") => reject(new TypeError(text));
      request.answer = async (status, headers = {}, body = null) => {
        resolve(new Response(body, { status, headers }));
        await settle();
      };
      request.stream = async (...texts) => {
        const body = new ReadableStream({ start: (controller) => { request.controller = controller; } });
        await request.answer(200, { "content-type": "text/event-stream" }, body);
        for (const text of texts) await request.send(text);
      };
      request.send = async (text) => {
        request.controller.enqueue(new TextEncoder().encode(text));
        await settle();
      };
      request.end = async () => {
        request.controller.close();
        await settle();
      };
      this.requests.push(request);
    });
  }
}

/** Starts a client in a fake browser. Returns both, and the states that the client reports. */
export async function start({ url = "/events", browser = new FakeBrowser(), ...options } = {}) {
  const client = new SSEClient(url, { ...options, environment: { ...browser.environment, ...options.environment } });
  const states = [];
  client.onStatus(({ state, reason, detail }) => states.push([state, reason, detail].filter(Boolean).join(" ")));
  client.open();
  await settle();
  return { browser, client, states };
}

/** Starts a client and opens its first stream. */
export async function opened(options) {
  const all = await start(options);
  await all.browser.request.stream(OPEN);
  return all;
}

/** The first event of a hub, with `more` in its data. */
export const opening = (more = {}) => `event: hub:open\nretry: 3000\ndata: ${JSON.stringify({ client: "c1", resumed: false, ...more })}\nid: 7-0\n\n`;

/** The first event of a hub that sends no heartbeats. */
export const OPEN = opening();

export const frame = (type, data, id) => `event: ${type}\ndata: ${data}\n${id ? `id: ${id}\n` : ""}\n`;

export const told = (type, reason, retry) => `event: ${type}\nretry: ${retry}\ndata: {"reason":"${reason}"}\n\n`;
