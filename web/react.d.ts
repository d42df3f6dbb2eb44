import type { CallSnapshot, CreateCallOptions, SimpleCall } from "./turnkey.js";

/** What the hook returns: the state of the call, and what a component may do. The functions never change. */
export type WebRTC = CallSnapshot & Pick<SimpleCall, "initialize" | "endCall" | "sendChatMessage" | "setAudioEnabled" | "setVideoEnabled">;

/**
 * A one-to-one call as a React hook. The call ends when the component goes, or when `callId` or `wsUrl` change; of the
 * other options the latest count.
 */
export declare function useWebRTC(options: CreateCallOptions): WebRTC;
