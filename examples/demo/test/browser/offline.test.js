// Tests of a browser without a network. A proxy cuts the connections, as the loss of a network
// does.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apps, publishNumber, serveBuild, upTo } from "./apps.js";
import { eventually, startBrowser, startDemo, startSwallower } from "./support.js";

for (const app of apps) {
  for (const query of ["user=ann", `user=ann&${app.share}`]) {
    test(`reconnects when online, not while offline (${app.name}, ${query})`, async (t) => {
      const demo = await startDemo(t, ...serveBuild());
      const proxy = await startSwallower(t, demo.port);
      const context = await (await startBrowser(t)).newContext();
      const tab = await app.visit(t, context, proxy.url, query);
      const states = await app.watchStates(tab);
      // These include requests that the browser fails by itself, which do not reach the proxy.
      const asked = [];
      tab.on("request", (request) => request.url().includes("/events?") && asked.push(Date.now()));

      await context.setOffline(true);
      await publishNumber(demo, 1);
      await app.has(tab, 1);
      assert.deepEqual(await states(), ["open"], "a stream that lives is kept, whatever the browser says");
      proxy.cut();
      await app.isIn(tab, "retrying");
      assert.match(await app.why(tab), /offline/);
      for (let n = 2; n <= 6; n += 1) await publishNumber(demo, n);
      // Longer than the server's `retry:` and the first windows together.
      const began = Date.now();
      await eventually("a while", () => Date.now() - began > 6000);
      assert.deepEqual(asked, []);
      assert.equal(proxy.asked, 1);

      await context.setOffline(false);
      const online = Date.now();
      await app.isIn(tab, "open");
      await app.has(tab, 6);
      assert.deepEqual(await app.numbers(tab), upTo(6));
      assert.deepEqual(await app.gaps(tab), []);
      assert.equal(asked.length, 1);
      assert.equal(proxy.asked, 2);
      t.diagnostic(`asked ${asked[0] - online} ms after it was online`);
      assert.ok(asked[0] - online < 1000, `${asked[0] - online} ms`);
      const seen = await states();
      assert.deepEqual(seen.filter((state) => state !== "connecting"), ["open", "retrying", "open"]);
    });
  }
}

test("a network change without an error reconnects", async (t) => {
  const [app] = apps;
  const demo = await startDemo(t);
  const proxy = await startSwallower(t, demo.port);
  const context = await (await startBrowser(t)).newContext();
  const tab = await app.visit(t, context, proxy.url, "user=ann");
  // Bytes are lost without an error, as after a change of the address.
  proxy.swallow();
  await context.setOffline(true);
  await publishNumber(demo, 1);
  await context.setOffline(false);
  await app.has(tab, 1);
  assert.equal(proxy.asked, 2);
});
