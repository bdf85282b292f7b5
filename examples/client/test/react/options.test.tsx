// Tests of the options that a stream opens with, and of streams that replace each other.
import { act, cleanup, render, renderHook } from "@testing-library/react";
import { Activity, StrictMode, Suspense, startTransition, use as wait, useState, type ReactNode } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { useSSE, type UseSSEOptions } from "../../sse-react.js";
import { frame, serve, settle, type Request } from "./server";

type Events = { a: number; b: number; c: number };
type Options = Partial<UseSSEOptions<Events>>;

let requests: Request[];

beforeEach(() => {
  requests = serve();
});

afterEach(async () => {
  cleanup();
  await settle();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const use = (options: Options = {}) => useSSE<Events>({ url: "/events", ...options });
const bearer = (token?: string) => ({ headers: { authorization: `Bearer ${token}` } });
const tokens = () => requests.map(({ headers }) => headers.get("authorization"));
const active = () => requests.filter(({ isCancelled }) => !isCancelled);
const strict = { wrapper: ({ children }: { children: ReactNode }) => <StrictMode>{children}</StrictMode> };

/** The position and the client id that a request resumes from. */
const from = ({ headers, query }: Request) => ({ position: headers.get("last-event-id"), client: query.get("client") });

/** Renders the hook with options, and other options with each call of `set`. */
function hook(initial: Options, wrapper = {}) {
  const { rerender, ...rest } = renderHook((options: Options) => use(options), { initialProps: initial, ...wrapper });
  const set = async (options: Options) => {
    rerender(options);
    await settle();
  };
  return { ...rest, set };
}

describe("the latest committed options", () => {
  for (const [name, wrapper] of [["plain", {}], ["StrictMode", strict]] as const) {
    test(`a token that comes with enabled is sent (${name})`, async () => {
      const { set } = hook({ enabled: false, client: bearer() }, wrapper);
      await settle();
      expect(requests.length).toBe(0);
      await set({ client: bearer("t1") });
      expect(tokens()).toEqual(["Bearer t1"]);
    });
  }

  test("another url opens with the current token", async () => {
    const { set } = hook({ url: "/one", client: bearer("t1") });
    await settle();
    await set({ url: "/two", client: bearer("t2") });
    expect(requests.map(({ url }) => url)).toEqual(["/one", "/two"]);
    expect(tokens()).toEqual(["Bearer t1", "Bearer t2"]);
  });

  test("another user opens with their own token", async () => {
    const { set } = hook({ userId: "ann", client: bearer("t1") });
    await settle();
    await set({ enabled: false, userId: "ann", client: bearer("t1") });
    await set({ userId: "bob", client: bearer("t2") });
    expect(tokens()).toEqual(["Bearer t1", "Bearer t2"]);
    expect(from(requests[1]!)).toEqual({ position: null, client: null });
  });

  test("a token that changes alone replaces the stream", async () => {
    const { set } = hook({ client: bearer() });
    await settle();
    await set({ client: bearer("t1") });
    expect(tokens()).toEqual(["Bearer undefined", "Bearer t1"]);
    expect(active()).toEqual([requests[1]]);
  });

  test("components with different tokens have own streams", async () => {
    const ann = hook({ client: bearer("ann") });
    const bob = hook({ client: bearer("bob") });
    await settle();
    expect(tokens()).toEqual(["Bearer ann", "Bearer bob"]);
    await requests[0]!.send(frame("a", 1, "7-1"));
    expect(ann.result.current.lastEvent?.data).toBe(1);
    expect(bob.result.current.lastEvent).toBeUndefined();
  });

  test("equal options created anew do not reconnect", async () => {
    const create = (): Options[] => [
      { events: ["a", "b"], client: { headers: { "X-Tenant": "1", authorization: "x" }, silence: 1000 } },
      { events: ["b", "a"], client: { headers: new Headers({ authorization: "x", "x-tenant": "1" }), silence: 2000 } },
      { events: ["b", "a", "a"], client: { headers: [["authorization", "x"], ["x-tenant", "1"]], renew: () => false } },
    ];
    const { set } = hook(create()[0]!, strict);
    await settle();
    for (const options of [...create(), ...create()]) await set(options);
    expect(requests.length).toBe(1);
    expect(active().length).toBe(1);
  });

  test("a new headers function does not reconnect", async () => {
    const { set } = hook({ client: { headers: () => ({ authorization: "1" }) } }, strict);
    await settle();
    for (let n = 2; n < 10; n += 1) await set({ client: { headers: () => ({ authorization: String(n) }) } });
    expect(tokens()).toEqual(["1"]);
  });

  test("a reconnect calls the current headers function", async () => {
    const options = (token: string): Options => ({ client: { backoff: 1, headers: async () => ({ authorization: token }) } });
    const { set } = hook(options("t1"));
    await settle();
    await requests[0]!.open();
    await set(options("t2"));
    await requests[0]!.send(`event: hub:end\nretry: 1\ndata: {"reason":"drained"}\n\n`);
    await vi.waitFor(() => expect(tokens()).toEqual(["t1", "t2"]), 5000);
  });

  test("a refused stream calls the current renew", async () => {
    requests = serve({ isLate: (nth) => nth === 0 });
    let token = "t1";
    const renewed: string[] = [];
    const options = (name: string): Options => ({
      client: { headers: () => ({ authorization: token }), renew: () => { renewed.push(name); token = "t2"; } },
    });
    const { set } = hook(options("first"));
    await settle();
    await set(options("second"));
    await requests[0]!.answer(401);
    await vi.waitFor(() => expect(tokens()).toEqual(["t1", "t2"]), 5000);
    expect(renewed).toEqual(["second"]);
  });

  test("a refused function of headers is asked again", async () => {
    requests = serve({ isLate: () => true });
    const options = (token?: string): Options => ({ userId: "ann", client: { headers: () => ({ authorization: `Bearer ${token}` }) } });
    const { set, result } = hook(options());
    await settle();
    await requests[0]!.answer(401);
    expect(result.current.error?.message).toBe("unauthorized: 401");
    await set(options());
    expect(requests.length).toBe(1);
    await set(options("t1"));
    await vi.waitFor(() => expect(tokens()).toEqual(["Bearer undefined", "Bearer t1"]), 5000);
    await requests[1]!.open();
    expect(result.current.isConnected).toBe(true);
  });

  test("different headers functions do not share a stream", async () => {
    const of = (token: string) => () => ({ authorization: token });
    hook({ client: { headers: of("ann") } });
    hook({ client: { headers: of("bob") } });
    await settle();
    expect(tokens()).toEqual(["ann", "bob"]);
  });

  test("one headers function, or one user, shares", async () => {
    const headers = () => ({ authorization: "x" });
    hook({ client: { headers } });
    hook({ client: { headers } });
    hook({ userId: "ann", client: { headers: () => ({ authorization: "ann" }) } });
    hook({ userId: "ann", client: { headers: () => ({ authorization: "ann" }) } });
    await settle();
    expect(tokens()).toEqual(["x", "ann"]);
  });

  test("another body is another stream", async () => {
    const ask = (question: string): Options => ({ client: { method: "POST", body: JSON.stringify({ question }) } });
    const { set } = hook(ask("one"));
    await settle();
    await requests[0]!.open();
    await set(ask("one"));
    expect(requests.length).toBe(1);
    await set(ask("two"));
    expect(requests.length).toBe(2);
    expect(from(requests[1]!)).toEqual({ position: null, client: null });
  });

  test("sharing tabs with unnamed headers throws", () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    expect(() => hook({ share: true, client: bearer("t1") })).toThrow("needs userId, sessionId or client.name");
    expect(() => hook({ share: true, client: { headers: () => ({}) } })).toThrow("needs userId");
  });

  test("a discarded render changes nothing", async () => {
    let finish = () => {};
    const never = new Promise<void>((done) => { finish = done; });
    let setToken = (_: string) => {};
    const renewed: string[] = [];
    const Page = () => {
      const [token, set] = useState("t1");
      setToken = set;
      use({ userId: "ann", client: { backoff: 1, headers: () => ({ authorization: token }), renew: () => renewed.push(token) } });
      // The render with the second token never ends, and is discarded for that with the third.
      if (token === "t2") wait(never);
      return <p>{token}</p>;
    };
    const { container } = render(<Suspense fallback="loading"><Page /></Suspense>);
    await settle();
    await requests[0]!.open();
    await act(async () => startTransition(() => setToken("t2")));
    expect(container.textContent).toBe("t1");
    await requests[0]!.send(`event: hub:end\nretry: 1\ndata: {"reason":"drained"}\n\n`);
    await vi.waitFor(() => expect(requests.length).toBe(2), 5000);
    expect(tokens()).toEqual(["t1", "t1"]);
    await requests[1]!.open();
    await act(async () => startTransition(() => setToken("t3")));
    await settle();
    expect(container.textContent).toBe("t3");
    await requests[1]!.send(`event: hub:end\nretry: 1\ndata: {"reason":"drained"}\n\n`);
    await vi.waitFor(() => expect(tokens()).toEqual(["t1", "t1", "t3"]), 5000);
    finish();
  });
});

describe("a successor", () => {
  const cases: [name: string, before: Options, after: Options][] = [
    ["one type more", { events: ["a"] }, { events: ["a", "b"] }],
    ["one type less", { events: ["a", "b"] }, { events: ["b"] }],
    ["all types", { events: ["a"] }, {}],
    ["another token", { client: bearer("t1") }, { client: bearer("t2") }],
    ["other credentials", {}, { client: { credentials: "include" } }],
    ["a user with more types", { userId: "ann", sessionId: "s", events: ["a"] }, { userId: "ann", sessionId: "s", events: ["a", "b"] }],
  ];
  for (const [name, before, after] of cases) {
    for (const [mode, wrapper] of [["plain", {}], ["StrictMode", strict]] as const) {
      test(`resumes where the predecessor stopped (${name}, ${mode})`, async () => {
        const { set } = hook(before, wrapper);
        await settle();
        await requests[0]!.open();
        await requests[0]!.send(frame("a", 1, "7-1"));
        await set(after);
        expect(requests.length).toBe(2);
        expect(from(requests[1]!)).toEqual({ position: "7-1", client: "c1" });
        expect(active()).toEqual([requests[1]]);
      });
    }
  }

  test("resumes after enabled is off and on", async () => {
    const { set, result } = hook({ events: ["a"] });
    await settle();
    await requests[0]!.open();
    await requests[0]!.send(frame("a", 1, "7-1"));
    await set({ events: ["a"], enabled: false });
    await set({ events: ["a"], enabled: false });
    expect(active()).toEqual([]);
    await set({ events: ["a"] });
    expect(from(requests[1]!)).toEqual({ position: "7-1", client: "c1" });
    await set({ events: ["a"], enabled: false });
    // Off, and on with other types.
    await set({ events: ["a", "b"] });
    expect(from(requests[2]!)).toEqual({ position: "7-1", client: "c1" });
    await requests[2]!.send(frame("a", 2, "7-2"));
    expect(result.current.lastEvent?.data).toBe(2);
  });

  test("resumes through changes without an answer", async () => {
    requests = serve({ isLate: (nth) => nth > 0 });
    const { set } = hook({ events: ["a"] });
    await settle();
    await requests[0]!.open();
    await requests[0]!.send(frame("a", 1, "7-1"));
    await set({ events: ["a", "b"] });
    await set({ events: ["a", "b", "c"] });
    await set({ events: ["c"] });
    expect(requests.slice(1).map(from)).toEqual(Array(3).fill({ position: "7-1", client: "c1" }));
    expect(active()).toEqual([requests[3]]);
  });

  test("resumes when Activity shows the component again", async () => {
    const seen: number[] = [];
    const Page = () => {
      use({ onMessage: ({ data }) => seen.push(data) });
      return null;
    };
    const page = (mode: "visible" | "hidden") => <Activity mode={mode}><Page /></Activity>;
    const { rerender } = render(page("visible"));
    await settle();
    await requests[0]!.open();
    await requests[0]!.send(frame("a", 1, "7-1"));
    rerender(page("hidden"));
    await settle();
    expect(active()).toEqual([]);
    rerender(page("visible"));
    await settle();
    expect(from(requests[1]!)).toEqual({ position: "7-1", client: "c1" });
    await requests[1]!.send(frame("a", 2, "7-2"));
    expect(seen).toEqual([1, 2]);
  });

  for (const [name, other] of [["user", { userId: "bob" }], ["session", { userId: "ann", sessionId: "s2" }], ["url", { userId: "ann", url: "/others" }]] as const) {
    test(`of another ${name} starts afresh`, async () => {
      const { set, result } = hook({ userId: "ann" });
      await settle();
      await requests[0]!.open();
      await requests[0]!.send(frame("a", 1, "7-1"));
      await set(other);
      expect(from(requests[1]!)).toEqual({ position: null, client: null });
      expect(result.current.lastEvent).toBeUndefined();
    });
  }

  test("leaves the client id to remaining components", async () => {
    const first = hook({ events: ["a"] });
    hook({ events: ["a"] });
    await settle();
    await requests[0]!.open();
    await requests[0]!.send(frame("a", 1, "7-1"));
    await first.set({ events: ["a", "b"] });
    expect(from(requests[1]!)).toEqual({ position: "7-1", client: null });
    expect(active().length).toBe(2);
  });

  test("only one successor takes the client id", async () => {
    const first = hook({ events: ["a"] });
    const second = hook({ events: ["a"] });
    await settle();
    await requests[0]!.open();
    await requests[0]!.send(frame("a", 1, "7-1"));
    await first.set({ enabled: false });
    await second.set({ enabled: false });
    await first.set({ events: ["a", "b"] });
    await second.set({ events: ["a", "c"] });
    expect(requests.slice(1).map(from)).toEqual([{ position: "7-1", client: "c1" }, { position: "7-1", client: null }]);
  });

  test("components that change together share a successor", async () => {
    const seen: string[] = [];
    const Part = ({ name, events }: { name: string; events: "a"[] | ("a" | "b")[] }) => {
      use({ events, onMessage: ({ data }) => seen.push(`${name} ${data}`), onGap: (reason) => seen.push(`${name} ${reason}`) });
      return null;
    };
    const page = (events: "a"[] | ("a" | "b")[]) => <><Part name="x" events={events} /><Part name="y" events={events} /></>;
    const { rerender } = render(page(["a"]), strict);
    await settle();
    await requests[0]!.open();
    await requests[0]!.send(frame("a", 1, "7-1"));
    rerender(page(["a", "b"]));
    await settle();
    expect(requests.slice(1).map(from)).toEqual([{ position: "7-1", client: "c1" }]);
    await requests[1]!.send(frame("b", 2, "7-2"));
    expect(seen).toEqual(["x 1", "y 1", "x 2", "y 2"]);
  });

  test("a return to a stream ahead reports a gap", async () => {
    const gaps: string[] = [];
    const onGap = (reason: string) => gaps.push(reason);
    const first = hook({ onGap });
    hook({});
    await settle();
    await requests[0]!.open();
    await first.set({ onGap, enabled: false });
    await first.set({ onGap });
    expect(gaps).toEqual([]);
    await first.set({ onGap, enabled: false });
    await requests[0]!.send(frame("a", 1, "7-1"));
    await first.set({ onGap });
    expect(gaps).toEqual(["away"]);
    expect(requests.length).toBe(1);
  });

  test("a move to a stream behind repeats nothing", async () => {
    requests = serve({ isLate: (nth) => nth === 1 });
    const seen: number[] = [];
    const first = hook({ events: ["a"] });
    const second = hook({ events: ["a"], onMessage: ({ data }) => seen.push(data) });
    await settle();
    await requests[0]!.open();
    await first.set({ events: ["a", "b"] });
    await requests[0]!.send(frame("a", 9, "7-9") + frame("a", 10, "7-10"));
    await second.set({ events: ["b", "a"], onMessage: ({ data }) => seen.push(data) });
    expect(active()).toEqual([requests[1]]);
    expect(from(requests[1]!).position).toBe("7-0");
    await requests[1]!.send(frame("a", 9, "7-9") + frame("a", 10, "7-10") + frame("b", 11, "7-11"));
    expect(seen).toEqual([9, 10, 11]);
    expect(first.result.current.lastEvent?.data).toBe(11);
  });
});
