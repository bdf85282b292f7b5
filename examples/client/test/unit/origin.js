// The tabs of a browser, made of fakes: Web Locks and channels of one origin, and the clocks of all
// tabs. A tab can stall, as
// behind `alert()`, and crash.
import { FakeBrowser, settle } from "./support.js";

export class FakeOrigin {
  tabs = [];
  #holders = new Map();
  #queues = new Map();
  #channels = new Set();

  /** Opens a tab. All tabs have the same time. */
  tab() {
    const tab = new FakeTab(this);
    tab.browser.time = this.tabs[0]?.browser.time ?? tab.browser.time;
    this.tabs.push(tab);
    return tab;
  }

  /** Moves all clocks by small steps. Timers of a stalled tab wait. */
  async pass(ms, step = 250) {
    for (let passed = 0; passed < ms; passed += step) {
      for (const tab of this.tabs) {
        if (tab.isStalled || tab.isCrashed) tab.browser.time += step;
        else await tab.browser.pass(step);
      }
    }
    await settle();
  }

  get channels() {
    return [...this.#channels];
  }

  /** Posts as a script of this origin that is no tab of the stream. */
  async post(name, data) {
    this.send({ name, tab: undefined }, data);
    await settle();
  }

  send(from, data) {
    for (const channel of this.#channels) {
      if (channel === from || channel.name !== from.name) continue;
      const copy = structuredClone(data);
      queueMicrotask(() => channel.tab.run(from.tab, () => this.#channels.has(channel) && channel.onmessage?.({ data: copy })));
    }
  }

  addChannel(channel) {
    this.#channels.add(channel);
  }

  removeChannel(channel) {
    this.#channels.delete(channel);
  }

  request(tab, name, { signal, steal = false }, callback) {
    if (signal && steal) return Promise.reject(new DOMException("a signal with steal", "NotSupportedError"));
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const wait = { tab, callback, resolve, reject, isSettled: false };
      const queue = this.#queues.get(name) ?? [];
      if (steal) {
        const holder = this.#holders.get(name);
        this.#holders.delete(name);
        if (holder) this.#end(holder, () => holder.reject(new DOMException("stolen", "AbortError")));
        this.#queues.set(name, [wait, ...queue]);
      } else {
        this.#queues.set(name, [...queue, wait]);
        signal?.addEventListener("abort", () => {
          const others = this.#queues.get(name).filter((other) => other !== wait);
          if (others.length === this.#queues.get(name).length) return;
          this.#queues.set(name, others);
          reject(signal.reason);
        });
      }
      this.#grant(name);
    });
  }

  #end(wait, settled) {
    wait.isSettled = true;
    wait.tab.run("locks", settled);
  }

  #grant(name) {
    const [next, ...others] = this.#queues.get(name) ?? [];
    if (this.#holders.has(name) || !next) return;
    this.#queues.set(name, others);
    this.#holders.set(name, next);
    next.tab.run("locks", () => void this.#hold(name, next));
  }

  async #hold(name, wait) {
    const result = await wait.callback({ name });
    if (wait.isSettled) return;
    this.#end(wait, () => wait.resolve(result));
    if (this.#holders.get(name) === wait) this.#holders.delete(name);
    this.#grant(name);
  }

  forget(tab) {
    for (const channel of this.#channels) if (channel.tab === tab) this.#channels.delete(channel);
    for (const [name, queue] of this.#queues) this.#queues.set(name, queue.filter((wait) => wait.tab !== tab));
    for (const [name, holder] of this.#holders) {
      if (holder.tab !== tab) continue;
      holder.isSettled = true;
      this.#holders.delete(name);
      this.#grant(name);
    }
  }
}

class FakeTab {
  browser = new FakeBrowser();
  isStalled = false;
  isCrashed = false;
  #tasks = [];
  #isWaking = false;

  constructor(origin) {
    this.origin = origin;
    const tab = this;
    this.locks = { request: (name, ...rest) => origin.request(this, name, rest.length > 1 ? rest[0] : {}, rest.at(-1)) };
    this.BroadcastChannel = class {
      constructor(name) {
        Object.assign(this, { name, tab });
        origin.addChannel(this);
      }

      postMessage(data) {
        if (!tab.isCrashed) origin.send(this, data);
      }

      close() {
        origin.removeChannel(this);
      }
    };
    const { fetch } = this.browser.environment;
    this.environment = {
      ...this.browser.environment,
      fetch: (url, init) => {
        const answered = fetch(url, init);
        const { request } = this.browser;
        // What the server sends waits while the page is busy.
        for (const act of ["stream", "send", "end"]) {
          const now = request[act];
          request[act] = async (...args) => {
            await this.run("network", () => request.isCancelled || now(...args));
          };
        }
        return answered;
      },
    };
    this.sharing = { locks: this.locks, BroadcastChannel: this.BroadcastChannel, environment: this.environment };
  }

  /** Runs a task, or keeps it while the tab is stalled. Tasks of one source stay in order. */
  run(source, task) {
    if (this.isCrashed) return;
    if (this.isStalled || this.#isWaking) this.#tasks.push({ source, task });
    else return task();
  }

  stall() {
    this.isStalled = true;
  }

  /** Runs the tasks that came meanwhile. `choose` picks the source that is next. */
  async wake(choose = () => 0) {
    this.isStalled = false;
    this.#isWaking = true;
    const tasks = this.#tasks;
    while (tasks.length > 0 && !this.isCrashed) {
      const sources = [...new Set(tasks.map(({ source }) => source))];
      const source = sources[choose(sources.length)];
      const [{ task }] = tasks.splice(tasks.findIndex((waiting) => waiting.source === source), 1);
      await task();
      await settle();
    }
    this.#isWaking = false;
    if (!this.isCrashed) await this.browser.pass(0);
  }

  crash() {
    this.isCrashed = true;
    this.origin.forget(this);
  }
}
