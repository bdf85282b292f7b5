// Topics that the page joins and leaves: requests, answers, and reconnects.
import assert from "node:assert/strict";
import { test } from "node:test";
import { OPEN, opened, opening, settle, start } from "./support.js";

const options = { topics: "/topics?v=1", headers: { authorization: "a" }, credentials: "include" };

/** The requests for topics, as method and query. */
const asked = ({ requests }) => requests.filter(({ url }) => url.startsWith("/topics")).map(({ url, init }) => `${init.method} ${url.slice(8)}`);

/** Returns the answer of a promise, or "waits". */
const state = async (promise) => (await settle(), Promise.race([promise, "waits"]));

test("a join is a request with the client's id", async () => {
  const { browser, client } = await opened(options);
  const joined = client.join("room 7&x=ü", { last: 20 });
  assert.equal(await state(joined), "waits");
  assert.deepEqual(asked(browser), ["POST v=1&client=c1&topic=room%207%26x%3D%C3%BC&last=20"]);
  assert.equal(browser.request.headers.get("authorization"), "a");
  assert.equal(browser.request.init.credentials, "include");
  await browser.request.answer(204);
  assert.equal(await state(joined), true);
  client.leave("room 7&x=ü");
  await settle();
  assert.equal(asked(browser).at(-1), "DELETE v=1&client=c1&topic=room%207%26x%3D%C3%BC");
  await browser.request.answer(204);
  assert.equal(browser.requests.length, 3);
});

test("joins before the stream is open wait for it", async () => {
  const { browser, client } = await start(options);
  const joined = client.join("a");
  void client.join("b");
  client.leave("b");
  client.leave("never joined");
  assert.deepEqual(asked(browser), []);
  await browser.request.stream(OPEN);
  assert.deepEqual(asked(browser), ["POST v=1&client=c1&topic=a"]);
  await browser.request.answer(204);
  assert.equal(await state(joined), true);
});

test("topics are asked for again after a reconnect", async () => {
  const { browser, client } = await opened(options);
  const stream = browser.request;
  for (const topic of ["a", "b", "c"]) {
    void client.join(topic, topic === "a" ? { last: 3 } : {});
    await settle();
    await browser.request.answer(204);
  }
  client.leave("b");
  await settle();
  await browser.request.answer(204);
  const before = asked(browser).length;
  await stream.end();
  await browser.pass(3000);
  assert.equal(asked(browser).length, before, "the old id is of no use");
  await browser.request.stream(opening({ client: "c2" }));
  assert.deepEqual(asked(browser).slice(before), ["POST v=1&client=c2&topic=a&last=3", "POST v=1&client=c2&topic=c"]);
});

test("topics that the hub kept are not asked for again", async () => {
  for (const [resumed, id, expected] of [
    [true, "c1", ["DELETE v=1&client=c1&topic=left", "POST v=1&client=c1&topic=late"]],
    [false, "c1", ["POST v=1&client=c1&topic=a&last=3", "POST v=1&client=c1&topic=late", "DELETE v=1&client=c1&topic=left"]],
    [true, "c2", ["POST v=1&client=c2&topic=a&last=3", "POST v=1&client=c2&topic=late"]],
  ]) {
    const { browser, client } = await opened(options);
    const stream = browser.request;
    for (const topic of ["a", "left"]) {
      void client.join(topic, topic === "a" ? { last: 3 } : {});
      await settle();
      await browser.request.answer(204);
    }
    const before = asked(browser).length;
    await stream.end();
    client.leave("left");
    const late = client.join("late");
    await browser.pass(3000);
    await browser.request.stream(opening({ client: id, resumed }));
    assert.deepEqual(asked(browser).slice(before).sort(), [...expected].sort());
    for (const request of browser.requests.slice(-expected.length)) await request.answer(204);
    assert.equal(await state(late), true);
  }
});

test("a topic whose request was cut off is left after a reconnect", async () => {
  const { browser, client } = await opened(options);
  const stream = browser.request;
  const joined = client.join("a");
  await settle();
  // The server may have added the client.
  await stream.end();
  client.leave("a");
  assert.equal(await state(joined), false);
  await browser.pass(3000);
  await browser.request.stream(opening({ resumed: true }));
  assert.deepEqual(asked(browser).at(-1), "DELETE v=1&client=c1&topic=a");
  await browser.request.answer(204);
  await browser.pass(100_000);
  assert.equal(asked(browser).length, 2);
});

test("a refused topic is not asked for again", async () => {
  for (const status of [400, 401, 403, 404]) {
    const { browser, client } = await opened(options);
    const stream = browser.request;
    const joined = client.join("secret");
    await settle();
    await browser.request.answer(status);
    assert.equal(await state(joined), false);
    assert.equal(client.status.state, "open", "the stream goes on");
    await stream.end();
    await browser.pass(3000);
    await browser.request.stream(OPEN);
    assert.equal(asked(browser).length, 1);
  }
});

test("a failed request is repeated until the server answers", async () => {
  const { browser, client } = await opened(options);
  const joined = client.join("a");
  await settle();
  for (const wait of [500, 1000, 2000]) {
    if (wait === 1000) browser.request.fail();
    else await browser.request.answer(503);
    await browser.pass(wait - 1);
    const before = asked(browser).length;
    await browser.pass(1);
    assert.equal(asked(browser).length, before + 1, `after ${wait} ms`);
  }
  assert.equal(await state(joined), "waits");
  await browser.request.answer(204);
  assert.equal(await state(joined), true);
});

test("the last wish counts while a request is under way", async () => {
  const { browser, client } = await opened(options);
  const first = client.join("a");
  await settle();
  client.leave("a");
  const second = client.join("a", { last: 1 });
  await settle();
  assert.equal(asked(browser).length, 1, "one request at a time");
  await browser.request.answer(204);
  assert.deepEqual(asked(browser).slice(1), ["POST v=1&client=c1&topic=a&last=1"]);
  await browser.request.answer(204);
  assert.deepEqual([await state(first), await state(second)], [false, true]);

  client.leave("a");
  await settle();
  const third = client.join("a");
  await browser.request.answer(204);
  assert.equal(asked(browser).at(-1), "POST v=1&client=c1&topic=a", "the leave was done first");
  await browser.request.answer(403);
  assert.equal(await state(third), false);
});

test("a stream that ends takes its requests with it", async () => {
  const { browser, client } = await opened(options);
  const stream = browser.request;
  const joined = client.join("a");
  await settle();
  const request = browser.request;
  await stream.end();
  assert.ok(request.isCancelled);
  await browser.pass(3000);
  await browser.request.stream(opening({ client: "c2" }));
  assert.equal(asked(browser).at(-1), "POST v=1&client=c2&topic=a");
  await browser.request.answer(503);
  client.close();
  assert.equal(browser.timers, 0, "no timer is left");
  client.open();
  await browser.pass(1000);
  await browser.request.stream(opening({ client: "c3" }));
  assert.equal(asked(browser).at(-1), "POST v=1&client=c3&topic=a");
  await browser.request.answer(204);
  assert.equal(await state(joined), true);
});

test("a join without an address is an error", async () => {
  const { client } = await opened();
  assert.throws(() => client.join("a"), /the option `topics`/);
});

test("a server that is no hub is not asked", async () => {
  const { browser, client } = await start(options);
  void client.join("a");
  await browser.request.stream("data: hello\n\n");
  assert.deepEqual(asked(browser), []);
});
