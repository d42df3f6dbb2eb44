// @ts-nocheck what stands between the marks is the seed's own code on this server; do not mend it
/** Seed 004, REST sessions and Socket.IO rooms: `join_room`, `webrtc_offer`, `webrtc_answer`, `ice_candidate`, toggles, `send_message`. */
export const about = "REST and Socket.IO rooms: a doctor creates a session for a patient with POST /api/video/sessions, each joins it and gets a peer id and an access token, and join_room enters the room with them. The doctor offers to the literal “patient_peer_id”, as in the seed.";
export const fields = ["role", "other", "session"];
export const needsToken = true;
export const addsTracks = true;

export async function start({ server, user, other, role: part, session, iceServers, peerConnection: prepared, remoteVideo, localVideo, navigator, io: client, hear, made, fetch, closing }) {
  const io = (_, options) => client(server, options);
  // The page's own connection, which it watches.
  const RTCPeerConnection = function () {
    return prepared;
  };
  let sessionId = session;
  if (part === "doctor" && !sessionId) {
    const answer = await fetch("/api/video/sessions", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ doctor_id: user, patient_id: other }) });
    made((sessionId = (await answer.json()).session_id));
  }
  let initializeWebRTC, refuse;
  const joined = new Promise((resolve, reject) => ([initializeWebRTC, refuse] = [resolve, reject]));
  joined.catch(() => {}); // it is awaited below

// ---- verbatim: seeds/004.txt 1
const socket = io("http://localhost:8086", {
  transports: ["websocket", "polling"],
});

socket.on("connected", (data) => {
  console.log("Connected:", data);
});
// ---- end

  closing(() => socket.close());
  socket.on("connect_error", refuse);
  socket.on("error", ({ message }) => (refuse(new Error(message)), hear(message)));

// ---- verbatim: seeds/004.txt 2
// Get room details from API
const response = await fetch(`/api/video/sessions/${sessionId}/join`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    device_type: "web",
    browser_info: navigator.userAgent,
  }),
});

const { room_id, attendee, signaling_server_url } = await response.json();

// Join Socket.IO room
socket.emit("join_room", {
  room_id: room_id,
  user_id: attendee.user_id,
  role: attendee.role,
  token: attendee.access_token,
});

socket.on("joined_room", (data) => {
  console.log("Joined room:", data);
  initializeWebRTC();
});
// ---- end

// ---- verbatim: seeds/004.txt 3
const peerConnection = new RTCPeerConnection({
  iceServers: iceServers,
});

// Add local stream
navigator.mediaDevices
  .getUserMedia({ video: true, audio: true })
  .then((stream) => {
    localVideo.srcObject = stream;
    stream.getTracks().forEach((track) => {
      peerConnection.addTrack(track, stream);
    });
  });

// Handle remote stream
peerConnection.ontrack = (event) => {
  remoteVideo.srcObject = event.streams[0];
};

// Handle ICE candidates
peerConnection.onicecandidate = (event) => {
  if (event.candidate) {
    socket.emit("ice_candidate", {
      room_id: room_id,
      from_peer_id: attendee.peer_id,
      candidate: event.candidate,
    });
  }
};
// ---- end

async function call() {
// ---- verbatim: seeds/004.txt 4
const offer = await peerConnection.createOffer();
await peerConnection.setLocalDescription(offer);

socket.emit("webrtc_offer", {
  room_id: room_id,
  from_peer_id: attendee.peer_id,
  target_peer_id: "patient_peer_id",
  offer: offer,
});
// ---- end
}

// ---- verbatim: seeds/004.txt 5
socket.on("webrtc_offer", async (data) => {
  await peerConnection.setRemoteDescription(data.offer);
  const answer = await peerConnection.createAnswer();
  await peerConnection.setLocalDescription(answer);

  socket.emit("webrtc_answer", {
    room_id: room_id,
    from_peer_id: attendee.peer_id,
    target_peer_id: data.from_peer_id,
    answer: answer,
  });
});
// ---- end

// ---- verbatim: seeds/004.txt 6
socket.on("webrtc_answer", async (data) => {
  await peerConnection.setRemoteDescription(data.answer);
});
// ---- end

// ---- verbatim: seeds/004.txt 7
socket.on("ice_candidate", async (data) => {
  await peerConnection.addIceCandidate(data.candidate);
});
// ---- end

  socket.on("user_joined", ({ user_id }) => hear(`${user_id} has joined`));
  socket.on("user_left", ({ user_id }) => hear(`${user_id} has left`));
  socket.on("audio_toggled", ({ user_id, enabled }) => hear(`${user_id} turned the microphone ${enabled ? "on" : "off"}`));
  socket.on("video_toggled", ({ user_id, enabled }) => hear(`${user_id} turned the camera ${enabled ? "on" : "off"}`));
  socket.on("chat_message", ({ message }) => hear(message, true));
  await joined;
  const common = { room_id, user_id: attendee.user_id };
  return {
    call,
    chat: (message) => socket.emit("send_message", { ...common, message, timestamp: new Date().toISOString() }),
    enable: (kind, enabled) => socket.emit(`toggle_${kind}`, { ...common, enabled }),
  };
}
