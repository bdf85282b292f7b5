// Tests of the demo component, with a server that the test writes.
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SSEDemo } from "../src/SSEDemo";
import { frame, serve, settle, type Request } from "../../client/test/react/server";

let requests: Request[];

beforeEach(() => {
  requests = serve();
});

afterEach(async () => {
  cleanup();
  await settle();
  vi.unstubAllGlobals();
});

const status = () => document.querySelector(".status")!.textContent;

async function demo(): Promise<Request> {
  render(<SSEDemo userId="ann" sessionId="s1" />);
  await settle();
  await requests[0]!.open();
  return requests[0]!;
}

test("shows the status, the latest message and the history", async () => {
  const stream = await demo();
  expect(status()).toBe("Connected");
  await stream.send(frame("alert", { level: "info", message: "Hello", at: 1 }, "7-1"));
  await stream.send(frame("upload", { job: "j", file: "a.pdf", percent: 40, state: "running", at: 1 }, "7-2"));
  expect(document.getElementById("latest-text")!.textContent).toBe("a.pdf is 40 % uploaded");
  expect(screen.getAllByRole("listitem").map((row) => row.textContent)).toEqual(["upload a.pdf is 40 % uploaded", "alert info: Hello"]);
});

test("the history is bounded and ordered", async () => {
  const stream = await demo();
  await stream.send(Array.from({ length: 70 }, (_, n) => frame("tick", { n, at: 1, padding: "" }, `7-${n + 1}`)).join(""));
  const rows = screen.getAllByRole("listitem").map((row) => row.textContent);
  expect(rows.length).toBe(50);
  expect(rows[0]).toBe("tick Event 70 of many");
  expect(rows[49]).toBe("tick Event 21 of many");
});

test("shows a gap and a lost connection", async () => {
  const stream = await demo();
  await stream.send(frame("hub:gap", { reason: "evicted" }, "7-5"));
  expect(document.getElementById("gap")!.textContent).toMatch(/^A gap/);
  await stream.send(`event: hub:end\nretry: 60000\ndata: {"reason":"drained"}\n\n`);
  expect(status()).toBe("Reconnecting");
  expect(document.getElementById("error")!.textContent).toContain("drained");
});

test("shows that events are held up", async () => {
  const stream = await demo();
  await stream.send(`event: hub:degraded\ndata: {"degraded":true}\n\n`);
  expect(status()).toBe("Connected, held up");
  expect(document.getElementById("degraded")).not.toBeNull();
  await stream.send(`event: hub:degraded\ndata: {"degraded":false}\n\n`);
  expect(status()).toBe("Connected");
  expect(document.getElementById("degraded")).toBeNull();
});

test("other types open another stream; enabled closes it", async () => {
  await demo();
  fireEvent.click(screen.getByLabelText("Alerts only"));
  await settle();
  expect(requests[1]!.url).toContain("events=alert");
  expect(requests[0]!.isCancelled).toBe(true);
  act(() => screen.getByLabelText("Enabled").click());
  await settle();
  expect(requests[1]!.isCancelled).toBe(true);
  expect(status()).toBe("Off");
});

test("other types resume after the last event", async () => {
  const stream = await demo();
  await stream.send(frame("alert", { level: "info", message: "One", at: 1 }, "7-1"));
  fireEvent.click(screen.getByLabelText("Alerts only"));
  await settle();
  expect(requests[1]!.headers.get("last-event-id")).toBe("7-1");
  expect(requests[1]!.query.get("client")).toBe("c1");
  await requests[1]!.open(true);
  await requests[1]!.send(frame("alert", { level: "info", message: "Two", at: 2 }, "7-2"));
  expect(screen.getAllByRole("listitem").map((row) => row.textContent)).toEqual(["alert info: Two", "alert info: One"]);
});

test("a final end is shown and stays", async () => {
  const stream = await demo();
  await stream.send(`event: hub:end\ndata: {"reason":"finished","final":true}\n\n`);
  expect(status()).toBe("Closed");
  expect(document.getElementById("error")!.textContent).toContain("hub:end: finished");
  fireEvent.click(screen.getByLabelText("Alerts only"));
  await settle();
  expect(status()).toBe("Closed");
  expect(requests.length).toBe(1);
  fireEvent.click(screen.getByText("Reconnect"));
  await vi.waitFor(() => expect(requests.length).toBe(2), 5000);
});
