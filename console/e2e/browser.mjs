// Debian's Chromium, without a sandbox since tests run in containers, and without any request of its own.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

export const EXECUTABLE = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) => existsSync(path)) ?? null;

export const launch = () =>
  chromium.launch({
    executablePath: EXECUTABLE,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
