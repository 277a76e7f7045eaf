import { defineConfig } from "vite";

// Everything is relative, so that the console works behind any path prefix; nothing is inlined, so that the
// content security policy needs no 'unsafe-inline' and no data: fonts.
export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 400,
  },
  server: {
    // `COHORT_INDEXER_URL=http://127.0.0.1:8710 npm run dev` shows a running indexer's data.
    proxy: { "/v1": { target: process.env["COHORT_INDEXER_URL"] ?? "http://127.0.0.1:8710" } },
  },
  test: { include: ["test/**/*.test.ts"], testTimeout: 60_000 },
} as Parameters<typeof defineConfig>[0]);
