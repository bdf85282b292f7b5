// Ends of a stream that the server means: `"final": true` closes the client.
import assert from "node:assert/strict";
import { test } from "node:test";
import { frame, opened } from "./support.js";

const end = (data, id) => `event: hub:end\nretry: 100\ndata: ${data}\n${id ? `id: ${id}\n` : ""}\n`;

test("a final hub:end closes with its reason", async () => {
  const { browser, client, states } = await opened();
  const seen = [];
  client.on("*", ({ data }) => seen.push(data));
  client.on("hub:end", (event) => seen.push(event.json().reason));
  await browser.request.send(frame("token", "last", "7-1") + end('{"reason":"answered","final":true}', "7-1"));
  assert.deepEqual(seen, ["last", "answered"]);
  assert.equal(states.at(-1), "closed hub:end answered");
  assert.equal(client.lastEventId, "7-1");
  assert.equal(browser.request.isCancelled, true);
  browser.document.tell("visibilitychange");
  browser.goOffline();
  browser.goOnline();
  await browser.pass(86_400_000);
  assert.equal(browser.requests.length, 1);
  assert.equal(browser.timers, 0);
});

test("a final hub:end without a reason closes", async () => {
  const { browser, states } = await opened();
  await browser.request.send(end('{"final":true}'));
  assert.equal(states.at(-1), "closed hub:end");
});

for (const final of ["false", "1", '"true"', "null", "{}"]) {
  test(`hub:end with final ${final} reconnects`, async () => {
    const { browser, states } = await opened();
    await browser.request.send(end(`{"reason":"drained","final":${final}}`));
    assert.equal(states.at(-1), "retrying hub:end drained");
  });
}

test("final in another event does not close", async () => {
  const { browser, client } = await opened();
  await browser.request.send(frame("end", '{"final":true}') + frame("hub:gap", '{"reason":"evicted","final":true}', "7-5"));
  assert.equal(client.status.state, "open");
});

test("an event of type * reaches * listeners once", async () => {
  const { browser, client } = await opened();
  const seen = [];
  client.on("*", ({ data }) => seen.push(data));
  client.on("*", ({ data }) => seen.push(`second ${data}`));
  await browser.request.send(frame("*", "1") + frame("**", "2"));
  assert.deepEqual(seen, ["1", "second 1", "2", "second 2"]);
});

test("malformed data in hub events is ignored", async () => {
  for (const data of ["null", "[]", "7", '"x"', '{"client":{"a":1},"resumed":"yes","heartbeat":{}}', "{", ""]) {
    for (const type of ["open", "gap", "degraded", "heartbeat"]) {
      const { browser, client } = await opened();
      await browser.request.send(`event: hub:${type}\ndata: ${data}\n\n`);
      assert.equal(client.status.state, "open");
      assert.equal(typeof client.status.client, "string");
    }
  }
});
