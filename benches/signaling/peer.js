/**
 * A WebSocket client that costs next to nothing, so that the servers are measured and not the clients: frames are
 * made once, masked with zeros, and what comes in is looked at as bytes.
 */
import { randomBytes } from "node:crypto";
import { connect } from "node:net";

const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const NOTHING = Buffer.alloc(0);

/** All sockets read into this: 64 KiB for each read would keep the collector busy, on the servers' core, too. */
const READ = Buffer.alloc(64 * 1024);

/** A masked frame of a client. */
export function frame(payload, opcode = TEXT) {
  const bytes = Buffer.from(payload);
  const head = bytes.length < 126 ? Buffer.alloc(6) : Buffer.alloc(8);
  head[0] = 0x80 | opcode;
  head[1] = 0x80 | Math.min(bytes.length, 126);
  if (bytes.length >= 126) head.writeUInt16BE(bytes.length, 2);
  return Buffer.concat([head, bytes]);
}

export class Peer {
  onText = () => {};
  onClose = (code, reason) => {
    throw new Error(`the server closed: ${code} ${reason}`);
  };
  #rest = NOTHING;
  #waiting = [];

  /** Resolves when the upgrade was answered. */
  static open(port, path, localAddress = "127.0.0.1", onClose = undefined) {
    const peer = new Peer();
    peer.onClose = onClose ?? peer.onClose;
    return new Promise((resolve, reject) => {
      const onread = { buffer: READ, callback: (length) => take(READ.subarray(0, length)) };
      const socket = connect({ port, host: "127.0.0.1", localAddress, noDelay: true, onread });
      peer.socket = socket;
      socket.once("error", reject);
      socket.once("close", () => reject(new Error("closed before the upgrade")));
      const key = randomBytes(16).toString("base64");
      socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`);
      let head = Buffer.alloc(0);
      let take = (bytes) => {
        head = Buffer.concat([head, bytes]);
        const end = head.indexOf("\r\n\r\n");
        if (end < 0) return true;
        if (!head.subarray(0, 12).equals(Buffer.from("HTTP/1.1 101"))) return reject(new Error(head.toString()));
        take = (more) => peer.#take(more);
        peer.#take(head.subarray(end + 4));
        resolve(peer);
        return true;
      };
    });
  }

  send(bytes) {
    this.socket.write(bytes);
  }

  /** The next text that satisfies the condition. */
  next(is) {
    return new Promise((resolve) => this.#waiting.push({ is, resolve }));
  }

  close() {
    this.socket.removeAllListeners("close");
    this.socket.destroy();
  }

  #take(bytes) {
    let data = this.#rest.length ? Buffer.concat([this.#rest, bytes]) : bytes;
    while (data.length >= 2) {
      let [start, length] = [2, data[1] & 127];
      if (length === 126) {
        if (data.length < 4) break;
        [start, length] = [4, data.readUInt16BE(2)];
      }
      if (data.length < start + length) break;
      this.#frame(data[0] & 15, data.subarray(start, start + length));
      data = data.subarray(start + length);
    }
    // A copy: the next read is into the same memory.
    this.#rest = data.length ? Buffer.from(data) : NOTHING;
    return true;
  }

  #frame(opcode, payload) {
    if (opcode === PING) return this.send(frame(payload, PONG));
    if (opcode === CLOSE) return this.onClose(payload.length < 2 ? 1005 : payload.readUInt16BE(0), payload.subarray(2).toString());
    if (opcode !== TEXT) return;
    // Engine.IO's own ping.
    if (payload.length === 1 && payload[0] === 0x32) return this.send(frame("3"));
    this.onText(payload);
    if (this.#waiting.length === 0) return;
    const text = payload.toString();
    const { is, resolve } = this.#waiting[0];
    if (!is(text)) return;
    this.#waiting.shift();
    resolve(text);
  }
}
