/*
 * The client guide of an application that this server must serve unchanged. What stands between the marks is that
 * application's own code, line by line; do not mend it. Around it is what its framework and its page would do.
 */
import { iceServers as servers, params, ready, receive, remote, useChannel } from "./page.js";

const sessionId = params.get("session");
const iceServers = await servers("http://localhost:8086");

// ---- verbatim: 004.txt 1
import io from "socket.io-client";

const socket = io("http://localhost:8086", {
  transports: ["websocket", "polling"],
});

socket.on("connected", (data) => {
  console.log("Connected:", data);
});
// ---- end

// ---- verbatim: 004.txt 2
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

// ---- verbatim: 004.txt 3
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

remote(peerConnection);
if (attendee.role === "DOCTOR") useChannel(peerConnection.createDataChannel("chat"));

async function call() {
// ---- verbatim: 004.txt 4
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

// ---- verbatim: 004.txt 5
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

// ---- verbatim: 004.txt 6
socket.on("webrtc_answer", async (data) => {
  await peerConnection.setRemoteDescription(data.answer);
});
// ---- end

// ---- verbatim: 004.txt 7
socket.on("ice_candidate", async (data) => {
  await peerConnection.addIceCandidate(data.candidate);
});
// ---- end

function control() {
// ---- verbatim: 004.txt 8
// Toggle audio
socket.emit("toggle_audio", {
  room_id: room_id,
  user_id: attendee.user_id,
  enabled: false,
});

// Toggle video
socket.emit("toggle_video", {
  room_id: room_id,
  user_id: attendee.user_id,
  enabled: false,
});

// Send chat message
socket.emit("send_message", {
  room_id: room_id,
  user_id: attendee.user_id,
  message: "Hello!",
  timestamp: new Date().toISOString(),
});
// ---- end
}

function initializeWebRTC() {
  receive(`joined ${room_id}`);
}
for (const name of ["user_joined", "user_left", "audio_toggled", "video_toggled", "chat_message", "error"]) {
  socket.on(name, (data) => receive(`${name} ${data.user_id ?? ""} ${data.message ?? data.enabled ?? ""}`.trim()));
}

while (peerConnection.getSenders().length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
ready({ peerConnection, socket, call, control, attendee, signaling_server_url });
