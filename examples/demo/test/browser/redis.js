// Starts a redis-server that a test can kill and start again. The server and its directory end with
// the test.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually, somePort } from "./support.js";

/** Returns whether the process `pid` answers on the port, and has loaded its data. */
async function answers(port, pid) {
  const socket = connect(port, "127.0.0.1");
  // Another server on this port may never answer.
  socket.setTimeout(1000, () => socket.destroy());
  socket.write("PING\r\nINFO server\r\n");
  let text = "";
  for await (const bytes of socket) {
    text += bytes;
    const found = /\nprocess_id:(\d+)\r/.exec(text);
    // Breaking the loop closes the socket.
    if (found) return text.startsWith("+PONG") && Number(found[1]) === pid;
  }
  return false;
}

/** Starts a server that writes each command to its disk before the answer. */
export async function startRedis(t) {
  const directory = mkdtempSync(join(tmpdir(), "sse-hub-demo-redis-"));
  const redis = { url: "", process: undefined };
  let port = somePort();
  /**
   * Returns whether the server has started. A server that ends at once may have found its port in
   * use.
   */
  const tryStart = async () => {
    const options = ["--bind", "127.0.0.1", "--port", String(port), "--dir", directory, "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    const child = spawn("redis-server", options, { stdio: "ignore" });
    redis.process = child;
    let failure;
    let hasEnded = false;
    child.once("error", () => { failure = new Error("there is no redis-server on the PATH: install Debian's package redis-server"); });
    child.once("exit", () => { hasEnded = true; });
    await eventually("redis-server answers", () => failure ?? (hasEnded || answers(port, child.pid)));
    if (failure) throw failure;
    return !hasEnded;
  };
  redis.start = () => eventually(`redis-server starts on port ${port}`, tryStart);
  redis.kill = async () => {
    const { process: child } = redis;
    if (!child?.pid || child.exitCode !== null || child.signalCode) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  t.after(async () => {
    await redis.kill();
    rmSync(directory, { recursive: true, force: true });
  });
  for (let attempt = 0; !(await tryStart()); attempt += 1) {
    if (attempt === 10) throw new Error("redis-server did not start on any of ten ports");
    port = somePort();
  }
  redis.url = `redis://127.0.0.1:${port}`;
  return redis;
}
