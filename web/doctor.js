// @ts-check
/**
 * Tries what a call needs one thing after the other, each transport of the relay alone, and says in words what works.
 * @module
 */

const GATHER_TIMEOUT = 8_000;
const ECHO_TIMEOUT = 10_000;

/**
 * @typedef {object} Finding
 * @property {string} what was tried
 * @property {boolean} ok
 * @property {string} text what came of it
 * @typedef {{url: string, token?: string, onFinding: (finding: Finding) => void}} Options
 */

/**
 * @param {Options} options
 * @returns {Promise<string>} the verdict
 */
export async function examine({ url, token, onFinding }) {
  /** @param {string} what @param {() => Promise<string>} attempt */
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
  const entering = enter(url, token);
  const isSignaling = await attempt("Signaling", () => entering.then(() => "the server answers"));
  if (!isSignaling) return "The server does not let this page signal, so no call can start.";
  const session = await entering;
  try {
    return verdict(await usableRelays(session.servers, attempt));
  } finally {
    session.leave();
  }
}

/**
 * @param {RTCIceServer[]} servers
 * @param {(what: string, attempt: () => Promise<string>) => Promise<boolean>} attempt
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

/**
 * Enters as a session, whose relay credentials are good until it leaves.
 * @param {string} url @param {string} [token] @returns {Promise<{servers: RTCIceServer[], leave: () => void}>}
 */
function enter(url, token) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, ["turnkey.v1"]);
    socket.onopen = () => socket.send(JSON.stringify({ t: "hello", d: { ...(token && { token }) } }));
    socket.onclose = ({ code, reason }) => reject(new Error(reason || `the server closed the connection with ${code}`));
    socket.onmessage = ({ data }) => {
      const { t, d } = JSON.parse(data);
      if (t !== "welcome") return;
      const leave = () => {
        if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ t: "bye" }));
        socket.close();
      };
      resolve({ servers: d.ice_servers, leave });
    };
  });
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
