// Fails when what the first page loads is 150 KB or more, compressed as a server sends it.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT = 150_000;
const dist = new URL("../dist/", import.meta.url).pathname;
const html = readFileSync(join(dist, "index.html"), "utf8");
const named = [...html.matchAll(/(?:src|href)="\.\/([^"]+)"/g)].map(([, name]) => name);
// The Latin font comes with the first text, dictionaries and pages when they are needed.
const fonts = readdirSync(join(dist, "assets")).filter((name) => /^inter-latin-wght.*woff2$/.test(name)).map((name) => `assets/${name}`);
const size = (name) => {
  const bytes = readFileSync(join(dist, name));
  return name.endsWith(".woff2") ? bytes.length : gzipSync(bytes, { level: 9 }).length;
};
const files = ["index.html", ...new Set(named), ...fonts];
const total = files.reduce((sum, name) => sum + size(name), 0);
console.log(`first page: ${(total / 1000).toFixed(1)} KB compressed in ${files.length} files`);
if (total >= LIMIT) {
  console.error(`the first page may have at most ${LIMIT / 1000} KB`);
  process.exit(1);
}
