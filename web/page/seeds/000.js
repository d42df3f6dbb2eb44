// @ts-nocheck what stands between the marks is the seed's own code, without its types and on this server; do not mend it
/** Seed 000, a raw WebSocket: whoever connects is in the room, and each message goes to all the others. */
export const about = "A raw WebSocket: whoever connects to a consultation is in it, and each message goes to all the others. No token, no join, no leave.";
export const fields = ["room"];

export async function start({ socketServer, room: consultationId, peerConnection, useChannel, useRef, useEffect, WebSocket }) {
  const peerConnectionRef = useRef(peerConnection);

// ---- verbatim: seed000/frontend.txt
// Add to VideoCallRoom.tsx

// WebSocket for signaling
const signalingWs = useRef(null)

// Connect to signaling server
useEffect(() => {
  const ws = new WebSocket(`${socketServer}/ws/signaling/${consultationId}`)
  
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

  const call = () => {
    useChannel(peerConnection.createDataChannel("chat"));
    return createOffer();
  };
  await new Promise((open, fail) => {
    signalingWs.current.addEventListener("open", open);
    signalingWs.current.addEventListener("close", ({ code, reason }) => fail(new Error(reason || `closed with ${code}`)));
  });
  return { call };
}
