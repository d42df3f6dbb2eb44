/** Prints the mapped address that each of the given STUN servers sees of one and the same socket. */
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";

const COOKIE = 0x2112a442;
const servers = process.argv.slice(2).map((text) => text.split(":"));
const socket = createSocket("udp4");
const waiting = new Map();

for (const [host, port] of servers) {
  const request = Buffer.concat([Buffer.from([0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]), randomBytes(12)]);
  waiting.set(request.toString("hex", 8, 20), host);
  for (let round = 0; round < 30; round++) setTimeout(() => waiting.has(request.toString("hex", 8, 20)) && socket.send(request, Number(port), host), round * 300);
}

socket.on("message", (answer) => {
  const id = answer.toString("hex", 8, 20);
  if (answer.readUInt16BE(0) !== 0x0101 || !waiting.delete(id)) return;
  for (let at = 20; at + 4 <= answer.length; at += 4 + ((answer.readUInt16BE(at + 2) + 3) & ~3)) {
    if (answer.readUInt16BE(at) !== 0x0020) continue;
    const address = (answer.readUInt32BE(at + 8) ^ COOKIE) >>> 0;
    const bytes = [24, 16, 8, 0].map((shift) => (address >>> shift) & 255);
    console.log(`${bytes.join(".")}:${answer.readUInt16BE(at + 6) ^ (COOKIE >>> 16)}`);
  }
  if (waiting.size === 0) process.exit(0);
});
setTimeout(() => process.exit(1), 20_000);
