// The position: how it is put into the query, and ids that a request cannot carry.
import assert from "node:assert/strict";
import { test } from "node:test";
import { frame, opened, start } from "./support.js";

const REPLACED = [
  ["/events", "/events?lastEventId=7-9"],
  ["/events?", "/events?lastEventId=7-9"],
  ["/events?user=ann", "/events?user=ann&lastEventId=7-9"],
  ["/events?lastEventId=7-1", "/events?lastEventId=7-9"],
  ["/events?lastEventId", "/events?lastEventId=7-9"],
  ["/events?lastEventId=7-1&a=%20+b&lastEventId=7-2", "/events?a=%20+b&lastEventId=7-9"],
  ["/events?last%45ventId=7-1", "/events?lastEventId=7-9"],
  ["/events?xlastEventId=7-1&lastEventIdx=2", "/events?xlastEventId=7-1&lastEventIdx=2&lastEventId=7-9"],
  ["/events#top", "/events?lastEventId=7-9#top"],
  ["/events?lastEventId=7-1#top?x=1", "/events?lastEventId=7-9#top?x=1"],
  ["https://a.example:8443/events?b=/?c#d", "https://a.example:8443/events?b=/?c&lastEventId=7-9#d"],
  ["?user=ann", "?user=ann&lastEventId=7-9"],
  ["", "?lastEventId=7-9"],
];

for (const [url, expected] of REPLACED) {
  test(`the position is set in the query of "${url}"`, async () => {
    const { browser } = await start({ url, lastEventIdParam: "lastEventId", lastEventId: "7-9" });
    assert.equal(browser.request.url, expected);
    assert.equal(browser.request.headers.has("last-event-id"), false);
  });
}

test("names and values are escaped in the query", async () => {
  const { browser } = await start({ lastEventIdParam: "last id", lastEventId: "a&b=c#d é+" });
  const { searchParams, hash } = new URL(browser.request.url, "http://x");
  assert.deepEqual([...searchParams], [["last id", "a&b=c#d é+"]]);
  assert.equal(hash, "");
});

test("without a position the query is kept", async () => {
  const { browser } = await start({ url: "/events?lastEventId=7-1#top", lastEventIdParam: "lastEventId" });
  assert.equal(browser.request.url, "/events?lastEventId=7-1#top");
});

for (const length of [2001, 100_000, 5_000_000]) {
  for (const lastEventIdParam of [undefined, "lastEventId"]) {
    test(`an id of ${length} characters is not sent (${lastEventIdParam ?? "header"})`, async () => {
      const { browser, client, states } = await opened({ lastEventIdParam });
      await browser.request.send(frame("a", "1", "9".repeat(length)));
      await browser.request.end();
      await browser.pass(3000);
      assert.equal(browser.requests.length, 2);
      assert.equal(browser.request.headers.has("last-event-id"), false);
      assert.equal(browser.request.url, "/events");
      await browser.request.stream(frame("a", "2", "9-1"));
      assert.equal(states.at(-1), "open");
      assert.equal(client.lastEventId, "9-1");
    });
  }
}

test("an id of 2,000 characters is sent", async () => {
  const { browser } = await start({ lastEventId: "é".repeat(2000) });
  assert.equal(Buffer.from(browser.request.headers.get("last-event-id"), "latin1").toString(), "é".repeat(2000));
});

for (const id of ["a\0b", "a\nb", "a\rb", "\u0001", "\u007f", "\ud800", "a\udc00b"]) {
  for (const lastEventIdParam of [undefined, "lastEventId"]) {
    test(`a position of ${JSON.stringify(id)} is not sent (${lastEventIdParam ?? "header"})`, async () => {
      const { browser, states } = await start({ lastEventId: id, lastEventIdParam });
      assert.equal(browser.requests.length, 1);
      assert.equal(browser.request.headers.has("last-event-id"), false);
      assert.equal(browser.request.url, "/events");
      assert.deepEqual(states, ["connecting"]);
    });
  }
}

test("tabs and characters of four bytes are sent", async () => {
  const { browser } = await start({ lastEventId: "a\t🦀" });
  assert.equal(Buffer.from(browser.request.headers.get("last-event-id"), "latin1").toString(), "a\t🦀");
});
