/*
 * The call component of an application that this server must serve unchanged. What stands between the marks is that
 * application's own code, line by line; do not mend it. Around it is what its framework and its page would do.
 */

const useRef = <T>(value: T) => ({ current: value });
const useEffect = (effect: () => () => void, _: unknown[]) => addEventListener("pagehide", effect());

const params = new URLSearchParams(location.search);
const consultationId = params.get("consultation");
const received: string[] = [];

// ---- verbatim: configuration.txt
const configuration: RTCConfiguration = {
  iceServers: [
    { urls: 'stun:stun.l.google.com:19302' },
    { urls: 'stun:stun1.l.google.com:19302' },
    // Add TURN server for NAT traversal
    {
      urls: 'turn:your-turn-server.com:3478',
      username: 'username',
      credential: 'password'
    }
  ]
}
// ---- end

const transport = params.get("transport");
const answer = await (await fetch(`${params.get("server")}/v1/ice`)).json();
configuration.iceServers = answer.iceServers
  .map((one: RTCIceServer) => ({ ...one, urls: [one.urls].flat().filter((url) => url.startsWith("stun:") || url.endsWith(`transport=${transport}`)) }))
  .filter((one: RTCIceServer) => one.urls.length > 0);

const localStream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
const peerConnection = new RTCPeerConnection({ ...configuration, iceTransportPolicy: "relay" });
const peerConnectionRef = useRef<RTCPeerConnection | null>(peerConnection);
for (const track of localStream.getTracks()) peerConnection.addTrack(track, localStream);
peerConnection.ontrack = ({ streams }) => (document.querySelector("video")!.srcObject = streams[0]);

const greet = (channel: RTCDataChannel) => channel.send(`from the ${params.get("role")}`);
const useChannel = (channel: RTCDataChannel) => (channel.onmessage = ({ data }) => received.push(data));
if (params.get("role") === "doctor") {
  const channel = peerConnection.createDataChannel("chat");
  useChannel(channel);
  channel.onopen = () => greet(channel);
} else {
  peerConnection.ondatachannel = ({ channel }) => {
    useChannel(channel);
    // Chromium tells of a channel of the other side's as open before it is, and loses what it is given until then. Once something has
    // come over it, it is.
    channel.addEventListener("message", () => greet(channel), { once: true });
  };
}

// ---- verbatim: frontend.txt
// Add to VideoCallRoom.tsx

// WebSocket for signaling
const signalingWs = useRef<WebSocket | null>(null)

// Connect to signaling server
useEffect(() => {
  const ws = new WebSocket(`ws://localhost:8000/ws/signaling/${consultationId}`)
  
  ws.onopen = () => {
    console.log('Signaling connected')
  }
  
  ws.onmessage = async (event) => {
    const message = JSON.parse(event.data)
    
    if (message.type === 'offer') {
      // Received offer from other peer
      await peerConnectionRef.current?.setRemoteDescription(
        new RTCSessionDescription(message.offer)
      )
      // Create answer
      const answer = await peerConnectionRef.current?.createAnswer()
      await peerConnectionRef.current?.setLocalDescription(answer)
      // Send answer back
      ws.send(JSON.stringify({
        type: 'answer',
        answer: answer
      }))
    } else if (message.type === 'answer') {
      // Received answer from other peer
      await peerConnectionRef.current?.setRemoteDescription(
        new RTCSessionDescription(message.answer)
      )
    } else if (message.type === 'ice-candidate') {
      // Received ICE candidate from other peer
      await peerConnectionRef.current?.addIceCandidate(
        new RTCIceCandidate(message.candidate)
      )
    }
  }
  
  signalingWs.current = ws
  
  return () => {
    ws.close()
  }
}, [consultationId])

// Update ICE candidate handler
peerConnection.onicecandidate = (event) => {
  if (event.candidate && signalingWs.current) {
    // Send ICE candidate to other peer via signaling server
    signalingWs.current.send(JSON.stringify({
      type: 'ice-candidate',
      candidate: event.candidate
    }))
  }
}

// Create and send offer (for doctor/initiator)
const createOffer = async () => {
  const offer = await peerConnectionRef.current?.createOffer()
  await peerConnectionRef.current?.setLocalDescription(offer)
  
  // Send offer to other peer via signaling server
  signalingWs.current?.send(JSON.stringify({
    type: 'offer',
    offer: offer
  }))
}
// ---- end

Object.assign(globalThis, { room: { peerConnection, signalingWs, createOffer, received } });

export {};
