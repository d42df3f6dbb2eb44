/*
 * The component of an application that this server must serve unchanged. What stands between the marks is that
 * application's own code, line by line; do not mend it. Around it is what its framework and its page would do.
 */

// ---- verbatim: 003.txt 1
import { useWebRTC } from './hooks/useWebRTCConnection'

function VideoCall({ callId, token }) {
  const localVideoRef = useRef<HTMLVideoElement>(null)
  const remoteVideoRef = useRef<HTMLVideoElement>(null)

  const {
    localStream,
    remoteStream,
    connectionState,
    isInitialized,
    initialize,
    endCall,
    sendChatMessage,
    setAudioEnabled,
    setVideoEnabled
  } = useWebRTC({
    callId,
    token,
    wsUrl: 'ws://localhost:8000/ws',
    onRemoteStream: (stream) => {
      if (remoteVideoRef.current) {
        remoteVideoRef.current.srcObject = stream
      }
    },
    onError: (error) => console.error('WebRTC Error:', error)
  })

  useEffect(() => {
    if (localStream && localVideoRef.current) {
      localVideoRef.current.srcObject = localStream
    }
  }, [localStream])

  useEffect(() => {
    initialize()
  }, [initialize])

  return (
    <div>
      <video ref={localVideoRef} autoPlay muted />
      <video ref={remoteVideoRef} autoPlay />
      <p>Connection: {connectionState}</p>
      <button onClick={() => endCall()}>End Call</button>
      <input 
        type="text"
        onKeyPress={(e) => {
          if (e.key === 'Enter') {
            sendChatMessage(e.currentTarget.value)
            e.currentTarget.value = ''
          }
        }}
        placeholder="Send message..."
      />
    </div>
  )
}
// ---- end

Object.assign(globalThis, { VideoCall });
