// A server of streams that a test writes by hand, in place of `fetch`.
import { act } from "@testing-library/react";
import { vi } from "vitest";

export type Request = {
  url: string;
  isCancelled: boolean;
  open: (resumed?: boolean) => Promise<void>;
  send: (text: string) => Promise<void>;
};

const encoder = new TextEncoder();

/** Lets what is due happen: streams, and the next frame. */
export async function settle() {
  await act(() => new Promise((done) => setTimeout(done, 40)));
}

export function serve(): Request[] {
  const requests: Request[] = [];
  vi.stubGlobal("fetch", (url: string, { signal }: { signal: AbortSignal }) => {
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({ start: (own) => { controller = own; } });
    const request: Request = {
      url,
      isCancelled: false,
      open: (resumed = false) => request.send(frame("hub:open", { client: "c1", resumed }, "7-0")),
      send: async (text) => {
        controller.enqueue(encoder.encode(text));
        await settle();
      },
    };
    signal.addEventListener("abort", () => {
      request.isCancelled = true;
      controller.error(signal.reason);
    });
    requests.push(request);
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  });
  return requests;
}

export const frame = (type: string, data: unknown, id: string) => `event: ${type}\ndata: ${JSON.stringify(data)}\nid: ${id}\n\n`;
