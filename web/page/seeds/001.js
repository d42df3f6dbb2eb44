// @ts-nocheck what stands between the marks is the seed's own code, without its types and on this server; do not mend it
/** Seed 001, Socket.IO from user to user: `call.invite`, `call.offer`, `call.answer`, `call.ice`. */
export const about = "Socket.IO from user to user: call.invite rings at somebody, and call.offer, call.answer and call.ice follow. Each side has a token of its own.";
export const fields = ["other"];
export const needsToken = true;

export async function start({ server, other, peerConnection: pc, iceServers: TURN_SERVERS, useChannel, useRef, hear, io, closing }) {
  const pcRef = useRef(pc);
  let candidate;

// ---- verbatim: seeds/001.txt 1
async function handleIncomingCandidate(payload) {
  if (pcRef.current && candidate) {
    try {
      await pcRef.current.addIceCandidate(new RTCIceCandidate(candidate));
    } catch (err) {
      if (err.code === 'InvalidStateError') {
        console.warn('[CallModal] ICE candidate arrived before remote description');
        // ❌ PROBLEM: Candidate is DROPPED, not queued!
      }
    }
  }
}
// ---- end

// ---- verbatim: seeds/001.txt 2
function buildIceConfig() {
  const defaultStun = { urls: 'stun:stun.l.google.com:19302' };
  const servers = TURN_SERVERS && TURN_SERVERS.length > 0 ? [defaultStun, ...TURN_SERVERS] : [defaultStun];
  return { iceServers: servers };
}
// ---- end

  pc.setConfiguration({ ...pc.getConfiguration(), ...buildIceConfig() });
  const socket = io(server);
  closing(() => socket.close());
  let caller = other;
  pc.onicecandidate = (event) => event.candidate && socket.emit("call.ice", { to: caller, candidate: event.candidate });
  socket.on("call.invite", ({ from }) => hear(`${from} is calling`));
  socket.on("call.offer", async ({ from, sdp }) => {
    caller = from;
    await pc.setRemoteDescription(sdp);
    await pc.setLocalDescription(await pc.createAnswer());
    socket.emit("call.answer", { to: from, sdp: pc.localDescription });
  });
  socket.on("call.answer", ({ sdp }) => pc.setRemoteDescription(sdp));
  socket.on("call.ice", (payload) => {
    candidate = payload.candidate;
    handleIncomingCandidate(payload);
  });

  async function call() {
    useChannel(pc.createDataChannel("chat"));
    socket.emit("call.invite", { to: other, kind: "video" });
    const offer = await pc.createOffer();
    await pc.setLocalDescription(offer);
    socket.emit("call.offer", { to: other, sdp: offer });
  }

  await new Promise((open, fail) => socket.once("connect", open).once("connect_error", fail));
  return { call };
}
