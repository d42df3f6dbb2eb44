// @ts-check
/** A call in a room: who is there, what of the server concerns whom, and what the page is told. */
import { collect, Journal } from "./diagnostics.js";
import { Emitter } from "./emitter.js";
import { describe, TurnkeyError } from "./errors.js";
import { Outgoing } from "./outgoing.js";
import { Peer } from "./peer.js";
import { sabotage } from "./sabotage.js";
import { Session } from "./session.js";

const STATS_INTERVAL = 2_000;

/**
 * @typedef {import("../turnkey.js").Call} Contract
 * @typedef {import("../turnkey.js").CallEvents} CallEvents
 * @typedef {import("../turnkey.js").CallOptions} CallOptions
 * @typedef {import("../turnkey.js").CallState} CallState
 * @typedef {import("../turnkey.js").MediaKind} MediaKind
 * @typedef {import("../turnkey.js").Member} Member
 * @typedef {import("./session.js").Frame} Frame
 */

/**
 * @extends {Emitter<CallEvents>}
 * @implements {Contract}
 */
export class Call extends Emitter {
  /** @type {Map<string, Peer>} */ peers = new Map();
  /** While it is true no candidate gets in or out, see sabotage.js. */
  isDeaf = false;
  outgoing = new Outgoing();
  /** @type {RTCIceServer[]} */ #iceServers = [];
  /** @type {Promise<void> | null} */ #refreshing = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #expiry;
  /** @type {RTCIceTransportPolicy} */ #policy;
  #nextText = 1;
  #journal = new Journal(this);
  #onPageHide = (/** @type {PageTransitionEvent} */ event) => event.persisted || this.#goWithThePage();

  /** @param {CallOptions} options */
  constructor(options) {
    super();
    this.options = options;
    /** @type {CallState} */
    this.state = "connecting";
    /** @type {string | undefined} */
    this.member = undefined;
    this.random = options.random ?? Math.random;
    this.#policy = options.iceTransportPolicy ?? "all";
    this.outgoing.setStream(options.stream ?? null);
    this.#followOutgoing();
    /** @type {Promise<void>} */
    this.ready = new Promise((resolve, reject) => {
      this.on("state", ({ state }) => {
        if (state === "joined") resolve();
        if (state === "closed") reject(new TurnkeyError("closed", "the call has been left"));
      });
      this.on("error", ({ error }) => reject(error));
    });
    this.ready.catch(() => {});
    this.url = options.url ?? new URL("/v1/ws", location.href).href.replace(/^http/, "ws");
    this.session = this.#openSession();
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    this.poll = setInterval(() => this.peers.forEach(({ recovery }) => recovery.poll()), STATS_INTERVAL);
  }

  get members() {
    return [...this.peers.values()].map(({ member }) => member);
  }

  get stream() {
    return this.outgoing.stream;
  }

  get media() {
    return this.outgoing.media;
  }

  /** @returns {RTCConfiguration} */
  get configuration() {
    const { iceServers = this.#iceServers } = this.options;
    return {
      iceServers: typeof iceServers === "function" ? iceServers(this.#iceServers) : iceServers,
      iceTransportPolicy: this.#policy,
      bundlePolicy: "max-bundle",
    };
  }

  /** @param {string} member */
  connection(member) {
    return this.peers.get(member)?.pc;
  }

  /** @param {string} member */
  async stats(member) {
    return (await this.peers.get(member)?.recovery.stats()) ?? null;
  }

  /** @param {MediaStream | null} stream */
  setStream(stream) {
    this.outgoing.setStream(stream);
  }

  /** @param {MediaKind} kind @param {boolean} enabled */
  setEnabled(kind, enabled) {
    this.outgoing.setEnabled(kind, enabled);
  }

  /** @param {MediaKind} kind @param {string} [deviceId] */
  useDevice(kind, deviceId) {
    return this.outgoing.useDevice(kind, deviceId);
  }

  /** @param {MediaStream} [screen] */
  shareScreen(screen) {
    return this.outgoing.shareScreen(screen);
  }

  stopScreen() {
    this.outgoing.stopScreen();
  }

  /** @param {string} message */
  sendMessage(message) {
    const text = { message, timestamp: new Date().toISOString(), id: `${this.member}.${this.#nextText++}` };
    const all = Promise.all([...this.peers.values()].map(({ chat }) => chat.send(text))).then(() => {});
    all.catch((error) => {
      this.log(`Could not send chat: ${describe(error)}`);
      this.problem(new TurnkeyError("not_sent", `a chat message was not sent: ${describe(error)}`, error));
    });
    return all;
  }

  /** @param {unknown} data @param {string} [to] */
  sendCustom(data, to) {
    return this.session.request("custom", data, to);
  }

  /** @param {string} member */
  async kick(member) {
    await this.session.request("kick", undefined, member);
  }

  /** @param {string} member @param {"audio" | "video" | "screen"} track */
  async mute(member, track) {
    await this.session.request("mute", { track }, member);
  }

  /** @param {RTCIceTransportPolicy} policy */
  setIceTransportPolicy(policy) {
    this.#policy = policy;
    this.reenter("another path is wanted");
  }

  /** @param {string} [member] */
  restartIce(member) {
    for (const peer of this.peers.values()) if (member === undefined || member === peer.member.id) peer.recovery.restart("asked for");
  }

  /** @returns {Promise<void>} */
  refreshIce() {
    this.#refreshing ??= this.session.request("ice")
      .then((d) => this.#applyIce(d.ice_servers, d.ttl, d.expires_at))
      .finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  collectReport() {
    return collect(this, this.#journal);
  }

  /** @param {import("../turnkey.js").Sabotage} what @param {number} [seconds] */
  sabotage(what, seconds) {
    this.log(`Sabotage: ${what}`);
    sabotage(this, what, seconds);
  }

  leave() {
    this.session.close();
  }

  /** Leaves the room and enters it again: new connections on both sides, which know of nothing before. @param {string} why */
  reenter(why) {
    if (this.member === undefined) return;
    for (const id of [...this.peers.keys()]) this.#remove(id, why);
    this.session.request("leave").catch(() => {}); // a session that is lost has left
    // With the room the server takes the relay credential back.
    this.session.request("ice").then((d) => {
      this.#applyIce(d.ice_servers, d.ttl, d.expires_at);
      this.#join();
    }).catch((error) => this.log(`Entering anew: ${describe(error)}`)); // a session that is lost enters by itself
  }

  /** Whether nobody else would suffer from entering anew for this peer's sake. @param {Peer} peer */
  isAlone(peer) {
    return [...this.peers.values()].every((other) => other === peer || other.pc.connectionState !== "connected");
  }

  /** @param {string} text @param {Member} [member] */
  log(text, member) {
    this.emit("log", { text, ...(member && { member }) });
  }

  /** @param {TurnkeyError} error @param {Member} [member] */
  problem(error, member) {
    this.emit("problem", { error, ...(member && { member }) });
  }

  #openSession() {
    const { token, storage, WebSocket = globalThis.WebSocket } = this.options;
    const key = `turnkey.session ${this.url} ${this.options.room}`;
    const session = new Session({ url: this.url, token, WebSocket, random: this.random, storage, key });
    session.on("open", (d) => this.#onOpen(d));
    session.on("lost", (why) => this.#onLost(why));
    session.on("frame", (frame) => this.#onFrame(frame));
    session.on("wake", (what) => this.peers.forEach(({ recovery }) => recovery.wake(what)));
    session.on("stop", (error) => this.#end(error));
    return session;
  }

  #followOutgoing() {
    this.outgoing.on("tracks", () => this.peers.forEach((peer) => peer.send()));
    this.outgoing.on("media", (detail) => {
      this.#tell("media", detail.media);
      this.emit("media", detail);
    });
    this.outgoing.on("device", (detail) => {
      const name = detail.kind === "audio" ? "microphone" : "camera";
      this.log(`The ${name} is gone${detail.replaced ? ", another one takes its place" : ""}`);
      if (!detail.replaced) this.problem(new TurnkeyError("device_lost", `the ${name} is gone`));
      this.emit("device", detail);
    });
  }

  /** @param {any} d the payload of a welcome */
  #onOpen(d) {
    this.log(d.resumed ? `Signaling resumed, ${d.replayed ?? 0} messages replayed` : "Signaling connected");
    this.#applyIce(d.ice_servers, d.ice_ttl, d.ice_expires_at);
    if (d.resumed && this.member !== undefined) {
      this.#setState("joined");
      return this.peers.forEach(({ recovery }) => recovery.wake("page"));
    }
    // A session of the page before this one is in the room, with connections that went with that page.
    if (d.resumed) this.session.request("leave").catch(() => {});
    this.#join();
  }

  #join() {
    const { room, name, role } = this.options;
    this.session.request("join", { room, ...(name && { name }), ...(role && { role }) }).catch((error) => {
      if (error.code !== "session_lost") this.#end(error);
    });
  }

  /** @param {string} why */
  #onLost(why) {
    this.log(`Signaling lost (${why}), reconnecting`);
    if (this.state === "joined") this.problem(new TurnkeyError("signaling_lost", why));
    this.#setState(this.member === undefined ? "connecting" : "reconnecting");
  }

  /** @param {Frame} frame */
  #onFrame({ t, from, ref, d }) {
    const peer = this.peers.get(from ?? d?.member?.id ?? d?.member);
    switch (t) {
      case "joined": return this.#onJoined(d);
      case "member-joined": return this.#add(d.member);
      case "member-left": return this.#remove(d.member?.id ?? d.member, d.reason ?? "left");
      case "member-away": return peer && this.#change(peer, { away: true }, "Away: lost the server, may come back");
      case "member-back": return peer && this.#change(peer, { away: false }, "Back");
      case "ice": return ref === undefined ? this.#applyIce(d.ice_servers, d.ttl, d.expires_at) : undefined;
      case "offer":
      case "answer": return peer?.onDescription({ type: t, sdp: d.sdp });
      case "candidate": return peer?.onCandidate(d);
      case "restart": return peer?.recovery.restart("the other side asks for it");
      case "media": return peer && this.#change(peer, { media: { ...peer.member.media, ...d } });
      case "mute": return this.#onMute(d);
      case "chat": return peer?.chat.receive(d);
      case "custom": return peer && this.emit("custom", { member: peer.member, data: d });
      case "error": return this.log(`Server: ${d.message}`);
    }
  }

  /** @param {{track: MediaKind | "screen", by?: string}} d */
  #onMute({ track, by = "" }) {
    this.log(`A moderator turned the ${track} off`);
    if (track === "screen") this.outgoing.stopScreen(by);
    else this.outgoing.setEnabled(track, false, by);
  }

  /** @param {{member: string, members: Omit<Member, "away">[]}} d */
  #onJoined(d) {
    const present = new Set(d.members.map(({ id }) => id));
    for (const id of [...this.peers.keys()]) {
      if (d.member !== this.member || !present.has(id)) this.#remove(id, "lost");
    }
    this.member = d.member;
    this.log(`Successfully joined room ${this.options.room}`);
    this.#setState("joined");
    if (Object.keys(this.media).length > 0) this.#tell("media", this.media);
    d.members.forEach((member) => this.#add(member));
  }

  /** @param {Omit<Member, "away">} found */
  #add(found) {
    if (found.id === this.member || this.peers.has(found.id)) return;
    const member = { ...found, media: found.media ?? {}, away: false };
    const RTC = this.options.RTCPeerConnection ?? globalThis.RTCPeerConnection;
    this.log("In the room", member);
    this.emit("member-joined", { member });
    this.peers.set(member.id, new Peer(this, member, new RTC(this.configuration)));
  }

  /** @param {string} id @param {string} reason */
  #remove(id, reason) {
    const peer = this.peers.get(id);
    if (!peer) return;
    this.peers.delete(id);
    peer.close();
    this.log(`Gone (${reason})`, peer.member);
    this.emit("member-left", { member: peer.member, reason });
  }

  /** @param {Peer} peer @param {Partial<Member>} change @param {string} [text] */
  #change({ member }, change, text) {
    Object.assign(member, change);
    if (text) this.log(text, member);
    this.emit("member-changed", { member });
  }

  /** @param {string} t @param {unknown} d */
  #tell(t, d) {
    if (this.member === undefined) return; // said again on joining
    this.session.request(t, d).catch((error) => this.log(`Could not send ${t}: ${describe(error)}`));
  }

  /** @param {RTCIceServer[] | undefined} servers @param {number} [ttl] seconds @param {number} [expiresAt] */
  #applyIce(servers, ttl, expiresAt) {
    if (!servers) return;
    this.#iceServers = servers;
    for (const { pc } of this.peers.values()) pc.setConfiguration(this.configuration);
    clearTimeout(this.#expiry);
    // The server pushes new ones at half their life; this is for when it does not.
    if (ttl) this.#expiry = setTimeout(() => this.refreshIce().catch(() => {}), ttl * 750);
    if (expiresAt) this.emit("credentials", { expiresAt, expiresIn: ttl ?? expiresAt - (Date.now() + this.session.clockSkew) / 1000 });
  }

  /** @param {CallState} state */
  #setState(state) {
    if (this.state === state || this.state === "closed") return;
    this.state = state;
    this.emit("state", { state });
  }

  #goWithThePage() {
    if (this.options.storage) this.session.suspend();
    else this.leave();
  }

  /** @param {TurnkeyError} error */
  #end(error) {
    if (this.state === "closed") return;
    clearInterval(this.poll);
    clearTimeout(this.#expiry);
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    for (const id of [...this.peers.keys()]) this.#remove(id, "hung up");
    this.outgoing.stopScreen();
    if (error.code !== "closed") this.emit("error", { error });
    this.#setState("closed");
    this.session.close();
  }
}
