// Tests of the layout and the accessibility of the page.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, faults, hasRow, isOpen, openPage, shot, startBrowser, startDemo } from "./support.js";

for (const colorScheme of ["light", "dark"]) {
  test(`the page fits and is accessible, ${colorScheme}, wide and narrow`, async (t) => {
    const demo = await startDemo(t);
    const browser = await startBrowser(t);
    for (const [name, viewport] of [["wide", { width: 1440, height: 1000 }], ["narrow", { width: 390, height: 844 }]]) {
      const context = await browser.newContext({ colorScheme, viewport, reducedMotion: "reduce", isMobile: name === "narrow", hasTouch: name === "narrow" });
      const page = await openPage(t, context, `${demo.url}/?user=alice&session=s-1`);
      await isOpen(page);
      await demo.post("alert", { level: "critical", message: "The oven is on fire" });
      await demo.post("notify", { to: { kind: "user", name: "alice" }, title: "Bakery", message: "Your bread is ready" });
      await hasRow(page, "notification", "bread");
      await page.click("#flood");
      await eventually("the flood is over", async () => (await page.textContent("#latest-text")) === "Event 20000 of many");
      await page.click("#miss");
      await eventually("the gap is shown", async () => (await page.textContent("#gap-text")).includes("missed"));
      await eventually("the chart shows a second", async () => (await page.getAttribute("#rate-chart path", "d")) !== "M0 0");
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: shot(`page-${name}-${colorScheme}.png`), fullPage: name === "narrow" });
      assert.deepEqual(await faults(page), []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overflow, 0, "nothing overflows");
      await context.close();
    }
  });
}

test("the keyboard reaches every button", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const page = await openPage(t, await browser.newContext(), `${demo.url}/?user=alice`);
  await isOpen(page);
  const wanted = await page.$$eval("button:not(:disabled, [hidden])", (buttons) => buttons.map((button) => button.textContent.trim()));
  const reached = new Set();
  for (let step = 0; step < 80; step += 1) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.textContent.trim()));
  }
  assert.deepEqual(wanted.filter((name) => !name || !reached.has(name)), []);
  await page.focus("#stall");
  await page.keyboard.press("Enter");
  await eventually("it is pressed", async () => (await page.getAttribute("#stall", "aria-pressed")) === "true");
});
