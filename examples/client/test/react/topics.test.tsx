// Tests of the topics that components follow.
import { cleanup, renderHook } from "@testing-library/react";
import { StrictMode } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { useSSE, type UseSSEOptions } from "../../sse-react.js";
import { serve, settle, type Request } from "./server";

type Events = { order: { n: number } };

let requests: Request[];

beforeEach(() => {
  requests = serve();
});

afterEach(async () => {
  cleanup();
  await settle();
  vi.unstubAllGlobals();
});

const client = { topics: "/topics", backoff: 10 };
const use = (options: Partial<UseSSEOptions<Events>> = {}) => useSSE<Events>({ url: "/events", userId: "ann", client, ...options });

/** The topics that were asked for, in order, with the client's id. */
const asked = () => requests.filter(({ url }) => url.startsWith("/topics")).map(({ query }) => `${query.get("client")} ${query.get("topic")}`);

test("a component follows its topics, and a change sends only the difference", async () => {
  const initialProps = { topics: ["b", "a", "b"] };
  const { rerender } = renderHook((options: typeof initialProps) => use(options), { initialProps, wrapper: StrictMode });
  await settle();
  expect(asked()).toEqual([]);
  await requests[0]!.open();
  expect(asked()).toEqual(["c1 a", "c1 b"]);
  rerender({ topics: ["a", "b"] });
  await settle();
  expect(asked().length).toBe(2);
  rerender({ topics: ["c", "a"] });
  await settle();
  // Joins `c` and leaves `b`, over the same stream.
  expect(asked().slice(2).sort()).toEqual(["c1 b", "c1 c"]);
  expect(requests.filter(({ url }) => url.startsWith("/events")).length).toBe(1);
});

test("components share topics, and the last that unmounts leaves", async () => {
  const first = renderHook(() => use({ topics: ["a"] }));
  const second = renderHook(() => use({ topics: ["a", "b"] }));
  const third = renderHook(() => use());
  await settle();
  await requests[0]!.open();
  expect(asked()).toEqual(["c1 a", "c1 b"]);
  second.unmount();
  await settle();
  expect(asked().slice(2)).toEqual(["c1 b"]);
  first.unmount();
  await settle();
  expect(asked().slice(3)).toEqual(["c1 a"]);
  third.unmount();
  await settle();
  expect(requests[0]!.isCancelled).toBe(true);
  expect(asked().length).toBe(4);
});

test("topics survive another stream of the component", async () => {
  const initialProps: Partial<UseSSEOptions<Events>> = { events: ["order"], enabled: true };
  const { rerender } = renderHook((options: typeof initialProps) => use({ ...options, topics: ["a"] }), { initialProps });
  await settle();
  await requests[0]!.open();
  expect(asked()).toEqual(["c1 a"]);
  rerender({ enabled: true });
  await settle();
  await requests.at(-1)!.open(true, "c2");
  expect(asked()).toEqual(["c1 a", "c2 a"]);
  rerender({ enabled: false });
  await settle();
  expect(asked().length).toBe(2);
});

test("topics need an address, and a stream of the tab's own", () => {
  const silence = vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => renderHook(() => use({ topics: ["a"], share: true }))).toThrow(/share/);
  expect(() => renderHook(() => use({ topics: ["a"], client: {} }))).toThrow(/the option `topics`/);
  silence.mockRestore();
});
