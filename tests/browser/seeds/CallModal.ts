/*
 * The call component of an application that this server must serve unchanged. What stands between the marks is that
 * application's own code, line by line; do not mend it. Around it is what its framework and its page would do.
 */
import { io } from "socket.io-client";
import { iceServers, params, ready, receive, remote, useChannel, useRef } from "./page.js";

const pcRef = useRef<RTCPeerConnection | null>(null);
const TURN_SERVERS: RTCIceServer[] = await iceServers("http://localhost:8000");
let candidate: RTCIceCandidateInit | undefined;

// ---- verbatim: 001.txt 1
async function handleIncomingCandidate(payload: any) {
  if (pcRef.current && candidate) {
    try {
      await pcRef.current.addIceCandidate(new RTCIceCandidate(candidate));
    } catch (err: any) {
      if (err.code === 'InvalidStateError') {
        console.warn('[CallModal] ICE candidate arrived before remote description');
        // ❌ PROBLEM: Candidate is DROPPED, not queued!
      }
    }
  }
}
// ---- end

// ---- verbatim: 001.txt 2
function buildIceConfig(): RTCConfiguration {
  const defaultStun: RTCIceServer = { urls: 'stun:stun.l.google.com:19302' };
  const servers = TURN_SERVERS && TURN_SERVERS.length > 0 ? [defaultStun, ...TURN_SERVERS] : [defaultStun];
  return { iceServers: servers };
}
// ---- end

const other = params.get("other");
const socket = io("http://localhost:8000", { auth: { token: params.get("token") } });
const pc = (pcRef.current = new RTCPeerConnection(buildIceConfig()));
remote(pc);
const stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
for (const track of stream.getTracks()) pc.addTrack(track, stream);

pc.onicecandidate = (event) => event.candidate && socket.emit("call.ice", { to: other, candidate: event.candidate });
socket.on("call.invite", ({ from }) => receive(`invited by ${from}`));
socket.on("call.offer", async ({ from, sdp }) => {
  await pc.setRemoteDescription(sdp);
  await pc.setLocalDescription(await pc.createAnswer());
  socket.emit("call.answer", { to: from, sdp: pc.localDescription });
});
socket.on("call.answer", ({ sdp }) => pc.setRemoteDescription(sdp));
socket.on("call.ice", (payload) => {
  candidate = payload.candidate;
  handleIncomingCandidate(payload);
});

/** Rings, and offers right after; `late` sends the candidates first, as a slow path would. */
async function call(late = false) {
  useChannel(pc.createDataChannel("chat"));
  socket.emit("call.invite", { to: other, kind: "video" });
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  if (late) await new Promise((done) => (pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && done(null)));
  socket.emit("call.offer", { to: other, sdp: offer });
}

if (!socket.connected) await new Promise((done) => socket.once("connect", () => done(null)));
ready({ peerConnection: pc, socket, call });
