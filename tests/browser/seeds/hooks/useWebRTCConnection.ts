/**
 * The hook its component imports; the application's documentation gives its fields, its socket and the messages,
 * which are written here as they stand there.
 */
import { iceServers, params, ready, receive } from "../page.js";
import { useRef, useState } from "../react.js";

export function useWebRTC({ callId, token, wsUrl, onRemoteStream, onError }: any) {
  const [localStream, setLocalStream] = useState(null);
  const [remoteStream, setRemoteStream] = useState(null);
  const [connectionState, setConnectionState] = useState("new");
  const [isInitialized, setIsInitialized] = useState(false);
  const { current: own } = useRef({} as any);

  own.initialize ??= async () => {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
      setLocalStream((own.stream = stream));
      const pc: RTCPeerConnection = (own.pc = new RTCPeerConnection({ iceServers: await iceServers("http://localhost:8000") }));
      for (const track of stream.getTracks()) pc.addTrack(track, stream);
      const ws = (own.ws = new WebSocket(`${wsUrl}/webrtc/${callId}?token=${token}`));
      const send = (message: unknown) => ws.send(JSON.stringify(message));
      const useChannel = (channel: RTCDataChannel) => {
        own.channel = channel;
        channel.onmessage = ({ data }) => receive(JSON.parse(data).message);
      };
      pc.ontrack = ({ streams }) => {
        setRemoteStream(streams[0]);
        onRemoteStream(streams[0]);
      };
      pc.ondatachannel = ({ channel }) => useChannel(channel);
      pc.onicecandidate = ({ candidate }) => candidate && send({ type: "ice_candidate", candidate });
      pc.onconnectionstatechange = () => {
        setConnectionState(pc.connectionState);
        send({ type: "connection_state", state: pc.connectionState });
      };
      ws.onmessage = async ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "offer") {
          await pc.setRemoteDescription(message.offer);
          await pc.setLocalDescription(await pc.createAnswer());
          send({ type: "answer", answer: pc.localDescription });
        } else if (message.type === "answer") {
          await pc.setRemoteDescription(message.answer);
        } else if (message.type === "ice_candidate") {
          await pc.addIceCandidate(message.candidate);
        }
      };
      await new Promise((open, fail) => {
        ws.onopen = open;
        ws.onclose = ({ code, reason }) => fail(new Error(`${code} ${reason}`));
      });
      if (params.get("role") === "caller") {
        useChannel(pc.createDataChannel("chat"));
        const offer = await pc.createOffer();
        await pc.setLocalDescription(offer);
        send({ type: "offer", offer });
      }
      setIsInitialized(true);
      ready({ peerConnection: pc, hook: own });
    } catch (error) {
      onError(error);
    }
  };
  own.endCall ??= () => {
    own.pc?.close();
    own.ws?.close();
  };
  own.sendChatMessage ??= (message: string) => own.channel.send(JSON.stringify({ type: "text", message, timestamp: new Date().toISOString() }));
  const setEnabled = (kind: string) => (enabled: boolean) => own.stream.getTracks().filter((track: MediaStreamTrack) => track.kind === kind).forEach((track: MediaStreamTrack) => (track.enabled = enabled));
  const { initialize, endCall, sendChatMessage } = own;
  return {
    localStream, remoteStream, connectionState, isInitialized, initialize, endCall, sendChatMessage,
    setAudioEnabled: setEnabled("audio"), setVideoEnabled: setEnabled("video"),
  };
}
