import { useEffect, useRef, useState } from "react";
import { useSSE, type SSEEvent } from "sse-hub-client/react";
import type { DemoEvents } from "./events";

type DemoEvent = SSEEvent<DemoEvents>;

const TYPES = ["notification", "alert", "upload", "tick"] as const;
const HISTORY = 50;

const STATUS = { idle: "Off", connecting: "Connecting", open: "Connected", retrying: "Reconnecting", closed: "Closed" };

/** Returns an event as a sentence. The types come from the Rust types of the server. */
function textOf(event: DemoEvent): string {
  switch (event.type) {
    case "notification":
      return event.data.message;
    case "alert":
      return `${event.data.level}: ${event.data.message}`;
    case "upload":
      return event.data.state === "done" ? `${event.data.file} has finished uploading` : `${event.data.file} is ${event.data.percent} % uploaded`;
    case "tick":
      return `Event ${event.data.n + 1} of many`;
    case "presence":
      return `Online: ${event.data.users.join(", ")}`;
  }
}

async function post(path: string, body: object): Promise<string> {
  const response = await fetch(`/api/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return "matched" in answer ? `reached ${answer.matched}` : `${answer.changed}`;
}

type Props = { userId: string; sessionId: string; silence?: number; isShared?: boolean };

/**
 * The token, if the server runs with `--login`. The page fetches a token after a 401, also when the
 * token has expired.
 */
let token = "";

const client = {
  headers: (): Record<string, string> => (token ? { authorization: `Bearer ${token}` } : {}),
  renew: async () => {
    const response = await fetch("/api/token", { method: "POST" });
    if (!response.ok) return false;
    ({ token } = await response.json());
  },
};

export function SSEDemo({ userId, sessionId, silence, isShared = false }: Props) {
  const [enabled, setEnabled] = useState(true);
  const [share, setShare] = useState(isShared);
  const [alertsOnly, setAlertsOnly] = useState(false);
  const [history, setHistory] = useState<DemoEvent[]>([]);
  const arrived = useRef<DemoEvent[]>([]);
  const [gaps, setGaps] = useState(0);
  const [receipt, setReceipt] = useState("");
  const { status, isConnected, degraded, lastEvent, error, details, reconnect, close } = useSSE<DemoEvents>({
    url: "/events",
    userId,
    sessionId,
    events: alertsOnly ? ["alert"] : TYPES,
    onMessage: (event) => {
      if (event.type !== "presence") arrived.current = [event, ...arrived.current.slice(0, HISTORY - 1)];
    },
    onGap: () => setGaps((before) => before + 1),
    enabled,
    share,
    client: { ...client, silence },
  });
  // Runs once for each frame with events, for all events of the frame.
  useEffect(() => {
    const news = arrived.current;
    arrived.current = [];
    if (news.length > 0) setHistory((before) => [...news, ...before].slice(0, HISTORY));
  }, [lastEvent]);
  const shown = history[0];

  const send = (path: string, body: object) => async () => {
    try {
      setReceipt(await post(path, body));
    } catch (failure) {
      setReceipt(String(failure));
    }
  };

  return (
    <main>
      <header>
        <h1>sse-hub in React</h1>
        <p className="status" role="status" data-state={status} data-degraded={degraded}>{degraded ? "Connected, held up" : STATUS[status]}</p>
      </header>
      {degraded && <p className="notice" id="degraded">Events are held up: the server cannot reach its other instances. The events arrive when it can.</p>}
      {error && <p className="notice" id="error">{status === "closed" ? `Closed (${error.message}). Press Reconnect to open the stream again.` : `Not connected (${error.message}). The page reconnects by itself.`}</p>}
      {gaps > 0 && <p className="notice" id="gap">{gaps === 1 ? "A gap" : `${gaps} gaps`}: events were missed. An application fetches its state here.</p>}

      <section aria-labelledby="latest">
        <h2 id="latest">Latest message</h2>
        <p className="latest" id="latest-text" aria-live={shown?.type === "tick" ? "off" : "polite"}>{shown ? textOf(shown) : "Waiting for the first message"}</p>
        <p className="quiet">{lastEvent ? `${lastEvent.type} · ${lastEvent.id}` : `for ${userId}`}</p>
      </section>

      <section aria-labelledby="send">
        <h2 id="send">Send</h2>
        <div className="buttons">
          <button onClick={send("notify", { to: { kind: "user", name: userId }, title: "React", message: `Hello ${userId}` })}>Notify {userId}</button>
          <button onClick={send("alert", { level: "warning", message: "Maintenance starts at 22:00" })}>Alert everybody</button>
          <button disabled={!isConnected} onClick={send("jobs", { client: details.client, file: "report.pdf" })}>Start upload job</button>
          <button onClick={send("flood", { events: 20_000, per_second: 10_000, size: 0 })}>Flood</button>
        </div>
        <p className="quiet"><output id="receipt">{receipt}</output></p>
      </section>

      <section aria-labelledby="stream">
        <h2 id="stream">Stream</h2>
        <div className="buttons">
          <label><input type="checkbox" checked={enabled} onChange={(event) => setEnabled(event.target.checked)} /> Enabled</label>
          <label><input type="checkbox" checked={alertsOnly} onChange={(event) => setAlertsOnly(event.target.checked)} /> Alerts only</label>
          <label><input type="checkbox" checked={share} onChange={(event) => setShare(event.target.checked)} /> One stream for all tabs</label>
          <button onClick={reconnect}>Reconnect</button>
          <button onClick={close}>Close</button>
        </div>
      </section>

      <section aria-labelledby="history">
        <h2 id="history">History</h2>
        <ol id="events" tabIndex={0} aria-labelledby="history">
          {history.map((event) => (
            <li key={event.id}><span className="type">{event.type}</span> {textOf(event)}</li>
          ))}
        </ol>
        {history.length === 0 && <p className="quiet">Nothing yet.</p>}
      </section>
    </main>
  );
}
