// Tests of two servers that share a Redis, when a server or Redis is killed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { apps, publishNumber, serveBuild, upTo } from "./apps.js";
import { startRedis } from "./redis.js";
import { eventually, startBrowser, startDemo, startSwallower } from "./support.js";

/** The React app shows at most fifty events. */
const MOST = 40;

async function start(t) {
  const redis = await startRedis(t);
  const here = await startDemo(t, "--redis", redis.url, ...serveBuild());
  const there = await startDemo(t, "--redis", redis.url, ...serveBuild());
  const context = await (await startBrowser(t)).newContext();
  return { redis, here, there, context };
}

/**
 * Publishes numbers from 1 through `demo` while `act` runs, and five more afterwards. Returns the
 * last number.
 */
async function whilePublishing(demo, act) {
  let last = 0;
  let isOver = false;
  const publish = async () => publishNumber(demo, last += 1);
  const publishing = (async () => {
    while (!isOver && last < MOST) {
      await publish();
      await sleep(80);
    }
  })();
  try {
    await act(() => last);
  } finally {
    isOver = true;
    await publishing;
  }
  for (let more = 0; more < 5; more += 1) await publish();
  return last;
}

const flows = (count, last) => eventually("some were published", () => last() >= count);

for (const app of apps) {
  for (const query of ["user=ann", `user=ann&${app.share}`, ...(app.name === "page" ? ["user=ann&by=native"] : [])]) {
    test(`a restarted server loses and repeats no event (${app.name}, ${query})`, async (t) => {
      const { here, there, context } = await start(t);
      const tab = await app.visit(t, context, here.url, query);
      const states = await app.watchStates(tab);
      const last = await whilePublishing(there, async (published) => {
        await flows(5, published);
        await app.has(tab, 5);
        await here.kill();
        await app.isIn(tab, "retrying");
        const then = published();
        await flows(Math.min(MOST, then + 5), published);
        await here.start();
        await app.isIn(tab, "open");
      });
      await app.has(tab, last);
      assert.deepEqual(await app.numbers(tab), upTo(last));
      assert.deepEqual(await app.gaps(tab), []);
      const seen = await states();
      assert.deepEqual(seen.slice(0, 2), ["open", "retrying"]);
      assert.equal(seen.at(-1), "open");
      assert.deepEqual(seen.filter((state) => state === "open").length, 2, `open twice: ${seen}`);
      t.diagnostic(`${last} events; states: ${seen}`);
    });
  }

  test(`a move between servers loses no event (${app.name})`, async (t) => {
    const { here, there, context } = await start(t);
    const proxy = await startSwallower(t, here.port);
    const tab = await app.visit(t, context, proxy.url, "user=ann");
    const states = await app.watchStates(tab);
    const move = async (from, to) => {
      proxy.port = to.port;
      proxy.cut();
      await to.clients(1);
      await from.clients(0);
      await app.isIn(tab, "open");
    };
    const last = await whilePublishing(there, async (published) => {
      await flows(5, published);
      await app.has(tab, 5);
      await move(here, there);
      await app.has(tab, Math.min(MOST, published()));
      await move(there, here);
    });
    await app.has(tab, last);
    assert.deepEqual(await app.numbers(tab), upTo(last));
    assert.deepEqual(await app.gaps(tab), []);
    const seen = await states();
    assert.equal(seen.filter((state) => state === "open").length, 3, `${seen}`);
  });

  test(`a restarted Redis delays events, and loses none (${app.name})`, async (t) => {
    const { redis, here, there, context } = await start(t);
    const tab = await app.visit(t, context, here.url, "user=ann");
    const states = await app.watchStates(tab);
    await app.isDegraded(tab, false);
    const last = await whilePublishing(there, async (published) => {
      await flows(5, published);
      await app.has(tab, 5);
      await redis.kill();
      await app.isDegraded(tab, true);
      assert.match(await app.why(tab), /held up/);
      const before = (await app.numbers(tab)).length;
      // A client that connects meanwhile sees the delay, too.
      const late = await app.visit(t, context, here.url, "user=bob");
      await app.isDegraded(late, true);
      await late.close();
      await tab.bringToFront();
      assert.equal((await app.numbers(tab)).length, before, "no event arrives without Redis");
      await redis.start();
      await app.isDegraded(tab, false);
    });
    await app.has(tab, last);
    assert.deepEqual(await app.numbers(tab), upTo(last));
    assert.deepEqual(await app.gaps(tab), []);
    assert.deepEqual(await states(), ["open"]);
    assert.equal(await app.why(tab), "");
  });
}
