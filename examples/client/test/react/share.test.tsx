// Tests of a stream that tabs share. The hook runs in one tab, and the test runs the client of
// another tab.
import { act, cleanup, renderHook } from "@testing-library/react";
import { StrictMode } from "react";
import { SharedSSE } from "../../sse-shared.js";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { useSSE, type UseSSEOptions } from "../../sse-react.js";
import { frame, serve, settle, type Request } from "./server";

type Events = { order: { n: number } };

/** The locks that the tabs of a browser share. */
class Locks {
  #last: Promise<unknown> = Promise.resolve();

  request = (_: string, { signal }: { signal: AbortSignal }, held: () => Promise<unknown>) => {
    const before = this.#last;
    const mine = before.then(() => {
      signal.throwIfAborted();
      return held();
    });
    this.#last = mine.catch(() => {});
    return mine;
  };
}

let requests: Request[];
let sharing: { locks: LockManager };

beforeEach(() => {
  requests = serve();
  sharing = { locks: new Locks() as unknown as LockManager };
});

afterEach(async () => {
  cleanup();
  await settle();
  vi.unstubAllGlobals();
});

const use = (options: Partial<UseSSEOptions<Events>> = {}) => useSSE<Events>({ url: "/events", userId: "ann", share: true, client: sharing, ...options });

/** Another tab of the same user. */
function otherTab() {
  const client = new SharedSSE("/events?user=ann", sharing);
  const seen: unknown[] = [];
  client.on("order", (event) => seen.push(event.json().n));
  client.open();
  return { client, seen };
}

const orders = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => frame("order", { n: from + at }, `7-${from + at}`)).join("");

test("a follower takes over without loss", async () => {
  const other = otherTab();
  await settle();
  const received: number[] = [];
  const { result } = renderHook(() => use({ onMessage: ({ data }) => received.push(data.n) }), { wrapper: StrictMode });
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(orders(1, 2));
  expect(requests.length).toBe(1);
  expect(result.current.isConnected).toBe(true);
  expect(result.current.lastEvent?.data).toEqual({ n: 2 });
  expect(result.current.details.client).toBe("c1");

  other.client.close();
  await settle();
  expect(requests.map(({ isCancelled }) => isCancelled)).toEqual([true, false]);
  expect(requests[1]!.url).toBe("/events?user=ann&client=c1");
  await requests[1]!.open(true);
  // The hub replays from an earlier position: events that this tab received must not be repeated.
  await requests[1]!.send(orders(2, 4));
  expect(received).toEqual([1, 2, 3, 4]);
});

test("the last unmount hands the stream over", async () => {
  const { result, unmount } = renderHook(() => use(), { wrapper: StrictMode });
  await settle();
  await requests[0]!.open();
  const other = otherTab();
  await settle();
  await requests[0]!.send(orders(1, 1));
  expect(other.seen).toEqual([1]);
  expect(result.current.lastEvent?.data).toEqual({ n: 1 });
  unmount();
  await settle();
  expect(requests.map(({ isCancelled }) => isCancelled)).toEqual([true, false]);
  other.client.close();
});

test("shared and own streams are separate", async () => {
  const shared = renderHook(() => use());
  await settle();
  const alone = renderHook(() => use({ share: false }));
  await settle();
  expect(requests.length).toBe(2);
  await requests[0]!.open();
  act(() => alone.result.current.close());
  await settle();
  expect(alone.result.current.status).toBe("closed");
  expect(shared.result.current.status).toBe("open");
});

test("share is set and cleared", async () => {
  const { rerender } = renderHook(({ share }) => use({ share }), { initialProps: { share: false } });
  await settle();
  rerender({ share: true });
  await settle();
  rerender({ share: false });
  await settle();
  expect(requests.map(({ isCancelled }) => isCancelled)).toEqual([true, true, false]);
});

test("close leaves the stream to other tabs", async () => {
  const { result } = renderHook(() => use());
  await settle();
  await requests[0]!.open();
  const other = otherTab();
  await settle();
  act(() => result.current.close());
  await settle();
  expect(result.current.status).toBe("closed");
  await requests[1]!.open(true);
  await requests[1]!.send(orders(1, 1));
  expect(other.seen).toEqual([1]);
  expect(result.current.lastEvent).toBeUndefined();
  act(() => result.current.reconnect());
  await settle();
  expect(result.current.status).toBe("open");
  other.client.close();
});

test("a return to another tab's stream loses nothing", async () => {
  const gaps: string[] = [];
  const seen: number[] = [];
  const initialProps = { enabled: true };
  const { rerender } = renderHook(({ enabled }) => use({ enabled, onGap: (reason) => gaps.push(reason), onMessage: ({ data }) => seen.push(data.n) }), { initialProps });
  await settle();
  await requests[0]!.open();
  const other = otherTab();
  await settle();
  await requests[0]!.send(orders(1, 1));
  rerender({ enabled: false });
  await settle();
  await requests[1]!.open(true);
  await requests[1]!.send(orders(2, 2));
  rerender({ enabled: true });
  await settle();
  expect(requests.length).toBe(2);
  expect(gaps).toEqual([]);
  await requests[1]!.send(orders(3, 3));
  expect(seen).toEqual([1, 2, 3]);
  expect(other.seen).toEqual([1, 2, 3]);
  other.client.close();
});

test("a single tab resumes its shared stream", async () => {
  const gaps: string[] = [];
  const initialProps: Partial<UseSSEOptions<Events>> = {};
  const { rerender } = renderHook((options: typeof initialProps) => use({ ...options, onGap: (reason) => gaps.push(reason) }), { initialProps });
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(orders(1, 1));
  rerender({ enabled: false });
  await settle();
  rerender({});
  await settle();
  expect(requests[1]!.headers.get("last-event-id")).toBe("7-1");
  expect(requests[1]!.query.get("client")).toBe("c1");
  await requests[1]!.open(true);
  rerender({ events: ["order"] });
  await settle();
  expect(requests[2]!.headers.get("last-event-id")).toBe("7-1");
  expect(gaps).toEqual([]);
});

test("other tabs keep the shared client id", async () => {
  const other = otherTab();
  await settle();
  const { rerender } = renderHook((options: Partial<UseSSEOptions<Events>>) => use(options), { initialProps: {} });
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(orders(1, 1));
  rerender({ share: false });
  await settle();
  expect(requests[0]!.isCancelled).toBe(false);
  expect(requests[1]!.headers.get("last-event-id")).toBe("7-1");
  expect(requests[1]!.query.get("client")).toBe(null);
  other.client.close();
});
