// Tests of streams that end for good: by the server, or by the page.
import { act, cleanup, render, renderHook } from "@testing-library/react";
import { StrictMode } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { useSSE, type UseSSEOptions } from "../../sse-react.js";
import { frame, serve, settle, type Request } from "./server";

type Events = { a: number; b: number };
type Options = Partial<UseSSEOptions<Events>>;

let requests: Request[];

beforeEach(() => {
  requests = serve();
});

afterEach(async () => {
  cleanup();
  await settle();
  vi.unstubAllGlobals();
});

const use = (options: Options = {}) => useSSE<Events>({ url: "/events", ...options });
const hook = (initialProps: Options, wrapper = {}) => renderHook((options: Options) => use(options), { initialProps, ...wrapper });
const FINAL = `event: hub:end\ndata: {"reason":"finished","final":true}\n\n`;

const ends: [name: string, end: () => Promise<void>, status: object][] = [
  ["final end", () => requests[0]!.send(frame("a", 1, "7-1") + FINAL), { reason: "hub:end", detail: "finished" }],
  ["displaced", () => requests[0]!.send(frame("a", 1, "7-1") + `event: hub:end\ndata: {"reason":"displaced"}\n\n`), { reason: "hub:end", detail: "displaced" }],
];

for (const [name, end, status] of ends) {
  test(`shows the reason, and stays closed (${name})`, async () => {
    const { result, rerender } = hook({ events: ["a"] }, { wrapper: StrictMode });
    await settle();
    await requests[0]!.open();
    await end();
    expect(result.current.status).toBe("closed");
    expect(result.current.isConnected).toBe(false);
    expect(result.current.details).toMatchObject(status);
    expect(result.current.lastEvent?.data).toBe(1);
    const others: Options[] = [
      { events: ["a"] }, { events: ["a"], onMessage: () => {} }, { events: ["a", "b"] }, { events: ["b"], client: { headers: { authorization: "new" } } }, { events: ["a"] },
    ];
    for (const options of others) {
      rerender(options);
      await settle();
      expect(result.current.status).toBe("closed");
      expect(result.current.details).toMatchObject(status);
    }
    expect(requests.length).toBe(1);
    act(() => result.current.reconnect());
    await vi.waitFor(() => expect(requests.length).toBe(2), 5000);
    expect(requests[1]!.headers.get("last-event-id")).toBe("7-1");
    await requests[1]!.open(true);
    expect(result.current.status).toBe("open");
  });
}

test("does not reopen for a 204", async () => {
  requests = serve({ isLate: () => true });
  const { result, rerender } = hook({ events: ["a"] });
  await settle();
  await requests[0]!.answer(204);
  rerender({ events: ["a", "b"] });
  await settle();
  expect(result.current.status).toBe("closed");
  expect(requests.length).toBe(1);
});

test("opens again when enabled is off and on", async () => {
  const { rerender, result } = hook({});
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(frame("a", 1, "7-1") + FINAL);
  rerender({ enabled: false });
  // In one step with the next, before the stream is removed, and after it.
  rerender({ enabled: true });
  await act(() => vi.waitFor(() => expect(requests.length).toBe(2), 5000));
  await requests[1]!.open(true);
  expect(result.current.status).toBe("open");
  await requests[1]!.send(FINAL);
  expect(result.current.status).toBe("closed");
  rerender({ enabled: false });
  await settle();
  rerender({ enabled: true });
  await settle();
  expect(requests.length).toBe(3);
  expect(requests[2]!.query.get("client")).toBe("c1");
});

test("opens for another user, and another answer", async () => {
  const { rerender } = hook({ url: "/answers/1" });
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(FINAL);
  rerender({ url: "/answers/2" });
  await settle();
  rerender({ url: "/answers/2", userId: "bob" });
  await settle();
  expect(requests.map(({ url }) => url)).toEqual(["/answers/1", "/answers/2", "/answers/2?user=bob"]);
});

test("stays closed for all of its components", async () => {
  const Part = ({ events }: { events: ("a" | "b")[] }) => <p>{use({ events }).status}</p>;
  const page = (events: ("a" | "b")[]) => <><Part events={events} /><Part events={events} /></>;
  const { container, rerender } = render(page(["a"]));
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(FINAL);
  rerender(page(["a", "b"]));
  await settle();
  expect(container.textContent).toBe("closedclosed");
  expect(requests.length).toBe(1);
});

test("closed by the page stays closed", async () => {
  const { result, rerender } = hook({ events: ["a"] });
  await settle();
  await requests[0]!.open();
  act(() => result.current.close());
  await settle();
  rerender({ events: ["a", "b"] });
  await settle();
  expect(result.current.status).toBe("closed");
  expect(result.current.error).toBeUndefined();
  expect(requests.length).toBe(1);
  act(() => result.current.reconnect());
  await vi.waitFor(() => expect(requests.length).toBe(2), 5000);
  expect(requests[1]!.query.get("events")).toBe("a,b");
});
