import { defineConfig } from "vitest/config";

// Only the hook needs a DOM. The tests of the other modules are in test/unit, for `node --test`.
export default defineConfig({
  // A busy machine must not fail a test.
  test: { environment: "jsdom", include: ["test/react/*.test.tsx"], testTimeout: 60_000 },
});
