// @ts-nocheck the messages are written as the seed's documentation has them
/** Seed 003, REST and a socket with a token: `POST /calls/initiate`, `/calls/accept/{call_id}`, then `/ws/webrtc/{call_id}`. */
export const about = "REST and a socket: POST /calls/initiate makes a call, the other side finds it by polling GET /calls/active and accepts it, and both open /ws/webrtc/{call_id} with their tokens.";
export const fields = ["other"];
export const needsToken = true;

const POLL = 2_000;

export async function start({ socketServer, user, token, other, peerConnection: pc, useChannel, hear, ask, fetch, WebSocket, closing }) {
  const wsUrl = `${socketServer}/ws`;
  let callId, initiated, ws;
  const asked = new Set();

  const request = async (method, path, body) => {
    const answer = await fetch(`/calls/${path}`, { method, headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body) });
    return answer.json();
  };
  const send = (message) => ws.readyState === WebSocket.OPEN && ws.send(JSON.stringify(message));

  const open = async (id) => {
    callId = id;
    clearInterval(timer);
    ws = new WebSocket(`${wsUrl}/webrtc/${callId}?token=${token}`);
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
    pc.onicecandidate = ({ candidate }) => candidate && send({ type: "ice_candidate", candidate });
    pc.addEventListener("connectionstatechange", () => send({ type: "connection_state", state: pc.connectionState }));
    await new Promise((opened, fail) => {
      ws.onopen = opened;
      ws.onclose = ({ code, reason }) => fail(new Error(reason || `closed with ${code}`));
    });
    ws.onclose = ({ code, reason }) => hear(reason || `the socket closed with ${code}`);
  };

  const offer = async () => {
    useChannel(pc.createDataChannel("chat"));
    const offer = await pc.createOffer();
    await pc.setLocalDescription(offer);
    send({ type: "offer", offer });
  };

  /** What the user is called to, and what has become of the call that was initiated here. */
  const look = async () => {
    const { calls } = await request("GET", "active");
    const ours = initiated && !callId && calls.find(({ call_id }) => call_id === initiated);
    if (ours?.status === "ongoing") {
      await open(initiated);
      await offer();
    } else if (initiated && !ours) {
      hear(`the call is ${(await request("GET", initiated)).status}`);
      initiated = undefined;
    }
    const incoming = calls.find(({ call_id, callee_id, status }) => callee_id === user && status === "pending" && !asked.has(call_id));
    if (!incoming || callId) return;
    asked.add(incoming.call_id);
    const isWanted = await ask(`${incoming.caller_id} is calling`);
    await request("POST", `${isWanted ? "accept" : "reject"}/${incoming.call_id}`);
    if (isWanted) await open(incoming.call_id);
  };
  const timer = setInterval(() => look().catch((error) => hear(error.message)), POLL);
  closing(() => clearInterval(timer));
  await look();

  async function call() {
    initiated = (await request("POST", "initiate", { callee_id: other })).call_id;
  }

  closing(() => {
    const id = callId ?? initiated;
    if (id) request("POST", `end/${id}`).catch(() => {}); // the other side may have ended it
    ws?.close();
  });
  return { call };
}
