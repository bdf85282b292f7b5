// The page and the React app, for tests: both show the status, the events and the gaps of a stream.
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { eventually, history, openPage } from "./support.js";

const build = join(dirname(fileURLToPath(import.meta.url)), "../../../react/dist");

/** Returns the arguments with which the demo also serves the React app. */
export function serveBuild() {
  if (!existsSync(join(build, "index.html"))) throw new Error("examples/react is not built: `npm ci && npm run build` there");
  return ["--web", build];
}

const texts = (page, selector) => page.$$eval(selector, (nodes) => nodes.map((node) => node.textContent));

/** Publishes a number as an alert, which both show. */
export const publishNumber = (demo, n) => demo.post("alert", { level: "info", message: String(n) });

const page = {
  name: "page",
  path: "/",
  status: "#status",
  share: "by=shared",
  /** The numbers in the history, oldest first. */
  numbers: async (tab) => (await history(tab)).filter(([type]) => type === "alert").map(([, text]) => Number(JSON.parse(text).message)),
  /** The texts of gaps. */
  gaps: async (tab) => (await history(tab)).filter(([type]) => type === "hub:gap").map(([, text]) => text),
  why: (tab) => tab.textContent("#why"),
};

const react = {
  name: "React app",
  path: "/app/",
  status: ".status",
  share: "share",
  numbers: async (tab) => (await texts(tab, "#events > li")).reverse().map((row) => Number(/info: (\d+)$/.exec(row)?.[1])),
  gaps: (tab) => texts(tab, "#gap"),
  why: async (tab) => (await texts(tab, "#error, #degraded")).join(),
};

const common = {
  async visit(t, context, url, query) {
    const tab = await openPage(t, context, `${url}${this.path}?${query}`);
    await this.isIn(tab, "open");
    return tab;
  },
  isIn(tab, state) {
    return eventually(`the ${this.name} is ${state}`, async () => (await tab.getAttribute(this.status, "data-state")) === state);
  },
  isDegraded: async function (tab, isDegraded) {
    const wanted = String(isDegraded);
    return eventually(`the ${this.name} is degraded: ${wanted}`, async () => (await tab.getAttribute(this.status, "data-degraded")) === wanted);
  },
  has(tab, count) {
    return eventually(`${count} numbers`, async () => (await this.numbers(tab)).length >= count);
  },
  /** Records each state from now on. Returns a function that returns the states. */
  async watchStates(tab) {
    await tab.evaluate((selector) => {
      const pill = document.querySelector(selector);
      const note = () => {
        const { state } = pill.dataset;
        if (window.states.at(-1) !== state) window.states.push(state);
      };
      window.states = [];
      note();
      new MutationObserver(note).observe(pill, { attributes: true, attributeFilter: ["data-state"] });
    }, this.status);
    return () => tab.evaluate(() => window.states);
  },
};

export const apps = [page, react].map((app) => ({ ...common, ...app }));

/** Returns the numbers from 1 to `last`. */
export const upTo = (last) => Array.from({ length: last }, (_, at) => at + 1);
