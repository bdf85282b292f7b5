import assert from "node:assert/strict";
import { test } from "node:test";
import { OPEN, frame, opened, settle, start, told } from "./support.js";

test("connects with its headers and takes its client id", async () => {
  const { browser, client, states } = await opened({ headers: { authorization: "Bearer x" } });
  assert.deepEqual(states, ["connecting", "open"]);
  assert.equal(client.status.client, "c1");
  assert.equal(client.status.resumed, false);
  assert.equal(client.lastEventId, "7-0");
  const { headers } = browser.request;
  assert.equal(headers.get("accept"), "text/event-stream");
  assert.equal(headers.get("authorization"), "Bearer x");
  assert.equal(headers.has("last-event-id"), false);
});

test("events reach listeners of their type and of `*`", async () => {
  const { browser, client } = await start();
  const seen = [];
  for (const type of ["order", "*", "hub:open"]) client.on(type, (event) => seen.push([type, event.type, event.id]));
  const stop = client.on("order", () => seen.push("stopped"));
  stop();
  await browser.request.stream(OPEN, frame("order", '{"a":1}', "7-1"), frame("other", "x"));
  assert.deepEqual(seen, [
    ["hub:open", "hub:open", "7-0"],
    ["order", "order", "7-1"],
    ["*", "order", "7-1"],
    ["*", "other", "7-1"],
  ]);
});

test("a listener that throws does not stop delivery", async (t) => {
  const { browser, client } = await opened();
  const errors = t.mock.method(console, "error", () => {});
  let seen = 0;
  client.on("a", () => { throw new Error("mine"); });
  client.on("a", () => { seen += 1; });
  await browser.request.send(frame("a", "1") + frame("a", "2"));
  assert.equal(seen, 2);
  assert.equal(errors.mock.callCount(), 2);
});

test("delay is retry plus a random part of doubling windows", async () => {
  const { browser, client, states } = await opened({ backoff: 1000, maxBackoff: 5000 });
  browser.chance = 0.5;
  const delays = [];
  for (let failure = 0; failure < 6; failure += 1) {
    if (failure === 0) await browser.request.end();
    else browser.request.fail();
    await settle();
    delays.push(client.status.retryAt - browser.time);
    await browser.pass(client.status.retryAt - browser.time);
  }
  assert.deepEqual(delays, [3500, 4000, 5000, 5500, 5500, 5500]);
  assert.deepEqual(states.slice(2, 6), ["retrying eof", "connecting eof", "retrying network no route", "connecting network no route"]);
  assert.equal(browser.requests.length, 7);
});

test("delays spread over the window above a minimum", async () => {
  for (const [chance, expected] of [[0, 100], [0.25, 250], [0.999, 999]]) {
    const { browser, client } = await start();
    browser.chance = chance;
    browser.request.fail();
    await settle();
    assert.equal(client.status.retryAt - browser.time, expected);
  }
});

test("a stable stream resets the back-off", async () => {
  const { browser, client } = await start();
  browser.chance = 0.5;
  const delays = [];
  for (const lasted of [0, 0, 0, 20_000, 0]) {
    await browser.request.stream(frame("a", "1"));
    await browser.pass(lasted);
    await browser.request.end();
    delays.push(client.status.retryAt - browser.time);
    await browser.pass(client.status.retryAt - browser.time);
  }
  assert.deepEqual(delays, [500, 1000, 2000, 500, 1000]);
});

test("resumes by the header, encoded as UTF-8", async () => {
  const { browser } = await opened();
  await browser.request.send(frame("a", "1", "7-1") + frame("a", "2", "é7") + "id: 9\ndata: cut off");
  await browser.request.end();
  await browser.pass(3000);
  assert.equal(browser.request.headers.get("last-event-id"), "\u00c3\u00a97");
});

test("resumes by the query if lastEventIdParam is set", async () => {
  const { browser } = await start({ lastEventIdParam: "lastEventId", url: "/events?user=ann" });
  await browser.request.stream(OPEN);
  await browser.request.end();
  await browser.pass(3000);
  assert.equal(browser.request.url, "/events?user=ann&lastEventId=7-0");
  assert.equal(browser.request.headers.has("last-event-id"), false);
});

test("url and headers functions run for each request", async () => {
  let token = 0;
  const { browser } = await start({
    headers: async () => ({ authorization: `Bearer ${++token}` }),
    url: (client) => `/events?client=${client.status.client}`,
  });
  await browser.request.stream(OPEN);
  await browser.request.end();
  await browser.pass(3000);
  assert.deepEqual(browser.requests.map(({ url }) => url), ["/events?client=", "/events?client=c1"]);
  assert.equal(browser.request.headers.get("authorization"), "Bearer 2");
});

test("three missed heartbeats end the stream", async () => {
  const { browser, states } = await opened();
  for (let beat = 0; beat < 10; beat += 1) {
    await browser.pass(15_000);
    await browser.request.send(":\n");
  }
  await browser.pass(44_999);
  assert.deepEqual(states, ["connecting", "open"]);
  await browser.pass(1);
  assert.equal(states.at(-1), "retrying silent");
  assert.equal(browser.request.isCancelled, true);
  await browser.pass(3000);
  assert.equal(browser.requests.length, 2);
});

test("a request without an answer times out", async () => {
  const { browser, states } = await start({ silence: 5000 });
  await browser.pass(5000);
  assert.deepEqual(states, ["connecting", "retrying silent"]);
});

test("a response without data is open, and says so", async () => {
  const { browser, states } = await start();
  await browser.request.stream();
  await browser.pass(499);
  assert.deepEqual(states, ["connecting"]);
  await browser.pass(1);
  assert.deepEqual(states, ["connecting", "open no-data"]);
  await browser.request.send(":\n");
  assert.deepEqual(states, ["connecting", "open no-data", "open"]);
});

test("online and shown pages retry at most once per second", async () => {
  for (const tell of [(b) => b.window.tell("online"), (b) => b.document.tell("visibilitychange")]) {
    const { browser } = await start({ backoff: 30_000 });
    browser.chance = 0.9;
    browser.request.fail();
    await browser.pass(5000);
    assert.equal(browser.requests.length, 1);
    for (let flap = 0; flap < 99; flap += 1) {
      tell(browser);
      await browser.pass(10);
      browser.request.fail();
    }
    // The request was sent at once; the next must wait for a second.
    assert.equal(browser.requests.length, 2, `${browser.requests.map(({ at }) => at)}`);
    assert.equal(browser.requests[1].at - browser.requests[0].at, 5000);
    tell(browser);
    await browser.pass(50);
    assert.equal(browser.requests.length, 3);
  }
});

test("a wait that was cut short does not connect again", async () => {
  for (const tell of [(b) => b.window.tell("online"), (b) => b.document.tell("visibilitychange")]) {
    const { browser, states } = await start({ backoff: 30_000 });
    browser.chance = 0.9;
    browser.request.fail();
    await browser.pass(5000);
    tell(browser);
    await browser.request.stream(OPEN);
    await browser.pass(30_000);
    assert.equal(browser.requests.length, 2);
    assert.equal(states.at(-1), "open");
  }
});

test("hiding the page does not retry", async () => {
  const { browser } = await start({ backoff: 30_000 });
  browser.chance = 0.9;
  browser.request.fail();
  await browser.pass(5000);
  browser.document.hidden = true;
  browser.document.tell("visibilitychange");
  await browser.pass(0);
  assert.equal(browser.requests.length, 1);
});

test("a retry time named by the server is kept", async () => {
  const { browser, states } = await start();
  await browser.request.stream(told("hub:refused", "full", 9000));
  assert.deepEqual(states, ["connecting", "retrying hub:refused full"]);
  await browser.pass(5000);
  browser.document.tell("visibilitychange");
  browser.window.tell("online");
  await browser.pass(3999);
  assert.equal(browser.requests.length, 1);
  await browser.pass(1);
  assert.equal(browser.requests.length, 2);
});

test("a stream without bytes since offline resumes when online", async () => {
  const { browser, states } = await opened();
  await browser.pass(2000);
  browser.window.tell("online");
  await settle();
  assert.equal(browser.requests.length, 1);
  browser.window.tell("offline");
  await browser.request.send(":\n");
  browser.window.tell("online");
  await settle();
  assert.equal(browser.requests.length, 1);
  browser.window.tell("offline");
  browser.window.tell("online");
  await settle();
  assert.equal(browser.requests.length, 2);
  assert.equal(states.at(-1), "connecting offline");
  assert.equal(browser.request.headers.get("last-event-id"), "7-0");
});

test("a dead stream resumes when the page wakes", async () => {
  const { browser } = await opened();
  browser.time += 3_600_000;
  browser.document.tell("visibilitychange");
  await settle();
  assert.equal(browser.requests.length, 2);
});

test("a drained client returns at the told time", async () => {
  const { browser, client, states } = await opened();
  await browser.request.send(told("hub:end", "drained", 4000));
  assert.equal(states.at(-1), "retrying hub:end drained");
  assert.equal(client.status.retryAt - browser.time, 4000);
  assert.equal(browser.request.isCancelled, true);
});

test("a gap is delivered and moves the position", async () => {
  const { browser, client } = await opened();
  const gaps = [];
  client.on("hub:gap", (event) => gaps.push(event.json().reason));
  await browser.request.send(frame("hub:gap", '{"reason":"evicted"}', "7-90"));
  assert.deepEqual(gaps, ["evicted"]);
  assert.equal(client.lastEventId, "7-90");
  assert.equal(client.status.state, "open");
});

for (const status of [204, 400, 404, 410]) {
  test(`first answer ${status} closes`, async () => {
    const { browser, client, states } = await start();
    await browser.request.answer(status);
    assert.deepEqual(states, ["connecting", `closed http ${status}`]);
    await browser.pass(3_600_000);
    assert.equal(browser.requests.length, 1);
    client.open();
    await browser.pass(0);
    assert.equal(browser.requests.length, 2);
  });
}

for (const status of [408, 425, 429, 500, 502, 503, 504]) {
  test(`${status} is retried after Retry-After`, async () => {
    const { browser, client, states } = await start();
    await browser.request.answer(status, { "retry-after": "20" });
    assert.deepEqual(states, ["connecting", `retrying http ${status}`]);
    assert.equal(client.status.retryAt - browser.time, 20_000);
  });
}

test("a first answer of another type closes", async () => {
  const { browser, states } = await start();
  await browser.request.answer(200, { "content-type": "text/html" }, "<p>");
  assert.deepEqual(states, ["connecting", "closed content-type text/html"]);
});

for (const type of ["hub:error", "hub:end"]) {
  test(`${type} for a permanent reason closes`, async () => {
    const { browser, states } = await opened();
    await browser.request.send(told(type, type === "hub:end" ? "displaced" : "error", 10));
    assert.match(states.at(-1), /^closed hub:(end displaced|error error)$/);
    await browser.pass(3_600_000);
    assert.equal(browser.requests.length, 1);
  });
}

for (const status of [401, 403]) {
  test(`${status} renews credentials once per open stream`, async () => {
    const asked = [];
    const { browser, states } = await start({ renew: async (code) => { asked.push(code); } });
    await browser.request.answer(status);
    assert.equal(browser.requests.length, 2);
    await browser.request.stream(OPEN);
    assert.deepEqual(states, ["connecting", `connecting unauthorized ${status}`, "open"]);
    await browser.request.end();
    await browser.pass(3000);
    await browser.request.answer(status);
    await browser.request.answer(status);
    assert.deepEqual(asked, [status, status]);
    assert.equal(states.at(-1), `closed unauthorized ${status}`);
    await browser.pass(3_600_000);
    assert.equal(browser.requests.length, 4);
  });
}

test("closes if renewing fails or is not possible", async () => {
  for (const renew of [undefined, () => false, async () => { throw new Error("no"); }]) {
    const { browser, states } = await start({ renew });
    await browser.request.answer(401);
    assert.equal(states.at(-1), "closed unauthorized 401");
  }
});

test("renewing may take minutes", async () => {
  let type;
  const { browser, states } = await start({ renew: () => new Promise((done) => { type = done; }) });
  await browser.request.answer(401);
  await browser.pass(600_000);
  browser.document.tell("visibilitychange");
  browser.goOffline();
  browser.goOnline();
  assert.equal(browser.requests.length, 1);
  assert.deepEqual(states, ["connecting", "connecting unauthorized 401"], "the page can show it");
  type();
  await settle();
  assert.equal(browser.requests.length, 2);
});

test("reconnect: false closes at the end", async () => {
  const { browser, states } = await opened({ reconnect: false, method: "POST", body: "{}" });
  assert.equal(browser.request.init.method, "POST");
  await browser.request.end();
  assert.equal(states.at(-1), "closed eof");
});

test("close frees all resources in every state", async () => {
  const stages = {
    connecting: async () => {},
    open: async ({ request }) => request.stream(OPEN),
    retrying: async ({ request }) => { request.fail(); await settle(); },
    "open without a byte": async ({ request }) => request.stream(),
  };
  for (const [stage, reach] of Object.entries(stages)) {
    const { browser, client, states } = await start();
    await reach(browser);
    client.close();
    assert.equal(browser.timers, 0, stage);
    assert.equal(browser.window.listening + browser.document.listening, 0, stage);
    assert.equal(browser.request.isCancelled, true, stage);
    assert.equal(states.at(-1), "closed close", stage);
    await browser.pass(3_600_000);
    assert.equal(browser.requests.length, 1, stage);
  }
});

test("events after close in a chunk are replayed", async () => {
  const { browser, client } = await opened();
  const seen = [];
  client.on("*", ({ data }) => {
    seen.push(data);
    if (data === "2") client.close();
  });
  await browser.request.send(frame("a", "1", "7-1") + frame("a", "2", "7-2") + frame("a", "3", "7-3"));
  assert.deepEqual(seen, ["1", "2"]);
  client.open();
  await browser.pass(1000);
  assert.equal(browser.request.headers.get("last-event-id"), "7-2");
});

test("a comment after close in a chunk arms no timer", async () => {
  const { browser, client, states } = await opened();
  client.on("a", () => client.close());
  await browser.pass(15_000);
  await browser.request.send(`${frame("a", "1", "7-1")}:\n\n`);
  assert.equal(browser.timers, 0);
  await browser.pass(3_600_000);
  assert.equal(states.at(-1), "closed close");
});

test("a large event after close in a chunk changes nothing", async () => {
  const { browser, client, states } = await opened({ maxEventSize: 100 });
  client.on("a", () => client.close());
  await browser.request.send(frame("a", "1", "7-1") + frame("a", "x".repeat(200), "7-2"));
  assert.equal(states.at(-1), "closed close");
});

test("reconnect() sends at most one request per second", async () => {
  const { browser, client } = await opened();
  for (let press = 0; press < 100; press += 1) {
    client.reconnect();
    await browser.pass(30);
  }
  assert.ok(browser.requests.length <= 4, `${browser.requests.length} requests in 3 seconds`);
  assert.ok(browser.requests.length >= 3);
});

test("an id without data moves an open client's position", async () => {
  const { browser, client } = await opened();
  client.on("a", () => client.close());
  await browser.request.send("id: 7-5\n\n");
  assert.equal(client.lastEventId, "7-5");
  await browser.request.send(`${frame("a", "1", "7-6")}id: 7-9\n\n`);
  assert.equal(client.lastEventId, "7-6");
});

test("a listener of hub:end may close the client", async () => {
  const { browser, client, states } = await opened();
  client.on("hub:end", () => client.close());
  await browser.request.send(told("hub:end", "logout", 10));
  assert.equal(states.at(-1), "closed close");
  assert.equal(browser.timers, 0);
});
