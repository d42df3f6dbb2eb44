// @ts-check
/**
 * Calls through a turnkey server: one socket for signaling, one RTCPeerConnection per other member.
 *
 *     import { join, openMedia } from "/turnkey.js";
 *     const call = join({ room: "demo", stream: await openMedia() });
 *     call.on("stream", ({ stream }) => (video.srcObject = stream));
 *
 * Owns negotiation, reconnecting, resuming, ICE restarts and credentials. Shows nothing and records nothing.
 * Outside a browser, pass `WebSocket` and `RTCPeerConnection`.
 * @module
 */

const PROTOCOL = "turnkey.v1";
const BACKOFF_BASE = 300;        // ms; the first retry comes within it
const BACKOFF_MAX = 10_000;
const WELCOME_TIMEOUT = 10_000;
const PROBE_TIMEOUT = 3_000;     // an open socket that stays silent for so long after a wake-up is dead
const FIRST_OFFER_WAIT = 3_000;  // how long the polite side leaves the first offer to the other
const DISCONNECTED_GRACE = 2_500;
const STATS_INTERVAL = 2_000;
const ACK_DELAY = 1_000;
const ACK_EVERY = 20;
const MAX_UNACKNOWLEDGED = 256;
const MAX_CANDIDATES = 64;

/** What to do about an error, by its code. @type {Record<string, string>} */
const HINTS = {
  unauthenticated: "The token is missing, wrong or expired: ask for a new link, or pass a `token` function that fetches a new one.",
  forbidden: "The server refuses this page or this room. Its message says which setting decides it (http.origins, signaling.access).",
  not_found: "There is no such room or signaling path on this server: check the link.",
  room_full: "The room has as many members as it may have: start another one.",
  replaced: "This call was opened again somewhere else with the same user.",
  kicked: "A moderator ended your part in this call.",
  bad_url: "The address of the signaling socket must be ws:// or wss://, and wss:// on a page that came over https.",
  protocol: "The server did not understand this client: their versions differ, reload the page.",
  backlog: "Too much is waiting for the server: wait until the connection is back.",
  session_lost: "The server no longer knew this session; it was joined anew and this message may not have arrived.",
  closed: "The call has been left.",
  insecure_origin: "Browsers open camera and microphone only on https:// pages and on http://localhost. Use https (`turnkey serve --public`).",
  media_denied: "The browser or the system denies access to camera and microphone: allow it beside the address bar, then reload.",
  media_missing: "Plug one in and reload, or go on without.",
  media_busy: "Another program is using the camera or microphone.",
};

/** Close codes after which connecting again would only repeat the answer. @type {Record<number, string>} */
const FINAL_CLOSE = {
  4400: "protocol", 4403: "forbidden", 4404: "not_found", 4409: "room_full", 4413: "protocol", 4440: "replaced", 4441: "kicked",
};

/**
 * @typedef {"connecting" | "joined" | "reconnecting" | "closed"} CallState
 * @typedef {{audio?: boolean, video?: boolean, screen?: boolean}} MediaState
 * @typedef {{id: string, user?: string, name?: string, role?: string, polite: boolean, away: boolean, media: MediaState}} Member
 * @typedef {"host" | "reflexive" | "relay"} PathKind
 * @typedef {object} Path The selected candidate pair, as this side sees it.
 * @property {PathKind} kind relay when either end is relayed, reflexive when either end is behind a NAT
 * @property {"udp" | "tcp" | "tls"} transport to our own relay when there is one, else to the other side
 * @property {string} local candidate type: host, srflx, prflx or relay
 * @property {string} remote
 * @property {string} label in words, such as "relayed over UDP"
 * @typedef {{path: Path, rtt?: number, received: number, sent: number, framesDecoded: number, packetsLost: number}} PeerStats
 *   rtt in milliseconds, received and sent in bytes since the path was chosen
 * @typedef {object} CallEvents
 * @property {{state: CallState}} state of the signaling; media goes on while it is `reconnecting`
 * @property {{member: Member}} member-joined
 * @property {{member: Member}} member-changed away, back, or muted
 * @property {{member: Member, reason: string}} member-left
 * @property {{member: Member, stream: MediaStream}} stream
 * @property {{member: Member, state: string}} connection state of the peer connection
 * @property {{member: Member, path: Path}} path another pair was selected
 * @property {{member: Member, stats: PeerStats}} stats every two seconds
 * @property {{member: Member, message: string, timestamp: string}} message chat
 * @property {{member: Member, data: unknown}} custom
 * @property {{expiresAt: number}} credentials fresh ICE servers are in use; Unix seconds
 * @property {{error: TurnkeyError}} error the call has ended because of it
 * @property {{text: string, member?: Member}} log what happens, in words
 */

/** @typedef {{t: string, id?: string, seq?: number, ack?: number, to?: string, from?: string, ref?: string, d?: any}} Frame */

/**
 * @typedef {object} CallOptions
 * @property {string} room
 * @property {string} [name] shown to the others
 * @property {string} [role]
 * @property {string | (() => string | undefined | Promise<string | undefined>)} [token] a function is asked before each connection
 * @property {string} [url] of the socket; by default `/v1/ws` on the page's own server
 * @property {MediaStream | null} [stream] what to send
 * @property {RTCIceTransportPolicy} [iceTransportPolicy]
 * @property {RTCIceServer[] | ((servers: RTCIceServer[]) => RTCIceServer[])} [iceServers] instead of, or made from, the server's
 * @property {typeof globalThis.WebSocket} [WebSocket]
 * @property {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 * @property {() => number} [random] source of the back-off's jitter
 */

/** An error with a stable `code` and a `hint` that says what to do. */
export class TurnkeyError extends Error {
  /** @param {string} code @param {string} message @param {unknown} [cause] */
  constructor(code, message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "TurnkeyError";
    this.code = code;
    this.hint = HINTS[code] ?? "";
  }
}

/**
 * Joins a room; the call connects by itself until `leave()` or an `error` event.
 * @param {CallOptions} options
 * @returns {Call}
 */
export function join(options) {
  return new Call(options);
}

/**
 * Camera and microphone with the defaults of a call, or a TurnkeyError that says why not.
 * @param {MediaStreamConstraints} [constraints]
 * @returns {Promise<MediaStream>}
 */
export async function openMedia(constraints = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  video: { width: { ideal: 640, max: 1280 }, height: { ideal: 480, max: 720 }, frameRate: { ideal: 30, max: 60 } },
}) {
  if (!globalThis.navigator?.mediaDevices?.getUserMedia) {
    throw new TurnkeyError("insecure_origin", "this page may not use the camera because it was not loaded over https");
  }
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (cause) {
    const name = cause instanceof Error ? cause.name : "";
    /** @type {Record<string, string>} */
    const codes = { NotAllowedError: "media_denied", SecurityError: "media_denied", NotReadableError: "media_busy" };
    throw new TurnkeyError(codes[name] ?? "media_missing", `camera and microphone cannot be opened: ${describe(cause)}`, cause);
  }
}

/**
 * @template {object} Events
 */
class Emitter {
  /** @type {Map<keyof Events, Set<(detail: any) => void>>} */
  #listeners = new Map();

  /**
   * Calls `listener` on each event of that type; the result unsubscribes.
   * @template {keyof Events} K
   * @param {K} type
   * @param {(detail: Events[K]) => void} listener
   * @returns {() => void}
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /**
   * @template {keyof Events} K
   * @param {K} type
   * @param {Events[K]} detail
   */
  emit(type, detail) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        console.error(error); // a listener's bug must not end the call
      }
    }
  }
}

/**
 * The signaling session: outlives its sockets, resumes, acknowledges, and re-sends what was not acknowledged.
 * @extends {Emitter<{open: any, lost: string, frame: Frame, wake: null, stop: TurnkeyError}>}
 */
class Session extends Emitter {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Map<string, {frame: Frame, resolve: (d: any) => void, reject: (error: TurnkeyError) => void}>} */
  #outbox = new Map();
  /** @type {string | undefined} */ #resume;
  /** @type {string | undefined} */ #token;
  #lastSeq = 0;
  #acked = 0;
  #nextId = 1;
  #failures = 0;
  #heard = false;
  #welcomed = false;      // by the socket in use
  #everWelcomed = false;
  #connecting = false;
  #stopped = false;
  /** @type {Record<string, ReturnType<typeof setTimeout>>} */ #timers = {};
  #wake = () => this.#onWake();

  /** @param {{url: string, token?: CallOptions["token"], WebSocket: typeof WebSocket, random: () => number}} options */
  constructor(options) {
    super();
    this.options = options;
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

  #onWake() {
    if (globalThis.document?.visibilityState === "hidden") return;
    this.emit("wake", null);
    if (this.#socket) this.probe();
    else this.#connect();
  }

  /** Finds out soon whether the socket still carries anything; a network that changed tells nobody. */
  probe() {
    if (!this.#welcomed) return;
    this.#heard = false;
    this.#transmit({ t: "ping" });
    clearTimeout(this.#timers.probe);
    this.#timers.probe = setTimeout(() => this.#heard || this.#abandon("the socket is dead"), PROBE_TIMEOUT);
  }

  /** @param {boolean} on */
  #listenToWakeUps(on) {
    const change = on ? "addEventListener" : "removeEventListener";
    for (const event of ["online", "pageshow"]) globalThis[change]?.(event, this.#wake);
    globalThis.document?.[change]("visibilitychange", this.#wake);
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
    if (d.resumed) {
      for (const { frame } of this.#outbox.values()) this.#transmit(frame);
    } else {
      this.#lastSeq = this.#acked = 0;
      this.#rejectAll(new TurnkeyError("session_lost", "the session could not be resumed"));
    }
    this.#beat((d.ping ?? 15) * 1000);
    this.emit("open", d);
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

  /** One ping per interval; silence from one tick to the next means a dead socket, however slowly a hidden page ticks. @param {number} interval */
  #beat(interval) {
    this.#heard = false;
    this.#transmit({ t: "ping" });
    this.#timers.beat = setTimeout(() => (this.#heard ? this.#beat(interval) : this.#abandon("the socket is dead")), interval);
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

/** One other member: its connection, negotiated perfectly (the pattern of MDN), and watched. */
class Peer {
  #makingOffer = false;
  #ignoreOffer = false;
  #isSettingRemoteAnswerPending = false;
  #restarting = false;
  #restarts = 0;
  #closed = false;
  #sentSdp = "";
  /** @type {RTCIceCandidate[]} */ #held = [];          // ours, until their description is sent
  /** @type {RTCIceCandidateInit[]} */ #early = [];     // theirs, until their description is applied
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #start;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #grace;
  /** @type {string | undefined} */ #pathKey;

  /** @param {Call} call @param {Member} member @param {RTCPeerConnection} pc */
  constructor(call, member, pc) {
    this.call = call;
    this.member = member;
    this.pc = pc;
    pc.onnegotiationneeded = () => this.#negotiate();
    pc.onicecandidate = ({ candidate }) => candidate && this.#sendCandidate(candidate);
    pc.oniceconnectionstatechange = () => this.#watch();
    pc.onconnectionstatechange = () => this.#report();
    pc.ontrack = ({ track, streams }) => call.emit("stream", { member, stream: streams[0] ?? new MediaStream([track]) });
    /** @type {RTCDataChannel | undefined} */
    this.channel = undefined;
    // Offers of both sides at the very start are legal, but Chromium never gathers again when its first offer is
    // rolled back while it is being set. So the earlier member starts, and the later one waits a little.
    if (member.polite) this.#start = setTimeout(() => this.#begin(), FIRST_OFFER_WAIT);
    else this.#begin();
  }

  /** Adds what there is to send, which makes an offer necessary unless it fits into an answer. */
  #begin() {
    clearTimeout(this.#start);
    if (this.channel) return;
    this.channel = this.pc.createDataChannel("turnkey", { negotiated: true, id: 0 });
    this.channel.onopen = () => this.call.log("Data channel open", this.member);
    this.channel.onmessage = ({ data }) => this.#onChannel(String(data));
    this.send(this.call.stream);
  }

  /** Puts the stream's tracks in the place of those of the same kind. @param {MediaStream | null} stream */
  send(stream) {
    if (!this.channel) return; // #begin() will
    for (const kind of ["audio", "video"]) {
      const track = stream?.getTracks().find((one) => one.kind === kind) ?? null;
      const sender = this.pc.getTransceivers().find((one) => one.receiver.track?.kind === kind && one.direction.startsWith("send"))?.sender;
      if (sender) sender.replaceTrack(track).catch((error) => this.#complain("replacing a track", error));
      else if (track && stream) this.pc.addTrack(track, stream);
    }
  }

  async #negotiate() {
    try {
      this.#makingOffer = true;
      await this.pc.setLocalDescription();
      this.#sendDescription();
    } catch (error) {
      this.#complain("creating an offer", error);
    } finally {
      this.#makingOffer = false;
    }
  }

  /** @param {RTCSessionDescriptionInit} description */
  async onDescription(description) {
    const { pc } = this;
    try {
      const readyForOffer = !this.#makingOffer && (pc.signalingState === "stable" || this.#isSettingRemoteAnswerPending);
      const offerCollision = description.type === "offer" && !readyForOffer;
      this.#ignoreOffer = !this.member.polite && offerCollision;
      this.call.log(`Received ${description.type}${offerCollision ? ` while offering: ${this.#ignoreOffer ? "ignored" : "ours is taken back"}` : ""}`, this.member);
      if (this.#ignoreOffer) return;
      this.#isSettingRemoteAnswerPending = description.type === "answer";
      await pc.setRemoteDescription(description);
      this.#isSettingRemoteAnswerPending = false;
      await this.#addEarlyCandidates();
      if (description.type !== "offer" || this.#closed) return;
      this.#begin();
      await pc.setLocalDescription();
      this.#sendDescription();
    } catch (error) {
      this.#isSettingRemoteAnswerPending = false;
      this.#complain(`applying an ${description.type}`, error);
    }
  }

  /** @param {RTCIceCandidateInit | null} candidate */
  async onCandidate(candidate) {
    if (!candidate?.candidate || this.#ignoreOffer) return; // the end, or part of an ignored offer
    if (belongs(candidate, this.pc.remoteDescription?.sdp)) return this.#addCandidate(candidate);
    if (this.#early.length < MAX_CANDIDATES) this.#early.push(candidate);
  }

  async #addEarlyCandidates() {
    for (const candidate of this.#early.splice(0)) {
      if (belongs(candidate, this.pc.remoteDescription?.sdp)) await this.#addCandidate(candidate);
    }
  }

  /** @param {RTCIceCandidateInit} candidate */
  async #addCandidate(candidate) {
    try {
      await this.pc.addIceCandidate(candidate);
    } catch (error) {
      if (!this.#ignoreOffer && !this.#closed) this.#complain("adding a candidate", error);
    }
  }

  #sendDescription() {
    const description = this.pc.localDescription;
    if (!description || this.#closed) return;
    this.#sentSdp = description.sdp;
    this.#request(description.type, { type: description.type, sdp: description.sdp });
    this.call.log(`${description.type === "offer" ? "Offer" : "Answer"} created and sent`, this.member);
    for (const candidate of this.#held.splice(0)) {
      if (belongs(candidate, this.#sentSdp)) this.#request("candidate", candidate.toJSON());
    }
  }

  /** @param {RTCIceCandidate} candidate */
  #sendCandidate(candidate) {
    if (belongs(candidate, this.#sentSdp)) this.#request("candidate", candidate.toJSON());
    else if (this.#held.length < MAX_CANDIDATES) this.#held.push(candidate);
  }

  /** @param {string} t @param {any} d */
  #request(t, d) {
    // A member who has left is told by the roster, a lost session by joining again.
    this.call.session.request(t, d, this.member.id).catch((/** @type {TurnkeyError} */ error) => {
      if (!["no_such_member", "not_joined", "session_lost", "closed"].includes(error.code)) this.#complain(`sending the ${t}`, error);
    });
  }

  #watch() {
    clearTimeout(this.#grace);
    const state = this.pc.iceConnectionState;
    if (state === "connected" || state === "completed") {
      this.#restarts = 0;
      this.stats().catch(() => {});
    } else if (state === "failed") this.restart("the path failed");
    else if (state === "disconnected") this.#restartUnlessAlive();
  }

  /** A short gap heals by itself; a restart is for a path on which nothing arrives any more. */
  async #restartUnlessAlive() {
    this.call.session.probe(); // the same gap may have taken the socket
    const before = await this.#bytesReceived();
    if (this.#closed) return;
    this.#grace = setTimeout(async () => {
      if (this.pc.iceConnectionState !== "disconnected") return;
      if (await this.#bytesReceived() <= before) this.restart("nothing arrives any more");
    }, DISCONNECTED_GRACE);
  }

  async #bytesReceived() {
    return selectedPair(await this.pc.getStats())?.pair.bytesReceived ?? 0;
  }

  /** Restarts ICE with fresh credentials; later tries wait, so that two sides in a tunnel do not storm. @param {string} why */
  async restart(why) {
    if (this.#restarting || this.#closed) return;
    this.#restarting = true;
    try {
      this.call.log(`Restarting ICE: ${why}`, this.member);
      this.call.session.probe();
      if (this.#restarts++ > 0) await sleep(this.call.random() * Math.min(BACKOFF_MAX, 1000 * 2 ** this.#restarts));
      await this.call.refreshIce().catch((error) => this.#complain("asking for fresh credentials", error));
      if (!this.#closed) this.pc.restartIce();
    } finally {
      this.#restarting = false;
    }
  }

  restartIfBroken() {
    if (["failed", "disconnected"].includes(this.pc.iceConnectionState)) this.restart("the network is back");
  }

  #report() {
    const state = this.pc.connectionState;
    // Whoever shows the state shows the path again once there is one.
    if (state !== "connected") this.#pathKey = "";
    this.call.session.report({ t: "state", to: this.member.id, d: { state } });
    this.call.log(`Connection ${state}`, this.member);
    this.call.emit("connection", { member: this.member, state });
  }

  /** @param {string} text */
  #onChannel(text) {
    const data = parse(text);
    if (data?.type === "text") this.call.emit("message", { member: this.member, message: String(data.message), timestamp: String(data.timestamp) });
    else this.call.emit("custom", { member: this.member, data: data ?? text });
  }

  /** @returns {Promise<PeerStats | null>} */
  async stats() {
    const report = await this.pc.getStats();
    const selected = this.#closed ? undefined : selectedPair(report);
    if (!selected) return null;
    const { pair, path } = selected;
    let framesDecoded = 0;
    let packetsLost = 0;
    report.forEach((entry) => {
      if (entry.type !== "inbound-rtp") return;
      framesDecoded += entry.framesDecoded ?? 0;
      packetsLost += entry.packetsLost ?? 0;
    });
    const key = `${pair.id} ${path.label}`;
    if (key !== this.#pathKey && this.pc.connectionState === "connected") {
      this.#pathKey = key;
      this.call.log(`Path: ${path.label} (${path.local} to ${path.remote})`, this.member);
      this.call.emit("path", { member: this.member, path });
    }
    const rtt = pair.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000;
    return { path, rtt, received: pair.bytesReceived ?? 0, sent: pair.bytesSent ?? 0, framesDecoded, packetsLost };
  }

  /** @param {string} doing @param {unknown} error */
  #complain(doing, error) {
    if (!this.#closed) this.call.log(`Problem while ${doing}: ${describe(error)}`, this.member);
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#start);
    clearTimeout(this.#grace);
    this.pc.close();
  }
}

/**
 * A call in a room, from `join()`.
 * @extends {Emitter<CallEvents>}
 */
export class Call extends Emitter {
  /** @type {Map<string, Peer>} */ #peers = new Map();
  /** @type {RTCIceServer[]} */ #iceServers = [];
  /** @type {Promise<void> | null} */ #refreshing = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #expiry;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #poll;
  /** @type {MediaState} */ #media = {};
  /** @type {RTCIceTransportPolicy} */ #policy;
  #onPageHide = (/** @type {PageTransitionEvent} */ event) => event.persisted || this.leave();

  /** @param {CallOptions} options */
  constructor(options) {
    super();
    this.options = options;
    /** @type {CallState} */
    this.state = "connecting";
    /** Our own member id, once joined. @type {string | undefined} */
    this.member = undefined;
    this.stream = options.stream ?? null;
    this.random = options.random ?? Math.random;
    this.#policy = options.iceTransportPolicy ?? "all";
    /** Resolves when the room is entered, rejects when it never will be. @type {Promise<void>} */
    this.ready = new Promise((resolve, reject) => {
      this.on("state", ({ state }) => {
        if (state === "joined") resolve();
        if (state === "closed") reject(new TurnkeyError("closed", "the call has been left"));
      });
      this.on("error", ({ error }) => reject(error));
    });
    this.ready.catch(() => {});
    const url = options.url ?? new URL("/v1/ws", location.href).href.replace(/^http/, "ws");
    this.session = new Session({ url, token: options.token, WebSocket: options.WebSocket ?? globalThis.WebSocket, random: this.random });
    this.session.on("open", (d) => this.#onOpen(d));
    this.session.on("lost", (why) => this.#onLost(why));
    this.session.on("frame", (frame) => this.#onFrame(frame));
    this.session.on("wake", () => this.#peers.forEach((peer) => peer.restartIfBroken()));
    this.session.on("stop", (error) => this.#end(error));
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    this.#poll = setInterval(() => this.#pollStats(), STATS_INTERVAL);
  }

  /** The others in the room. @returns {Member[]} */
  get members() {
    return [...this.#peers.values()].map(({ member }) => member);
  }

  /** The RTCPeerConnection to a member. @param {string} member */
  connection(member) {
    return this.#peers.get(member)?.pc;
  }

  /** @param {string} member @returns {Promise<PeerStats | null>} null while there is no path */
  async stats(member) {
    return (await this.#peers.get(member)?.stats()) ?? null;
  }

  /** Sends this stream from now on, in the place of the one before. @param {MediaStream | null} stream */
  setStream(stream) {
    this.stream = stream;
    this.#peers.forEach((peer) => peer.send(stream));
  }

  /** Mutes or unmutes our own tracks, and says so to the others. @param {"audio" | "video"} kind @param {boolean} enabled */
  setEnabled(kind, enabled) {
    for (const track of this.stream?.getTracks() ?? []) if (track.kind === kind) track.enabled = enabled;
    this.#media = { ...this.#media, [kind]: enabled };
    this.#tell("media", this.#media);
  }

  /**
   * Sends a chat message to everybody, over the data channel where it is open, else through the server.
   * @param {string} message
   */
  sendMessage(message) {
    const text = { message, timestamp: new Date().toISOString() };
    for (const { channel, member } of this.#peers.values()) {
      if (channel?.readyState === "open") channel.send(JSON.stringify({ type: "text", ...text }));
      else this.#tell("chat", text, member.id);
    }
  }

  /** Sends any JSON value through the server, to one member or to all. @param {unknown} data @param {string} [to] @returns {Promise<{delivered: number, held: number}>} */
  sendCustom(data, to) {
    return this.session.request("custom", data, to);
  }

  /**
   * `relay` hides our address and proves the relay. Browsers keep a direct path that works through an ICE restart,
   * so this leaves the room and enters it again with new connections.
   * @param {RTCIceTransportPolicy} policy
   */
  setIceTransportPolicy(policy) {
    this.#policy = policy;
    if (this.member === undefined) return;
    for (const id of [...this.#peers.keys()]) this.#remove(id, "another path is wanted");
    this.session.request("leave").catch(() => {}); // a session that is lost has left
    this.#join();
  }

  /** Looks for a new path with fresh credentials. @param {string} [member] all of them by default */
  restartIce(member) {
    for (const peer of this.#peers.values()) if (member === undefined || member === peer.member.id) peer.restart("asked for");
  }

  /** Asks the server for fresh ICE servers and applies them to every connection. @returns {Promise<void>} */
  refreshIce() {
    this.#refreshing ??= this.session.request("ice")
      .then((d) => this.#applyIce(d.ice_servers, d.ttl, d.expires_at))
      .finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  /** Hangs up: the others are told, every connection is closed. Local tracks stay the caller's. */
  leave() {
    this.session.close();
  }

  /** @param {string} text @param {Member} [member] */
  log(text, member) {
    this.emit("log", { text, ...(member && { member }) });
  }

  /** @param {any} d the payload of a welcome */
  #onOpen(d) {
    this.log(d.resumed ? `Signaling resumed, ${d.replayed ?? 0} messages replayed` : "Signaling connected");
    this.#applyIce(d.ice_servers, d.ice_ttl, d.ice_expires_at);
    if (d.resumed && this.member !== undefined) {
      this.#setState("joined");
      this.#peers.forEach((peer) => peer.restartIfBroken());
    }
    if (!d.resumed) this.#join();
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
    this.#setState(this.member === undefined ? "connecting" : "reconnecting");
  }

  /** @param {Frame} frame */
  #onFrame({ t, from, ref, d }) {
    const peer = this.#peers.get(from ?? d?.member?.id ?? d?.member);
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
      case "restart": return peer?.restart("the other side asks for it");
      case "media": return peer && this.#change(peer, { media: { ...peer.member.media, ...d } });
      case "chat": return peer && this.emit("message", { member: peer.member, message: String(d.message), timestamp: String(d.timestamp) });
      case "custom": return peer && this.emit("custom", { member: peer.member, data: d });
      case "error": return this.log(`Server: ${d.message}`);
    }
  }

  /** @param {{member: string, members: Omit<Member, "away">[]}} d */
  #onJoined(d) {
    const present = new Set(d.members.map(({ id }) => id));
    for (const id of [...this.#peers.keys()]) {
      if (d.member !== this.member || !present.has(id)) this.#remove(id, "lost");
    }
    this.member = d.member;
    this.log(`Successfully joined room ${this.options.room}`);
    this.#setState("joined");
    if (Object.keys(this.#media).length > 0) this.#tell("media", this.#media);
    d.members.forEach((member) => this.#add(member));
  }

  /** @param {Omit<Member, "away">} found */
  #add(found) {
    if (found.id === this.member || this.#peers.has(found.id)) return;
    const member = { ...found, media: found.media ?? {}, away: false };
    const RTC = this.options.RTCPeerConnection ?? globalThis.RTCPeerConnection;
    this.log("In the room", member);
    this.emit("member-joined", { member });
    this.#peers.set(member.id, new Peer(this, member, new RTC(this.#configuration())));
  }

  /** @param {string} id @param {string} reason */
  #remove(id, reason) {
    const peer = this.#peers.get(id);
    if (!peer) return;
    this.#peers.delete(id);
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

  /** @param {string} t @param {unknown} d @param {string} [to] */
  #tell(t, d, to) {
    if (this.member === undefined) return; // said again on joining
    this.session.request(t, d, to).catch((error) => this.log(`Could not send ${t}: ${describe(error)}`));
  }

  /** @returns {RTCConfiguration} */
  #configuration() {
    const { iceServers = this.#iceServers } = this.options;
    return {
      iceServers: typeof iceServers === "function" ? iceServers(this.#iceServers) : iceServers,
      iceTransportPolicy: this.#policy,
      bundlePolicy: "max-bundle",
    };
  }

  /** @param {RTCIceServer[] | undefined} servers @param {number} [ttl] seconds @param {number} [expiresAt] */
  #applyIce(servers, ttl, expiresAt) {
    if (!servers) return;
    this.#iceServers = servers;
    for (const { pc } of this.#peers.values()) pc.setConfiguration(this.#configuration());
    clearTimeout(this.#expiry);
    // The server pushes new ones at half their life; this is for when it does not.
    if (ttl) this.#expiry = setTimeout(() => this.refreshIce().catch(() => {}), ttl * 750);
    if (expiresAt) this.emit("credentials", { expiresAt });
  }

  async #pollStats() {
    for (const { member } of [...this.#peers.values()]) {
      const stats = await this.stats(member.id).catch(() => null);
      if (stats) this.emit("stats", { member, stats });
    }
  }

  /** @param {CallState} state */
  #setState(state) {
    if (this.state === state || this.state === "closed") return;
    this.state = state;
    this.emit("state", { state });
  }

  /** @param {TurnkeyError} error */
  #end(error) {
    if (this.state === "closed") return;
    clearInterval(this.#poll);
    clearTimeout(this.#expiry);
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    for (const id of [...this.#peers.keys()]) this.#remove(id, "hung up");
    if (error.code !== "closed") this.emit("error", { error });
    this.#setState("closed");
    this.session.close();
  }
}

/**
 * The pair that carries the media, and how to call it.
 * @param {RTCStatsReport} report
 * @returns {{pair: any, path: Path} | undefined}
 */
function selectedPair(report) {
  /** @type {any[]} */
  const entries = [];
  report.forEach((entry) => entries.push(entry));
  const chosen = entries.find(({ type, selectedCandidatePairId }) => type === "transport" && selectedCandidatePairId)?.selectedCandidatePairId;
  const pair = entries.find(({ type, id, selected }) => type === "candidate-pair" && (id === chosen || selected === true));
  const local = pair && report.get(pair.localCandidateId);
  const remote = pair && report.get(pair.remoteCandidateId);
  if (!local || !remote) return undefined;
  const types = [local.candidateType, remote.candidateType];
  /** @type {PathKind} */
  const kind = types.includes("relay") ? "relay" : types.every((type) => type === "host") ? "host" : "reflexive";
  const transport = (local.candidateType === "relay" && local.relayProtocol) || local.protocol || "udp";
  const words = { relay: "relayed", reflexive: "direct through a NAT", host: "direct" };
  const label = `${words[kind]} over ${transport.toUpperCase()}`;
  return { pair, path: { kind, transport, local: types[0], remote: types[1], label } };
}

/**
 * Whether a candidate is of the generation a description speaks of.
 * @param {RTCIceCandidateInit} candidate @param {string | undefined} sdp
 */
function belongs({ usernameFragment }, sdp) {
  return Boolean(sdp) && (!usernameFragment || String(sdp).includes(`a=ice-ufrag:${usernameFragment}`));
}

/** @param {string} text @returns {any} */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @param {unknown} error */
function describe(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {number} ms @returns {Promise<void>} */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
