/** A TCP proxy in front of the server, to cut and to silence connections as networks do. */
import { connect, createServer } from "node:net";

export async function proxy(target) {
  const pairs = new Set();
  let isSilent = false;
  const server = createServer((client) => {
    const upstream = connect(target, "127.0.0.1");
    const pair = [client, upstream];
    pairs.add(pair);
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      from.on("data", (bytes) => isSilent || to.write(bytes));
      from.on("error", () => {});
      from.on("close", () => {
        pairs.delete(pair);
        to.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    /** Resets every connection. */
    cut: () => pairs.forEach(([client, upstream]) => (client.resetAndDestroy(), upstream.destroy())),
    /** Swallows everything, and keeps the connections open. */
    silence: (on) => (isSilent = on),
    close() {
      this.cut();
      server.close();
    },
  };
}
