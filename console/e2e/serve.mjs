// The built console below a path prefix, as a hospital's proxy would serve it, with the indexer's own policy.
import { readFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2", ".json": "application/json" };
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Serves `dist` under `prefix` and passes `prefix`v1 on to the indexer. */
export async function serve(dist, indexer, prefix = "/") {
  const server = createServer(async (incoming, answer) => {
    const url = new URL(incoming.url, "http://localhost");
    if (!url.pathname.startsWith(prefix)) return answer.writeHead(404).end();
    const path = url.pathname.slice(prefix.length);
    if (path.startsWith("v1/")) return pass(new URL(path + url.search, indexer), incoming, answer);
    const file = join(dist, normalize(path || "index.html"));
    try {
      const bytes = await readFile(file);
      answer.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": POLICY });
      answer.end(bytes);
    } catch {
      answer.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}${prefix}`, close: () => server.close() };
}

function pass(target, incoming, answer) {
  const onward = request(target, { method: incoming.method, headers: { accept: incoming.headers.accept ?? "*/*" } }, (reply) => {
    answer.writeHead(reply.statusCode, reply.headers);
    reply.pipe(answer);
  });
  onward.on("error", () => answer.destroy());
  answer.on("close", () => onward.destroy());
  onward.end();
}
