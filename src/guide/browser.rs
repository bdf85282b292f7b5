//! The browser's side: receive events in a page, know the state of the stream, and share it.
//!
//! Two clients work with every hub. `EventSource` is part of the browser. The npm package
//! `sse-hub-client` (in `examples/client`, without dependencies and without a build step) adds the
//! rest:
//!
//! | | `EventSource` | `SSEClient` |
//! |---|---|---|
//! | reconnects, and resumes by `Last-Event-ID` | yes, after 200 only | yes, also after temporary statuses |
//! | headers, such as `Authorization` | no | yes, and `renew` on 401 and 403 |
//! | a delay that grows with failures | no: the delay of the server | yes, in addition to the delay of the server |
//! | a dead connection | waits for ever | reconnects after three silent heartbeats |
//! | status and reason, for the user | `readyState` | `onStatus`: state, reason, time of the next attempt |
//! | keeps its client id | no | by a url function; the hook `useSSE` does this itself |
//! | joins and leaves [topics](super::rooms) | by requests of the page | `join` and `leave`, also after a reconnect |
//! | one stream for several tabs | no | `SharedSSE`, without `join` and `leave` |
//!
//! ```text
//! import { SSEClient } from "sse-hub-client";
//!
//! const client = new SSEClient(
//!   ({ status }) => status.client ? `/events?client=${status.client}` : "/events",
//!   { headers: () => ({ authorization: `Bearer ${token}` }), renew: fetchToken },
//! );
//! client.on("order", (event) => show(event.json()));
//! client.on("hub:gap", (gap) => gap.json().healed || fetchOrders());
//! client.onStatus(({ state, reason, retryAt }) => draw(state, reason, retryAt));
//! client.open();
//! ```
//!
//! The handler parses the parameter and passes it to
//! [`Subscriber::client_id`](crate::Subscriber::client_id). The package's README lists the options,
//! the hook `useSSE` for React, and the rules of sharing.
//!
//! # Events of the hub
//!
//! | event | when | data |
//! |---|---|---|
//! | `hub:open` | first on every stream | `client`: the client id. `resumed`: whether the stream continues where it stopped. `heartbeat`: the period in milliseconds |
//! | `hub:gap` | before the next event after a loss | `reason`: see [gaps](super::resuming#gaps). `healed`: a snapshot follows |
//! | `hub:refused` | the whole stream of a refused client | `reason`: see [refusals](super::limits#refusals). The client returns after `retry` |
//! | `hub:run-end` | last of a [run](super::runs) | `run`: the name. `reason`: `finished`, `failed`, `stopped` or `abandoned` |
//! | `hub:end` | last on a stream that the hub ends | `reason`: `drained`, `expired`, `lifetime`, `lagged`, `displaced`, that of a [`Goodbye`](crate::Goodbye), that of a run, or `unknown-run` if no run has started in time. `final: true`: the client must not return |
//! | `hub:error` | last on a failed [`EventStream`](crate::EventStream) | `reason`: `error` or `invalid-event`. `message`: the error, if [shown](crate::EventStream::show_errors) |
//! | `hub:degraded` | an outage of the backplane lasts a second, or is over | `degraded`: `true` or `false`. Has no id |
//! | `hub:heartbeat` | on an idle stream, if [visible](crate::Heartbeat::visible), or with the [position](crate::Heartbeat::position) | `{}` |
//!
//! # Fetched state
//!
//! A page that fetches its state and changes it by events must handle three cases:
//!
//! | case | rule |
//! |---|---|
//! | events were lost (`hub:gap` that is not healed, or a stream that does not resume) | fetch the state again |
//! | an event comes during a fetch | apply the event after the answer, which may be older |
//! | an event that the fetched state contains | applying the event again must change nothing |
//!
//! `examples/react` does this for TanStack Query, in `src/useLiveQueries.ts`: an event updates the
//! cache, and a gap invalidates the queries. A [snapshot](super::snapshots) in the stream needs none
//! of these rules.
//!
//! # React Native
//!
//! `SSEClient` works with the `fetch` of Expo and with `AppState` in place of the page's visibility:
//! the package's README has the code. React Native's own `fetch` does not deliver a stream.
//!
//! # With a native `EventSource`
//!
//! The browser takes every end for a lost connection. So close the stream at a final end, and let
//! the user know when the browser gave up:
//!
//! ```text
//! const stream = new EventSource("/events");
//! stream.addEventListener("hub:end", (end) => JSON.parse(end.data).final && stream.close());
//! stream.onerror = () => {
//!   if (stream.readyState === EventSource.CLOSED) askToLogIn(); // A status other than 200.
//! };
//! ```
//!
//! If the page does not close the stream, answer its next request with
//! [`stop_response`](crate::http::stop_response), a `204`.
//!
//! # Six connections
//!
//! Over HTTP/1.1, a browser opens six connections to an origin, for all tabs together, and each
//! stream keeps one. The seventh tab waits without an error, and so does every other request of the
//! page. Serve HTTP/2, which a [proxy](super::proxies) can do for you, or share a stream between
//! tabs:
//!
//! ```text
//! import { SharedSSE } from "sse-hub-client/shared";
//! const client = new SharedSSE("/events", { name: `events of ${user}`, headers });
//! ```
//!
//! The name must contain everything that selects the events. Without the user in the name, the tabs
//! of two users could share a stream.
//!
//! # Limits
//!
//! - Background tabs may be frozen, and laptops sleep. The client finds out when the page is shown
//!   again, resumes, and gets a gap if the log no longer reaches back.
//! - A service worker that handles `fetch` must pass streams through.
//! - `EventSource` dispatches events without a type as `message`, and hides comments: if a page
//!   must see heartbeats there, make them [visible](crate::Heartbeat::visible).
