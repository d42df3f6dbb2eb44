// @ts-check
/** A one-to-one call as a React hook; everything but React is in turnkey.js. */
import { useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { createCall } from "./turnkey.js";

/** @type {typeof import("./react.js").useWebRTC} */
export function useWebRTC(options) {
  const latest = useRef(options);
  useEffect(() => void (latest.current = options));
  const { callId, wsUrl } = options;
  const call = useMemo(() => createCall({
    ...options,
    token: () => {
      const { token } = latest.current;
      return typeof token === "function" ? token() : token;
    },
    onRemoteStream: (stream) => latest.current.onRemoteStream?.(stream),
    onChatMessage: (message, timestamp) => latest.current.onChatMessage?.(message, timestamp),
    onError: (error) => latest.current.onError?.(error),
  }), [callId, wsUrl]);
  useEffect(() => call.endCall, [call]);
  const state = useSyncExternalStore(call.subscribe, call.snapshot, call.snapshot);
  const { initialize, endCall, sendChatMessage, setAudioEnabled, setVideoEnabled } = call;
  return { ...state, initialize, endCall, sendChatMessage, setAudioEnabled, setVideoEnabled };
}
