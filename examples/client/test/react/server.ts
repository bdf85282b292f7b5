// A server of streams in place of `fetch`. The test writes each stream.
import { act } from "@testing-library/react";
import { vi } from "vitest";

export type Request = {
  url: string;
  headers: Headers;
  /** The query's parameters. */
  query: URLSearchParams;
  isCancelled: boolean;
  /** Answers the request, if `serve` holds answers back. */
  answer: (status?: number) => Promise<void>;
  open: (resumed?: boolean, client?: string) => Promise<void>;
  send: (text: string) => Promise<void>;
};

/** The page's own frames: a test may replace `requestAnimationFrame`. */
const nextFrame = requestAnimationFrame.bind(window);

const encoder = new TextEncoder();

/** Waits for two frames: timers without a delay, streams and renders that are due are done then. */
export async function settle() {
  await act(async () => {
    await new Promise(nextFrame);
    await new Promise(nextFrame);
  });
}

/**
 * Replaces `fetch`. Returns the requests. With `isLate`, a request is answered when the test calls
 * `answer`.
 */
export function serve({ isLate = (_nth: number): boolean => false } = {}): Request[] {
  const requests: Request[] = [];
  vi.stubGlobal("fetch", (url: string, { signal, headers }: { signal: AbortSignal; headers: Headers }) => {
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({ start: (own) => { controller = own; } });
    return new Promise<Response>((resolve, reject) => {
      let isAnswered = false;
      const respond = (status = 200) => {
        if (isAnswered) return;
        isAnswered = true;
        const isStream = status === 200;
        resolve(new Response(isStream ? body : null, { status, headers: isStream ? { "content-type": "text/event-stream" } : {} }));
      };
      const request: Request = {
        url,
        headers: new Headers(headers),
        query: new URL(url, "http://localhost").searchParams,
        isCancelled: false,
        answer: async (status) => {
          respond(status);
          await settle();
        },
        open: (resumed = false, client = "c1") => request.send(frame("hub:open", { client, resumed }, "7-0")),
        send: async (text) => {
          respond();
          controller.enqueue(encoder.encode(text));
          await settle();
        },
      };
      signal.addEventListener("abort", () => {
        request.isCancelled = true;
        reject(signal.reason);
        controller.error(signal.reason);
      });
      if (!isLate(requests.length)) respond();
      requests.push(request);
    });
  });
  return requests;
}

export const frame = (type: string, data: unknown, id: string) => `event: ${type}\ndata: ${JSON.stringify(data)}\nid: ${id}\n\n`;
