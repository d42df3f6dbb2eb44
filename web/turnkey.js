// @ts-check
/**
 * Calls through a turnkey server. The types, and what each name does, are in turnkey.d.ts.
 *
 * Owns negotiation, reconnecting, resuming, ICE restarts and credentials. Shows nothing and records nothing.
 * Outside a browser, pass `WebSocket` and `RTCPeerConnection`.
 * @module
 */
import { Call } from "./client/call.js";

export { Call };
export { createCall } from "./client/create.js";
export { TurnkeyError } from "./client/errors.js";
export { openLine } from "./client/line.js";
export { listDevices, openMedia, openScreen, watchDevices } from "./client/media.js";

/** @type {typeof import("./turnkey.js").join} */
export function join(options) {
  return new Call(options);
}
