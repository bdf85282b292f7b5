// Tests of the package: its size, its files and its types.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { buildSync } from "esbuild";

const home = join(dirname(fileURLToPath(import.meta.url)), "../..");
const read = (name) => readFileSync(join(home, name), "utf8");

const { exports } = JSON.parse(read("package.json"));

// The limit for each entry with its imports, but without React: bytes, minified and compressed.
// `./shared` holds the backlog, the takeover and the checks of messages; `./react` includes it. Topics
// (`join`, `leave`) took 0.4 KB of each, and React Native 0.05 KB.
const LIMITS = { ".": 5200, "./shared": 9100, "./react": 11_300 };

for (const [entry, limit] of Object.entries(LIMITS)) {
  test(`the entry ${entry} is at most ${limit} bytes`, (t) => {
    const { outputFiles: [{ contents }] } = buildSync({
      entryPoints: [join(home, exports[entry].default)], bundle: true, minify: true, format: "esm", external: ["react"], write: false,
    });
    const size = gzipSync(contents, { level: 9 }).length;
    t.diagnostic(`${size} bytes`);
    assert.ok(size <= limit, `${size} bytes`);
  });
}

test("each entry has a size limit", () => {
  assert.deepEqual(Object.keys(exports).filter((entry) => entry !== "./package.json"), Object.keys(LIMITS));
});

test("the declarations are current (npm run types writes them)", () => {
  const out = mkdtempSync(join(tmpdir(), "sse-client-types-"));
  try {
    execFileSync("npx", ["tsc", "-p", "tsconfig.types.json", "--outDir", out], { cwd: home });
    for (const name of ["sse-client.d.ts", "sse-shared.d.ts", "sse-react.d.ts"]) assert.equal(read(name), readFileSync(join(out, name), "utf8"), name);
  } finally {
    rmSync(out, { recursive: true });
  }
});

test("only modules, declarations, licences and README are published", () => {
  const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: home, stdio: ["ignore", "pipe", "ignore"] }));
  const names = files.map(({ path }) => path).sort();
  assert.deepEqual(names, [
    "LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json",
    "sse-client.d.ts", "sse-client.js", "sse-react.d.ts", "sse-react.js", "sse-shared.d.ts", "sse-shared.js",
  ]);
});

test("licences are those of the crate", () => {
  for (const name of ["LICENSE-APACHE", "LICENSE-MIT"]) assert.equal(read(name), readFileSync(join(home, "../..", name), "utf8"), name);
});

test("a strict TypeScript program compiles against the declarations", () => {
  const folder = mkdtempSync(join(tmpdir(), "sse-client-user-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(home, join(folder, "node_modules/sse-hub-client"));
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    writeFileSync(join(folder, "user.ts"), `
      import { SSEClient, createParser, type Message, type Options, type Status } from "sse-hub-client";
      import { SharedSSE } from "sse-hub-client/shared";
      import { useSSE, type SSEEvent, type UseSSE, type UseSSEOptions } from "sse-hub-client/react";
      const options: Options = { headers: async () => ({ authorization: "x" }), renew: async (status: number) => status === 401, silence: 0 };
      const clients: (SSEClient | SharedSSE)[] = [
        new SSEClient(({ status }) => "/events?client=" + status.client, options),
        new SharedSSE(({ status }) => "/events?client=" + status.client, { ...options, name: "n" }),
      ];
      for (const client of clients) {
        const stop: () => void = client.on("order", (event: Message) => event.json());
        client.onStatus(({ state, retryAt, degraded }: Status) => [state === "open", retryAt?.toFixed(), !degraded]);
        const isHeldUp: boolean = client.degraded;
        // @ts-expect-error the id is a string
        const id: number = client.lastEventId;
        client.open();
        stop();
        void [isHeldUp, id];
      }
      type Events = { order: { n: number }; note: string };
      const used: UseSSEOptions<Events> = { url: "/events", events: ["order"], client: { ...options, name: "n" } };
      const Component = () => {
        const { lastEvent, status }: UseSSE<Events> = useSSE(used);
        const event: SSEEvent<Events> | undefined = lastEvent;
        return event?.type === "order" ? event.data.n.toFixed() : status;
      };
      void Component;
      // @ts-expect-error unknown event type
      used.events = ["ordre"];
      createParser((message) => void message.data)(new Uint8Array());
      // @ts-expect-error unknown mode
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
