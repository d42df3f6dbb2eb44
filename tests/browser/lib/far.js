/** A UDP proxy in front of a relay that is far away: datagrams are late, overtake each other, and some are lost. */
import { createSocket } from "node:dgram";

/** `delay` and `jitter` in ms, each way; `loss` as a part of all. */
export async function farRelay(target, { delay, jitter, loss, chance }) {
  const clients = new Map();
  const counts = { carried: 0, lost: 0 };
  const front = createSocket("udp4");
  const later = (send) => {
    if (chance() < loss) return void counts.lost++;
    counts.carried++;
    setTimeout(send, delay + chance() * jitter);
  };
  const upstream = ({ address, port }) => {
    const key = `${address}:${port}`;
    if (!clients.has(key)) {
      const socket = createSocket("udp4");
      socket.on("message", (bytes) => later(() => isOpen && front.send(bytes, port, address)));
      clients.set(key, socket);
    }
    return clients.get(key);
  };
  let isOpen = true;
  front.on("message", (bytes, from) => later(() => isOpen && upstream(from).send(bytes, target, "127.0.0.1")));
  await new Promise((resolve) => front.bind(0, "127.0.0.1", resolve));
  return {
    port: front.address().port,
    counts,
    close() {
      isOpen = false;
      for (const socket of [front, ...clients.values()]) socket.close();
    },
  };
}
