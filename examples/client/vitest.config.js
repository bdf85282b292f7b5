import { defineConfig } from "vitest/config";

// Only the hook needs a DOM. The tests of the other modules are in test/unit, for `node --test`.
export default defineConfig({
  test: { environment: "jsdom", include: ["test/react/*.test.tsx"] },
});
