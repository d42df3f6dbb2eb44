// @ts-check
/**
 * The signaling session: outlives its sockets, resumes, acknowledges, and sends again what was not answered.
 * Knows frames and nothing of rooms or media.
 */
import { Emitter } from "./emitter.js";
import { describe, TurnkeyError } from "./errors.js";
import { every } from "./heartbeat.js";

const PROTOCOL = "turnkey.v1";
const BACKOFF_BASE = 300;        // ms; the first retry comes within it
const BACKOFF_MAX = 10_000;
const WELCOME_TIMEOUT = 10_000;
const PROBE_TIMEOUT = 3_000;     // an open socket that stays silent for so long after a wake-up is dead
const ACK_DELAY = 1_000;
const ACK_EVERY = 20;
const MAX_UNACKNOWLEDGED = 256;
const LONGEST_TIMER = 2 ** 31 - 1;

/** Close codes after which connecting again would only repeat the answer. @type {Record<number, string>} */
const FINAL_CLOSE = {
  4400: "protocol", 4403: "forbidden", 4404: "not_found", 4409: "room_full", 4413: "protocol", 4440: "replaced", 4441: "kicked",
};

/**
 * @typedef {{t: string, id?: string, seq?: number, ack?: number, to?: string, from?: string, ref?: string, d?: any}} Frame
 * @typedef {object} SessionOptions
 * @property {string} url
 * @property {import("../turnkey.js").Token} [token]
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {() => number} random
 * @property {import("../turnkey.js").CallOptions["storage"]} [storage]
 * @property {string} key of what is kept in the storage
 */

/**
 * Asks the server for a head over plain HTTP.
 * @param {string} url of its socket
 * @param {number} timeout in ms
 */
export function askHead(url, timeout) {
  return fetch(new URL("/health", url.replace(/^ws/, "http")), { method: "HEAD", mode: "no-cors", cache: "no-store", signal: AbortSignal.timeout(timeout) });
}

/** @extends {Emitter<{open: any, lost: string, frame: Frame, wake: "page" | "perhaps" | "network", stop: TurnkeyError}>} */
export class Session extends Emitter {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Map<string, {frame: Frame, resolve: (d: any) => void, reject: (error: TurnkeyError) => void}>} */
  #outbox = new Map();
  /** @type {string | undefined} */ #resume;
  /** @type {string | undefined} */ #token;
  #lastSeq = 0;
  #acked = 0;
  #nextId = 1;
  #failures = 0;
  #sockets = 0;
  #resumes = 0;
  #heard = false;
  #welcomed = false;      // by the socket in use
  #everWelcomed = false;
  #connecting = false;
  #stopped = false;
  #wasOffline = false;
  #stopBeat = () => {};
  /** @type {Record<string, ReturnType<typeof setTimeout>>} */ #timers = {};
  #wake = (/** @type {Event} */ { type }) => this.#onWake(type);

  /** Milliseconds that the server's clock is ahead of ours. */
  clockSkew = 0;

  /** @param {SessionOptions} options */
  constructor(options) {
    super();
    this.options = options;
    this.#takeKept();
    this.#listenToWakeUps(true);
    this.#connect();
  }

  /**
   * Sends a frame that the server answers; kept and sent again, under the same id, until it has.
   * @param {string} t @param {any} [d] @param {string} [to]
   * @returns {Promise<any>} the answer's payload
   */
  request(t, d, to) {
    if (this.#stopped) return Promise.reject(new TurnkeyError("closed", "the call has ended"));
    if (this.#outbox.size >= MAX_UNACKNOWLEDGED) {
      return Promise.reject(new TurnkeyError("backlog", `${MAX_UNACKNOWLEDGED} messages wait for the server`));
    }
    const id = String(this.#nextId++);
    /** @type {Frame} */
    const frame = { t, id, ...(to === undefined ? {} : { to }), ...(d === undefined ? {} : { d }) };
    return new Promise((resolve, reject) => {
      this.#outbox.set(id, { frame, resolve, reject });
      if (this.#welcomed) this.#transmit(frame);
    });
  }

  /** Sends a frame that may be lost. @param {Frame} frame */
  report(frame) {
    if (this.#welcomed) this.#transmit(frame);
  }

  close() {
    if (this.#welcomed) this.#transmit({ t: "bye" });
    this.#stop(new TurnkeyError("closed", "the call has been left"));
  }

  /** Leaves the session to the next page of this tab. */
  suspend() {
    const kept = { resume: this.#resume, lastSeq: this.#lastSeq, nextId: this.#nextId };
    if (this.#resume) this.options.storage?.setItem(this.options.key, JSON.stringify(kept));
    this.#stop(new TurnkeyError("closed", "the page has gone"));
  }

  /** Loses the socket, as a network does. */
  cut() {
    const socket = this.#socket;
    if (!socket) return;
    this.#detach();
    socket.close();
    this.#retry("cut on purpose");
  }

  /** Finds out soon whether the socket still carries anything; a network that changed tells nobody. */
  probe() {
    if (!this.#welcomed) return;
    this.#ping();
    clearTimeout(this.#timers.probe);
    this.#timers.probe = setTimeout(() => this.#heard || this.#abandon("the socket is dead"), PROBE_TIMEOUT);
  }

  /** For the report. */
  get figures() {
    return { sockets: this.#sockets, resumes: this.#resumes, lastSeq: this.#lastSeq, waiting: this.#outbox.size, clockSkew: Math.round(this.clockSkew) };
  }

  /** A session is kept for one page only: a tab that was duplicated must not take it from its origin. */
  #takeKept() {
    const { storage, key } = this.options;
    const kept = parse(storage?.getItem(key) ?? "");
    if (!kept?.resume) return;
    storage?.removeItem(key);
    this.#resume = kept.resume;
    this.#lastSeq = this.#acked = kept.lastSeq;
    this.#nextId = kept.nextId; // the server takes an id it knows for a message it has
  }

  async #connect() {
    if (this.#stopped || this.#socket || this.#connecting) return;
    clearTimeout(this.#timers.retry);
    this.#connecting = true;
    try {
      this.#token = await this.#askToken();
    } catch (error) {
      return this.#retry(`no token: ${describe(error)}`);
    } finally {
      this.#connecting = false;
    }
    if (this.#stopped) return;
    try {
      this.#openSocket();
    } catch (error) {
      this.#stop(new TurnkeyError("bad_url", `${this.options.url}: ${describe(error)}`, error));
    }
  }

  async #askToken() {
    const { token } = this.options;
    return typeof token === "function" ? await token() : token;
  }

  #openSocket() {
    const socket = new this.options.WebSocket(this.options.url, [PROTOCOL]);
    let opened = false;
    this.#socket = socket;
    this.#sockets++;
    this.#timers.welcome = setTimeout(() => this.#abandon("the server does not answer"), WELCOME_TIMEOUT);
    socket.onopen = () => {
      opened = true;
      const resume = this.#resume && { resume: this.#resume, last_seq: this.#lastSeq };
      socket.send(JSON.stringify({ t: "hello", d: { ...(this.#token && { token: this.#token }), ...resume } }));
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(String(data));
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#onClose(code, reason, opened);
  }

  /** Gives a silent socket up without waiting for its closing handshake. @param {string} why */
  #abandon(why) {
    const socket = this.#socket;
    if (!socket) return;
    this.#detach();
    socket.close();
    this.#retry(why);
  }

  #detach() {
    this.#socket = null;
    this.#welcomed = false;
    this.#stopBeat();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
  }

  /** @param {number} code @param {string} reason @param {boolean} opened */
  async #onClose(code, reason, opened) {
    this.#detach();
    this.#connecting = true;
    const final = await this.#finalError(code, reason, opened);
    this.#connecting = false;
    if (final) return this.#stop(final);
    if (code === 4450 || code === 4429) this.#failures = Math.max(this.#failures, 3);
    this.#retry(reason || `socket closed with ${code}`);
  }

  /**
   * @param {number} code @param {string} reason @param {boolean} opened
   * @returns {Promise<TurnkeyError | null>}
   */
  async #finalError(code, reason, opened) {
    const text = reason || `the server closed the connection with ${code}`;
    if (FINAL_CLOSE[code]) return new TurnkeyError(FINAL_CLOSE[code], text);
    if (code === 4401) {
      const token = await this.#askToken().catch(() => undefined);
      return token && token !== this.#token ? null : new TurnkeyError("unauthenticated", text);
    }
    return opened || this.#everWelcomed ? null : this.#askWhyRefused();
  }

  /** A refused upgrade tells a script nothing; the same request as plain HTTP has a body that says why. */
  async #askWhyRefused() {
    try {
      const answer = await fetch(this.options.url.replace(/^ws/, "http"), { cache: "no-store" });
      /** @type {Record<number, string>} */
      const codes = { 401: "unauthenticated", 403: "forbidden", 404: "not_found" };
      if (!codes[answer.status]) return null;
      const body = await answer.json().catch(() => null);
      return new TurnkeyError(codes[answer.status], body?.error?.message ?? `the server answered ${answer.status}`);
    } catch {
      return null; // not reachable at all: that is what trying again is for
    }
  }

  /** @param {string} why */
  #retry(why) {
    if (this.#stopped) return;
    const ceiling = Math.min(BACKOFF_MAX, BACKOFF_BASE * 2 ** this.#failures++);
    this.#timers.retry = setTimeout(() => this.#connect(), this.options.random() * ceiling);
    this.emit("lost", why);
  }

  /**
   * Browsers say offline of a network that still carries everything, and online of one that leads nowhere, so the server is asked.
   * @param {string} event
   */
  async #onWake(event) {
    if (event === "offline") {
      this.#wasOffline = true;
      if (await this.#isReachable()) this.#wasOffline = false;
      else this.probe();
      return;
    }
    if (globalThis.document?.visibilityState === "hidden") return;
    const isBack = this.#wasOffline && (await this.#isReachable()) && this.#wasOffline; // another event may have come first
    if (this.#stopped) return;
    this.#wasOffline &&= !isBack;
    this.emit("wake", isBack ? "network" : event === "change" ? "perhaps" : "page");
    if (this.#socket) this.probe();
    else this.#connect();
  }

  /** Whether a HEAD request gets through. */
  async #isReachable() {
    try {
      await askHead(this.options.url, PROBE_TIMEOUT);
      return true; // whatever it answers
    } catch {
      return false;
    }
  }

  /** @param {boolean} on */
  #listenToWakeUps(on) {
    const change = on ? "addEventListener" : "removeEventListener";
    for (const event of ["online", "offline", "pageshow"]) globalThis[change]?.(event, this.#wake);
    globalThis.document?.[change]("visibilitychange", this.#wake);
    /** @type {any} */ (globalThis.navigator)?.connection?.[change]?.("change", this.#wake);
  }

  /** @param {string} text */
  #receive(text) {
    const frame = parse(text);
    if (!frame) return;
    this.#heard = true;
    if (!this.#welcomed && frame.seq !== undefined) return; // the replay after the welcome has it, in order
    if (frame.seq !== undefined) {
      if (frame.seq <= this.#lastSeq) return; // replayed although it had arrived
      this.#lastSeq = frame.seq;
      this.#acknowledgeSoon();
    }
    if (frame.t === "welcome") this.#onWelcome(frame.d);
    else if (frame.t === "ping") this.#transmit({ t: "pong" });
    else if (frame.t === "error") this.#onError(frame);
    else {
      if (frame.ref !== undefined) this.#settle(frame.ref)?.resolve(frame.d);
      this.emit("frame", frame);
    }
  }

  /** @param {any} d */
  #onWelcome(d) {
    clearTimeout(this.#timers.welcome);
    this.#resume = d.resume;
    this.#failures = 0;
    this.#welcomed = this.#everWelcomed = true;
    if (d.server_time) this.clockSkew = d.server_time * 1000 - Date.now();
    if (d.resumed) {
      this.#resumes++;
      for (const { frame } of this.#outbox.values()) this.#transmit(frame);
    } else {
      this.#lastSeq = this.#acked = 0;
      this.#rejectAll(new TurnkeyError("session_lost", "the session could not be resumed"));
    }
    this.#beat((d.ping ?? 15) * 1000);
    this.#renewTokenInTime();
    this.emit("open", d);
    if (this.#wasOffline) this.emit("wake", "network"); // the server was not there yet when the browser said so
    this.#wasOffline = false;
  }

  /** @param {Frame} frame */
  #onError({ ref, d }) {
    const waiting = ref === undefined ? undefined : this.#outbox.get(ref);
    if (waiting && d?.code === "rate_limited") {
      setTimeout(() => this.#outbox.has(String(ref)) && this.report(waiting.frame), (d.retry_after ?? 1) * 1000);
      return;
    }
    const error = new TurnkeyError(d?.code ?? "protocol", d?.message ?? "the server reported an error");
    if (waiting) this.#settle(String(ref))?.reject(error);
    else this.emit("frame", { t: "error", d: error });
  }

  /** @param {string} id */
  #settle(id) {
    const waiting = this.#outbox.get(id);
    this.#outbox.delete(id);
    return waiting;
  }

  /** @param {TurnkeyError} error */
  #rejectAll(error) {
    const waiting = [...this.#outbox.values()];
    this.#outbox.clear();
    for (const { reject } of waiting) reject(error);
  }

  /** One ping per interval; silence from one tick to the next means a dead socket, however slowly it ticks. @param {number} interval */
  #beat(interval) {
    this.#stopBeat();
    this.#ping();
    this.#stopBeat = every(interval, () => (this.#heard ? this.#ping() : this.#abandon("the socket is dead")));
  }

  #ping() {
    this.#heard = false;
    this.#transmit({ t: "ping" });
  }

  /** A token that a function gave is renewed while the session runs, after three quarters of what is left of it. */
  #renewTokenInTime() {
    clearTimeout(this.#timers.token);
    const expiry = typeof this.options.token === "function" && expiryOf(this.#token);
    if (!expiry || this.#stopped) return;
    const left = expiry * 1000 - (Date.now() + this.clockSkew);
    this.#timers.token = setTimeout(() => this.#renewToken(), Math.min(LONGEST_TIMER, Math.max(1000, left * 0.75)));
  }

  async #renewToken() {
    try {
      const token = await this.#askToken();
      if (token && token !== this.#token) await this.request("token", { token });
      this.#token = token;
    } catch {
      // When the old one ends, so does the socket, and then another token is asked for.
    }
    this.#renewTokenInTime();
  }

  #acknowledgeSoon() {
    if (this.#lastSeq - this.#acked >= ACK_EVERY) return this.report({ t: "ack" });
    clearTimeout(this.#timers.ack);
    this.#timers.ack = setTimeout(() => this.#acked < this.#lastSeq && this.report({ t: "ack" }), ACK_DELAY);
  }

  /** @param {Frame} frame */
  #transmit(frame) {
    const ack = this.#lastSeq > this.#acked ? { ack: this.#lastSeq } : {};
    this.#acked = this.#lastSeq;
    this.#socket?.send(JSON.stringify({ ...frame, ...ack }));
  }

  /** @param {TurnkeyError} error */
  #stop(error) {
    if (this.#stopped) return;
    this.#stopped = true;
    const socket = this.#socket;
    this.#detach();
    socket?.close(1000);
    this.#listenToWakeUps(false);
    this.#rejectAll(error);
    this.emit("stop", error);
  }
}

/** @param {string} text @returns {any} */
export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** When a JWT ends, in Unix seconds. @param {string | undefined} token @returns {number | undefined} */
function expiryOf(token) {
  const claims = token?.split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/");
  try {
    return claims && parse(atob(claims))?.exp;
  } catch {
    return undefined; // no JWT; the server knows what it is
  }
}
