// A proxy that serves an indexer, with the console that is built into it, below a path prefix, as a hospital's would.
import { createServer, request } from "node:http";

export async function serve(indexer, prefix = "/") {
  const server = createServer((incoming, answer) => {
    if (!incoming.url.startsWith(prefix)) return answer.writeHead(404).end();
    const target = new URL(incoming.url.slice(prefix.length), indexer);
    const { host, ...headers } = incoming.headers;
    const onward = request(target, { method: incoming.method, headers }, (reply) => {
      answer.writeHead(reply.statusCode, reply.headers);
      reply.pipe(answer);
    });
    onward.on("error", () => answer.destroy());
    answer.on("close", () => onward.destroy());
    onward.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}${prefix}`, close: () => server.close() };
}
