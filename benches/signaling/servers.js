/** The servers side by side: how each is started, and what its clients say. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { frame, Peer } from "./peer.js";

// No bound of the server is what is measured.
const UNBOUNDED = `
[signaling]
sockets_per_address = 100000
connects_per_minute = 1000000
frames_per_second = 100000
`;

const here = dirname(fileURLToPath(import.meta.url));

const CANDIDATE = { candidate: "candidate:842163049 1 udp 1677729535 203.0.113.141 46154 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag sXP5 network-cost 999", sdpMid: "0", sdpMLineIndex: 0 };
const OFFER = { type: "offer", sdp: "v=0\r\n" };
const ANSWER = { type: "answer", sdp: "v=0\r\n" };

/** Raw WebSockets, as seed 000 speaks. */
export const raw = {
  open: (port, room, source) => Peer.open(port, `/ws/signaling/${room}`, source),
  offer: () => frame(JSON.stringify({ type: "offer", offer: OFFER })),
  answer: () => frame(JSON.stringify({ type: "answer", answer: ANSWER })),
  candidate: () => frame(JSON.stringify({ type: "ice-candidate", candidate: CANDIDATE })),
};

/** Socket.IO over WebSocket, as seed 002 speaks. */
export const socketio = {
  async open(port, room, source) {
    const peer = await Peer.open(port, "/socket.io/?EIO=4&transport=websocket", source);
    peer.send(frame("40"));
    await peer.next((text) => text.startsWith("40"));
    const joined = peer.next((text) => text.includes("joined_room"));
    peer.send(frame(`42${JSON.stringify(["webrtc:join_room", { roomId: room }])}`));
    await joined;
    return peer;
  },
  offer: (room) => event("webrtc:offer", { roomId: room, offer: OFFER }),
  answer: (room) => event("webrtc:answer", { roomId: room, answer: ANSWER }),
  candidate: (room) => event("webrtc:ice_candidate", { roomId: room, candidate: CANDIDATE }),
};

/** The same as the stock client begins: polling, then upgraded to a WebSocket. */
export const polled = {
  ...socketio,
  async open(port, room, source) {
    const path = "/socket.io/?EIO=4&transport=polling";
    const { sid } = JSON.parse((await ask("GET", port, path, source)).slice(1));
    await ask("POST", port, `${path}&sid=${sid}`, source, "40");
    let connected = "";
    while (!connected.includes("40")) connected = await ask("GET", port, `${path}&sid=${sid}`, source);
    const peer = await Peer.open(port, `/socket.io/?EIO=4&transport=websocket&sid=${sid}`, source);
    const probed = peer.next((text) => text === "3probe");
    peer.send(frame("2probe"));
    await probed;
    peer.send(frame("5"));
    const joined = peer.next((text) => text.includes("joined_room"));
    peer.send(frame(`42${JSON.stringify(["webrtc:join_room", { roomId: room }])}`));
    await joined;
    return peer;
  },
};

function ask(method, port, path, localAddress, body) {
  return new Promise((resolve, reject) => {
    const headers = { Connection: "close", "Content-Type": "text/plain;charset=UTF-8" };
    const asked = request({ method, host: "127.0.0.1", port, path, localAddress, headers, agent: false }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (more) => (text += more)).on("end", () => resolve(text));
    });
    asked.on("error", reject).end(body);
  });
}

const event = (name, payload) => frame(`42${JSON.stringify([name, payload])}`);

/** What is compared, in the table's order. */
export function servers(binary) {
  return [
    { name: "turnkey, WebSocket", words: raw, start: () => turnkey(binary) },
    { name: "Node `ws`", words: raw, start: () => node("relay-ws.js") },
    { name: "turnkey, Socket.IO", words: socketio, start: () => turnkey(binary) },
    { name: "Socket.IO", words: socketio, start: () => node("relay-socketio.js") },
    { name: "turnkey, Socket.IO from polling", words: polled, start: () => turnkey(binary), isIdle: true },
    { name: "Socket.IO from polling", words: polled, start: () => node("relay-socketio.js"), isIdle: true },
  ];
}

/** Runs a program on the cores that the generator leaves. */
export function onServerCores(program, args) {
  const cores = process.env.SERVER_CORES;
  return cores ? ["taskset", ["-c", cores, program, ...args]] : [program, args];
}

/** turnkey with all bounds out of the way, or with those it comes with. */
export function turnkey(binary, signaling = UNBOUNDED) {
  const state = mkdtempSync(join(tmpdir(), "turnkey-bench-"));
  const file = join(state, "turnkey.toml");
  writeFileSync(file, `
[relay]
listen = ["udp://127.0.0.1:0"]
public_address = "127.0.0.1"
workers = 1
[http]
listen = ["127.0.0.1:0"]
max_connections = 100000
[admin]
listen = ""
${signaling}`);
  const child = spawn(...onServerCores(binary, ["serve", "--config", file]), { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, STATE_DIRECTORY: state, NO_COLOR: "1" } });
  return started(child, child.stderr, /url=http:\/\/127\.0\.0\.1:(\d+)/, () => rmSync(state, { recursive: true, force: true }));
}

function node(script) {
  const child = spawn(...onServerCores(process.execPath, [join(here, script)]), { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, NODE_ENV: "production" } });
  return started(child, child.stdout, /listening (\d+)/, () => {});
}

function started(child, stream, pattern, cleanUp) {
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  return new Promise((resolve, reject) => {
    let output = "";
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${output}`)));
    stream.setEncoding("utf8").on("data", (text) => {
      output += text;
      const port = pattern.exec(output)?.[1];
      if (port) resolve({ port: Number(port), pid: child.pid, ...meters(child.pid), stop });
    });
  });
  async function stop() {
    child.removeAllListeners("exit");
    const gone = new Promise((resolve) => child.once("exit", resolve));
    kill();
    await gone;
    process.removeListener("exit", kill);
    cleanUp();
  }
}

function meters(pid) {
  return {
    /** Seconds of processor time so far, of threads that have not ended: to the nanosecond, which ticks are not. */
    cpu() {
      const spent = (tid) => Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, "utf8").split(" ")[0]);
      return readdirSync(`/proc/${pid}/task`).reduce((sum, tid) => sum + spent(tid), 0) / 1e9;
    },
    /** Resident memory in KiB. */
    memory: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]),
  };
}
