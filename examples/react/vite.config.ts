import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The demo's server: `cargo run --example demo --features json,serve`.
const server = "http://127.0.0.1:3000";

export default defineConfig({
  // The demo server serves the build under /app/. Relative addresses work under every path.
  base: "./",
  plugins: [react()],
  // The client is linked from its own folder, and its tests install React there. The app must load React once.
  resolve: { dedupe: ["react", "react-dom", "@testing-library/react"] },
  server: { proxy: { "/events": server, "/api": server } },
  test: { environment: "jsdom", include: ["test/**/*.test.tsx"], testTimeout: 60_000 },
});
