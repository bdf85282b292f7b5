// Builds the demo and the example `answer`, unless SSE_HUB_DEMO and SSE_HUB_ANSWER name programs,
// and runs the tests in Chromium: one file after the other.
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../../../..");
const programs = { SSE_HUB_DEMO: "demo", SSE_HUB_ANSWER: "answer" };
for (const [variable, example] of Object.entries(programs)) {
  programs[variable] = process.env[variable];
  if (programs[variable]) continue;
  const build = ["build", "--locked", "--example", example, "--all-features"];
  execFileSync("cargo", build, { cwd: root, stdio: "inherit" });
  programs[variable] = resolve(root, process.env.CARGO_TARGET_DIR ?? "target", `debug/examples/${example}`);
}
const named = process.argv.slice(2);
const files = named.length > 0 ? named : readdirSync(here).filter((name) => name.endsWith(".test.js")).map((name) => join(here, name));
const { status } = spawnSync(process.execPath, ["--test", "--test-concurrency=1", ...files], {
  stdio: "inherit",
  env: { ...process.env, ...programs, SSE_HUB_SHOTS: join(root, "target/screenshots") },
});
process.exit(status ?? 1);
