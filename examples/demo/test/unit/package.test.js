// What the package promises of itself.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { transformSync } from "esbuild";

const home = join(dirname(fileURLToPath(import.meta.url)), "../..");
const read = (name) => readFileSync(join(home, name), "utf8");

test("the module is at most 5 KB, minified and compressed", (t) => {
  const { code } = transformSync(read("sse-client.js"), { minify: true, format: "esm" });
  const size = gzipSync(code, { level: 9 }).length;
  t.diagnostic(`${size} bytes`);
  assert.ok(size <= 5000, `${size} bytes`);
});

test("the declarations are those of the modules (npm run types writes them)", () => {
  const out = mkdtempSync(join(tmpdir(), "sse-client-types-"));
  try {
    execFileSync("npx", ["tsc", "-p", "tsconfig.types.json", "--outDir", out], { cwd: home });
    for (const name of ["sse-client.d.ts", "sse-shared.d.ts"]) assert.equal(read(name), readFileSync(join(out, name), "utf8"), name);
  } finally {
    rmSync(out, { recursive: true });
  }
});

test("what is published is the modules, their declarations, and how to use them", () => {
  const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: home, stdio: ["ignore", "pipe", "ignore"] }));
  const names = files.map(({ path }) => path).sort();
  assert.deepEqual(names, ["README.md", "package.json", "sse-client.d.ts", "sse-client.js", "sse-shared.d.ts", "sse-shared.js"]);
});

test("the declarations serve a program in TypeScript, as strict as it may be", () => {
  const folder = mkdtempSync(join(tmpdir(), "sse-client-user-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(home, join(folder, "node_modules/sse-hub-client"));
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    writeFileSync(join(folder, "user.ts"), `
      import { SSEClient, createParser, type Message, type Options, type Status } from "sse-hub-client";
      import { SharedSSE } from "sse-hub-client/shared";
      const options: Options = { headers: async () => ({ authorization: "x" }), renew: async (status: number) => status === 401, silence: 0 };
      const clients: (SSEClient | SharedSSE)[] = [
        new SSEClient(({ status }) => "/events?client=" + status.client, options),
        new SharedSSE(({ status }) => "/events?client=" + status.client, { ...options, name: "n" }),
      ];
      for (const client of clients) {
        const stop: () => void = client.on("order", (event: Message) => event.json());
        client.onStatus(({ state, retryAt, degraded }: Status) => [state === "open", retryAt?.toFixed(), !degraded]);
        const isHeldUp: boolean = client.degraded;
        // @ts-expect-error it is no number
        const id: number = client.lastEventId;
        client.open();
        stop();
        void [isHeldUp, id];
      }
      createParser((message) => void message.data)(new Uint8Array());
      // @ts-expect-error there is no such mode
      new SSEClient("/events", { mode: "socket" });
    `);
    const compiler = join(home, "node_modules/.bin/tsc");
    const strict = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--skipLibCheck", "false", "--types", ""];
    const sides = [["--module", "nodenext"], ["--module", "esnext", "--moduleResolution", "bundler"]];
    for (const side of sides) execFileSync(compiler, ["--noEmit", "--target", "es2022", "--lib", "es2023,dom,dom.iterable", ...side, ...strict, "user.ts"], { cwd: folder });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
