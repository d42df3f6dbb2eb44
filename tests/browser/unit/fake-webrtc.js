/**
 * Just enough of WebSocket and RTCPeerConnection to judge turnkey.js in node: the signaling states, roll-back, the
 * negotiation-needed event and candidates of the specification, without any media.
 */
import { FakeHub } from "./fake-hub.js";

/** A WebSocket class whose sockets end in that hub. */
export function socketTo(hub) {
  return class FakeSocket {
    static refused = 0;      // so many of the next sockets fail before they open
    static opened = 0;
    static mute = false;     // the next sockets open and then stay silent

    constructor(url, protocols) {
      this.url = url;
      this.protocol = protocols[0];
      this.open = false;
      this.mute = FakeSocket.mute;
      setTimeout(() => this.#start(), 0);
    }

    #start() {
      if (FakeSocket.refused > 0) {
        FakeSocket.refused--;
        return this.onclose?.({ code: 1006, reason: "" });
      }
      FakeSocket.opened++;
      this.open = true;
      this.link = hub.connect({
        send: (text) => setTimeout(() => this.open && !this.mute && this.onmessage?.({ data: text }), 0),
        close: (code, reason) => this.#end(code, reason),
      });
      this.onopen?.();
    }

    send(text) {
      if (this.open && !this.mute) this.link.receive(text);
    }

    close(code = 1000) {
      this.#end(code, "");
    }

    #end(code, reason) {
      if (!this.open) return;
      this.open = false;
      this.link.closed();
      setTimeout(() => this.onclose?.({ code, reason }), 0);
    }
  };
}

const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

export class FakePeerConnection {
  static all = [];
  static #generation = 0;
  signalingState = "stable";
  iceConnectionState = "new";
  connectionState = "new";
  localDescription = null;
  remoteDescription = null;
  candidates = [];            // added from the other side
  closed = false;
  restarts = 0;
  rollbacks = 0;
  received = 0;
  lost = 0;
  transceivers = [];
  #stable = { local: null, remote: null };
  #operations = Promise.resolve();
  #negotiationNeeded = false;
  #ufrag = "";

  constructor(configuration) {
    this.configuration = configuration;
    FakePeerConnection.all.push(this);
  }

  createDataChannel() {
    this.#needNegotiation();
    this.channel = { readyState: "connecting", sent: [], send(text) { this.sent.push(text); } };
    return this.channel;
  }

  addTrack(track) {
    const sender = { track, replaceTrack: async (next) => void (sender.track = next) };
    this.transceivers.push({ sender, direction: "sendrecv", receiver: { track: { kind: track.kind } } });
    this.#needNegotiation();
  }

  getTransceivers() { return this.transceivers; }
  /** The track that goes out, if any. */
  sent(kind) { return this.transceivers.find(({ receiver }) => receiver.track.kind === kind)?.sender.track; }
  setConfiguration(configuration) { this.configuration = configuration; }
  close() { this.closed = true; this.signalingState = "closed"; }

  restartIce() {
    this.restarts++;
    this.#ufrag = "";
    this.#needNegotiation();
  }

  async getStats() {
    return new Map([
      ["T", { type: "transport", id: "T", selectedCandidatePairId: "P" }],
      ["P", { type: "candidate-pair", id: "P", localCandidateId: "L", remoteCandidateId: "R", bytesReceived: this.received, bytesSent: 1, currentRoundTripTime: 0.02 }],
      ["L", { type: "local-candidate", id: "L", candidateType: "relay", relayProtocol: "tcp", protocol: "udp" }],
      ["I", { type: "inbound-rtp", id: "I", packetsReceived: 100, packetsLost: this.lost, framesDecoded: 7, jitter: 0.003 }],
      ["R", { type: "remote-candidate", id: "R", candidateType: "srflx", protocol: "udp" }],
    ]);
  }

  /** What the network does to the path. */
  setIce(state) {
    this.iceConnectionState = state;
    this.connectionState = state;
    this.oniceconnectionstatechange?.();
    this.onconnectionstatechange?.();
  }

  setLocalDescription() {
    return this.#chain(async () => {
      const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
      if (!this.#ufrag) this.#ufrag = `u${++FakePeerConnection.#generation}`;
      const description = { type, sdp: `v=0\r\na=ice-ufrag:${this.#ufrag}\r\n` };
      await tick();
      if (this.closed) return;
      this.localDescription = description;
      this.#setState(type === "answer" ? "stable" : "have-local-offer");
      this.#negotiationNeeded = false;
      setTimeout(() => this.#gather(this.#ufrag), 0);
    });
  }

  setRemoteDescription(description) {
    return this.#chain(async () => {
      if (description.type === "answer" && this.signalingState !== "have-local-offer") throw new Error(`answer in ${this.signalingState}`);
      if (description.type === "offer" && this.signalingState === "have-local-offer") {
        this.rollbacks++;
        this.localDescription = this.#stable.local;
        this.#ufrag = "";
        this.#negotiationNeeded = true;
      }
      await tick();
      if (this.closed) return;
      this.remoteDescription = description;
      this.#setState(description.type === "offer" ? "have-remote-offer" : "stable");
    });
  }

  addIceCandidate(candidate) {
    return this.#chain(async () => {
      if (!this.remoteDescription) throw new Error("candidate before description");
      if (candidate.usernameFragment && !this.remoteDescription.sdp.includes(candidate.usernameFragment)) throw new Error("candidate of another generation");
      this.candidates.push(candidate);
    });
  }

  #chain(operation) {
    const result = this.#operations.then(operation);
    this.#operations = result.catch(() => {});
    return result;
  }

  #setState(state) {
    this.signalingState = state;
    if (state !== "stable") return;
    this.#stable = { local: this.localDescription, remote: this.remoteDescription };
    this.setIce("connected");
    // A roll-back whose tracks went into the answer needs no offer of its own.
    this.#negotiationNeeded &&= !this.rollbacks;
    if (this.#negotiationNeeded) this.#fire();
  }

  #needNegotiation() {
    if (this.#negotiationNeeded) return;
    this.#negotiationNeeded = true;
    this.#fire();
  }

  #fire() {
    setTimeout(() => !this.closed && this.#negotiationNeeded && this.signalingState === "stable" && this.onnegotiationneeded?.(), 0);
  }

  #gather(usernameFragment) {
    for (let port = 1; port <= 3; port++) {
      const init = { candidate: `candidate:${port}`, sdpMid: "0", sdpMLineIndex: 0, usernameFragment };
      if (!this.closed) this.onicecandidate?.({ candidate: { ...init, toJSON: () => init } });
    }
    this.onicecandidate?.({ candidate: null });
  }
}

/** A track, and a stream of such: as much of them as a call touches. */
export class FakeTrack extends EventTarget {
  enabled = true;
  readyState = "live";

  constructor(kind) {
    super();
    this.kind = kind;
  }

  stop() { this.readyState = "ended"; }
  /** What happens when its device is unplugged. */
  unplug() {
    this.stop();
    this.dispatchEvent(new Event("ended"));
  }
}

export class FakeStream {
  #tracks;
  constructor(tracks = []) { this.#tracks = [...tracks]; }
  getTracks() { return [...this.#tracks]; }
  getVideoTracks() { return this.#tracks.filter(({ kind }) => kind === "video"); }
  addTrack(track) { this.#tracks.push(track); }
  removeTrack(track) { this.#tracks = this.#tracks.filter((one) => one !== track); }
}

/** A hub, and a way to let members join it. */
export function lab(join) {
  const hub = new FakeHub();
  const calls = [];
  FakePeerConnection.all.length = 0;
  return {
    hub,
    /** A call with its own socket class, its log and its events. */
    enter(options = {}) {
      const WebSocket = socketTo(hub);
      const call = join({ url: "ws://fake/v1/ws", room: "r", random: () => 0, WebSocket, RTCPeerConnection: FakePeerConnection, ...options });
      const events = [];
      for (const type of ["state", "member-joined", "member-left", "member-changed", "message", "custom", "path", "stats", "quality", "credentials", "media", "device", "problem", "error", "log"]) {
        call.on(type, (detail) => events.push({ type, ...detail }));
      }
      calls.push(call);
      return { call, events, WebSocket, of: (type) => events.filter((event) => event.type === type) };
    },
    end: () => calls.forEach((call) => call.leave()),
  };
}

/** Waits for a condition that only the event loop brings about. */
export async function until(condition, what) {
  for (let turn = 0; turn < 2000; turn++) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error(`never came: ${what ?? condition}`);
}
