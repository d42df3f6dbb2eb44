/*
 * The hook of an application that this server must serve unchanged. What stands between the marks is that
 * application's own code, line by line; do not mend it. Around it is what its framework and its page would do.
 */
import { io } from "socket.io-client";
import { iceServers, params, ready, receive, remote, useChannel, useRef } from "./page.js";

const backendUrl = "http://localhost:4000";
const socketRef = useRef<any>(null);
const roomId = params.get("room");
const role = params.get("role");
const pc = new RTCPeerConnection({ iceServers: await iceServers(backendUrl) });
remote(pc);
if (role === "doctor") useChannel(pc.createDataChannel("chat"));
const stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
for (const track of stream.getTracks()) pc.addTrack(track, stream);

// ---- verbatim: 002.txt 1
// frontend/src/hooks/useConsultationWebRTC.ts
socketRef.current = io(backendUrl);  // ‚Üê Connects to root "/", not "/consultation"
// ---- end

async function handleOffer({ offer }: any) {
  console.log("[WebRTC] Received offer from doctor");
  await pc.setRemoteDescription(offer);
  const answer = await pc.createAnswer();
  await pc.setLocalDescription(answer);
// ---- verbatim: 002.txt 2
socketRef.current?.emit('webrtc:answer', { roomId, answer });
// ---- end
  console.log("[WebRTC] Answer created and sent");
}
const handleAnswer = ({ answer }: any) => pc.setRemoteDescription(answer);
const handleIceCandidate = ({ candidate }: any) => pc.addIceCandidate(candidate);

// ---- verbatim: 002.txt 2
// Listen for events
socketRef.current.on('webrtc:offer', handleOffer);
socketRef.current.on('webrtc:answer', handleAnswer);
socketRef.current.on('webrtc:ice_candidate', handleIceCandidate);
// ---- end
socketRef.current.on("webrtc:joined_room", () => console.log("[WebRTC] Successfully joined room"));
socketRef.current.on("chat:message", ({ message }: any) => receive(`chat: ${message}`));
pc.onicecandidate = ({ candidate }) => {
  if (!candidate) return;
// ---- verbatim: 002.txt 2
socketRef.current?.emit('webrtc:ice_candidate', { roomId, candidate });
// ---- end
};

async function join() {
  if (role === "doctor") socketRef.current.emit("identify_as_doctor");
  socketRef.current.emit("chat:join_room", { roomId });
  const joined = new Promise((resolve) => socketRef.current.once("webrtc:joined_room", resolve));
// ---- verbatim: 002.txt 2
socketRef.current?.emit('webrtc:join_room', { roomId });
// ---- end
  await joined;
}

async function call() {
  console.log("[WebRTC] Doctor creating offer...");
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
// ---- verbatim: 002.txt 2
socketRef.current?.emit('webrtc:offer', { roomId, offer });
// ---- end
  console.log("[WebRTC] Offer created and sent");
}

const say = (message: string) => socketRef.current.emit("chat:send_message", { roomId, message });
await join();
ready({ peerConnection: pc, socket: socketRef.current, call, say });
