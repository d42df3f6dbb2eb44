// @ts-check
/**
 * Chat with one member. A message goes over the data channel and, where nobody confirms it there, through the server:
 * a channel may be open long after the path below it has died. The receiver shows each message once.
 */
import { TurnkeyError } from "./errors.js";
import { parse } from "./session.js";

const CONFIRM_TIMEOUT = 1_500;
const MAX_WAITING = 256;
const MAX_REMEMBERED = 256;

/**
 * @typedef {{message: string, timestamp: string, id: string}} Text
 * @typedef {object} ChatOptions
 * @property {(text: Text) => Promise<unknown>} relay through the server
 * @property {(message: string, timestamp: string) => void} onMessage
 * @property {(data: unknown) => void} onData anything else that comes over the channel
 */

export class Chat {
  /** @type {RTCDataChannel | undefined} */ #channel;
  /** @type {RTCDataChannel | undefined} */ #foreign;
  /** @type {Map<string, () => void>} */ #waiting = new Map();
  /** @type {Set<string>} */ #seen = new Set();

  /** @param {ChatOptions} options */
  constructor(options) {
    this.options = options;
  }

  /** The channel that this client opens on both sides. @param {RTCDataChannel} channel */
  open(channel) {
    this.#channel = channel;
    channel.onmessage = ({ data }) => this.#onChannel(String(data));
  }

  /** A channel that another kind of client has opened; it confirms nothing. @param {RTCDataChannel} channel */
  accept(channel) {
    this.#foreign = channel;
    channel.onmessage = ({ data }) => this.#onChannel(String(data));
  }

  /** @param {Text} text @returns {Promise<void>} when the other side has it, or the server has */
  async send(text) {
    if (this.#foreign?.readyState === "open") return this.#foreign.send(wire(text));
    if (this.#channel?.readyState !== "open" || !(await this.#sendOverChannel(this.#channel, text))) await this.options.relay(text);
  }

  /** What came through the server. @param {any} d */
  receive(d) {
    const id = typeof d?.id === "string" ? d.id : undefined;
    if (id !== undefined && this.#seen.has(id)) return;
    if (id !== undefined) this.#remember(id);
    this.options.onMessage(String(d?.message), String(d?.timestamp));
  }

  /** @param {RTCDataChannel} channel @param {Text} text @returns {Promise<boolean>} whether it was confirmed */
  #sendOverChannel(channel, text) {
    if (this.#waiting.size >= MAX_WAITING) return Promise.reject(new TurnkeyError("backlog", `${MAX_WAITING} messages wait to be confirmed`));
    channel.send(wire(text));
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#waiting.delete(text.id) && resolve(false), CONFIRM_TIMEOUT);
      this.#waiting.set(text.id, () => {
        clearTimeout(timer);
        resolve(true);
      });
    });
  }

  /** @param {string} text */
  #onChannel(text) {
    const data = parse(text);
    if (data?.type === "text") {
      if (data.id !== undefined && this.#channel?.readyState === "open") this.#channel.send(JSON.stringify({ type: "received", id: data.id }));
      this.receive(data);
    } else if (data?.type === "received") {
      this.#waiting.get(data.id)?.();
      this.#waiting.delete(data.id);
    } else this.options.onData(data ?? text);
  }

  /** @param {string} id */
  #remember(id) {
    this.#seen.add(id);
    if (this.#seen.size > MAX_REMEMBERED) for (const oldest of this.#seen) return this.#seen.delete(oldest);
  }
}

/** @param {Text} text */
function wire(text) {
  return JSON.stringify({ type: "text", ...text });
}
