import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, encoder, fuzz, parse, WORD, WORDS } from "./parser.fuzz.js";

const events = (stream) => parse(stream).events;

// Rules of section 9.2.6: a stream and its events, as [type, data, id].
const RULES = [
  ["an event without a type is a message", "data: a\n\n", [["message", "a", ""]]],
  ["an empty type is ignored", "event:\ndata: a\n\n", [["message", "a", ""]]],
  ["the last type counts", "event: x\nevent: y\ndata: a\n\n", [["y", "a", ""]]],
  ["a type without a value resets the type", "event: x\nevent\ndata: a\n\n", [["message", "a", ""]]],
  ["a type ends with its event", "event: x\ndata: a\n\ndata: b\n\n", [["x", "a", ""], ["message", "b", ""]]],
  ["a type without data does not reach the next event", "event: x\n\ndata: a\n\n", [["message", "a", ""]]],
  ["lines of data are joined", "data: a\ndata: b\n\n", [["message", "a\nb", ""]]],
  ["empty data is an event", "data\n\ndata:\n\ndata: \n\n", [["message", "", ""], ["message", "", ""], ["message", "", ""]]],
  ["empty lines of data are lines", "data\ndata:\ndata: \n\n", [["message", "\n\n", ""]]],
  ["one space after the colon is removed", "data:  a\ndata:b\ndata:\tc\n\n", [["message", " a\nb\n\tc", ""]]],
  ["a colon in a value is kept", "data: a: b\ndata::c\n\n", [["message", "a: b\n:c", ""]]],
  ["comments are ignored", ":\n: a\n:data: b\ndata: c\n:\n\n", [["message", "c", ""]]],
  ["a comment does not end an event", "data: a\n:\ndata: b\n\n", [["message", "a\nb", ""]]],
  ["unknown fields are ignored", "dat: a\ndatas: b\nfoo\n data: c\nDATA: d\ndata: e\n\n", [["message", "e", ""]]],
  ["blank lines alone are ignored", "\n\n\n\ndata: a\n\n\n", [["message", "a", ""]]],
  ["an incomplete event is dropped", "data: a\n\ndata: b\n", [["message", "a", ""]]],
  ["CR, CRLF and LF end lines", "data: a\rdata: b\r\ndata: c\n\rdata: d\r\r", [["message", "a\nb\nc", ""], ["message", "d", ""]]],
  ["CRLF ends one line", "data: a\r\n\r\ndata: b\r\n\r\n", [["message", "a", ""], ["message", "b", ""]]],
  ["LFCR ends two", "data: a\n\rdata: b\n\n", [["message", "a", ""], ["message", "b", ""]]],
  ["other separators do not end a line", "data: a\u2028b\u2029c\u0085d\u000be\u000cf\n\n", [["message", "a\u2028b\u2029c\u0085d\u000be\u000cf", ""]]],
  ["an id applies to later events", "id: 1\ndata: a\n\ndata: b\n\n", [["message", "a", "1"], ["message", "b", "1"]]],
  ["an empty id resets the id", "id: 1\ndata: a\n\nid\ndata: b\n\n", [["message", "a", "1"], ["message", "b", ""]]],
  ["an id with NUL is ignored", "id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [["message", "a", "1"], ["message", "b", "1"]]],
  ["NUL elsewhere is a character", "event: x\0\ndata: a\0b\n\n", [["x\0", "a\0b", ""]]],
  ["one BOM is skipped", "\ufeffdata: a\n\n", [["message", "a", ""]]],
  ["a second BOM is part of a field's name", "\ufeff\ufeffdata: a\n\ndata: b\n\n", [["message", "b", ""]]],
  ["a BOM later on is a character", "data: \ufeffa\n\n\ufeffdata: b\n\n", [["message", "\ufeffa", ""]]],
  ["characters of four bytes stay whole", "data: 🦀é\n\n", [["message", "🦀é", ""]]],
];

for (const [rule, stream, expected] of RULES) {
  test(rule, () => {
    assert.deepEqual(events(stream), expected);
    // The result must not depend on how the bytes are split.
    const length = encoder.encode(stream).length;
    assert.deepEqual(parse(stream, Array.from({ length }, (_, at) => at)).events, expected);
    for (let cut = 0; cut <= length; cut += 1) assert.deepEqual(parse(stream, [cut]).events, expected, `cut at ${cut}`);
  });
}

test("an incomplete event does not set the id", () => {
  assert.equal(parse("id: 1\ndata: a\n\nid: 2\ndata: b\n").id, "1");
});

test("an id without data is reported", () => {
  assert.equal(parse("id: 7\n\n").id, "7");
});

test("the previous stream's id applies", () => {
  assert.deepEqual(parse("data: a\n\n", [], "9").events, [["message", "a", "9"]]);
});

test("retry accepts only digits", () => {
  const stream = "retry: 10\nretry:20\nretry: 1e3\nretry: -5\nretry:  7\nretry: 5 \nretry:\nretry\nretry: ٣\nretry: 030\n";
  assert.deepEqual(parse(stream).retries, [10, 20, 30]);
});

test("malformed UTF-8 becomes replacement characters", () => {
  const bytes = [...encoder.encode("data: a"), 0xff, 0xc3, ...encoder.encode("b\n\n")];
  assert.deepEqual(events(bytes), [["message", "a\ufffd\ufffdb", ""]]);
});

/** Returns a generator of pseudorandom numbers. */
function chance(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const PIECES = [
  "data: ", "data:", "data", "event: ", "event", "id: ", "id", "retry: ", ":", ": ", " ", "x", "17", "é", "🦀", "\u2028",
  "\n", "\n", "\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "foo: ", "null", "\t",
];

test("random streams parse as in eventsource-parser, however split", () => {
  let compared = 0;
  for (let seed = 1; seed <= 3000; seed += 1) {
    const next = chance(seed);
    const text = Array.from({ length: 5 + next(60) }, () => PIECES[next(PIECES.length)]).join("");
    const bytes = encoder.encode(text);
    const cuts = Array.from({ length: next(12) }, () => next(bytes.length)).sort((a, b) => a - b);
    compared += compare(bytes, cuts);
  }
  assert.ok(compared > 2000, `${compared} events`);
});

// Any bytes. jazzer.js calls the same function with bytes that it finds by coverage.
// `BOLERO_RANDOM_TEST_TIME_MS` gives this test more time, and the tests of random bytes in Rust.
test("random bytes parse as in eventsource-parser, however split", () => {
  const end = Date.now() + Number(process.env.BOLERO_RANDOM_TEST_TIME_MS ?? 0);
  let compared = 0;
  for (let seed = 1; seed <= 3000 || Date.now() < end; seed += 1) {
    const next = chance(seed);
    compared += fuzz(Uint8Array.from({ length: next(200) }, () => (next(4) === 0 ? next(256) : WORD + next(WORDS.length))));
  }
  assert.ok(compared > 2000, `${compared} events`);
});
