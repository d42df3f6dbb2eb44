// @ts-check
/**
 * A one-to-one call as one object with a state, for components: media, call and cleanup in one place. Its names are
 * those that a much copied React hook gave them.
 */
import { Call } from "./call.js";
import { openMedia } from "./media.js";

/**
 * @typedef {import("../turnkey.js").SimpleCall} Contract
 * @typedef {import("../turnkey.js").CallSnapshot} CallSnapshot
 * @typedef {import("../turnkey.js").CreateCallOptions} CreateCallOptions
 */

/** @type {CallSnapshot} */
const IDLE = Object.freeze({ localStream: null, remoteStream: null, connectionState: "new", isInitialized: false });

/** @type {typeof import("../turnkey.js").createCall} */
export function createCall(options) {
  return new SimpleCall(options);
}

/** @implements {Contract} */
class SimpleCall {
  /** @type {Set<() => void>} */ #listeners = new Set();
  /** @type {Promise<void> | null} */ #starting = null;
  /** @type {Call | null} */ call = null;
  #now = IDLE;
  #wanted = { audio: true, video: true };

  /** @param {CreateCallOptions} options */
  constructor(options) {
    this.options = options;
    // Components take these apart from their object.
    for (const name of /** @type {const} */ (["initialize", "endCall", "sendChatMessage", "setAudioEnabled", "setVideoEnabled", "subscribe", "snapshot"])) {
      Object.defineProperty(this, name, { value: this[name].bind(this) });
    }
  }

  get localStream() {
    return this.#now.localStream;
  }

  get remoteStream() {
    return this.#now.remoteStream;
  }

  get connectionState() {
    return this.#now.connectionState;
  }

  get isInitialized() {
    return this.#now.isInitialized;
  }

  /** @returns {Promise<void>} */
  initialize() {
    if (this.#starting) return this.#starting;
    /** @type {Promise<void>} */
    const starting = Promise.resolve().then(() => this.#start(() => this.#starting === starting));
    this.#starting = starting;
    starting.catch((error) => {
      if (this.#starting !== starting) return;
      this.endCall();
      this.options.onError?.(error);
    });
    return starting;
  }

  endCall() {
    this.#starting = null;
    const { call } = this;
    this.call = null;
    call?.leave();
    call?.stream?.getTracks().forEach((track) => track.stop());
    this.#now.localStream?.getTracks().forEach((track) => track.stop());
    if (this.#now !== IDLE) this.#set({ ...IDLE, connectionState: "closed" });
  }

  /** @param {string} message */
  async sendChatMessage(message) {
    await this.call?.sendMessage(message);
  }

  /** @param {boolean} enabled */
  setAudioEnabled(enabled) {
    this.#setEnabled("audio", enabled);
  }

  /** @param {boolean} enabled */
  setVideoEnabled(enabled) {
    this.#setEnabled("video", enabled);
  }

  /** @param {() => void} listener */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  snapshot() {
    return this.#now;
  }

  /** @param {() => boolean} isWanted whether nobody has ended it meanwhile */
  async #start(isWanted) {
    const { constraints } = this.options;
    if (!isWanted()) return;
    this.#set(IDLE);
    const stream = constraints === false ? null : await openMedia(constraints);
    if (!isWanted()) return stream?.getTracks().forEach((track) => track.stop());
    this.#set({ localStream: stream });
    const call = (this.call = this.#join(stream));
    for (const kind of /** @type {const} */ (["audio", "video"])) if (!this.#wanted[kind]) call.setEnabled(kind, false);
    await call.ready;
    if (isWanted()) this.#set({ isInitialized: true });
  }

  /** @param {MediaStream | null} stream */
  #join(stream) {
    const { callId, token, wsUrl, name, iceTransportPolicy, WebSocket, RTCPeerConnection } = this.options;
    const url = wsUrl?.replace(/\/(v1\/)?(ws\/?)?$/, "/v1/ws");
    const call = new Call({ room: callId, token, url, name, stream, iceTransportPolicy, WebSocket, RTCPeerConnection });
    const { options } = this;
    call.on("stream", ({ stream }) => {
      this.#set({ remoteStream: stream });
      options.onRemoteStream?.(stream);
    });
    call.on("connection", ({ state }) => this.#set({ connectionState: /** @type {RTCPeerConnectionState} */ (state) }));
    call.on("member-left", () => call.members.length > 0 || this.#set({ remoteStream: null, connectionState: "new" }));
    call.on("message", ({ message, timestamp }) => options.onChatMessage?.(message, timestamp));
    call.on("problem", ({ error }) => options.onError?.(error));
    call.on("error", ({ error }) => this.#onEnd(call, error));
    return call;
  }

  /** The error of a call that was never joined is that of `initialize`. @param {Call} call @param {import("../turnkey.js").TurnkeyError} error */
  #onEnd(call, error) {
    if (this.call !== call || !this.#now.isInitialized) return;
    this.endCall();
    this.options.onError?.(error);
  }

  /** @param {"audio" | "video"} kind @param {boolean} enabled */
  #setEnabled(kind, enabled) {
    this.#wanted[kind] = enabled;
    this.call?.setEnabled(kind, enabled);
  }

  /** @param {Partial<CallSnapshot>} change */
  #set(change) {
    const keys = /** @type {(keyof CallSnapshot)[]} */ (Object.keys(change));
    if (keys.every((key) => this.#now[key] === change[key])) return;
    this.#now = Object.freeze({ ...this.#now, ...change });
    for (const listener of [...this.#listeners]) listener();
  }
}
