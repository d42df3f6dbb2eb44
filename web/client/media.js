// @ts-check
/** Cameras, microphones and screens: opened with the defaults of a call, and watched. */
import { describe, TurnkeyError } from "./errors.js";

/**
 * @typedef {import("../turnkey.js").MediaKind} MediaKind
 * @typedef {import("../turnkey.js").Device} Device
 */

const DEFAULTS = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  video: {
    width: { min: 320, ideal: 640, max: 1280 }, height: { min: 240, ideal: 480, max: 720 }, frameRate: { ideal: 30, max: 60 },
  },
};

/** @type {Record<string, string>} */
const CODES = { NotAllowedError: "media_denied", SecurityError: "media_denied", NotReadableError: "media_busy", AbortError: "media_busy" };

/** @type {typeof import("../turnkey.js").openMedia} */
export async function openMedia(constraints = DEFAULTS) {
  const devices = mediaDevices();
  try {
    return await devices.getUserMedia(constraints);
  } catch (cause) {
    // A camera that has no picture of these sizes is better than none.
    if (cause instanceof Error && cause.name === "OverconstrainedError" && constraints === DEFAULTS) {
      return openMedia({ audio: DEFAULTS.audio, video: true });
    }
    throw explain("camera and microphone cannot be opened", cause);
  }
}

/** @type {typeof import("../turnkey.js").openScreen} */
export async function openScreen() {
  const devices = mediaDevices();
  if (!devices.getDisplayMedia) throw new TurnkeyError("media_missing", "this browser cannot share a screen");
  try {
    return await devices.getDisplayMedia({ video: { frameRate: { ideal: 15, max: 30 } }, audio: false });
  } catch (cause) {
    throw explain("no screen is shared", cause);
  }
}

/** One camera or microphone, by default the one the browser prefers. @param {MediaKind} kind @param {string} [deviceId] @returns {Promise<MediaStreamTrack>} */
export async function openTrack(kind, deviceId) {
  const wanted = deviceId === undefined ? {} : { deviceId: { exact: deviceId } };
  const stream = await openMedia({ [kind]: { ...DEFAULTS[kind], ...wanted } });
  return stream.getTracks()[0];
}

/** @type {typeof import("../turnkey.js").listDevices} */
export async function listDevices() {
  /** @type {Record<string, MediaKind>} */
  const kinds = { audioinput: "audio", videoinput: "video" };
  const found = await mediaDevices().enumerateDevices();
  return found.filter(({ kind }) => kinds[kind]).map(({ kind, deviceId, label }) => ({ id: deviceId, kind: kinds[kind], label }));
}

/** @type {typeof import("../turnkey.js").watchDevices} */
export function watchDevices(listener) {
  const devices = mediaDevices();
  const tell = () => listDevices().then(listener, () => {});
  devices.addEventListener("devicechange", tell);
  return () => devices.removeEventListener("devicechange", tell);
}

function mediaDevices() {
  const devices = globalThis.navigator?.mediaDevices;
  if (devices) return devices;
  throw new TurnkeyError("insecure_origin", "this page may not use the camera because it was not loaded over https");
}

/** @param {string} what @param {unknown} cause */
function explain(what, cause) {
  const name = cause instanceof Error ? cause.name : "";
  return new TurnkeyError(CODES[name] ?? "media_missing", `${what}: ${describe(cause)}`, cause);
}
