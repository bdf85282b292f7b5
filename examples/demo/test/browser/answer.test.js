// Tests of the example `answer`: reloads, a second device, the stop button, and the end.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, openPage, startBrowser, startExample } from "./support.js";

const words = (count) => Array(count).fill("word").join(" ");

const textOf = (page) => page.textContent("pre");
const stateIs = (page, state) => eventually(`the state is ${state}`, async () => (await page.textContent("#state")) === state);

/** Opens the page, and asks. */
async function ask(t, context, url, question) {
  const page = await openPage(t, context, url);
  await page.fill("input", question);
  await page.click("form button");
  await eventually("the answer begins", async () => (await textOf(page)).length > 20);
  return page;
}

/** Counts the requests for streams. */
function countRequests(page) {
  const requests = { count: 0 };
  page.on("request", (request) => {
    if (request.url().includes("/answers/")) requests.count += 1;
  });
  return requests;
}

test("an answer survives reloads and is read on a second device", async (t) => {
  const server = await startExample(t, "SSE_HUB_ANSWER");
  const browser = await startBrowser(t);
  const page = await ask(t, await browser.newContext(), server.url, words(40));
  let seen = await textOf(page);
  for (let reload = 1; reload <= 3; reload += 1) {
    await page.reload();
    const before = seen;
    await eventually("the answer goes on", async () => (seen = await textOf(page)).length > before.length);
    assert.ok(seen.startsWith(before), `${seen} does not continue ${before}`);
  }
  const second = await openPage(t, await browser.newContext(), page.url());
  await Promise.all([stateIs(page, "finished"), stateIs(second, "finished")]);
  // A page can load before the browser reports its first request, so the count begins at the end.
  const requests = [page, second].map(countRequests);
  const whole = `You asked: ${words(40)}\nI am no model,\nbut I can say it token by token.`;
  assert.deepEqual([await textOf(page), await textOf(second)], [whole, whole]);

  // After the end: a native `EventSource` that nobody closes asks once more, and is stopped.
  const late = await openPage(t, await browser.newContext(), page.url());
  await stateIs(late, "finished");
  assert.equal(await textOf(late), whole);
  const again = countRequests(late);
  await late.evaluate(() => {
    globalThis.open = new EventSource(`/answers/${location.hash.slice(1)}`);
  });
  await eventually("the browser gives up", () => late.evaluate(() => globalThis.open.readyState === EventSource.CLOSED));
  assert.equal(again.count, 2);
  // Meanwhile the pages, which wait no longer than that `EventSource`, have not come back.
  assert.deepEqual(requests.map(({ count }) => count), [0, 0]);
});

test("the stop button works on either device", async (t) => {
  const server = await startExample(t, "SSE_HUB_ANSWER");
  const browser = await startBrowser(t);
  const page = await ask(t, await browser.newContext(), server.url, words(2000));
  const second = await openPage(t, await browser.newContext(), page.url());
  await eventually("the second device shows it", async () => (await textOf(second)).length > 20);
  await second.click("#stop");
  await Promise.all([stateIs(page, "stopped"), stateIs(second, "stopped")]);
  assert.equal(await textOf(page), await textOf(second));
  assert.equal(await page.isVisible("#stop"), false);
  await page.reload();
  await stateIs(page, "stopped");
  assert.equal(await textOf(page), await textOf(second));
});
