// What the package promises of itself.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
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
