/**
 * Peers of each class that number what they say: `enter` a room, `say` a description and candidates, `cut` their
 * socket, and know whether the other side `heard` it all.
 */
import assert from "node:assert/strict";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { loopbackConfig } from "./server.js";
import { JWT_KEY } from "./token.js";

const numberOf = (payload) => Number(/#(\d+)/.exec(JSON.stringify(payload))[1]);
const description = (type, n) => ({ type, sdp: `v=0\r\ns=#${n}\r\n` });
const candidate = (n) => ({ candidate: `candidate:#${n} 1 udp 1 192.0.2.1 9 typ host`, sdpMid: "0" });

/** A server that is not there is not asked again at once. */
const PATIENCE = 50; // ms

class Peer {
  /** How many messages this peer has said; they are numbered from 1. */
  sent = 0;
  /** The numbers of the other side's messages, as they came. */
  received = [];
  /** How often sockets are cut while one side speaks, and whether the speaker's own may be. */
  mostCuts = 2;
  mayBeCutWhileItSpeaks = true;
  /** How often the server's numbers may leap: one that was killed goes on after all that it may have given out. */
  leaps = 0;
  #waiting = [];

  constructor(options) {
    Object.assign(this, options);
  }

  take(payload) {
    this.received.push(numberOf(payload));
    this.wake();
  }

  wake() {
    this.#waiting.splice(0).forEach((resolve) => resolve());
  }

  async until(is) {
    while (!is()) await new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Whether everything that `from` has said so far is here. */
  heard(from) {
    return this.until(() => this.received.at(-1) >= from.sent);
  }

  /** Exactly once, in order. */
  promises(to) {
    assert.deepEqual(to.received, Array.from({ length: this.sent }, (_, n) => n + 1));
  }
}

/** `turnkey.v1` as turnkey.js speaks it: acknowledges, comes back, says again what was not acknowledged. */
export class NativePeer extends Peer {
  #socket;
  #resume;
  #seen = 0;
  #ids = 0;
  #unanswered = [];
  #isOver = false;

  async enter() {
    this.#dial();
    this.#request("join", { room: this.room });
    await this.until(() => this.#unanswered.length === 0);
  }

  async say(kind, candidates) {
    this.#request(kind, description(kind, ++this.sent));
    for (let n = 0; n < candidates; n++) this.#request("candidate", candidate(++this.sent));
  }

  cut(withCloseFrame) {
    const socket = this.#socket;
    withCloseFrame ? socket.close() : socket.terminate();
    this.#dial();
  }

  close() {
    this.#isOver = true;
    this.#socket?.terminate();
  }

  #request(t, d) {
    const message = { t, id: String(++this.#ids), d };
    this.#unanswered.push(message);
    if (this.isUp) this.#write(message);
  }

  #write(message) {
    this.#socket.send(JSON.stringify({ ...message, ack: this.#seen }));
  }

  #dial() {
    this.isUp = false;
    const socket = new WebSocket(`${this.url}v1/ws`, ["turnkey.v1"]);
    this.#socket = socket;
    socket.on("error", () => {});
    socket.on("open", () => socket.send(JSON.stringify({ t: "hello", d: { token: this.token, resume: this.#resume, last_seq: this.#seen } })));
    socket.on("message", (text) => this.#socket === socket && this.#frame(JSON.parse(text)));
    socket.on("close", () => setTimeout(() => this.#socket === socket && !this.#isOver && this.#dial(), this.isUp ? 0 : PATIENCE));
  }

  #frame({ t, seq, ref, d }) {
    if (seq !== undefined) {
      if (seq <= this.#seen) return;
      if (seq !== this.#seen + 1) assert.ok(this.leaps-- > 0, `no number is left out: ${seq} after ${this.#seen}`);
      this.#seen = seq;
    }
    if (t === "welcome") {
      assert.equal(d.resumed ?? false, this.#resume !== undefined, "inside the window a session always comes back");
      this.#resume = d.resume;
      this.isUp = true;
      this.#unanswered.forEach((message) => this.#write(message));
    }
    assert.notEqual(t, "error", JSON.stringify(d));
    if (["offer", "answer", "candidate"].includes(t)) this.take(d);
    if (ref !== undefined) {
      this.#unanswered = this.#unanswered.filter(({ id }) => id !== ref);
      this.wake();
    }
  }
}

/** The stock client in seed 002's words. */
export class SocketIoPeer extends Peer {
  #acknowledged = [];
  #connections = 0;

  async enter() {
    // A connection that ends while it is being opened is noticed by its timeout only.
    const timeout = 1000;
    const queue = this.retries ? { retries: 1_000_000, ackTimeout: 600_000 } : {};
    this.socket = io(this.url, { forceNew: true, transports: ["websocket"], reconnectionDelay: 10, reconnectionDelayMax: 100, timeout, auth: { token: this.token }, ...queue });
    for (const kind of ["offer", "answer", "ice_candidate"]) this.socket.on(`webrtc:${kind}`, (payload) => this.take(payload));
    this.socket.on("connect", () => {
      if (this.#connections++ > 0) assert.ok(this.socket.recovered, "inside the window a session always comes back");
      this.wake();
    });
    this.socket.on("disconnect", () => this.wake());
    const joined = new Promise((resolve) => this.socket.once("webrtc:joined_room", resolve));
    this.socket.emit("webrtc:join_room", { roomId: this.room });
    await joined;
  }

  async say(kind, candidates) {
    const emit = this.retries ? (name, payload) => this.#emit(name, payload) : (name, payload) => this.#emitUntilAcknowledged(name, payload);
    await emit(`webrtc:${kind}`, (n) => ({ [kind]: description(kind, n) }));
    for (let n = 0; n < candidates; n++) await emit("webrtc:ice_candidate", (n) => ({ candidate: candidate(n) }));
  }

  cut(withCloseFrame) {
    const { ws } = this.socket.io.engine.transport;
    if (withCloseFrame) ws?.close();
    setTimeout(() => ws?.terminate(), withCloseFrame ? 50 : 0);
  }

  close() {
    this.socket?.close();
  }

  promises(to) {
    if (this.retries) return super.promises(to);
    const { received } = to;
    assert.deepEqual(received, [...new Set(received)].sort((a, b) => a - b), "once, in order");
    const missing = this.#acknowledged.filter((n) => !received.includes(n));
    assert.deepEqual(missing, [], "what was acknowledged is there");
  }

  #emit(name, payload) {
    this.socket.emit(name, { roomId: this.room, ...payload(++this.sent) });
  }

  /** What was not acknowledged on a socket that is gone may or may not have arrived: it is said again, as another message. */
  async #emitUntilAcknowledged(name, payload) {
    for (let answer; !answer;) {
      const n = ++this.sent;
      // Without a connection the client keeps it for the next one.
      const connection = this.#connections + (this.socket.connected ? 0 : 1);
      this.socket.emit(name, { roomId: this.room, ...payload(n) }, (given) => ((answer = given), this.wake()));
      await this.until(() => answer || this.#isOver(connection));
      if (answer) assert.equal(answer.ok, true, JSON.stringify(answer));
      if (answer) this.#acknowledged.push(n);
    }
  }

  #isOver(connection) {
    return this.#connections > connection || (this.#connections === connection && !this.socket.connected);
  }
}

/** Seed 000's raw socket: says everything once, and joins again when its socket is gone. */
export class RawPeer extends Peer {
  /** The numbers of its descriptions. */
  descriptions = [];
  #socket;
  #isOver = false;
  mostCuts = 1;
  mayBeCutWhileItSpeaks = false;

  async enter() {
    this.#dial();
    await this.#open();
  }

  async say(kind, candidates) {
    await this.#open();
    this.#send({ type: kind, [kind]: description(kind, ++this.sent) });
    this.descriptions.push(this.sent);
    for (let n = 0; n < candidates; n++) this.#send({ type: "ice-candidate", candidate: candidate(++this.sent) });
  }

  cut(withCloseFrame) {
    const socket = this.#socket;
    withCloseFrame ? socket.close() : socket.terminate();
    this.#dial();
  }

  close() {
    this.#isOver = true;
    this.#socket?.terminate();
  }

  heard(from) {
    return this.until(() => this.received.includes(from.sent));
  }

  /** At least once; what comes for the first time comes in order. */
  promises(to) {
    const firsts = [...new Set(to.received)];
    assert.deepEqual(firsts, Array.from({ length: this.sent }, (_, n) => n + 1));
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  /** Until the server reads this peer's socket. */
  async isThere() {
    await this.#open();
    await new Promise((resolve) => (this.#socket.once("pong", resolve), this.#socket.ping()));
  }

  async #open() {
    await this.until(() => this.#socket.readyState === WebSocket.OPEN);
  }

  #dial() {
    const socket = new WebSocket(`${this.url}ws/signaling/${this.room}?token=${this.token}`);
    this.#socket = socket;
    socket.on("error", () => {});
    let wasOpen = false;
    socket.on("open", () => (wasOpen = true, this.wake()));
    socket.on("message", (text) => {
      const { type, ...payload } = JSON.parse(text);
      if (this.#socket === socket && ["offer", "answer", "ice-candidate"].includes(type)) this.take(payload);
    });
    socket.on("close", () => setTimeout(() => this.#socket === socket && !this.#isOver && this.#dial(), wasOpen ? 0 : PATIENCE));
  }
}

/** The classes, and what part of all pairs is of each. */
export const CLASSES = [
  { name: "native", share: 0.4, make: (options) => new NativePeer(options) },
  { name: "Socket.IO with retries", share: 0.2, make: (options) => new SocketIoPeer({ ...options, retries: true }) },
  { name: "Socket.IO without retries", share: 0.2, make: (options) => new SocketIoPeer(options) },
  { name: "raw", share: 0.2, make: (options) => new RawPeer(options), isRaw: true },
];

const bounds = "sockets_per_address = 100000\nconnects_per_minute = 1000000\nframes_per_second = 10000\n";
/** For a server that takes in a thousand pairs from one address. */
export const CONFIG = loopbackConfig({ extra: `[signaling]\njwt_secret = "${JWT_KEY}"\naccess = "token"\n${bounds}` });
