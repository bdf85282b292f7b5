import { useQueryClient, type QueryClient, type QueryKey } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useSSE, type SSEEvent, type UseSSE, type UseSSEOptions } from "sse-hub-client/react";

/**
 * Changes the cached data of a query; does nothing if no data is cached. `update` must be
 * idempotent: the data may already contain the event.
 */
export type Change = <Data>(queryKey: QueryKey, update: (cached: Data) => Data) => void;

/** If more changes wait for a fetch, the data is fetched again after that fetch. */
const MAX_HELD = 1000;

/**
 * Keeps queries of TanStack Query current by a stream: an event changes the cache, without a
 * request, and lost events fetch the data again.
 *
 * Call the hook once for each stream, near the root. Components read with `useQuery`, and need a
 * `staleTime` if they must not fetch at each mount. The server must change its state before it
 * publishes the event.
 *
 * ```tsx
 * useLiveQueries<Events>({ url: "/events", userId }, [["orders"]], (event, change) => {
 *   if (event.type === "order") {
 *     change<Order[]>(["orders"], (orders) => [event.data, ...orders.filter(({ id }) => id !== event.data.id)]);
 *   }
 * });
 * ```
 *
 * @param stream the options of `useSSE`
 * @param queryKeys the queries to fetch again after a loss, with all queries below these keys
 * @param onEvent tells how an event changes the cached data
 */
export function useLiveQueries<Events extends object>(
  { onMessage, onGap, ...stream }: UseSSEOptions<Events>,
  queryKeys: readonly QueryKey[],
  onEvent: (event: SSEEvent<Events>, change: Change) => void,
): UseSSE<Events> {
  const client = useQueryClient();
  const [changes] = useState(() => new Changes(client));
  useEffect(() => changes.start(), [changes]);

  const sse = useSSE<Events>({
    ...stream,
    onMessage: (event) => {
      onEvent(event, changes.make);
      onMessage?.(event);
    },
    onGap: (reason, healed) => {
      if (!healed) changes.fetchAgain(queryKeys);
      onGap?.(reason, healed);
    },
  });

  // No stream has the events between an earlier fetch and a stream that does not resume.
  const isFresh = sse.isConnected && sse.details.resumed !== true;
  useEffect(() => {
    if (isFresh) changes.fetchAgain(queryKeys);
  }, [isFresh, sse.details.client]);
  return sse;
}

/** Makes changes, and holds back those that come while their query is fetched. */
class Changes {
  #client;
  /** By the hash of the query. Undefined: fetch again, as changes are missing. */
  #held = new Map<string, ((cached: never) => unknown)[] | undefined>();

  constructor(client: QueryClient) {
    this.#client = client;
  }

  make: Change = (queryKey, update) => {
    const query = this.#client.getQueryCache().find({ queryKey });
    if (!query) return;
    const { queryHash, state } = query;
    if (state.fetchStatus === "fetching") {
      // The answer may be older than the event: make the change after the fetch.
      const held = this.#held.has(queryHash) ? this.#held.get(queryHash) : [];
      this.#held.set(queryHash, held && held.length < MAX_HELD ? [...held, update] : undefined);
    } else if (state.isInvalidated) {
      // The data lacks events, and its fetch failed. A change would show the data as current.
      this.#fetch(queryKey);
    } else {
      this.#set(queryKey, update);
    }
  };

  /** Fetches the data of all queries below these keys again, after events were lost. */
  fetchAgain(queryKeys: readonly QueryKey[]) {
    for (const queryKey of queryKeys) {
      // A first fetch is not begun again, and its answer may lack the events.
      for (const { queryHash, state } of this.#client.getQueryCache().findAll({ queryKey, fetchStatus: "fetching" })) {
        if (state.data === undefined) this.#held.set(queryHash, undefined);
      }
      void this.#client.invalidateQueries({ queryKey });
    }
  }

  /** Makes the held changes when their fetch is over. Returns a function that ends this. */
  start() {
    return this.#client.getQueryCache().subscribe(({ type, query: { queryHash, queryKey, state } }) => {
      const isOver = type === "removed" || (type === "updated" && state.fetchStatus !== "fetching");
      if (!isOver || !this.#held.has(queryHash)) return;
      const held = this.#held.get(queryHash);
      this.#held.delete(queryHash);
      // After a failure, the next fetch is newer than the events.
      if (type === "removed" || state.isInvalidated) return;
      if (held) for (const update of held) this.#set(queryKey, update);
      else this.#fetch(queryKey);
    });
  }

  #set(queryKey: QueryKey, update: (cached: never) => unknown) {
    this.#client.setQueryData(queryKey, (cached) => (cached === undefined ? undefined : update(cached as never)));
  }

  #fetch(queryKey: QueryKey) {
    void this.#client.invalidateQueries({ queryKey, exact: true });
  }
}
