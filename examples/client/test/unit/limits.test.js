// Events and lines without an end.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createParser } from "../../sse-client.js";
import { frame, opened } from "./support.js";

const bytes = (text) => new TextEncoder().encode(text);

/** Parses `stream` in chunks of `size` bytes. Returns the number of events, or the error's text. */
function parse(stream, size, maxEventSize) {
  let count = 0;
  const push = createParser(() => { count += 1; }, { maxEventSize });
  const all = bytes(stream);
  try {
    for (let at = 0; at < all.length; at += size) push(all.subarray(at, at + size));
  } catch (error) {
    assert.ok(error instanceof RangeError);
    return error.message;
  }
  return count;
}

const KINDS = {
  "a data line": (n) => `data:${"x".repeat(n - 5)}\n\n`,
  "data lines": (n) => `${"data:xxxxx\n".repeat(Math.ceil(n / 10))}\n`,
  "an id line": (n) => `id:${"x".repeat(n - 3)}\ndata:\n\n`,
  "an event line": (n) => `event:${"x".repeat(n - 6)}\n\n`,
  "an unknown line": (n) => `${"x".repeat(n)}\n\n`,
  "short lines": (n) => `${"x\n".repeat(n)}\n`,
  "a data line after others": (n) => `event:a\nid:1\ndata:${"x".repeat(n - 17)}\n\n`,
  "lines that end in CR": (n) => `${"data:xxxxx\r".repeat(Math.ceil(n / 10))}\r`,
};

for (const [kind, make] of Object.entries(KINDS)) {
  test(`the limit holds for ${kind}, however split`, () => {
    for (const size of [1, 7, 1000, 1e6]) {
      assert.equal(parse(make(1010), size, 1000), "event exceeds 1000 characters", `chunks of ${size}`);
      assert.notEqual(parse(make(900), size, 1000), "event exceeds 1000 characters", `chunks of ${size}`);
      // Without its end.
      assert.equal(parse(make(1010).trimEnd(), size, 1000), "event exceeds 1000 characters", `chunks of ${size}`);
    }
  });
}

test("the limit is per event", () => {
  assert.equal(parse(frame("order", "x".repeat(900), "7-1").repeat(50), 100, 1000), 50);
  assert.equal(parse(`data:${"x".repeat(900)}\n\n`.repeat(50), 100, 1000), 50);
});

test("comments do not count, and are not kept", () => {
  assert.equal(parse(`:${"x".repeat(1e6)}\ndata:a\n\n`, 1000, 1000), 1);
});

test("a comment without an end takes no memory", () => {
  const push = createParser(() => {});
  const chunk = bytes("x".repeat(65_536));
  push(bytes(":"));
  const before = process.memoryUsage().heapUsed;
  for (let sent = 0; sent < 64 << 20; sent += chunk.length) push(chunk);
  const grown = process.memoryUsage().heapUsed - before;
  assert.ok(grown < 32 << 20, `${grown >> 20} MiB after 64`);
});

for (const [name, head, piece] of [["line", "data: ", "x".repeat(65_536)], ["event", "", `data: ${"y".repeat(65_529)}\n`]]) {
  test(`a ${name} without an end closes at 16 MiB`, async () => {
    const { browser, states } = await opened();
    await browser.request.send(head);
    let sent = 0;
    for (; states.at(-1) === "open" && sent < 32 << 20; sent += piece.length) await browser.request.send(piece);
    assert.ok(sent >= 16 << 20 && sent <= (16 << 20) + 131_072, `${sent} bytes`);
    assert.equal(states.at(-1), "closed too-large event exceeds 16777216 characters");
    assert.equal(browser.request.isCancelled, true);
    assert.equal(browser.timers, 0);
    await browser.pass(86_400_000);
    assert.equal(browser.requests.length, 1);
  });
}

test("maxEventSize sets the limit", async () => {
  const { browser, client, states } = await opened({ maxEventSize: 100 });
  const seen = [];
  client.on("a", ({ data }) => seen.push(data));
  await browser.request.send(frame("a", "1", "7-1") + frame("a", "x".repeat(200), "7-2") + frame("a", "3", "7-3"));
  assert.deepEqual(seen, ["1"]);
  assert.equal(client.lastEventId, "7-1");
  assert.equal(states.at(-1), "closed too-large event exceeds 100 characters");
});
