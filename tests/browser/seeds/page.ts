/** What the frameworks and pages around the code of all these applications have in common. */

export const params = new URLSearchParams(location.search);
const received: string[] = [];
export const receive = (text: string) => received.push(text);
export const useRef = <T>(value: T) => ({ current: value });

/** What this server's credential endpoint gives, for one transport of the relay. */
export async function iceServers(origin: string): Promise<RTCIceServer[]> {
  const token = params.get("token");
  const headers: HeadersInit = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await (await fetch(`${origin}/v1/ice`, { headers })).json();
  return answer.iceServers.filter(({ username }: RTCIceServer) => username);
}

/** Shows what comes from the other side. */
export function remote(pc: RTCPeerConnection) {
  pc.addEventListener("track", ({ streams }) => (document.querySelector<HTMLVideoElement>("#remoteVideo")!.srcObject = streams[0]));
  pc.addEventListener("datachannel", ({ channel }) => {
    channel.onmessage = ({ data }) => receive(data);
    // Chromium tells of a channel of the other side's as open before it is, and loses what it is given until then. Once something has
    // come over it, it is.
    channel.addEventListener("message", () => greet(channel), { once: true });
  });
}

/** A channel that this side has made. */
export function useChannel(channel: RTCDataChannel) {
  channel.onmessage = ({ data }) => receive(data);
  channel.onopen = () => greet(channel);
}

const greet = (channel: RTCDataChannel) => channel.send(`from the ${params.get("role")}`);

/** Shows the tests what they may touch. */
export const ready = (room: Record<string, unknown>) => Object.assign(globalThis, { room: { ...room, received } });
