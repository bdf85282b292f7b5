// The check of the connection, through proxies with a fault.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, faults, openPage, shot, startBrowser, startDemo, startGuard } from "./support.js";

/** Presses the button, and returns the causes of the findings, and the checks without a fault. */
async function examined(t, url) {
  const browser = await startBrowser(t);
  const page = await openPage(t, await browser.newContext(), `${url}/?user=ann`);
  await page.click("#check");
  await eventually("the examination ends", async () => /finding/.test(await page.textContent("#check-receipt")), 30_000);
  const rows = await page.$$eval("#findings > li", (rows) => rows.map((row) => [row.dataset.cause ?? "", row.querySelector("b").textContent]));
  const [bad, good] = [rows.filter(([cause]) => cause), rows.filter(([cause]) => !cause)];
  return { page, causes: bad.map(([cause]) => cause), good: good.map(([, name]) => name) };
}

test("a sound connection has no fault", async (t) => {
  const demo = await startDemo(t, "--heartbeat", "1");
  const { page, causes, good } = await examined(t, demo.url);
  assert.deepEqual(causes, ["six-connections"], "the demo speaks HTTP/1.1");
  assert.deepEqual(good, ["content type", "compression", "cache", "first frame", "resume", "timeouts"]);
  assert.match(await page.textContent("#findings"), /nginx: listen 443 ssl http2;/);
  assert.deepEqual(await faults(page), []);
  await page.screenshot({ path: shot("doctor.png"), fullPage: true });
});

test("a lost Last-Event-ID is named", async (t) => {
  const demo = await startDemo(t, "--heartbeat", "1");
  const url = await startGuard(t, demo.port, ({ headers }) => { delete headers["last-event-id"]; });
  assert.deepEqual((await examined(t, url)).causes, ["six-connections", "last-event-id"]);
});

test("a stream that is held back is named", async (t) => {
  const demo = await startDemo(t, "--heartbeat", "1");
  const isStream = (response) => response.headers["content-type"] === "text/event-stream";
  const url = await startGuard(t, demo.port, () => undefined, (response, outgoing) => {
    if (!isStream(response)) return response.pipe(outgoing);
    outgoing.flushHeaders();
    response.resume();
  });
  assert.deepEqual((await examined(t, url)).causes, ["six-connections", "buffering"]);
});

test("heartbeats that are held back are named", async (t) => {
  const demo = await startDemo(t, "--heartbeat", "1");
  const url = await startGuard(t, demo.port, () => undefined, (response, outgoing) => {
    response.on("data", (piece) => piece.toString() === ":\n" || outgoing.write(piece));
    response.on("end", () => outgoing.end());
  });
  assert.deepEqual((await examined(t, url)).causes, ["six-connections", "heartbeat-late"]);
});

test("an idle timeout is named", async (t) => {
  const demo = await startDemo(t, "--heartbeat", "3");
  const url = await startGuard(t, demo.port, () => undefined, (response, outgoing) => {
    response.pipe(outgoing);
    let timer = setTimeout(() => outgoing.destroy(), 1000);
    response.on("data", () => timer.refresh());
    response.on("close", () => clearTimeout(timer));
  });
  assert.deepEqual((await examined(t, url)).causes, ["six-connections", "idle-timeout"]);
});

test("a status in place of the stream is named", async (t) => {
  const demo = await startDemo(t);
  const url = await startGuard(t, demo.port, () => 502);
  assert.deepEqual((await examined(t, url)).causes, ["upstream"]);
});
