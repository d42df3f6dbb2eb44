// @ts-check
/**
 * The connection doctor: tries what a call needs one thing after the other, each transport of the relay alone, and says in words what works.
 * @module
 */
import { askHead } from "../client/session.js";

const GATHER_TIMEOUT = 8_000;
const ECHO_TIMEOUT = 10_000;

/**
 * @typedef {object} Finding
 * @property {string} what was tried
 * @property {boolean} ok
 * @property {string} text what came of it
 * @typedef {{url: string, token?: string, onFinding: (finding: Finding) => void}} Options
 */

/** @typedef {(what: string, attempt: () => Promise<string>) => Promise<boolean>} Attempt whether it succeeded */

/**
 * @param {Options} options
 * @returns {Promise<string>} the verdict
 */
export async function examine({ url, token, onFinding }) {
  /** @type {Attempt} */
  const attempt = async (what, attempt) => {
    const since = performance.now();
    try {
      const text = await attempt();
      onFinding({ what, ok: true, text: `${text}, ${Math.round(performance.now() - since)} ms` });
      return true;
    } catch (error) {
      onFinding({ what, ok: false, text: error instanceof Error ? error.message : String(error) });
      return false;
    }
  };
  const hasMedia = await attempt("Devices", checkDevices);
  if (!(await attempt("Server", () => reach(url)))) return "The server cannot be reached from here, so no call can start. It may be down, or a firewall keeps this network from it.";
  const entering = enter(url, token);
  const isSignaling = await attempt("Signaling", () => entering.then(() => `the server answers${url.startsWith("wss:") ? " over TLS" : ", without TLS"}`));
  if (!isSignaling) return "The server does not let this page signal, so no call can start.";
  const session = await entering;
  try {
    await attempt("Coming back", session.comeBack);
    await attempt("Own address", () => seenFrom(session.servers()));
    const relays = await usableRelays(session.servers(), attempt);
    return `${verdict(relays)}${hasMedia ? "" : " Without camera and microphone you will only see and hear the others."}`;
  } finally {
    session.leave();
  }
}

/**
 * @param {RTCIceServer[]} servers
 * @param {Attempt} attempt
 */
async function usableRelays(servers, attempt) {
  /** @type {string[]} */
  const relays = [];
  for (const { urls, ...credential } of servers) {
    for (const one of [urls].flat().filter((text) => text.startsWith("turn"))) {
      const server = { urls: one, ...credential };
      const name = transportOf(one);
      if (!(await attempt(`Relay over ${name}`, () => gather(server)))) continue;
      if (await attempt(`Data through it`, () => echo(server))) relays.push(name);
    }
  }
  return relays;
}

/** @param {string[]} relays */
function verdict(relays) {
  if (relays.length === 0) return "No relay can be used from here: calls work only where both sides reach each other directly.";
  if (!relays.includes("UDP")) return `UDP does not get through, ${relays.join(" and ")} does: calls work, with a little more delay.`;
  return "Everything a call needs works from here.";
}

/** @param {string} url */
function transportOf(url) {
  return url.startsWith("turns:") ? "TLS" : url.endsWith("transport=tcp") ? "TCP" : "UDP";
}

async function checkDevices() {
  if (!isSecureContext) throw new Error("this page did not come over https, so browsers keep camera and microphone from it");
  const kinds = (await navigator.mediaDevices.enumerateDevices()).map(({ kind }) => kind);
  /** @param {string} wanted */
  const count = (wanted) => kinds.filter((kind) => kind === wanted).length;
  const [cameras, microphones] = [count("videoinput"), count("audioinput")];
  if (cameras + microphones === 0) throw new Error("there is neither");
  return `cameras: ${cameras}, microphones: ${microphones}`;
}

/** Over plain HTTP, as a socket that is refused says nothing, and browsers are wrong about being offline. @param {string} url */
async function reach(url) {
  const { status } = await askHead(url, GATHER_TIMEOUT)
    .catch(() => Promise.reject(new Error(navigator.onLine ? "no answer over HTTP" : "no answer over HTTP, and the browser is offline")));
  if (status >= 500) throw new Error(`the server, or a proxy in front of it, answers ${status}`);
  return `it answers over HTTP${navigator.onLine ? "" : ", though the browser says that it is offline"}`;
}

/**
 * Enters as a session, whose relay credentials are good until it leaves.
 * @param {string} url @param {string} [token]
 * @returns {Promise<{servers: () => RTCIceServer[], comeBack: () => Promise<string>, leave: () => void}>}
 */
async function enter(url, token) {
  let [socket, welcome] = await greet(url, { token });
  return {
    servers: () => welcome.ice_servers,
    /** Loses the socket, and takes the session over with another one. */
    async comeBack() {
      socket.close();
      [socket, welcome] = await greet(url, { token, resume: welcome.resume, last_seq: 0 });
      if (!welcome.resumed) throw new Error("the server did not know the session any more");
      return "a session that lost its socket goes on";
    },
    leave() {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ t: "bye" }));
      socket.close();
    },
  };
}

/** @param {string} url @param {object} d @returns {Promise<[WebSocket, any]>} */
function greet(url, d) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, ["turnkey.v1"]);
    socket.onopen = () => socket.send(JSON.stringify({ t: "hello", d }));
    socket.onclose = ({ code, reason }) => reject(new Error(reason || `the server closed the connection with ${code}`));
    socket.onmessage = ({ data }) => {
      const { t, d } = JSON.parse(data);
      if (t === "welcome") resolve([socket, d]);
    };
  });
}

/** The address that each STUN server sees; several different ones mean a NAT that only a relay crosses. @param {RTCIceServer[]} servers */
async function seenFrom(servers) {
  const urls = servers.flatMap(({ urls }) => urls).filter((url) => url.startsWith("stun"));
  if (urls.length === 0) return "this server names no STUN server";
  const pc = new RTCPeerConnection({ iceServers: [{ urls }] });
  try {
    /** @type {Map<string, Set<number>>} */
    const seen = new Map();
    await new Promise((resolve, reject) => {
      setTimeout(resolve, GATHER_TIMEOUT);
      pc.onicecandidate = ({ candidate }) => {
        if (!candidate) return resolve(null);
        if (candidate.type !== "srflx" || candidate.address === null) return;
        seen.set(candidate.address, (seen.get(candidate.address) ?? new Set()).add(candidate.port ?? 0));
      };
      pc.createDataChannel("doctor");
      pc.setLocalDescription().catch(reject);
    });
    if (seen.size === 0) return "no NAT between here and the server, or UDP does not reach it";
    const isSymmetric = urls.length > 1 && [...seen.values()].some((ports) => ports.size > 1);
    return `${[...seen.keys()].join(", ")} outside${isSymmetric ? ", another port for each server: a symmetric NAT" : ""}`;
  } finally {
    pc.close();
  }
}

/** Whether an allocation succeeds. @param {RTCIceServer} server @returns {Promise<string>} */
async function gather(server) {
  const pc = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: "relay" });
  try {
    return await new Promise((resolve, reject) => {
      let problem = "no answer: a firewall may drop it";
      setTimeout(() => reject(new Error(problem)), GATHER_TIMEOUT);
      pc.onicecandidateerror = ({ errorCode, errorText }) => (problem = `${errorText || "no connection"} (${errorCode})`);
      pc.onicecandidate = ({ candidate }) => {
        if (candidate?.type === "relay") resolve(`relayed address ${candidate.address}:${candidate.port}`);
        else if (!candidate) reject(new Error(problem));
      };
      pc.createDataChannel("doctor");
      pc.setLocalDescription().catch(reject);
    });
  } finally {
    pc.close();
  }
}

/** Whether data comes back that goes through the relay twice. @param {RTCIceServer} server @returns {Promise<string>} */
async function echo(server) {
  const ends = [0, 1].map(() => new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: "relay" }));
  const channels = ends.map((end) => end.createDataChannel("doctor", { negotiated: true, id: 0 }));
  try {
    ends.forEach((end, index) => (end.onicecandidate = ({ candidate }) => ends[1 - index].addIceCandidate(candidate ?? undefined).catch(() => {})));
    channels[1].onmessage = ({ data }) => channels[1].send(data);
    const back = new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error("nothing comes back through the relay")), ECHO_TIMEOUT);
      channels[0].onopen = () => channels[0].send("echo");
      channels[0].onmessage = () => resolve("both ways");
    });
    await ends[0].setLocalDescription();
    await ends[1].setRemoteDescription(/** @type {RTCSessionDescription} */ (ends[0].localDescription));
    await ends[1].setLocalDescription();
    await ends[0].setRemoteDescription(/** @type {RTCSessionDescription} */ (ends[1].localDescription));
    return /** @type {string} */ (await back);
  } finally {
    ends.forEach((end) => end.close());
  }
}
