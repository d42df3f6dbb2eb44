// @ts-check
/**
 * Watches the path to one member, and finds another one when it dies: at once when ICE has failed or the network has
 * changed, after a look at what still arrives when it only stutters, always with fresh credentials, later and later.
 */
import { TurnkeyError } from "./errors.js";
import { Meter, qualityOf, selectedPair } from "./stats.js";

const GRACE = 2_500;             // how long a path that stutters may heal by itself
const BACKOFF_MAX = 10_000;
const RESTARTS_BEFORE_ANEW = 4;
const REFUSAL_PAUSE = 5_000;     // each transport of the relay refuses on its own
const REFUSED = [401, 441];      // of a TURN server: the credential is not, or no longer, good

/** @typedef {import("../turnkey.js").PeerStats} PeerStats */

export class Recovery {
  #restarting = false;
  #restarts = 0;
  #closed = false;
  #refusedAt = -Infinity;
  #meter = new Meter();
  /** @type {import("../turnkey.js").Quality | undefined} */ #quality;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #grace;
  /** @type {string | undefined} */ #pathKey;

  /** @param {import("./peer.js").Peer} peer */
  constructor(peer) {
    this.peer = peer;
    const { pc } = peer;
    pc.oniceconnectionstatechange = () => this.#onIceState();
    pc.onconnectionstatechange = () => this.#onConnectionState();
    pc.onicecandidateerror = ({ errorCode, errorText }) => REFUSED.includes(errorCode) && this.#onRefused(errorText);
  }

  /** How often a path was looked for since there was one. */
  get restarts() {
    return this.#restarts;
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#grace);
  }

  /** Restarts ICE; later tries wait, so that two sides in a tunnel do not storm. @param {string} why */
  async restart(why) {
    const { call, pc } = this.peer;
    if (this.#restarting || this.#closed) return;
    this.#restarting = true;
    try {
      this.peer.log(`Restarting ICE: ${why}`);
      call.session.probe();
      if (this.#restarts++ > 0) await sleep(call.random() * Math.min(BACKOFF_MAX, 1000 * 2 ** this.#restarts));
      await call.refreshIce().catch((error) => this.peer.complain("asking for fresh credentials", error));
      if (!this.#closed) pc.restartIce();
    } finally {
      this.#restarting = false;
    }
  }

  /**
   * The page woke up, the network perhaps changed, or it did: nobody else tells a path that it leads through an address
   * which is no longer ours.
   * @param {"page" | "perhaps" | "network"} what
   */
  wake(what) {
    if (what === "network") this.restart("the network has changed");
    else if (this.#isBroken) this.restart("the network is back");
    else if (what === "perhaps") this.#restartUnlessAlive("the network has changed and nothing arrives");
  }

  /** @param {boolean} [isRegular] @returns {Promise<PeerStats | null>} */
  async stats(isRegular = false) {
    const { pc, call, member } = this.peer;
    const found = this.#meter.read(await pc.getStats(), isRegular);
    if (!found || this.#closed) return null;
    const { pair, ...stats } = found;
    const key = `${pair} ${stats.path.label}`;
    if (key !== this.#pathKey && pc.connectionState === "connected") {
      this.#pathKey = key;
      const { path } = stats;
      this.peer.log(`Path: ${path.label} (${path.local} to ${path.remote})`);
      this.#tell({ state: pc.connectionState, path });
      call.emit("path", { member, path });
    }
    return stats;
  }

  /** One look at the statistics, told to whoever listens. */
  async poll() {
    const stats = await this.stats(true).catch(() => null);
    if (!stats) return;
    const { call, member, pc } = this.peer;
    call.emit("stats", { member, stats });
    if (pc.connectionState === "connected") this.#setQuality(qualityOf(stats));
  }

  get #isBroken() {
    return ["failed", "disconnected"].includes(this.peer.pc.iceConnectionState);
  }

  #onIceState() {
    clearTimeout(this.#grace);
    const state = this.peer.pc.iceConnectionState;
    if (state === "connected" || state === "completed") {
      this.#restarts = 0;
      this.stats().catch(() => {});
    } else if (state === "failed") this.#onFailed();
    else if (state === "disconnected") {
      this.peer.call.session.probe(); // the same gap may have taken the socket
      this.#restartUnlessAlive("nothing arrives any more");
    }
  }

  #onFailed() {
    const { call } = this.peer;
    this.peer.problem(new TurnkeyError("path_failed", "the path failed"));
    if (this.#restarts >= RESTARTS_BEFORE_ANEW && call.isAlone(this.peer)) {
      return call.reenter(`${this.#restarts} restarts found no path`);
    }
    this.restart("the path failed");
  }

  /** @param {string} why */
  async #restartUnlessAlive(why) {
    const before = await this.#signsOfLife();
    if (this.#closed) return;
    clearTimeout(this.#grace);
    this.#grace = setTimeout(async () => {
      if (await this.#signsOfLife() <= before && !this.#closed) this.restart(why);
    }, GRACE);
  }

  async #signsOfLife() {
    const pair = selectedPair(await this.peer.pc.getStats())?.pair;
    return (pair?.bytesReceived ?? 0) + (pair?.responsesReceived ?? 0) + (pair?.requestsReceived ?? 0);
  }

  #onConnectionState() {
    const { pc, call, member } = this.peer;
    const state = pc.connectionState;
    // Whoever shows the state shows the path again once there is one.
    if (state !== "connected") this.#pathKey = "";
    if (state === "failed" || state === "disconnected") this.#setQuality({ quality: "lost", reason: "there is no path" });
    this.#tell({ state });
    this.peer.log(`Connection ${state}`);
    call.emit("connection", { member, state });
  }

  /** If the fresh credential is refused at once too, asking again changes nothing. @param {string} text */
  #onRefused(text) {
    const now = performance.now();
    if (now - this.#refusedAt < REFUSAL_PAUSE || this.#closed) return;
    this.#refusedAt = now;
    this.peer.problem(new TurnkeyError("credential_refused", `the relay refuses the credential${text ? ` (${text})` : ""}`));
    this.restart("with a fresh credential");
  }

  /** @param {{quality: import("../turnkey.js").Quality, reason: string}} now */
  #setQuality({ quality, reason }) {
    if (quality === this.#quality) return;
    this.#quality = quality;
    this.peer.call.emit("quality", { member: this.peer.member, quality, reason });
  }

  /** For the server's timeline. @param {{state: string, path?: import("../turnkey.js").Path}} d */
  #tell(d) {
    this.peer.call.session.report({ t: "state", to: this.peer.member.id, d });
  }
}

/** @param {number} ms @returns {Promise<void>} */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
