// @ts-check
/** One other member: its connection, negotiated perfectly (the pattern of MDN). */
import { Chat } from "./chat.js";
import { describe, TurnkeyError } from "./errors.js";
import { Recovery } from "./recovery.js";

const FIRST_OFFER_WAIT = 3_000;  // how long the polite side leaves the first offer to the other
const ANSWER_TIMEOUT = 12_000;
const MAX_CANDIDATES = 64;

/** Of a message to a member who has left, and of a session that was lost: the roster tells, and joining again mends it. */
const EXPECTED = ["no_such_member", "not_joined", "session_lost", "closed"];

export class Peer {
  #makingOffer = false;
  #ignoreOffer = false;
  #isSettingRemoteAnswerPending = false;
  #closed = false;
  #sentSdp = "";
  /** @type {RTCIceCandidate[]} */ #held = [];          // ours, until their description is sent
  /** @type {RTCIceCandidateInit[]} */ #early = [];     // theirs, until their description is applied
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #start;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #answer;

  /** Candidates by type, for the report. @type {Record<string, number>} */ gathered = {};
  /** @type {Record<string, number>} */ arrived = {};

  /** @param {import("./call.js").Call} call @param {import("../turnkey.js").Member} member @param {RTCPeerConnection} pc */
  constructor(call, member, pc) {
    this.call = call;
    this.member = member;
    this.pc = pc;
    this.recovery = new Recovery(this);
    this.chat = new Chat({
      relay: (text) => call.session.request("chat", text, member.id),
      onMessage: (message, timestamp) => call.emit("message", { member, message, timestamp }),
      onData: (data) => call.emit("custom", { member, data }),
    });
    pc.onnegotiationneeded = () => this.#negotiate();
    pc.onicecandidate = ({ candidate }) => this.#onGathered(candidate);
    pc.ondatachannel = ({ channel }) => this.chat.accept(channel);
    pc.ontrack = ({ track, streams }) => call.emit("stream", { member, stream: streams[0] ?? new MediaStream([track]) });
    /** @type {RTCDataChannel | undefined} */
    this.channel = undefined;
    // Offers of both sides at the very start are legal, but Chromium never gathers again when its first offer is
    // rolled back while it is being set. So the earlier member starts, and the later one waits a little.
    if (member.polite) this.#start = setTimeout(() => this.#begin(), FIRST_OFFER_WAIT);
    else this.#begin();
  }

  /** Puts what goes out now in the place of what went out before. */
  send() {
    if (!this.channel) return; // #begin() will
    const { outgoing } = this.call;
    for (const kind of /** @type {const} */ (["audio", "video"])) {
      const track = outgoing.track(kind);
      const sender = this.pc.getTransceivers().find((one) => one.receiver.track?.kind === kind && one.direction.startsWith("send"))?.sender;
      if (sender) sender.replaceTrack(track).catch((error) => this.complain("replacing a track", error));
      else if (track && outgoing.group) this.pc.addTrack(track, outgoing.group);
    }
  }

  /** @param {RTCSessionDescriptionInit} description */
  async onDescription(description) {
    const { pc } = this;
    try {
      const readyForOffer = !this.#makingOffer && (pc.signalingState === "stable" || this.#isSettingRemoteAnswerPending);
      const offerCollision = description.type === "offer" && !readyForOffer;
      this.#ignoreOffer = !this.member.polite && offerCollision;
      this.log(`Received ${description.type}${offerCollision ? ` while offering: ${this.#ignoreOffer ? "ignored" : "ours is taken back"}` : ""}`);
      if (this.#ignoreOffer) return;
      clearTimeout(this.#answer);
      this.#isSettingRemoteAnswerPending = description.type === "answer";
      await pc.setRemoteDescription(this.call.isDeaf ? withoutCandidates(description) : description);
      this.#isSettingRemoteAnswerPending = false;
      await this.#addEarlyCandidates();
      if (description.type !== "offer" || this.#closed) return;
      this.#begin();
      await pc.setLocalDescription();
      this.#sendDescription();
    } catch (error) {
      this.#isSettingRemoteAnswerPending = false;
      this.complain(`applying an ${description.type}`, error);
    }
  }

  /** @param {RTCIceCandidateInit | null} candidate */
  async onCandidate(candidate) {
    if (!candidate?.candidate || this.#ignoreOffer || this.call.isDeaf) return; // the end, or part of an ignored offer
    count(this.arrived, / typ (\w+)/.exec(candidate.candidate)?.[1]);
    if (belongs(candidate, this.pc.remoteDescription?.sdp)) return this.#addCandidate(candidate);
    if (this.#early.length < MAX_CANDIDATES) this.#early.push(candidate);
  }

  /** @param {string} text */
  log(text) {
    this.call.log(text, this.member);
  }

  /** @param {TurnkeyError} error */
  problem(error) {
    if (!this.#closed) this.call.problem(error, this.member);
  }

  /** @param {string} doing @param {unknown} error */
  complain(doing, error) {
    if (this.#closed) return;
    this.log(`Problem while ${doing}: ${describe(error)}`);
    this.problem(new TurnkeyError("negotiation", `${doing}: ${describe(error)}`, error));
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#start);
    clearTimeout(this.#answer);
    this.recovery.close();
    this.pc.close();
  }

  /** Adds what there is to send, which makes an offer necessary unless it fits into an answer. */
  #begin() {
    clearTimeout(this.#start);
    if (this.channel) return;
    this.channel = this.pc.createDataChannel("turnkey", { negotiated: true, id: 0 });
    this.channel.onopen = () => this.log("Data channel open");
    this.chat.open(this.channel);
    this.send();
  }

  async #negotiate() {
    try {
      this.#makingOffer = true;
      await this.pc.setLocalDescription();
      this.#sendDescription();
    } catch (error) {
      this.complain("creating an offer", error);
    } finally {
      this.#makingOffer = false;
    }
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
      if (!this.#ignoreOffer) this.complain("adding a candidate", error);
    }
  }

  #sendDescription() {
    const description = this.pc.localDescription;
    if (!description || this.#closed) return;
    this.#sentSdp = description.sdp;
    const { type, sdp } = this.call.isDeaf ? withoutCandidates(description) : description;
    this.#request(type, { type, sdp });
    this.log(`${type === "offer" ? "Offer" : "Answer"} created and sent`);
    if (type === "offer") this.#expectAnswer();
    for (const candidate of this.#held.splice(0)) {
      if (belongs(candidate, this.#sentSdp)) this.#sendCandidate(candidate);
    }
  }

  #expectAnswer() {
    clearTimeout(this.#answer);
    this.#answer = setTimeout(() => {
      if (this.member.away) return;
      this.problem(new TurnkeyError("no_answer", "the other side does not answer the offer"));
    }, ANSWER_TIMEOUT);
  }

  /** @param {RTCIceCandidate | null} candidate */
  #onGathered(candidate) {
    if (candidate) {
      count(this.gathered, candidate.type ?? undefined);
      if (belongs(candidate, this.#sentSdp)) this.#sendCandidate(candidate);
      else if (this.#held.length < MAX_CANDIDATES) this.#held.push(candidate);
    } else if (Object.keys(this.gathered).length === 0) {
      this.problem(new TurnkeyError("no_candidates", "no candidate could be gathered"));
    }
  }

  /** @param {RTCIceCandidate} candidate */
  #sendCandidate(candidate) {
    if (!this.call.isDeaf) this.#request("candidate", candidate.toJSON());
  }

  /** @param {string} t @param {any} d */
  #request(t, d) {
    this.call.session.request(t, d, this.member.id).catch((/** @type {TurnkeyError} */ error) => {
      if (!EXPECTED.includes(error.code)) this.complain(`sending the ${t}`, error);
    });
  }
}

/**
 * Whether a candidate is of the generation a description speaks of.
 * @param {RTCIceCandidateInit} candidate @param {string | undefined} sdp
 */
function belongs({ usernameFragment }, sdp) {
  return Boolean(sdp) && (!usernameFragment || String(sdp).includes(`a=ice-ufrag:${usernameFragment}`));
}

/** @param {RTCSessionDescriptionInit} description @returns {RTCSessionDescriptionInit & {type: RTCSdpType, sdp: string}} */
function withoutCandidates({ type, sdp = "" }) {
  return { type, sdp: sdp.replace(/^a=(candidate:.*|end-of-candidates)\r?\n/gm, "") };
}

/** @param {Record<string, number>} sums @param {string} [key] */
function count(sums, key = "unknown") {
  sums[key] = (sums[key] ?? 0) + 1;
}
