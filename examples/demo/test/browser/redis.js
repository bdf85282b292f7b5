// A redis-server of a test's own, which can be killed and started again. It is ended, and its directory removed, with the test.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "./support.js";

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Whether it answers, and has read what it had written. */
async function ping(port) {
  const socket = connect(port, "127.0.0.1");
  try {
    socket.write("PING\r\n");
    const [answer] = await once(socket, "data");
    return answer.toString().startsWith("+PONG");
  } finally {
    socket.destroy();
  }
}

/** One that writes each command to its disk before it answers. */
export async function startRedis(t) {
  const directory = mkdtempSync(join(tmpdir(), "sse-hub-demo-redis-"));
  const port = await freePort();
  const options = ["--bind", "127.0.0.1", "--port", String(port), "--dir", directory, "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
  const redis = { url: `redis://127.0.0.1:${port}`, process: undefined };
  redis.start = async () => {
    const child = spawn("redis-server", options, { stdio: "ignore" });
    redis.process = child;
    let failure;
    child.once("error", () => { failure = new Error("there is no redis-server on the PATH: install Debian's package redis-server"); });
    child.once("exit", (code) => { failure ??= new Error(`redis-server ended with ${code}`); });
    await eventually("redis-server answers", () => failure ?? ping(port));
    if (failure) throw failure;
  };
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
  await redis.start();
  return redis;
}
