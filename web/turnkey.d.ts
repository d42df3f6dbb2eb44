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
export type CallState = "connecting" | "joined" | "reconnecting" | "closed";
export type MediaState = {
    audio?: boolean;
    video?: boolean;
    screen?: boolean;
};
export type Member = {
    id: string;
    user?: string;
    name?: string;
    role?: string;
    polite: boolean;
    away: boolean;
    media: MediaState;
};
export type PathKind = "host" | "reflexive" | "relay";
export type Path = {
    /**
     * relay when either end is relayed, reflexive when either end is behind a NAT
     */
    kind: PathKind;
    /**
     * to our own relay when there is one, else to the other side
     */
    transport: "udp" | "tcp" | "tls";
    /**
     * candidate type: host, srflx, prflx or relay
     */
    local: string;
    remote: string;
    /**
     * in words, such as "relayed over UDP"
     */
    label: string;
};
export type PeerStats = {
    path: Path;
    rtt?: number;
    received: number;
    sent: number;
    framesDecoded: number;
    packetsLost: number;
};
export type CallEvents = {
    /**
     * of the signaling; media goes on while it is `reconnecting`
     */
    state: {
        state: CallState;
    };
    "member-joined": {
        member: Member;
    };
    /**
     * away, back, or muted
     */
    "member-changed": {
        member: Member;
    };
    "member-left": {
        member: Member;
        reason: string;
    };
    stream: {
        member: Member;
        stream: MediaStream;
    };
    /**
     * state of the peer connection
     */
    connection: {
        member: Member;
        state: string;
    };
    /**
     * another pair was selected
     */
    path: {
        member: Member;
        path: Path;
    };
    /**
     * every two seconds
     */
    stats: {
        member: Member;
        stats: PeerStats;
    };
    /**
     * chat
     */
    message: {
        member: Member;
        message: string;
        timestamp: string;
    };
    custom: {
        member: Member;
        data: unknown;
    };
    /**
     * fresh ICE servers are in use; Unix seconds
     */
    credentials: {
        expiresAt: number;
    };
    /**
     * the call has ended because of it
     */
    error: {
        error: TurnkeyError;
    };
    /**
     * what happens, in words
     */
    log: {
        text: string;
        member?: Member;
    };
};
export type Frame = {
    t: string;
    id?: string;
    seq?: number;
    ack?: number;
    to?: string;
    from?: string;
    ref?: string;
    d?: any;
};
export type CallOptions = {
    room: string;
    /**
     * shown to the others
     */
    name?: string;
    role?: string;
    /**
     * a function is asked before each connection
     */
    token?: string | (() => string | undefined | Promise<string | undefined>);
    /**
     * of the socket; by default `/v1/ws` on the page's own server
     */
    url?: string;
    /**
     * what to send
     */
    stream?: MediaStream | null;
    iceTransportPolicy?: RTCIceTransportPolicy;
    /**
     * instead of, or made from, the server's
     */
    iceServers?: RTCIceServer[] | ((servers: RTCIceServer[]) => RTCIceServer[]);
    WebSocket?: typeof globalThis.WebSocket;
    RTCPeerConnection?: typeof globalThis.RTCPeerConnection;
    /**
     * source of the back-off's jitter
     */
    random?: () => number;
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
export declare class TurnkeyError extends Error {
    code: string;
    hint: string;
    /** @param {string} code @param {string} message @param {unknown} [cause] */
    constructor(code: string, message: string, cause?: unknown);
}
/**
 * Joins a room; the call connects by itself until `leave()` or an `error` event.
 * @param {CallOptions} options
 * @returns {Call}
 */
export declare function join(options: CallOptions): Call;
/**
 * Camera and microphone with the defaults of a call, or a TurnkeyError that says why not.
 * @param {MediaStreamConstraints} [constraints]
 * @returns {Promise<MediaStream>}
 */
export declare function openMedia(constraints?: MediaStreamConstraints): Promise<MediaStream>;
/**
 * @template {object} Events
 */
declare class Emitter<Events extends object> {
    #private;
    /**
     * Calls `listener` on each event of that type; the result unsubscribes.
     * @template {keyof Events} K
     * @param {K} type
     * @param {(detail: Events[K]) => void} listener
     * @returns {() => void}
     */
    on<K extends keyof Events>(type: K, listener: (detail: Events[K]) => void): () => void;
    /**
     * @template {keyof Events} K
     * @param {K} type
     * @param {Events[K]} detail
     */
    emit<K extends keyof Events>(type: K, detail: Events[K]): void;
}
/**
 * The signaling session: outlives its sockets, resumes, acknowledges, and re-sends what was not acknowledged.
 * @extends {Emitter<{open: any, lost: string, frame: Frame, wake: null, stop: TurnkeyError}>}
 */
declare class Session extends Emitter<{
    open: any;
    lost: string;
    frame: Frame;
    wake: null;
    stop: TurnkeyError;
}> {
    #private;
    options: {
        url: string;
        token?: CallOptions["token"];
        WebSocket: typeof WebSocket;
        random: () => number;
    };
    /** @param {{url: string, token?: CallOptions["token"], WebSocket: typeof WebSocket, random: () => number}} options */
    constructor(options: {
        url: string;
        token?: CallOptions["token"];
        WebSocket: typeof WebSocket;
        random: () => number;
    });
    /**
     * Sends a frame that the server answers; kept and sent again, under the same id, until it has.
     * @param {string} t @param {any} [d] @param {string} [to]
     * @returns {Promise<any>} the answer's payload
     */
    request(t: string, d?: any, to?: string): Promise<any>;
    /** Sends a frame that may be lost. @param {Frame} frame */
    report(frame: Frame): void;
    close(): void;
    /** Finds out soon whether the socket still carries anything; a network that changed tells nobody. */
    probe(): void;
}
/**
 * A call in a room, from `join()`.
 * @extends {Emitter<CallEvents>}
 */
export declare class Call extends Emitter<CallEvents> {
    #private;
    options: CallOptions;
    /** @type {CallState} */
    state: CallState;
    /** Our own member id, once joined. @type {string | undefined} */
    member: string | undefined;
    stream: MediaStream | null;
    random: () => number;
    /** Resolves when the room is entered, rejects when it never will be. @type {Promise<void>} */
    ready: Promise<void>;
    session: Session;
    /** @param {CallOptions} options */
    constructor(options: CallOptions);
    /** The others in the room. @returns {Member[]} */
    get members(): Member[];
    /** The RTCPeerConnection to a member. @param {string} member */
    connection(member: string): RTCPeerConnection | undefined;
    /** @param {string} member @returns {Promise<PeerStats | null>} null while there is no path */
    stats(member: string): Promise<PeerStats | null>;
    /** Sends this stream from now on, in the place of the one before. @param {MediaStream | null} stream */
    setStream(stream: MediaStream | null): void;
    /** Mutes or unmutes our own tracks, and says so to the others. @param {"audio" | "video"} kind @param {boolean} enabled */
    setEnabled(kind: "audio" | "video", enabled: boolean): void;
    /**
     * Sends a chat message to everybody, over the data channel where it is open, else through the server.
     * @param {string} message
     */
    sendMessage(message: string): void;
    /** Sends any JSON value through the server, to one member or to all. @param {unknown} data @param {string} [to] @returns {Promise<{delivered: number, held: number}>} */
    sendCustom(data: unknown, to?: string): Promise<{
        delivered: number;
        held: number;
    }>;
    /**
     * `relay` hides our address and proves the relay. Browsers keep a direct path that works through an ICE restart,
     * so this leaves the room and enters it again with new connections.
     * @param {RTCIceTransportPolicy} policy
     */
    setIceTransportPolicy(policy: RTCIceTransportPolicy): void;
    /** Looks for a new path with fresh credentials. @param {string} [member] all of them by default */
    restartIce(member?: string): void;
    /** Asks the server for fresh ICE servers and applies them to every connection. @returns {Promise<void>} */
    refreshIce(): Promise<void>;
    /** Hangs up: the others are told, every connection is closed. Local tracks stay the caller's. */
    leave(): void;
    /** @param {string} text @param {Member} [member] */
    log(text: string, member?: Member): void;
}
export {};
