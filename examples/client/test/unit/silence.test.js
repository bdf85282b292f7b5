// Dead connections. The hub tells its heartbeat, or the client learns the heartbeat from comments.
import assert from "node:assert/strict";
import { test } from "node:test";
import { frame, opening, start } from "./support.js";

async function greeted(more, options) {
  const all = await start(options);
  await all.browser.request.stream(opening(more));
  return all;
}

/**
 * Answers each request with `head`, and sends a comment each `interval` ms of a clock that all
 * streams share. Returns the number of requests within `time`.
 */
async function run(browser, { time, interval, head, offset = 0 }) {
  const end = browser.time + time;
  let answered = 0;
  let next = browser.time + offset;
  while (browser.time < end) {
    for (; answered < browser.requests.length; answered += 1) await browser.requests[answered].stream(...head);
    const step = Math.min(next, end) - browser.time;
    // Answer a new request within a second.
    await browser.pass(Math.min(step, 1000));
    if (browser.time < next) continue;
    next += interval;
    if (!browser.request.isCancelled && answered === browser.requests.length) await browser.request.send(": ping\n\n");
  }
  return browser.requests.length;
}

for (const heartbeat of [1000, 15_000, 60_000, 600_000]) {
  test(`a told heartbeat of ${heartbeat} ms is awaited three times`, async () => {
    const { browser, states } = await greeted({ heartbeat });
    await browser.pass(3 * heartbeat - 1);
    assert.deepEqual(states, ["connecting", "open"]);
    await browser.pass(1);
    assert.equal(states.at(-1), "retrying silent");
  });
}

test("a heartbeat told by the next stream applies", async () => {
  const { browser, client, states } = await greeted({ heartbeat: 15_000 });
  await browser.request.end();
  await browser.pass(3000);
  await browser.request.stream(opening({ heartbeat: 120_000 }));
  await browser.pass(359_999);
  assert.equal(client.status.state, "open");
  await browser.pass(1);
  assert.equal(states.at(-1), "retrying silent");
});

test("the silence option overrides a told heartbeat", async () => {
  const { browser, states } = await greeted({ heartbeat: 60_000 }, { silence: 5000 });
  await browser.pass(5000);
  assert.equal(states.at(-1), "retrying silent");
  const off = await greeted({ heartbeat: 1000 }, { silence: 0 });
  await off.browser.pass(86_400_000);
  assert.equal(off.states.at(-1), "open");
});

for (const heartbeat of [undefined, null, 0, -1, "15000", {}, []]) {
  test(`a heartbeat of ${JSON.stringify(heartbeat)} is none`, async () => {
    const { browser, states } = await greeted({ heartbeat });
    await browser.pass(3_600_000);
    assert.deepEqual(states, ["connecting", "open"]);
  });
}

test("enormous and tiny heartbeats cause no loop", async () => {
  for (const heartbeat of ["1e999", "1e15", "0.001"]) {
    const { browser } = await start();
    browser.chance = 0.5;
    await browser.request.stream(`event: hub:open\ndata: {"client":"c1","resumed":false,"heartbeat":${heartbeat}}\n\n`);
    await browser.pass(60_000);
    assert.ok(browser.requests.length <= 10, `${browser.requests.length} requests in a minute`);
  }
});

test("a server that never sends a comment is not watched", async () => {
  for (const head of [["retry: 3000\n\n"], [frame("order", "1", "7-1")], [":\n\n"], [": padding\n".repeat(100)]]) {
    const { browser } = await start();
    await browser.request.stream(...head);
    await browser.pass(3_600_000);
    assert.equal(browser.requests.length, 1, head[0].slice(0, 20));
  }
});

for (const interval of [20_000, 60_000, 150_000]) {
  test(`comments each ${interval} ms keep a stream open`, async () => {
    const { browser } = await start();
    assert.equal(await run(browser, { time: 3_600_000, interval, offset: interval, head: [opening()] }), 1);
  });

  test(`comments each ${interval} ms of a shared clock suffice`, async () => {
    const { browser } = await start();
    // The first comment arrives two seconds after the head.
    const requests = await run(browser, { time: 6 * 3_600_000, interval, offset: 2000, head: ["retry: 3000\n\n"] });
    assert.ok(requests <= 5, `${requests} requests in 6 hours`);
  });
}

test("after learned comments a dead stream is detected", async () => {
  const { browser, states } = await greeted();
  for (let beat = 0; beat < 3; beat += 1) {
    await browser.pass(30_000);
    await browser.request.send(":\n\n");
  }
  await browser.pass(89_999);
  assert.equal(states.at(-1), "open");
  await browser.pass(1);
  assert.equal(states.at(-1), "retrying silent");
});

test("one comment starts the watch", async () => {
  const { browser, states } = await greeted();
  await browser.pass(15_000);
  await browser.request.send(":\n\n");
  await browser.pass(44_999);
  assert.equal(states.at(-1), "open");
  await browser.pass(1);
  assert.equal(states.at(-1), "retrying silent");
});

test("events between comments do not shorten the learned interval", async () => {
  const { browser, states } = await greeted();
  for (let n = 1; n < 200; n += 1) {
    await browser.pass(2500);
    // A comment each 50 seconds; events before it.
    await browser.request.send(n % 20 === 0 ? ":\n" : frame("a", "1", `7-${n}`));
  }
  await browser.request.send(":\n");
  await browser.pass(50_000);
  await browser.request.send(":\n");
  await browser.pass(149_999);
  assert.deepEqual(states, ["connecting", "open"]);
});

/** Hides the page for `hidden` ms. If `sleeps` is set, no timer runs meanwhile. */
async function hideAndShow(browser, hidden, sleeps) {
  await browser.pass(1000);
  browser.document.hidden = true;
  browser.document.tell("visibilitychange");
  if (sleeps) browser.time += hidden;
  else await browser.pass(hidden);
  browser.document.hidden = false;
  browser.document.tell("visibilitychange");
  await browser.pass(0);
}

for (const sleeps of [false, true]) {
  const how = sleeps ? "timers asleep" : "timers running";
  test(`shown after a heartbeat of silence, resumes at once (${how})`, async () => {
    for (const [more, hidden] of [[{ heartbeat: 15_000 }, 19_000], [{ heartbeat: 2000 }, 3000], [{ heartbeat: 60_000 }, 100_000], [{}, 19_000], [{}, 50_000]]) {
      const { browser, states } = await greeted(more);
      await hideAndShow(browser, hidden, sleeps);
      assert.equal(browser.requests.length, 2, `${JSON.stringify(more)} ${hidden}`);
      assert.equal(browser.request.headers.get("last-event-id"), "7-0");
      assert.equal(states.at(-1), "connecting silent");
    }
  });
}

test("shown within a heartbeat, the stream is kept", async () => {
  for (const [more, hidden] of [[{ heartbeat: 15_000 }, 13_000], [{ heartbeat: 60_000 }, 50_000], [{}, 10_000]]) {
    const { browser } = await greeted(more);
    await hideAndShow(browser, hidden, false);
    await browser.pass(0);
    assert.equal(browser.requests.length, 1, JSON.stringify(more));
  }
});

test("shown while heartbeats arrive, the stream is kept", async () => {
  const { browser } = await greeted({ heartbeat: 15_000 });
  browser.document.hidden = true;
  browser.document.tell("visibilitychange");
  for (let beat = 0; beat < 8; beat += 1) {
    await browser.pass(15_000);
    await browser.request.send(":\n");
  }
  browser.document.hidden = false;
  browser.document.tell("visibilitychange");
  await browser.pass(0);
  assert.equal(browser.requests.length, 1);
});

test("shown without position or heartbeat, the stream is kept", async () => {
  const { browser } = await start();
  await browser.request.stream("data: 1\n\n");
  await hideAndShow(browser, 600_000, true);
  await browser.pass(600_000);
  assert.equal(browser.requests.length, 1);
});

test("showing the page over and over resumes once per second", async () => {
  const { browser } = await greeted({ heartbeat: 15_000 });
  await browser.pass(20_000);
  for (let flap = 0; flap < 100; flap += 1) {
    browser.document.tell("visibilitychange");
    await browser.pass(30);
  }
  assert.ok(browser.requests.length <= 4, `${browser.requests.length} requests in 3 seconds`);
});

test("silence: 0 turns the check of a shown page off", async () => {
  const { browser } = await greeted({ heartbeat: 15_000 }, { silence: 0 });
  await hideAndShow(browser, 600_000, true);
  assert.equal(browser.requests.length, 1);
});

test("a server that slows its comments is measured again", async () => {
  const { browser } = await greeted();
  for (let beat = 0; beat < 3; beat += 1) {
    await browser.pass(15_000);
    await browser.request.send(":\n\n");
  }
  const before = browser.requests.length;
  const requests = await run(browser, { time: 3_600_000, interval: 60_000, offset: 60_000, head: [opening()] });
  assert.ok(requests - before <= 2, `${requests - before} reconnects in an hour`);
});
