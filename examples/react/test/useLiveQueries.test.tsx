// Tests of the recipe for TanStack Query, with a server that the test writes.
import { QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { act, cleanup, render } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { frame, serve, settle, type Request } from "../../client/test/react/server";
import { useLiveQueries } from "../src/useLiveQueries";

type Order = { id: number; state: string };
type Events = { order: Order; note: string };
type Fetch = { answer: (orders: Order[]) => Promise<void>; fail: () => Promise<void> };

let requests: Request[];
let fetches: Fetch[];
let client: QueryClient;

beforeEach(() => {
  requests = serve();
  fetches = [];
  client = new QueryClient({ defaultOptions: { queries: { staleTime: Infinity, retry: false } } });
});

afterEach(async () => {
  cleanup();
  client.clear();
  await settle();
  vi.unstubAllGlobals();
});

function Orders() {
  const { data, isError } = useQuery({
    queryKey: ["orders"],
    queryFn: () => new Promise<Order[]>((resolve, reject) => {
      fetches.push({
        answer: async (orders) => {
          resolve(orders);
          await settle();
        },
        fail: async () => {
          reject(new Error("down"));
          await settle();
        },
      });
    }),
  });
  const text = data?.map(({ id, state }) => `${id} ${state}`).join(", ") ?? "none";
  return <p>{isError ? `${text} (error)` : text}</p>;
}

function App({ hasOrders = true }) {
  useLiveQueries<Events>({ url: "/events" }, [["orders"]], (event, change) => {
    if (event.type !== "order") return;
    change<Order[]>(["orders"], (orders) => [...orders.filter(({ id }) => id !== event.data.id), event.data]);
  });
  return hasOrders ? <Orders /> : null;
}

const app = (props = {}) => <QueryClientProvider client={client}><App {...props} /></QueryClientProvider>;

const shown = () => document.querySelector("p")!.textContent;

const order = (id: number, state: string) => frame("order", { id, state }, `7-${id}`);

/** Renders the app with its stream and the data that the app fetched after the stream opened. */
async function opened(orders: Order[] = [{ id: 1, state: "new" }]) {
  const view = render(app());
  await settle();
  await fetches[0]!.answer([]);
  await requests[0]!.open();
  expect(fetches.length, "events before the stream may be missing").toBe(2);
  await fetches[1]!.answer(orders);
  return { view, stream: requests[0]! };
}

test("an event changes the data without a request", async () => {
  const { stream } = await opened();
  await stream.send(order(2, "new") + order(1, "paid"));
  await stream.send(frame("note", "other", "7-3"));
  expect(shown()).toBe("2 new, 1 paid");
  expect(fetches.length).toBe(2);
});

test("a gap fetches the data again, and a healed gap does not", async () => {
  const { stream } = await opened();
  await stream.send(frame("hub:gap", { reason: "evicted", healed: true }, "7-5"));
  expect(fetches.length).toBe(2);
  await stream.send(frame("hub:gap", { reason: "evicted" }, "7-6"));
  expect(fetches.length).toBe(3);
  await fetches[2]!.answer([{ id: 9, state: "new" }]);
  expect(shown()).toBe("9 new");
});

test("an event during a fetch is not lost", async () => {
  const { stream } = await opened();
  await stream.send(frame("hub:gap", { reason: "evicted" }, "7-5"));
  await stream.send(order(2, "new") + order(3, "new") + order(2, "paid"));
  // The server had read its state before two of the three events.
  await fetches[2]!.answer([{ id: 1, state: "new" }, { id: 2, state: "new" }]);
  expect(shown()).toBe("1 new, 3 new, 2 paid");
  expect(fetches.length).toBe(3);
});

test("events during the first fetch are not lost", async () => {
  render(app());
  await settle();
  await requests[0]!.open();
  await requests[0]!.send(order(3, "new"));
  // The server had read its state before order 2, which came before the stream.
  await fetches[0]!.answer([{ id: 1, state: "new" }]);
  expect(fetches.length).toBe(2);
  await fetches[1]!.answer([{ id: 1, state: "new" }, { id: 2, state: "new" }]);
  await requests[0]!.send(order(4, "new"));
  expect(shown()).toBe("1 new, 2 new, 4 new");
});

test("too many events during a fetch cause one more fetch", async () => {
  const { stream } = await opened();
  await stream.send(frame("hub:gap", { reason: "evicted" }, "7-5"));
  await stream.send(Array.from({ length: 1500 }, (_, n) => order(n, "new")).join(""));
  await fetches[2]!.answer([]);
  expect(fetches.length).toBe(4);
  await stream.send(order(5000, "new"));
  await fetches[3]!.answer([{ id: 1499, state: "new" }]);
  expect(shown()).toBe("1499 new, 5000 new");
  expect(fetches.length).toBe(4);
});

test("data whose fetch failed stays an error until fetched", async () => {
  const { stream } = await opened();
  await stream.send(frame("hub:gap", { reason: "evicted" }, "7-5"));
  await stream.send(order(2, "new"));
  await fetches[2]!.fail();
  expect(shown()).toBe("1 new (error)");
  // The next event fetches again. It must not make the incomplete data look current.
  await stream.send(order(3, "new"));
  expect(fetches.length).toBe(4);
  await stream.send(order(4, "new"));
  expect(fetches.length).toBe(4);
  await fetches[3]!.answer([{ id: 1, state: "new" }, { id: 2, state: "new" }, { id: 3, state: "new" }]);
  expect(shown()).toBe("1 new, 2 new, 3 new, 4 new");
});

test("an event for data that nothing shows is not lost", async () => {
  const { view, stream } = await opened();
  view.rerender(app({ hasOrders: false }));
  await stream.send(order(2, "new"));
  view.rerender(app());
  await settle();
  expect(shown()).toBe("1 new, 2 new");
  expect(fetches.length).toBe(2);

  // After a loss, nothing is fetched until the data is shown.
  view.rerender(app({ hasOrders: false }));
  await stream.send(frame("hub:gap", { reason: "evicted" }, "7-5"));
  await stream.send(order(3, "new"));
  expect(fetches.length).toBe(2);
  view.rerender(app());
  await settle();
  expect(fetches.length).toBe(3);
});

test("a stream that resumes fetches nothing, and a fresh stream does", async () => {
  const { stream } = await opened();
  const again = async (nth: number, resumed: boolean) => {
    await requests[nth - 1]!.send(`event: hub:end\nretry: 1\ndata: {"reason":"lifetime"}\n\n`);
    await act(() => vi.waitFor(() => expect(requests.length).toBe(nth + 1), 10_000));
    await requests[nth]!.open(resumed);
  };
  await stream.send(order(2, "new"));
  await again(1, true);
  expect(fetches.length).toBe(2);
  await requests[1]!.send(order(3, "new"));
  expect(shown()).toBe("1 new, 2 new, 3 new");
  await again(2, false);
  expect(fetches.length).toBe(3);
});
