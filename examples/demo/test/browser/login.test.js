// Tests of tokens that expire: the page asks the user to sign in, and the React app fetches a
// token.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apps, publishNumber, serveBuild, upTo } from "./apps.js";
import { eventually, faults, hasRow, openPage, startBrowser, startDemo } from "./support.js";

const [page, react] = apps;

const isSignedOut = (tab) => eventually("it is signed out", async () => (await tab.textContent("#status")) === "Signed out" && (await tab.isVisible("#sign-in")));

for (const query of ["user=ann", `user=ann&${page.share}`]) {
  test(`an expired token loses no event (${query})`, async (t) => {
    const demo = await startDemo(t, "--login", "2");
    const context = await (await startBrowser(t)).newContext();
    const answers = [];
    context.on("response", (response) => response.url().includes("/events?") && answers.push(response.status()));
    const tab = await openPage(t, context, `${demo.url}/?${query}`);
    await isSignedOut(tab);
    assert.deepEqual(await faults(tab), []);
    let last = 0;
    for (let round = 0; round < 2; round += 1) {
      await tab.click("#sign-in");
      await page.isIn(tab, "open");
      assert.equal(await tab.isVisible("#sign-in"), false);
      for (let more = 0; more < 3; more += 1) await publishNumber(demo, last += 1);
      await page.has(tab, last);
      await hasRow(tab, "hub:end", "expired");
      await isSignedOut(tab);
      for (let more = 0; more < 3; more += 1) await publishNumber(demo, last += 1);
    }
    await tab.click("#sign-in");
    await page.has(tab, last);
    assert.deepEqual(await page.numbers(tab), upTo(last));
    assert.deepEqual(await page.gaps(tab), []);
    assert.deepEqual(answers, Array.from({ length: 6 }, (_, at) => (at % 2 === 0 ? 401 : 200)), "each refusal is renewed, and once");
  });
}

test("a signed-out page can disconnect", async (t) => {
  const demo = await startDemo(t, "--login", "60");
  const context = await (await startBrowser(t)).newContext();
  const tab = await openPage(t, context, `${demo.url}/?user=ann`);
  await isSignedOut(tab);
  await tab.click("#disconnect");
  await eventually("it is disconnected", async () => (await tab.textContent("#status")) === "Disconnected");
  assert.equal(await tab.isVisible("#sign-in"), false);
  await tab.click("#connect");
  await isSignedOut(tab);
});

test("the app renews its token without a notice", async (t) => {
  const demo = await startDemo(t, "--login", "2", ...serveBuild());
  const context = await (await startBrowser(t)).newContext();
  const tab = await react.visit(t, context, demo.url, "user=ann");
  let tokens = 0;
  tab.on("request", (request) => { tokens += request.url().endsWith("/api/token") ? 1 : 0; });
  let last = 0;
  for (let round = 1; round <= 2; round += 1) {
    for (let more = 0; more < 3; more += 1) await publishNumber(demo, last += 1);
    await react.isIn(tab, "retrying");
    for (let more = 0; more < 3; more += 1) await publishNumber(demo, last += 1);
    await react.isIn(tab, "open");
    assert.equal(tokens, round);
  }
  await react.has(tab, last);
  assert.deepEqual(await react.numbers(tab), upTo(last));
  assert.deepEqual(await react.gaps(tab), []);
});
