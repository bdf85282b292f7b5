// The checks of `examples/doctor` that a page can make, with its words (`doctor.json`).
import { ask } from "./stream.js";

const PROMPT_MS = 2000;
const PATIENCE_MS = 5000;
const EVENT_STREAM = "text/event-stream";

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const time = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** A request for the stream, read in the background. Times are milliseconds since the request. */
class Probe {
  #abort = new AbortController();
  #began = performance.now();
  response = null;
  text = "";
  heard = 0;
  silence = 0; // the longest between two pieces
  ended = 0;

  constructor(headers = {}, query = "") {
    this.#read(ask(headers, query, this.#abort.signal)).catch(() => { this.ended ||= this.now; });
  }

  get now() { return performance.now() - this.#began; }

  async #read(answer) {
    this.response = await answer;
    const decoder = new TextDecoder();
    for (let reader = this.response.body.getReader(), piece; !(piece = await reader.read()).done;) {
      if (this.heard) this.silence = Math.max(this.silence, this.now - this.heard);
      this.heard = this.now;
      // Only the beginning and the heartbeats are needed.
      this.text = (this.text + decoder.decode(piece.value, { stream: true })).slice(0, 1e6);
    }
    this.ended = this.now;
  }

  /** Waits for a condition, at most until a time after the request. */
  async until(condition, limit = PATIENCE_MS) {
    while (!condition() && !this.ended && this.now < limit) await sleep(20);
    return condition();
  }

  header(name) { return this.response.headers.get(name) ?? ""; }
  open() { return JSON.parse(/^event: hub:open\n(?:.*\n)*?data: (.*)\n(?:.*\n)*?\n/m.exec(this.text)?.[1] ?? "null"); }
  id() { return /^id: (.*)$/m.exec(this.text)?.[1] ?? ""; }
  async close() { this.#abort.abort(); }
}

/** Whether the hub took the id of a request for an id: it resumed, or answered with a gap. */
async function arrives(headers, query) {
  const probe = new Probe(headers, query);
  await probe.until(() => probe.open()?.resumed || probe.text.includes("\nevent: hub:gap\n"), 1000);
  probe.close();
  return probe.open()?.resumed === true || probe.text.includes("\nevent: hub:gap\n");
}

function headFindings(probe) {
  const { status } = probe.response;
  const causes = { 204: "stopped", 401: "unauthorized", 403: "unauthorized", 502: "upstream", 503: "upstream", 504: "upstream" };
  if (status !== 200) return [["status", causes[status] ?? "status", `HTTP ${status}`]];
  const type = probe.header("content-type");
  if (!type.startsWith(EVENT_STREAM)) return [["content type", type.includes("html") ? "html" : "content-type", type]];
  const [encoding, age, control] = ["content-encoding", "age", "cache-control"].map((name) => probe.header(name));
  const [{ nextHopProtocol: protocol }] = performance.getEntriesByType("navigation");
  return [
    ["content type", "", type],
    ["compression", encoding && "compression", encoding || "none"],
    ["cache", age ? "cached" : control.includes("no-transform") ? "" : "cacheable", age ? `age: ${age}` : control],
    ["protocol", protocol === "http/1.1" ? "six-connections" : "", protocol],
  ];
}

async function timeouts(probe, period) {
  if (!period) return ["timeouts", "no-heartbeat", "no period in hub:open"];
  const slack = Math.max(PROMPT_MS, period / 2);
  const beats = () => /^(:|event: hub:heartbeat)$/m.test(probe.text);
  await probe.until(() => beats() || probe.now - probe.heard > period + slack, 2 * period + slack);
  if (probe.ended && !probe.text.includes("event: hub:end\n")) return ["timeouts", "idle-timeout", `cut after ${time(probe.ended - probe.heard)} of silence`];
  if (beats()) return ["timeouts", "", `a heartbeat after ${time(period)} of silence`];
  if (probe.now - probe.heard > period) return ["timeouts", "heartbeat-late", `no byte for ${time(probe.now - probe.heard)}`];
  return ["timeouts", null, "the stream is busy"];
}

/** Yields [check, cause, detail]. The cause is empty without a fault, and null without a result. */
export async function* examine() {
  const probe = new Probe();
  try {
    if (!(await probe.until(() => probe.response))) return yield ["first frame", "buffering", `no response within ${time(probe.now)}`];
    yield* headFindings(probe);
    if (probe.response.status !== 200 || !probe.header("content-type").startsWith(EVENT_STREAM)) return;
    await probe.until(() => probe.open());
    const open = probe.open();
    if (!open) return yield ["first frame", probe.text.includes("hub:refused") ? "refused" : "buffering", `no hub:open within ${time(probe.now)}`];
    yield ["first frame", probe.heard > PROMPT_MS ? "buffering" : "", `hub:open after ${time(probe.heard)}`];
    if (await arrives({ "last-event-id": probe.id() }, "")) yield ["resume", "", "continues at the last id"];
    else yield ["resume", (await arrives({}, "lastEventId=doctor")) ? "last-event-id" : "not-resumed", "a fresh start"];
    yield await timeouts(probe, open.heartbeat);
  } finally {
    probe.close();
  }
}
