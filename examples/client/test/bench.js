// Compares the parser with eventsource-parser on streams of 50 MB: `npm run bench`.
import { createParser as createOther } from "eventsource-parser";
import { createParser } from "../sse-client.js";

const BYTES = 50e6;
const ROUNDS = 11;

const order = JSON.stringify({ order: 4711, state: "shipped", customer: "Zoë", lines: [{ sku: "A-17", count: 3 }], note: "x".repeat(90) });
const long = "a line of text that a program wrote into its event, some eighty columns wide...";
const FRAMES = {
  "a hub's events of 200 bytes": (n) => `event: order\ndata: ${order}\nid: 1795451695341-${n}\n\n`,
  "tokens without ids": (n) => `data: {"token":"word${n % 100}"}\n\n`,
  "events of twenty lines": (n) => `event: text\n${`data: ${long}\n`.repeat(20)}id: 1795451695341-${n}\n\n`,
  "the same with CRLF": (n) => `event: text\r\n${`data: ${long}\r\n`.repeat(20)}id: 1795451695341-${n}\r\n\r\n`,
};

function chunks(frame, size) {
  let text = "";
  for (let n = 0; text.length < BYTES; n += 1) text += frame(n);
  const bytes = new TextEncoder().encode(text);
  const cut = [];
  for (let at = 0; at < bytes.length; at += size) cut.push(bytes.subarray(at, at + size));
  return cut;
}

function mine(cut) {
  let count = 0;
  const push = createParser((message) => { count += message.data.length; });
  cut.forEach((bytes) => push(bytes));
  return count;
}

function theirs(cut) {
  let count = 0;
  const decoder = new TextDecoder();
  const parser = createOther({ onEvent: (event) => { count += event.data.length; } });
  for (const bytes of cut) parser.feed(decoder.decode(bytes, { stream: true }));
  return count;
}

function timed(parse, cut) {
  const began = performance.now();
  const count = parse(cut);
  return [performance.now() - began, count];
}

// Other processes only slow a round down.
const best = (times) => Math.min(...times);

let sum = 0;
let others = 0;
console.log("stream | chunks | this, ms | eventsource-parser, ms | ratio");
for (const [name, frame] of Object.entries(FRAMES)) {
  for (const size of [1400, 16 << 10, 64 << 10]) {
    const cut = chunks(frame, size);
    const [a, b] = [[], []];
    for (let round = 0; round < ROUNDS; round += 1) {
      // Alternate, so that other processes slow both down.
      const [ms, count] = timed(mine, cut);
      const [time, same] = timed(theirs, cut);
      if (count !== same) throw new Error(`${count} and ${same} characters`);
      a.push(ms);
      b.push(time);
    }
    const [x, y] = [best(a), best(b)];
    sum += x;
    others += y;
    console.log(`${name} | ${size} | ${x.toFixed(0)} | ${y.toFixed(0)} | ${(y / x).toFixed(2)}`);
  }
}
console.log(`all: ${sum.toFixed(0)} against ${others.toFixed(0)} ms`);
// Allow 10 % for other processes.
if (sum > 1.1 * others) throw new Error("it is slower");
