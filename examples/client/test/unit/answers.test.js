// Answers that are not a stream: which are retried, when, and which close the client.
import assert from "node:assert/strict";
import { test } from "node:test";
import { OPEN, opened, settle, start } from "./support.js";

const html = { "content-type": "text/html" };
const ANSWERS = [
  ["404", 404, {}, null], ["400", 400, {}, null], ["410", 410, {}, null], ["an HTML page", 200, html, "<p>sign in"], ["no type", 200, {}, null], ["206", 206, {}, null],
];

for (const [name, ...answer] of ANSWERS) {
  test(`${name} for three seconds passes after an open stream`, async () => {
    const { browser, client, states } = await opened();
    await browser.pass(20_000);
    await browser.request.end();
    await browser.pass(3000);
    const until = browser.time + 3000;
    while (browser.requests.length < 10 && browser.time < until) {
      await browser.request.answer(...answer);
      assert.match(states.at(-1), /^retrying (http|content-type)/);
      await browser.pass(client.status.retryAt - browser.time);
    }
    await browser.request.stream(OPEN);
    assert.equal(states.at(-1), "open");
  });

  test(`${name} that stays closes after five retries`, async () => {
    const { browser, client, states } = await opened();
    await browser.request.end();
    await browser.pass(3000);
    for (let answered = 0; answered < 5; answered += 1) {
      await browser.request.answer(...answer);
      await browser.pass(client.status.retryAt - browser.time);
    }
    await browser.request.answer(...answer);
    assert.match(states.at(-1), /^closed (http|content-type)/);
    assert.equal(browser.requests.length, 7);
    await browser.pass(86_400_000);
    assert.equal(browser.requests.length, 7);
  });

  test(`${name} as the first answer closes`, async () => {
    const { browser, states } = await start();
    await browser.request.answer(...answer);
    assert.match(states.at(-1), /^closed (http|content-type)/);
  });
}

test("an open stream resets the count of such answers", async () => {
  const { browser, client } = await opened();
  for (let round = 0; round < 4; round += 1) {
    await browser.request.end();
    for (let answered = 0; answered < 4; answered += 1) {
      await browser.pass(client.status.retryAt - browser.time);
      await browser.request.answer(404);
    }
    await browser.pass(client.status.retryAt - browser.time);
    await browser.request.stream(OPEN);
    assert.equal(client.status.state, "open");
  }
});

test("after open() the first answer counts again", async () => {
  const { browser, client, states } = await opened();
  client.close();
  client.open();
  await browser.pass(1000);
  await browser.request.answer(404);
  assert.equal(states.at(-1), "closed http 404");
});

test("204 closes also after an open stream", async () => {
  const { browser, states } = await opened();
  await browser.request.end();
  await browser.pass(3000);
  await browser.request.answer(204);
  assert.equal(states.at(-1), "closed http 204");
  await browser.pass(86_400_000);
  assert.equal(browser.requests.length, 2);
});

/** Returns the delay after a 503 with these headers, without the random part. */
async function delayAfter(headers, time = Date.UTC(2026, 10, 27, 12)) {
  const { browser, client } = await start();
  browser.time = time;
  await browser.request.answer(503, headers);
  return client.status.retryAt - browser.time;
}

const NOON = Date.UTC(2026, 10, 27, 12);
const inSeconds = (seconds) => new Date(NOON + 1000 * seconds).toUTCString();

for (const [name, headers, expected] of [
  ["60 seconds", { "retry-after": "60" }, 60_000],
  ["a date in 60 seconds", { "retry-after": inSeconds(60) }, 60_000],
  ["a date in the obsolete RFC 850 form", { "retry-after": "Friday, 27-Nov-26 12:01:00 GMT" }, 60_000],
  ["a date in the obsolete asctime form", { "retry-after": "Fri Nov 27 12:01:00 2026 GMT" }, 60_000],
  ["a past date", { "retry-after": inSeconds(-60) }, 100],
  ["a date a year ahead", { "retry-after": inSeconds(365 * 86_400) }, 3_600_000],
  ["no number or date", { "retry-after": "soon" }, 100],
  ["a negative number", { "retry-after": "-5" }, 100],
  ["a day at most", { "retry-after": "9".repeat(400) }, 86_400_000],
  ["a date by a server whose clock is ahead", { date: inSeconds(86_400), "retry-after": inSeconds(86_460) }, 60_000],
  ["a date by a server whose clock is behind", { date: inSeconds(-86_400), "retry-after": inSeconds(-86_340) }, 60_000],
  ["a malformed date header", { date: "today", "retry-after": inSeconds(60) }, 60_000],
]) {
  test(`Retry-After: ${name}`, async () => assert.equal(await delayAfter(headers), expected));
}

test("Retry-After applies to answers that may pass", async () => {
  const { browser, client } = await opened();
  await browser.request.end();
  await browser.pass(3000);
  await browser.request.answer(404, { "retry-after": "40" });
  assert.equal(client.status.retryAt - browser.time, 40_000);
});

test("maxRetries closes after so many failures in a row", async () => {
  for (const [maxRetries, requests] of [[0, 1], [1, 2], [5, 6]]) {
    const { browser, client, states } = await start({ maxRetries });
    for (let failure = 0; failure < 10 && client.status.state !== "closed"; failure += 1) {
      browser.request.fail();
      await settle();
      if (client.status.retryAt) await browser.pass(client.status.retryAt - browser.time);
    }
    assert.equal(browser.requests.length, requests);
    assert.equal(states.at(-1), "closed network no route");
  }
});

test("a stable stream resets the count of maxRetries", async () => {
  const { browser, client } = await opened({ maxRetries: 2 });
  for (let round = 0; round < 5; round += 1) {
    await browser.pass(10_000);
    await browser.request.end();
    await browser.pass(3000);
    browser.request.fail();
    await settle();
    await browser.pass(client.status.retryAt - browser.time);
    await browser.request.stream(OPEN);
    assert.equal(client.status.state, "open");
  }
});
