// Tests of the page's modules: the server must serve each import at its address.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const home = join(dirname(fileURLToPath(import.meta.url)), "../..");
const html = readFileSync(join(home, "page/index.html"), "utf8");
const server = readFileSync(join(home, "server/main.rs"), "utf8");

/** Files by address, from the server's table. */
const served = new Map([...server.matchAll(/\("(\/[^"]*)", \w+, include_str!\("([^"]+)"\)\)/g)].map(([, path, file]) => [path, join(home, "server", file)]));
const { imports } = JSON.parse(/<script type="importmap">([^]*?)<\/script>/.exec(html)[1]);

function specifiers(path) {
  const text = readFileSync(served.get(path), "utf8");
  return [...text.matchAll(/^import .*?from "([^"]+)";$/gm)].map(([, specifier]) => new URL(imports[specifier] ?? specifier, `http://demo${path}`).pathname);
}

test("the server serves each module that the page imports", () => {
  const reached = new Set(["/page.js"]);
  for (const path of reached) {
    assert.ok(served.has(path), `${path} is not served`);
    specifiers(path).forEach((other) => reached.add(other));
  }
  const scripts = [...served.keys()].filter((path) => path.endsWith(".js"));
  assert.deepEqual([...reached].sort(), scripts.sort());
});

test("the import map names the entries of the package", () => {
  for (const [name, path] of Object.entries(imports)) assert.equal(served.get(new URL(path, "http://demo/").pathname), fileURLToPath(import.meta.resolve(name)), name);
});
