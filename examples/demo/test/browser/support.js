// Starts the demo, a browser, and a proxy between them. All end with the test.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createRequire } from "node:module";
import { connect, createServer as createSocketServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const PATIENCE = 15_000;

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Waits until `check` returns a true value, and returns the value. Fails with the text `what`. */
export async function eventually(what, check, patience = PATIENCE) {
  const until = Date.now() + patience;
  let last;
  while (Date.now() < until) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await sleep(20);
  }
  throw new Error(`not within ${patience} ms: ${what} (last: ${last})`);
}

function program(variable) {
  const path = process.env[variable];
  if (path && existsSync(path)) return path;
  throw new Error(`${variable} must name a program: run \`npm run test:browser\`, which builds it`);
}

/**
 * Returns a port outside the range of outgoing connections, which could take a free port at any
 * time: also the browser's own, while it tries to reach a server that a test has killed.
 */
export const somePort = () => 12_000 + Math.floor(Math.random() * 18_000);

/** Starts the demo. A restart uses the same port. */
export const startDemo = (t, ...args) => startExample(t, "SSE_HUB_DEMO", ...args);

/** Starts the program that an environment variable names. */
export async function startExample(t, variable, ...args) {
  const demo = { port: 0, process: undefined };
  demo.start = async () => {
    const child = spawn(program(variable), ["--port", String(demo.port), ...args], { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, RUST_LOG: "warn" } });
    demo.process = child;
    await new Promise((resolve, reject) => {
      let text = "";
      child.once("exit", (code) => reject(new Error(`the demo ended with ${code}`)));
      child.stdout.on("data", (piece) => {
        text += piece;
        if (/:\d+\n/.test(text)) resolve();
      });
    });
    demo.url = `http://127.0.0.1:${demo.port}`;
  };
  demo.kill = () => new Promise((done) => {
    if (!demo.process || demo.process.exitCode !== null || demo.process.signalCode) return done();
    demo.process.once("exit", done);
    demo.process.kill("SIGKILL");
  });
  demo.post = async (path, body) => {
    const response = await fetch(`${demo.url}/api/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  };
  demo.stats = async () => (await fetch(`${demo.url}/api/stats`)).json();
  demo.clients = (count, patience) => eventually(`${count} streams`, async () => (await demo.stats()).clients === count, patience);
  t.after(demo.kill);
  for (let attempt = 1; ; attempt += 1) {
    demo.port = somePort();
    try {
      await demo.start();
      return demo;
    } catch (error) {
      // Another program may have the port.
      if (attempt === 10) throw error;
    }
  }
}

/** Starts Chromium. `options` are Playwright's launch options. */
export async function startBrowser(t, options = {}) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) throw new Error(`there is no ${executablePath}: install Debian's package chromium, or set CHROMIUM`);
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"], ...options });
  t.after(() => browser.close());
  return browser;
}

/** Opens a page. Errors of the page fail the test. */
export async function openPage(t, context, url) {
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error));
  t.after(() => {
    if (errors.length > 0) throw errors[0];
  });
  await page.goto(url);
  return page;
}

export const isOpen = (page) => eventually("the page is connected", async () => (await page.getAttribute("#status", "data-state")) === "open");

/** The history's rows, oldest first: [type, text]. */
export const history = async (page) => (await page.$$eval("#history > li", (rows) => rows.map((row) => [row.querySelector(".badge").textContent, row.querySelector(".data").textContent]))).reverse();

export const hasRow = (page, type, text = "") => eventually(`a row ${type} ${text}`, async () => (await history(page)).some(([is, said]) => is === type && said.includes(text)));

/**
 * Starts a proxy to `port`, which may change. `cut` closes the connections. `swallow` drops the
 * bytes of streams, as a dead proxy does. `asked` counts the requests for streams, and `made` the
 * connections.
 */
export async function startSwallower(t, port) {
  const sockets = new Set();
  const states = new Set();
  const proxy = { port, asked: 0, made: 0, cut: () => sockets.forEach((socket) => socket.destroy()), swallow: () => states.forEach((state) => { state.isDead = state.isStream; }) };
  const server = createSocketServer((inner) => {
    proxy.made += 1;
    const outer = connect(proxy.port, "127.0.0.1");
    const state = { isDead: false, isStream: false };
    states.add(state);
    for (const socket of [inner, outer]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        states.delete(state);
        inner.destroy();
        outer.destroy();
      });
    }
    // The browser also sends other requests over its connections: those are passed on.
    inner.on("data", (bytes) => {
      state.isStream = bytes.toString().startsWith("GET /events");
      if (state.isStream) proxy.asked += 1;
    });
    inner.pipe(outer);
    outer.on("data", (bytes) => state.isDead || inner.write(bytes));
    outer.on("end", () => state.isDead || inner.end());
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  t.after(() => {
    sockets.forEach((socket) => socket.destroy());
    server.close();
  });
  return proxy;
}

/**
 * Starts a proxy to `port`. For /events, `answer` returns a status to send in place of the stream,
 * or undefined, and may change the request. `pass` forwards the body of a response.
 */
export async function startGuard(t, port, answer, pass = (response, outgoing) => response.pipe(outgoing)) {
  const server = createServer((incoming, outgoing) => {
    const status = incoming.url.startsWith("/events") ? answer(incoming) : undefined;
    if (status) {
      outgoing.writeHead(status).end();
      return;
    }
    const { method, url, headers } = incoming;
    const onward = request({ port, host: "127.0.0.1", method, path: url, headers }, (response) => {
      outgoing.writeHead(response.statusCode, response.headers);
      pass(response, outgoing);
      response.on("error", () => outgoing.destroy());
    });
    onward.on("error", () => outgoing.destroy());
    outgoing.on("close", () => onward.destroy());
    incoming.pipe(onward);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/**
 * Measures frames and tasks. Returns a function that returns the longest since its last call, in
 * milliseconds. Tasks under 50 ms count as 0.
 */
async function watchFrames(page) {
  await page.evaluate(() => {
    const longest = { frame: 0, task: 0 };
    window.longest = longest;
    let last = performance.now();
    const frame = (now) => {
      longest.frame = Math.max(longest.frame, now - last);
      last = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) longest.task = Math.max(longest.task, duration);
    }).observe({ type: "longtask" });
  });
  return () => page.evaluate(() => {
    const measured = { ...window.longest };
    Object.assign(window.longest, { frame: 0, task: 0 });
    return measured;
  });
}

/**
 * Fails if `act` delays the page in each of three rounds. Other work of the machine may delay a
 * round.
 */
export async function staysSmooth(t, page, act) {
  const longest = await watchFrames(page);
  const measured = [];
  for (let round = 1; round <= 3; round += 1) {
    await longest();
    await act(round);
    const { frame, task } = await longest();
    measured.push(`the longest frame took ${Math.round(frame)} ms, the longest task ${task}`);
    t.diagnostic(measured.at(-1));
    if (frame < 250 && task < 100) return;
  }
  throw new Error(measured.join("; "));
}

/** Returns the faults that axe finds. */
export async function faults(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  return violations.map(({ id, impact, nodes }) => `${impact}: ${id}: ${nodes.map(({ html }) => html).join(" | ")}`);
}

/** Returns the path of a screenshot. */
export function shot(name) {
  const folder = process.env.SSE_HUB_SHOTS;
  mkdirSync(folder, { recursive: true });
  return join(folder, name);
}
