// Tests of the hook: connecting, rendering and closing.
import { act, cleanup, render, renderHook } from "@testing-library/react";
import { StrictMode, type ReactNode } from "react";
import { afterEach, beforeEach, expect, expectTypeOf, test, vi } from "vitest";
import { useSSE, type UseSSEOptions } from "../../sse-react.js";
import { frame, serve, settle, type Request } from "./server";

type Events = { order: { n: number }; note: string };

let requests: Request[];

beforeEach(() => {
  requests = serve();
});

afterEach(async () => {
  cleanup();
  // Streams are closed by a timer after the last unmount.
  await settle();
  vi.unstubAllGlobals();
});

const use = (options: Partial<UseSSEOptions<Events>> = {}) => useSSE<Events>({ url: "/events", ...options });
const strict = { wrapper: ({ children }: { children: ReactNode }) => <StrictMode>{children}</StrictMode> };

test("connects, and renders the latest event", async () => {
  const { result } = renderHook(() => use({ userId: "ann", sessionId: "s1", events: ["order", "note"] }));
  expect(result.current.status).toBe("idle");
  await settle();
  expect(result.current.status).toBe("connecting");
  expect(requests[0]!.url).toBe("/events?user=ann&session=s1&events=note%2Corder");
  await requests[0]!.open();
  expect(result.current.isConnected).toBe(true);
  await requests[0]!.send(frame("order", { n: 1 }, "7-1"));
  expect(result.current.lastEvent).toEqual({ type: "order", data: { n: 1 }, id: "7-1" });
});

test("StrictMode opens one connection", async () => {
  const { result, unmount } = renderHook(() => use(), strict);
  await settle();
  expect(requests.length).toBe(1);
  await requests[0]!.open();
  expect(result.current.isConnected).toBe(true);
  unmount();
  await settle();
  expect(requests[0]!.isCancelled).toBe(true);
});

test("components with equal options share a stream", async () => {
  const first = renderHook(() => use({ events: ["order", "note"] }));
  const second = renderHook(() => use({ events: ["note", "order"] }));
  const other = renderHook(() => use({ events: ["note"] }));
  await settle();
  expect(requests.length).toBe(2);
  await requests[0]!.send(frame("order", { n: 1 }, "7-1"));
  expect(first.result.current.lastEvent).toBe(second.result.current.lastEvent);
  expect(other.result.current.lastEvent).toBeUndefined();
  first.unmount();
  await settle();
  expect(requests[0]!.isCancelled).toBe(false);
  second.unmount();
  await settle();
  expect(requests[0]!.isCancelled).toBe(true);
  expect(requests[1]!.isCancelled).toBe(false);
});

test("the latest callback is called on the same stream", async () => {
  const seen: string[] = [];
  const { rerender } = renderHook(({ name }) => use({ onMessage: ({ id }) => seen.push(`${name} ${id}`) }), { initialProps: { name: "first" } });
  await settle();
  await requests[0]!.send(frame("note", "a", "7-1"));
  rerender({ name: "second" });
  await requests[0]!.send(frame("note", "b", "7-2"));
  expect(seen).toEqual(["first 7-1", "second 7-2"]);
  expect(requests.length).toBe(1);
});

test("another user gets another stream", async () => {
  const { rerender, result } = renderHook(({ user }) => use({ userId: user }), { initialProps: { user: "ann" } });
  await settle();
  await requests[0]!.send(frame("note", "for ann", "7-1"));
  rerender({ user: "bob" });
  await settle();
  expect(requests.map(({ isCancelled }) => isCancelled)).toEqual([true, false]);
  expect(result.current.lastEvent).toBeUndefined();
});

test("no stream while not enabled", async () => {
  const { rerender, result } = renderHook(({ enabled }) => use({ enabled }), { initialProps: { enabled: false } });
  await settle();
  expect(requests.length).toBe(0);
  rerender({ enabled: true });
  await settle();
  expect(requests.length).toBe(1);
  rerender({ enabled: false });
  await settle();
  expect(requests[0]!.isCancelled).toBe(true);
  expect(result.current.status).toBe("idle");
});

test("events between two frames cause one render", async () => {
  let renders = 0;
  let received = 0;
  const { result } = renderHook(() => {
    renders += 1;
    return use({ onMessage: () => { received += 1; } });
  });
  await settle();
  await requests[0]!.open();
  const before = renders;
  const frames = vi.spyOn(globalThis, "requestAnimationFrame");
  await requests[0]!.send(Array.from({ length: 1000 }, (_, n) => frame("order", { n }, `7-${n + 1}`)).join(""));
  expect(received).toBe(1000);
  expect(renders - before).toBeLessThanOrEqual(2);
  expect(frames.mock.calls.length).toBeLessThanOrEqual(2);
  frames.mockRestore();
  expect(result.current.lastEvent?.data).toEqual({ n: 999 });
});

test("reports gaps, and an error until the reconnect", async () => {
  const gaps: string[] = [];
  const { result } = renderHook(() => use({ onGap: (reason) => gaps.push(reason), client: { backoff: 10 } }));
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(frame("hub:gap", { reason: "evicted" }, "7-5"));
  expect(gaps).toEqual(["evicted"]);
  expect(result.current.error).toBeUndefined();
  await requests[0]!.send(`event: hub:end\nretry: 200\ndata: {"reason":"drained"}\n\n`);
  expect(result.current.status).toBe("retrying");
  expect(result.current.error?.message).toBe("hub:end: drained");
  await vi.waitFor(() => expect(requests.length).toBe(2), 5000);
  await requests[1]!.open(true);
  expect(result.current.error).toBeUndefined();
  expect(result.current.details.resumed).toBe(true);
});

test("degraded follows the server", async () => {
  const { result } = renderHook(() => use());
  await settle();
  await requests[0]!.open();
  expect(result.current.degraded).toBe(false);
  await requests[0]!.send(`event: hub:degraded\ndata: {"degraded":true}\n\n`);
  expect(result.current.degraded).toBe(true);
  expect(result.current.isConnected).toBe(true);
  expect(result.current.error).toBeUndefined();
  await requests[0]!.send(`event: hub:degraded\ndata: {"degraded":false}\n\n`);
  expect(result.current.degraded).toBe(false);
});

test("stays closed until reconnect is called", async () => {
  const { result } = renderHook(() => use());
  await settle();
  await requests[0]!.open();
  act(() => result.current.close());
  await settle();
  expect(result.current.status).toBe("closed");
  expect(result.current.error).toBeUndefined();
  expect(requests[0]!.isCancelled).toBe(true);
  act(() => result.current.reconnect());
  await vi.waitFor(() => expect(requests.length).toBe(2), 5000);
});

test("a thousand unmounts leave no stream open", async () => {
  const Page = ({ n }: { n: number }) => {
    useSSE<Events>({ url: `/events/${n % 7}` });
    return null;
  };
  for (let n = 0; n < 1000; n += 1) {
    const { unmount } = render(<Page n={n} />, strict);
    unmount();
  }
  await settle();
  expect(requests.length).toBeGreaterThan(0);
  expect(requests.filter(({ isCancelled }) => !isCancelled)).toEqual([]);
});

test("the types of events are checked", () => {
  const check = () => {
    const { lastEvent } = use({ events: ["order"] });
    if (lastEvent?.type === "order") expectTypeOf(lastEvent.data).toEqualTypeOf<{ n: number }>();
    // @ts-expect-error the type does not exist
    use({ events: ["ordre"] });
  };
  expectTypeOf(check).toBeFunction();
});
