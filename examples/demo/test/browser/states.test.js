// Tests of the layout and the accessibility of the page and the React app during failures.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apps, publishNumber, serveBuild } from "./apps.js";
import { startRedis } from "./redis.js";
import { eventually, faults, openPage, shot, startBrowser, startDemo } from "./support.js";

const VIEWS = { wide: { width: 1440, height: 1000 }, narrow: { width: 390, height: 844 } };

async function look(tab, name) {
  await tab.evaluate(() => scrollTo(0, 0));
  await tab.screenshot({ path: shot(`${name}.png`) });
  assert.deepEqual(await faults(tab), []);
  const overflow = () => tab.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(await overflow(), 0, "nothing overflows");
  await tab.setViewportSize({ width: 320, height: 700 });
  await tab.screenshot({ path: shot(`${name}-320.png`) });
  assert.equal(await overflow(), 0, "nothing overflows at 320 pixels");
}

for (const colorScheme of ["light", "dark"]) {
  const contexts = async (t) => {
    const browser = await startBrowser(t);
    const context = ([name, viewport]) => browser.newContext({ colorScheme, viewport, reducedMotion: "reduce", isMobile: name === "narrow", hasTouch: name === "narrow" });
    return Promise.all(Object.entries(VIEWS).map(async (view) => [view[0], await context(view)]));
  };

  test(`a delay is shown, ${colorScheme}, wide and narrow`, async (t) => {
    const redis = await startRedis(t);
    const demo = await startDemo(t, "--redis", redis.url, ...serveBuild());
    const tabs = [];
    for (const [view, context] of await contexts(t)) {
      for (const app of apps) tabs.push([app, await app.visit(t, context, demo.url, "user=ann"), `${app.name.split(" ")[0].toLowerCase()}-held-up-${view}-${colorScheme}`]);
    }
    await publishNumber(demo, 1);
    for (const [app, tab] of tabs) {
      await tab.bringToFront();
      await app.has(tab, 1);
    }
    await redis.kill();
    for (const [app, tab, name] of tabs) {
      await tab.bringToFront();
      await app.isDegraded(tab, true);
      await look(tab, name);
    }
  });

  test(`a signed-out page says so, ${colorScheme}, wide and narrow`, async (t) => {
    const demo = await startDemo(t, "--login", "60");
    for (const [view, context] of await contexts(t)) {
      const tab = await openPage(t, context, `${demo.url}/?user=ann`);
      await eventually("it is signed out", () => tab.isVisible("#sign-in"));
      await look(tab, `page-signed-out-${view}-${colorScheme}`);
    }
  });

  test(`a lost server is shown, ${colorScheme}, wide and narrow`, async (t) => {
    const demo = await startDemo(t, ...serveBuild());
    const tabs = [];
    for (const [view, context] of await contexts(t)) {
      for (const app of apps) tabs.push([app, await app.visit(t, context, demo.url, "user=ann"), `${app.name.split(" ")[0].toLowerCase()}-away-${view}-${colorScheme}`]);
    }
    await demo.kill();
    for (const [app, tab, name] of tabs) {
      await tab.bringToFront();
      await eventually("it says why", async () => /network|connection was lost/.test(await app.why(tab)));
      await look(tab, name);
    }
  });
}
