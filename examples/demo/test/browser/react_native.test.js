// The client as React Native runs it, with the code of its README: the globals of React Native and
// no others, `expo/fetch`, and the state of the app in place of a page. The server is the demo.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";
import { publishNumber, upTo } from "./apps.js";
import { eventually, startDemo, startSwallower } from "./support.js";

const read = (name) => readFileSync(new URL(`../../../client/${name}`, import.meta.url), "utf8");

/** The first code block of the README's section on React Native. */
const [, README] = /## React Native\n.*?```js\n(.*?)```/s.exec(read("README.md"));

/** The decoder of Expo knows UTF-8 only. */
class Utf8Decoder {
  #decoder = new TextDecoder();

  constructor(label = "utf-8") {
    if (label !== "utf-8") throw new RangeError(`Unknown encoding: ${label}`);
  }

  decode(bytes, options) {
    return this.#decoder.decode(bytes, options);
  }
}

/** A signal without `reason`, `throwIfAborted` and the static methods. */
class AbortController {
  #listeners = new Set();

  signal = {
    aborted: false,
    addEventListener: (_type, listener) => void this.#listeners.add(listener),
    removeEventListener: (_type, listener) => void this.#listeners.delete(listener),
  };

  abort() {
    if (this.signal.aborted) return;
    this.signal.aborted = true;
    for (const listener of [...this.#listeners]) listener({ type: "abort" });
  }
}

/**
 * Returns a `fetch` that behaves as `expo/fetch`: errors are no `DOMException`s, and the response has
 * nothing of a browser's but its status, headers and body. In early versions, a signal has no effect
 * (`isDeaf`) after the head of the response: only the body's `cancel` ends the request.
 */
function expoFetch(isDeaf) {
  return async (url, { method = "GET", headers, body, credentials = "include", signal }) => {
    const failed = (error) => new Error(`fetch failed: ${error?.cause?.message ?? error?.message}`);
    if (signal?.aborted) throw new Error("The operation was aborted.");
    const native = new globalThis.AbortController();
    const abort = () => native.abort();
    signal?.addEventListener("abort", abort);
    let response;
    try {
      response = await fetch(url, { method, headers: [...headers], body, credentials, signal: native.signal });
    } catch (error) {
      throw failed(error);
    } finally {
      if (isDeaf) signal?.removeEventListener("abort", abort);
    }
    const reader = response.body?.getReader();
    return {
      status: response.status,
      headers: response.headers,
      body: reader && new ReadableStream({
        async pull(controller) {
          try {
            const { done, value } = await reader.read();
            if (done) controller.close();
            else controller.enqueue(value);
          } catch (error) {
            controller.error(failed(error));
          }
        },
        cancel: abort,
      }),
    };
  };
}

/** The state of an app. */
class FakeAppState {
  currentState = "active";
  listeners = new Set();

  addEventListener(type, listener) {
    assert.equal(type, "change");
    this.listeners.add(listener);
    return { remove: () => void this.listeners.delete(listener) };
  }

  change(state) {
    this.currentState = state;
    for (const listener of [...this.listeners]) listener(state);
  }
}

/** Starts an app that has the README's code. `sleep` moves its clock, as if the system had suspended it. */
function startApp(t, url, isDeaf) {
  const AppState = new FakeAppState();
  let slept = 0;
  const own = {
    AbortController, Headers, TextEncoder, TextDecoder: Utf8Decoder, URLSearchParams,
    setTimeout, clearTimeout, console, navigator: { product: "ReactNative" },
    // The fetch of React Native: the response comes with the last byte, which a stream does not have.
    fetch: () => new Promise(() => {}),
  };
  const context = vm.createContext(own);
  // As in React Native, which has no events of a window.
  context.window = context;
  context.slept = () => slept;
  vm.runInContext("{ const { now } = Date; Date.now = () => now() + slept(); }", context);
  const run = (code, named) => vm.runInContext(`(function () { "use strict"; ${code}\nreturn { ${named} }; })`, context);
  const modules = {
    "expo/fetch": { fetch: expoFetch(isDeaf) },
    "react-native": { AppState },
    "sse-hub-client": run(read("sse-client.js").replace(/^export /gm, ""), "SSEClient")(),
  };
  const code = README
    .replace(/^import (\{.*\}) from ("[^"]+");$/gm, "const $1 = modules[$2];")
    .replace("https://example.com/events", `${url}/events?user=ann&session=s1`);
  context.modules = modules;
  const { client } = run(code, "client")();
  t.after(() => client.close());
  const app = { client, AppState, numbers: [], gaps: 0, states: [] };
  client.on("alert", (event) => app.numbers.push(Number(event.json().message)));
  client.on("hub:gap", () => { app.gaps += 1; });
  client.onStatus(({ state, reason }) => app.states.push([state, reason].join(" ").trim()));
  app.sleep = (ms) => { slept += ms; };
  app.has = (number) => eventually(`the app has ${number}`, () => app.numbers.at(-1) === number);
  app.is = (state) => eventually(`the app is ${state}`, () => client.status.state === state);
  return app;
}

for (const isDeaf of [false, true]) {
  const version = isDeaf ? "an early" : "a later";

  test(`React Native: receives, resumes and closes (${version} expo/fetch)`, async (t) => {
    const demo = await startDemo(t);
    const proxy = await startSwallower(t, demo.port);
    const app = startApp(t, proxy.url, isDeaf);
    app.client.open();
    await app.is("open");
    await publishNumber(demo, 1);
    await app.has(1);

    // The connection breaks, and an event comes meanwhile.
    proxy.cut();
    await demo.clients(0);
    await publishNumber(demo, 2);
    await app.has(2);
    assert.equal(app.client.status.resumed, true);

    // The server restarts: ids of another process are a gap.
    await demo.kill();
    await demo.start();
    await eventually("a gap", () => app.gaps === 1);
    await app.is("open");
    await publishNumber(demo, 3);
    await app.has(3);
    assert.deepEqual(app.numbers, upTo(3));

    app.client.close();
    await demo.clients(0);
    assert.equal(app.client.status.state, "closed");
    assert.equal(app.AppState.listeners.size, 0);
  });

  test(`React Native: returns to the foreground (${version} expo/fetch)`, async (t) => {
    const demo = await startDemo(t);
    const proxy = await startSwallower(t, demo.port);
    const app = startApp(t, proxy.url, isDeaf);
    app.client.open();
    await app.is("open");
    await publishNumber(demo, 1);
    await app.has(1);

    // A short look at another app changes nothing.
    app.AppState.change("inactive");
    app.AppState.change("active");
    await publishNumber(demo, 2);
    await app.has(2);
    assert.equal(proxy.asked, 1);

    // The system suspends the app. Its connection dies without a sign.
    app.AppState.change("background");
    proxy.swallow();
    await publishNumber(demo, 3);
    app.sleep(60_000);
    assert.equal(app.client.status.state, "open");
    app.AppState.change("active");
    await app.has(3);
    assert.deepEqual(app.numbers, upTo(3));
    assert.equal(app.gaps, 0);
    assert.equal(proxy.asked, 2);
    assert.deepEqual(app.states.slice(-2), ["connecting silent", "open"]);
    // The dead stream is not left open beside the new one.
    await demo.clients(1);

    // While a request waits, a return to the foreground sends it at once.
    await demo.kill();
    await app.is("retrying");
    await demo.start();
    app.AppState.change("active");
    await app.is("open");
  });
}
