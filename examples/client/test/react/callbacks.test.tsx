// Tests of callbacks that throw, and of frames that do not come.
import { act, cleanup, renderHook } from "@testing-library/react";
import { StrictMode } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { useSSE, type UseSSEOptions } from "../../sse-react.js";
import { frame, serve, settle, type Request } from "./server";

type Events = { a: number; b: number };
type Options = Partial<UseSSEOptions<Events>>;

let requests: Request[];
let reported: string[];

beforeEach(() => {
  requests = serve();
  reported = [];
  vi.stubGlobal("reportError", (error: unknown) => reported.push(String(error)));
});

afterEach(async () => {
  cleanup();
  await settle();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const use = (options: Options = {}) => useSSE<Events>({ url: "/events", ...options });
const gap = (reason: string, id: string) => frame("hub:gap", { reason }, id);

describe("a callback that throws", () => {
  const fail = (word: string) => (): never => { throw new Error(word); };

  for (const at of [0, 1, 2]) {
    test(`onMessage number ${at + 1} of 3 stops no other`, async () => {
      const seen: string[] = [];
      const of = (n: number) => (n === at ? fail("no") : ({ data }: { data: number }) => seen.push(`${n} ${data}`));
      const hooks = [0, 1, 2].map((n) => renderHook(() => use({ onMessage: of(n) }), { wrapper: StrictMode }));
      await settle();
      await requests[0]!.send(frame("a", 1, "7-1"));
      await requests[0]!.send(frame("a", 2, "7-2"));
      const others = [0, 1, 2].filter((n) => n !== at);
      expect(seen).toEqual([...others.map((n) => `${n} 1`), ...others.map((n) => `${n} 2`)]);
      expect(hooks.map(({ result }) => result.current.lastEvent?.data)).toEqual([2, 2, 2]);
      expect(reported).toEqual(["Error: no", "Error: no"]);
    });

    test(`onGap number ${at + 1} of 3 stops no other`, async () => {
      const seen: string[] = [];
      const of = (n: number) => (n === at ? fail("no") : (reason: string) => seen.push(`${n} ${reason}`));
      const hooks = [0, 1, 2].map((n) => renderHook(() => use({ onGap: of(n) })));
      await settle();
      await requests[0]!.open();
      await requests[0]!.send(gap("evicted", "7-1") + frame("a", 1, "7-2"));
      expect(seen).toEqual([0, 1, 2].filter((n) => n !== at).map((n) => `${n} evicted`));
      expect(hooks.map(({ result }) => result.current.lastEvent?.data)).toEqual([1, 1, 1]);
      expect(reported).toEqual(["Error: no"]);
    });
  }

  test("each callback that throws is reported", async () => {
    const { result } = renderHook(() => use({ onMessage: fail("first") }));
    renderHook(() => use({ onMessage: fail("second") }));
    await settle();
    await requests[0]!.send(frame("a", 1, "7-1") + frame("a", 2, "7-2"));
    expect(reported).toEqual(["Error: first", "Error: second", "Error: first", "Error: second"]);
    expect(result.current.isConnected).toBe(true);
  });

  test("the gap of a component's return is isolated", async () => {
    renderHook(() => use());
    const { rerender, result } = renderHook(({ enabled }) => use({ enabled, onGap: fail("no") }), { initialProps: { enabled: true } });
    await settle();
    await requests[0]!.open();
    rerender({ enabled: false });
    await settle();
    await requests[0]!.send(frame("a", 1, "7-1"));
    rerender({ enabled: true });
    await settle();
    expect(reported).toEqual(["Error: no"]);
    expect(result.current.lastEvent?.data).toBe(1);
  });

  test("a healed gap says so", async () => {
    const gaps: [string, boolean][] = [];
    renderHook(() => use({ onGap: (...told) => gaps.push(told) }));
    await settle();
    await requests[0]!.send(frame("hub:gap", { reason: "evicted", healed: true }, "0-0") + gap("evicted", "7-1"));
    await requests[0]!.send(frame("hub:gap", { reason: "reset", healed: "yes" }, "7-2"));
    expect(gaps).toEqual([["evicted", true], ["evicted", false], ["reset", false]]);
  });

  test("a gap without a reason is a gap", async () => {
    const gaps: string[] = [];
    renderHook(() => use({ onGap: (reason) => gaps.push(reason) }));
    await settle();
    await requests[0]!.send(`event: hub:gap\ndata: not JSON\n\nevent: hub:gap\ndata: {}\n\n`);
    expect(gaps).toEqual(["", ""]);
    expect(reported).toEqual([]);
  });

  test("a component unmounted by a callback hears nothing", async () => {
    const seen: string[] = [];
    let close = () => {};
    const first = renderHook(() => use({ onMessage: () => { seen.push("first"); close(); } }));
    const second = renderHook(() => use({ onMessage: () => seen.push("second") }));
    close = second.unmount;
    await settle();
    await requests[0]!.send(frame("a", 1, "7-1"));
    expect(seen).toEqual(["first"]);
    expect(first.result.current.lastEvent?.data).toBe(1);
  });
});

describe("frames that do not come", () => {
  async function opened() {
    const { result } = renderHook(() => use());
    await settle();
    await requests[0]!.open();
    return result;
  }
  const shows = (result: { current: ReturnType<typeof use> }, data: number) => act(() => vi.waitFor(() => expect(result.current.lastEvent?.data).toBe(data), 5000));

  test("do not delay renders of a visible page", async () => {
    const result = await opened();
    vi.stubGlobal("requestAnimationFrame", () => 1);
    for (const n of [1, 2, 3]) {
      await requests[0]!.send(frame("a", n, `7-${n}`));
      await shows(result, n);
    }
  });

  test("do not delay renders of a page hidden since", async () => {
    const result = await opened();
    vi.stubGlobal("requestAnimationFrame", () => 1);
    await requests[0]!.send(frame("a", 1, "7-1"));
    vi.spyOn(document, "hidden", "get").mockReturnValue(true);
    document.dispatchEvent(new Event("visibilitychange"));
    await requests[0]!.send(frame("a", 2, "7-2"));
    await shows(result, 2);
  });

  test("do not delay a change of the status", async () => {
    const result = await opened();
    vi.stubGlobal("requestAnimationFrame", () => 1);
    act(() => result.current.close());
    await act(() => vi.waitFor(() => expect(result.current.status).toBe("closed"), 5000));
  });

  test("render once when they come late", async () => {
    const frames: (() => void)[] = [];
    let renders = 0;
    const { result } = renderHook(() => {
      renders += 1;
      return use();
    });
    await settle();
    await requests[0]!.open();
    vi.stubGlobal("requestAnimationFrame", (callback: () => void) => frames.push(callback));
    const before = renders;
    await requests[0]!.send(frame("a", 1, "7-1"));
    await shows(result, 1);
    expect(renders - before).toBe(1);
    await requests[0]!.send(frame("a", 2, "7-2"));
    // The first frame is late: its render is done, and the second event's is not due by it.
    act(() => frames[0]!());
    expect(result.current.lastEvent?.data).toBe(1);
    act(() => frames[1]!());
    expect(result.current.lastEvent?.data).toBe(2);
  });

  test("are not needed", async () => {
    const result = await opened();
    vi.stubGlobal("requestAnimationFrame", undefined);
    await requests[0]!.send(frame("a", 1, "7-1"));
    await shows(result, 1);
  });
});
