// @ts-check
/** What we send and say of it: the caller's stream, a shared screen in the place of its camera, and what is muted. */
import { Emitter } from "./emitter.js";
import { TurnkeyError } from "./errors.js";
import { openScreen, openTrack } from "./media.js";

/**
 * @typedef {import("../turnkey.js").MediaKind} MediaKind
 * @typedef {import("../turnkey.js").MediaState} MediaState
 * @typedef {{tracks: null, media: {media: MediaState, by?: string}, device: {kind: MediaKind, replaced: boolean}}} Events
 */

/** @extends {Emitter<Events>} */
export class Outgoing extends Emitter {
  /** @type {MediaStream | null} */ stream = null;
  /** @type {MediaStream | null} */ #screen = null;
  /** @type {MediaState} */ media = {};
  #onEnded = (/** @type {Event} */ { target }) => this.#replaceLost(/** @type {MediaStreamTrack} */ (target));

  /** @param {MediaStream | null} stream */
  setStream(stream) {
    this.stream = stream;
    for (const track of stream?.getTracks() ?? []) this.#adopt(track);
    this.emit("tracks", null);
  }

  /** What goes out, and the stream by which the other side tells what belongs together. @param {MediaKind} kind */
  track(kind) {
    const own = this.stream?.getTracks().find((track) => track.kind === kind) ?? null;
    return kind === "video" ? (this.#screen?.getVideoTracks()[0] ?? own) : own;
  }

  /** @returns {MediaStream | null} */
  get group() {
    return this.stream ?? this.#screen;
  }

  /** @param {MediaKind} kind @param {boolean} enabled @param {string} [by] */
  setEnabled(kind, enabled, by) {
    for (const track of this.stream?.getTracks() ?? []) if (track.kind === kind) track.enabled = enabled;
    this.#say({ [kind]: enabled }, by);
  }

  /** @param {MediaKind} kind @param {string} [deviceId] */
  async useDevice(kind, deviceId) {
    const before = this.stream?.getTracks().filter((track) => track.kind === kind) ?? [];
    const previous = before[0]?.getSettings?.().deviceId;
    before.forEach((track) => track.stop()); // many phones open only one camera at a time
    try {
      this.#replace(before, await openTrack(kind, deviceId));
    } catch (error) {
      // What was there is better than nothing.
      if (deviceId !== undefined) await openTrack(kind, previous).then((track) => this.#replace(before, track), () => {});
      throw error;
    }
  }

  /** @param {MediaStream} [screen] */
  async shareScreen(screen) {
    const stream = screen ?? (await openScreen());
    const [track] = stream.getVideoTracks();
    if (!track) throw new TurnkeyError("media_missing", "the shared screen has no picture");
    this.stopScreen();
    this.#screen = stream;
    track.addEventListener("ended", () => this.#screen === stream && this.stopScreen());
    this.emit("tracks", null);
    this.#say({ screen: true });
  }

  /** @param {string} [by] */
  stopScreen(by) {
    if (!this.#screen) return;
    for (const track of this.#screen.getTracks()) track.stop();
    this.#screen = null;
    this.emit("tracks", null);
    this.#say({ screen: false }, by);
  }

  /** @param {MediaStreamTrack[]} before @param {MediaStreamTrack} track */
  #replace(before, track) {
    this.stream ??= new MediaStream();
    before.forEach((one) => this.stream?.removeTrack(one));
    this.stream.addTrack(track);
    track.enabled = this.media[track.kind === "audio" ? "audio" : "video"] !== false;
    this.#adopt(track);
    this.emit("tracks", null);
  }

  /** @param {MediaStreamTrack} track */
  #adopt(track) {
    track.addEventListener?.("ended", this.#onEnded);
  }

  /** Only what ends by itself says so: its device is gone. @param {MediaStreamTrack} track */
  async #replaceLost(track) {
    if (!this.stream?.getTracks().includes(track)) return;
    const kind = track.kind === "audio" ? "audio" : "video";
    try {
      await this.useDevice(kind);
      this.emit("device", { kind, replaced: true });
    } catch {
      this.emit("device", { kind, replaced: false });
      this.#say({ [kind]: false });
    }
  }

  /** @param {MediaState} change @param {string} [by] */
  #say(change, by) {
    this.media = { ...this.media, ...change };
    this.emit("media", { media: this.media, ...(by !== undefined && { by }) });
  }
}
