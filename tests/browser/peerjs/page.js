/*
 * The PeerJS code of an application that this server must serve unchanged, in its own order. Host and port are
 * substituted; do not mend the rest.
 */
// ---- verbatim
import Peer from 'peerjs'

const peer = new Peer(userId, {
  host: 'localhost',
  port: Number(PORT),
  secure: true
})

// Call another peer
// ---- end
const opened = new Promise((resolve) => peer.on("open", resolve));
peer.on("error", ({ type }) => globalThis.problems.push(type));

function dial() {
// ---- verbatim
const call = peer.call(otherUserId, localStream)
call.on('stream', (remoteStream) => {
  remoteVideoRef.current.srcObject = remoteStream
})

// ---- end
}

// ---- verbatim
// Answer incoming call
peer.on('call', (call) => {
  call.answer(localStream)
  call.on('stream', (remoteStream) => {
    remoteVideoRef.current.srcObject = remoteStream
  })
})
// ---- end

await opened;
Object.assign(globalThis, { peer, dial });
