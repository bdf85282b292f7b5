import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { SSEDemo } from "./SSEDemo";
import "./style.css";

const query = new URLSearchParams(location.search);
const user = query.get("user") ?? "alice";
const session = query.get("session") ?? "s-react";
// ?silence=2000 detects a dead stream sooner, to try this out.
const silence = Number(query.get("silence")) || undefined;

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <SSEDemo userId={user} sessionId={session} silence={silence} isShared={query.has("share")} />
  </StrictMode>,
);
