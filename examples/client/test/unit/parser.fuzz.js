// Compares the parser with that of `eventsource-parser`. The tests run `fuzz` with random bytes, and
// jazzer.js searches by coverage: see `.github/CONTRIBUTING.md`.
import assert from "node:assert/strict";
import { createParser as createOther } from "eventsource-parser";
import { createParser } from "../../sse-client.js";

export const encoder = new TextEncoder();

/** Returns the events, retries and last id of a stream that is split at `cuts`. */
export function parse(stream, cuts = [], lastEventId = "") {
  const bytes = typeof stream === "string" ? encoder.encode(stream) : Uint8Array.from(stream);
  const seen = { events: [], retries: [], id: lastEventId };
  const push = createParser(
    ({ type, data, id }) => {
      seen.events.push([type, data, id]);
      seen.id = id;
    },
    { lastEventId, onRetry: (ms) => seen.retries.push(ms), onId: (id) => { seen.id = id; } },
  );
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    push(bytes.subarray(from, cut));
    from = cut;
  }
  return seen;
}

/**
 * Parses bytes by both parsers. Returns the number of events.
 * @param {Uint8Array} bytes
 * @param {number[]} cuts
 */
export function compare(bytes, cuts) {
  // The other parser waits for the byte after a CR: end in LF.
  const stream = Uint8Array.from([...bytes, 10, 10, 10]);
  const text = new TextDecoder().decode(stream);
  const other = [];
  const retries = [];
  const parser = createOther({
    onEvent: ({ event, data, id }) => other.push([event || "message", data, id]),
    onRetry: (ms) => retries.push(ms),
  });
  // The other parser takes `ï»¿` at the beginning for a BOM. The decoder has removed the BOM.
  parser.feed("\n");
  parser.feed(text);
  const mine = parse(stream, cuts);
  // The other parser reports only an id of the event itself, not an earlier id.
  const comparable = mine.events.map(([type, data, id], at) => [type, data, other[at]?.[2] === undefined ? undefined : id]);
  assert.deepEqual(comparable, other, JSON.stringify(text));
  assert.deepEqual(mine.retries, retries, JSON.stringify(text));
  assert.deepEqual(mine, parse(stream), JSON.stringify(text));
  return mine.events.length;
}

/** A byte from this number on stands for a word. The last byte is a cut. */
export const WORD = 0xe0;

export const WORDS = [
  "data: ", "data:", "data", "event: ", "event", "id: ", "id", "retry: ", "\n", "\r", "\r\n", "\n\n", "\r\r", "\ufeff", "é", "🦀",
].map((word) => [...encoder.encode(word)]);

/**
 * Compares the parsers for a script of bytes and words. Returns the number of events.
 * @param {Uint8Array} script
 */
export function fuzz(script) {
  const bytes = [];
  const cuts = [];
  for (const byte of script) {
    if (byte === 0xff) cuts.push(bytes.length);
    else bytes.push(...(WORDS[byte - WORD] ?? [byte]));
  }
  return compare(Uint8Array.from(bytes), cuts);
}
