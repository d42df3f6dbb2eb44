/**
 * Calls through a turnkey server: one socket for signaling, one RTCPeerConnection per other member.
 *
 *     import { join, openMedia } from "/turnkey.js";
 *     const call = join({ room: "demo", stream: await openMedia() });
 *     call.on("stream", ({ stream }) => (video.srcObject = stream));
 *
 * This file is the contract: the modules are checked against it.
 * @module
 */

/** Of the signaling; media goes on while it is `reconnecting`. */
export type CallState = "connecting" | "joined" | "reconnecting" | "closed";

export type MediaKind = "audio" | "video";

/** What a member sends; absent means that it never said so. */
export type MediaState = { audio?: boolean; video?: boolean; screen?: boolean };

/** Somebody else in the room. */
export type Member = {
  id: string;
  user?: string;
  name?: string;
  role?: string;
  /** Whether we yield to this member when both offer at once. */
  polite: boolean;
  /** Its socket is lost, and it may come back. */
  away: boolean;
  media: MediaState;
};

/** relay when either end is relayed, reflexive when either end is behind a NAT. */
export type PathKind = "host" | "reflexive" | "relay";

/** The selected candidate pair, as this side sees it. */
export type Path = {
  kind: PathKind;
  /** To our own relay when there is one, else to the other side. */
  transport: "udp" | "tcp" | "tls";
  /** Candidate type: host, srflx, prflx or relay. */
  local: string;
  remote: string;
  /** In words, such as "relayed over UDP". */
  label: string;
};

export type PeerStats = {
  path: Path;
  /** Milliseconds. */
  rtt?: number;
  /** Bytes since the path was chosen. */
  received: number;
  sent: number;
  /** Bits per second since the last look; absent at the first. */
  bitrateIn?: number;
  bitrateOut?: number;
  framesDecoded: number;
  packetsLost: number;
  /** The part of the packets that was lost since the last look, 0 to 1. */
  loss?: number;
  /** Milliseconds, the worst of all incoming tracks. */
  jitter?: number;
};

/** How it feels: from round trip and loss, and `lost` while there is no path. */
export type Quality = "good" | "fair" | "poor" | "lost";

/**
 * The codes of this client's own errors; those of the server's refusals come on top.
 *
 * They end the call: `unauthenticated forbidden not_found room_full replaced kicked bad_url protocol`.
 * They are told as a problem while the call goes on: `signaling_lost path_failed no_candidates no_answer negotiation
 * credential_refused device_lost not_sent`.
 * A request or a helper fails with them: `backlog session_lost closed insecure_origin media_denied media_missing media_busy`.
 */
export type ErrorCode =
  | "unauthenticated" | "forbidden" | "not_found" | "room_full" | "replaced" | "kicked" | "bad_url" | "protocol"
  | "signaling_lost" | "path_failed" | "no_candidates" | "no_answer" | "negotiation" | "credential_refused" | "device_lost" | "not_sent"
  | "backlog" | "session_lost" | "closed" | "insecure_origin" | "media_denied" | "media_missing" | "media_busy";

/** An error with a stable `code` and a `hint` that says what to do. */
export declare class TurnkeyError extends Error {
  constructor(code: ErrorCode | (string & {}), message: string, cause?: unknown);
  readonly code: ErrorCode | (string & {});
  readonly hint: string;
}

export type CallEvents = {
  state: { state: CallState };
  "member-joined": { member: Member };
  /** Away, back, or another media state. */
  "member-changed": { member: Member };
  "member-left": { member: Member; reason: string };
  stream: { member: Member; stream: MediaStream };
  /** State of the peer connection. */
  connection: { member: Member; state: string };
  /** Another pair was selected. */
  path: { member: Member; path: Path };
  /** Every two seconds. */
  stats: { member: Member; stats: PeerStats };
  /** Told when it changes. */
  quality: { member: Member; quality: Quality; reason: string };
  /** Chat, each message once, whichever way it came. */
  message: { member: Member; message: string; timestamp: string };
  custom: { member: Member; data: unknown };
  /** Our own media state changed: by us, by a moderator (`by`), or because a device or a screen went away. */
  media: { media: MediaState; by?: string };
  /** One of our devices vanished in the middle of the call; with `replaced` another one took its place. */
  device: { kind: MediaKind; replaced: boolean };
  /** Fresh ICE servers are in use; Unix seconds by the server's clock, and seconds from now. */
  credentials: { expiresAt: number; expiresIn: number };
  /** Something is wrong, and the call goes on mending it. */
  problem: { error: TurnkeyError; member?: Member };
  /** The call has ended because of it. */
  error: { error: TurnkeyError };
  /** What happens, in words. */
  log: { text: string; member?: Member };
};

export type Token = string | (() => string | undefined | Promise<string | undefined>);

export type CallOptions = {
  room: string;
  /** Shown to the others. */
  name?: string;
  role?: string;
  /** A function is asked before each connection, and again before the token it gave has expired. */
  token?: Token;
  /** Of the socket; by default `/v1/ws` on the page's own server. */
  url?: string;
  /** What to send. */
  stream?: MediaStream | null;
  iceTransportPolicy?: RTCIceTransportPolicy;
  /** Instead of, or made from, the server's. */
  iceServers?: RTCIceServer[] | ((servers: RTCIceServer[]) => RTCIceServer[]);
  /**
   * Keeps the session over a reload of the page, such as `sessionStorage`. A tab that is closed then counts as away
   * until the server's resume window is over; without it, it has left at once.
   */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
  WebSocket?: typeof globalThis.WebSocket;
  RTCPeerConnection?: typeof globalThis.RTCPeerConnection;
  /** Source of the back-off's jitter. */
  random?: () => number;
};

/** What goes wrong on purpose, for demonstrations and for tests of your own page. Each recovers by itself. */
export type Sabotage =
  /** The signaling socket dies without a word. */
  | "socket"
  /** For `seconds`, eight by default, no candidate gets through, and connections begin anew. */
  | "candidates"
  /** The relay credential in use is replaced by one that has expired. */
  | "credential"
  /** Both sides offer at once. */
  | "glare";

/** Everything that helps to understand a call afterwards. No credentials, no tokens, no descriptions. */
export type Report = {
  version: string;
  created: string;
  userAgent: string;
  url: string;
  room: string;
  state: CallState;
  member?: string;
  iceTransportPolicy: RTCIceTransportPolicy;
  iceServers: string[];
  media: MediaState;
  signaling: {
    sockets: number;
    resumes: number;
    lastSeq: number;
    waiting: number;
    /** Milliseconds that the server's clock is ahead of ours. */
    clockSkew: number;
  };
  members: {
    id: string;
    name?: string;
    away: boolean;
    connectionState: string;
    iceConnectionState: string;
    iceGatheringState: string;
    signalingState: string;
    restarts: number;
    /** Types of the candidates that were gathered here, and that came from there. */
    gathered: Record<string, number>;
    arrived: Record<string, number>;
    stats: PeerStats | null;
  }[];
  problems: { at: string; code: string; message: string }[];
  log: string[];
};

/** A call in a room, from `join()`. */
export declare class Call {
  constructor(options: CallOptions);
  readonly state: CallState;
  /** Our own member id, once joined. */
  readonly member: string | undefined;
  /** What we send; `setStream` changes it. */
  readonly stream: MediaStream | null;
  /** What we say of ourselves to the others. */
  readonly media: MediaState;
  /** Resolves when the room is entered, rejects when it never will be. */
  readonly ready: Promise<void>;
  /** The others in the room. */
  readonly members: Member[];
  /** Calls `listener` on each event of that type; the result unsubscribes. */
  on<K extends keyof CallEvents>(type: K, listener: (detail: CallEvents[K]) => void): () => void;
  /** The RTCPeerConnection to a member. */
  connection(member: string): RTCPeerConnection | undefined;
  /** Null while there is no path. */
  stats(member: string): Promise<PeerStats | null>;
  /** Sends this stream from now on, in the place of the one before. */
  setStream(stream: MediaStream | null): void;
  /** Mutes or unmutes our own tracks, and says so to the others. */
  setEnabled(kind: MediaKind, enabled: boolean): void;
  /** Takes another camera or microphone, or the default one; the track before is stopped. */
  useDevice(kind: MediaKind, deviceId?: string): Promise<void>;
  /** Sends a screen in the place of the camera until `stopScreen()`, or until the browser's own button ends it. */
  shareScreen(screen?: MediaStream): Promise<void>;
  stopScreen(): void;
  /**
   * Sends a chat message to everybody: over the data channel, and through the server to whoever does not confirm it
   * there. Resolves when all have it or the server has it for them.
   */
  sendMessage(message: string): Promise<void>;
  /** Sends any JSON value through the server, to one member or to all. */
  sendCustom(data: unknown, to?: string): Promise<{ delivered: number; held: number }>;
  /** With the grant `moderate`: sends a member out of the room. */
  kick(member: string): Promise<void>;
  /** With the grant `moderate`: turns a track of a member off. */
  mute(member: string, track: "audio" | "video" | "screen"): Promise<void>;
  /**
   * `relay` hides our address and proves the relay. Browsers keep a direct path that works through an ICE restart,
   * so this leaves the room and enters it again with new connections.
   */
  setIceTransportPolicy(policy: RTCIceTransportPolicy): void;
  /** Looks for a new path with fresh credentials, to all members by default. */
  restartIce(member?: string): void;
  /** Asks the server for fresh ICE servers and applies them to every connection. */
  refreshIce(): Promise<void>;
  collectReport(): Promise<Report>;
  sabotage(what: Sabotage, seconds?: number): void;
  /** Hangs up: the others are told, every connection is closed. Local tracks stay the caller's. */
  leave(): void;
}

/** Joins a room; the call connects by itself until `leave()` or an `error` event. */
export declare function join(options: CallOptions): Call;

/** A call from one user to another; its `id` is the room to join once it is `ongoing`. */
export type Ring = {
  id: string;
  caller: string;
  callee: string;
  status: "pending" | "ongoing" | "ended" | "rejected" | "cancelled" | "missed" | "failed";
  /** What the caller gave. */
  media?: unknown;
};

export type LineEvents = {
  /** The server knows us as this user. */
  open: { user: string };
  /** A call of ours, to us or by us, rings or has changed. It rings on all lines of a user; the first answer wins. */
  call: { ring: Ring; incoming: boolean };
  /** The line is closed because of it, or could not see what rings already. */
  error: { error: TurnkeyError };
};

export type LineOptions = {
  /** Of a user: guests have no line. */
  token?: Token;
  /** Of the socket; by default `/v1/ws` on the page's own server. */
  url?: string;
  WebSocket?: typeof globalThis.WebSocket;
  fetch?: typeof globalThis.fetch;
  random?: () => number;
};

/** On which a user can be called, from `openLine()`. */
export type Line = {
  /** Who we are, once the line is open. */
  readonly user: string | undefined;
  /** Calls `listener` on each event of that type; the result unsubscribes. */
  on<K extends keyof LineEvents>(type: K, listener: (detail: LineEvents[K]) => void): () => void;
  /** Rings at a user, for 45 seconds at most. */
  call(user: string, media?: unknown): Promise<Ring>;
  accept(id: string): Promise<Ring>;
  reject(id: string): Promise<Ring>;
  /** Ends a call, or stops its ringing. */
  end(id: string): Promise<Ring>;
  close(): void;
};

/** Opens a line that comes back by itself until it is closed. */
export declare function openLine(options: LineOptions): Line;

/** Camera and microphone with the defaults of a call, or a TurnkeyError that says why not. */
export declare function openMedia(constraints?: MediaStreamConstraints): Promise<MediaStream>;

/** A screen, window or tab that the user chooses, or a TurnkeyError that says why not. */
export declare function openScreen(): Promise<MediaStream>;

export type Device = { id: string; kind: MediaKind; label: string };

/** Cameras and microphones; their labels are empty until the user has allowed one. */
export declare function listDevices(): Promise<Device[]>;

/** Calls `listener` with the devices whenever one comes or goes; the result unsubscribes. */
export declare function watchDevices(listener: (devices: Device[]) => void): () => void;

/** The state of a one-to-one call as components show it. A new object whenever something in it changes. */
export type CallSnapshot = {
  localStream: MediaStream | null;
  remoteStream: MediaStream | null;
  /** `new` until there is a peer, then the state of its RTCPeerConnection. */
  connectionState: RTCPeerConnectionState;
  /** Whether media is open and the call is joined. */
  isInitialized: boolean;
};

export type CreateCallOptions = {
  /** Of `POST /calls/initiate`, or any room. */
  callId: string;
  token?: Token;
  /** `ws://host/ws`; by default the page's own server. */
  wsUrl?: string;
  name?: string;
  /** What to ask the camera and microphone for; `false` joins without them. */
  constraints?: MediaStreamConstraints | false;
  onRemoteStream?: (stream: MediaStream) => void;
  onChatMessage?: (message: string, timestamp: string) => void;
  /** What ended the call, and what it has problems with. */
  onError?: (error: TurnkeyError) => void;
  iceTransportPolicy?: RTCIceTransportPolicy;
  WebSocket?: typeof globalThis.WebSocket;
  RTCPeerConnection?: typeof globalThis.RTCPeerConnection;
};

/** A one-to-one call for components of any framework, or of none. */
export type SimpleCall = Readonly<CallSnapshot> & {
  /** Opens media and joins. Once for all who ask; after `endCall` it begins anew. */
  initialize(): Promise<void>;
  endCall(): void;
  sendChatMessage(message: string): Promise<void>;
  setAudioEnabled(enabled: boolean): void;
  setVideoEnabled(enabled: boolean): void;
  /** The call below, while there is one. */
  readonly call: Call | null;
  /** Calls `listener` after each change; the result unsubscribes. */
  subscribe(listener: () => void): () => void;
  snapshot(): CallSnapshot;
};

/** Makes a one-to-one call that begins with `initialize()`. */
export declare function createCall(options: CreateCallOptions): SimpleCall;
