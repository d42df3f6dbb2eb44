/**
 * A TCP proxy that is a bad network: bytes are late, in their connection's order but not in that of others, and the
 * end of one direction may come long after the other's, so that what a dead socket still had under way overtakes and
 * is overtaken by what its successor says.
 */
import { connect, createServer } from "node:net";

const LATE = 15; // ms, at most, for bytes
const LINGER = 150; // ms, at most, for the news that the other end is gone

/** `least`: how late, in ms, bytes are in any case. */
export async function proxy(target, chance, least = 0) {
  let port = target;
  const open = new Set();
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port, host: "127.0.0.1", noDelay: true });
    lateBytes(client, upstream, chance, least);
    lateBytes(upstream, client, chance, least);
    for (const socket of [client, upstream]) {
      open.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => open.delete(socket));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    /** The server is somewhere else now. */
    leadTo: (another) => (port = another),
    close() {
      server.close();
      open.forEach((socket) => socket.destroy());
    },
  };
}

/** Carries bytes and the end of `from` to `to`, each late. */
function lateBytes(from, to, chance, least) {
  const queue = [];
  let due = 0;
  const later = (delay, action) => {
    due = Math.max(due, performance.now() + delay);
    queue.push(action);
    setTimeout(() => queue.shift()(), due - performance.now());
  };
  from.on("data", (bytes) => later(least + chance() * LATE, () => to.destroyed || to.write(bytes)));
  from.on("close", () => later(chance() < 0.5 ? 0 : chance() * LINGER, () => to.destroy()));
}
