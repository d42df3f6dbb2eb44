/** The applications of seeds 001 to 004: their web server, and what their users do on their pages. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const TYPES = { js: "text/javascript", html: "text/html" };

/** A file of the applications. */
export const read = (path) => readFileSync(`${here}seeds/${path}`, "utf8");

/** The stock client, with its own defaults or with the transports the test is about. */
const CLIENT = `
import { io as stock } from "/socket.io.esm.min.js";
const transports = new URLSearchParams(location.search).get("transports");
export const io = (url, options) => stock(url, transports ? { ...options, transports: transports.split(",") } : options);
export default io;
`;

/** React as one module; npm has it for CommonJS only. */
function reactItself() {
  const parts = { react: "react/cjs/react", scheduler: "scheduler/cjs/scheduler", "react-dom": "react-dom/cjs/react-dom", "react-dom/client": "react-dom/cjs/react-dom-client" };
  const factories = Object.entries(parts).map(([name, path]) => `"${name}": (module, exports, require) => {\n${read(`../node_modules/${path}.development.js`)}\n}`);
  return `
const process = { env: { NODE_ENV: "development" } };
const loaded = {};
const factories = {${factories.join(",\n")}};
function require(name) {
  if (!loaded[name]) factories[name]((loaded[name] = { exports: {} }), loaded[name].exports, require);
  return loaded[name].exports;
}
export const { StrictMode, createElement, useEffect, useMemo, useRef, useSyncExternalStore } = require("react");
export const { createRoot } = require("react-dom/client");
`;
}

/** The hook of turnkey.js in the place of the component's own; what it hears is shown to the tests. */
const OWN_HOOK = `
import { useWebRTC as own } from "/web/react.js";
export const useWebRTC = (options) => own({ ...options, onChatMessage: (text) => globalThis.room.received.push(text) });
`;

/** Starts the applications' web server. Like those of their frameworks it passes their API on to the back end. */
export async function serveSeeds({ port = 3000, api = "http://localhost:8086" } = {}) {
  execFileSync("node_modules/.bin/tsc", ["-p", "seeds"], { cwd: here });
  const files = {
    "/": ["html", () => read("index.html")],
    "/socket.io-client.js": ["js", () => CLIENT],
    "/react-itself.js": ["js", reactItself],
    "/own/VideoCall.js": ["js", () => read("../node_modules/.seeds/VideoCall.js")],
    "/own/hooks/useWebRTCConnection": ["js", () => OWN_HOOK],
    "/socket.io.esm.min.js": ["js", () => read("../node_modules/socket.io-client/dist/socket.io.esm.min.js")],
  };
  const server = createServer((question, answer) => {
    const path = question.url.split("?")[0];
    if (path.startsWith("/api/")) return pass(api, question, answer);
    const module = /^\/((hooks\/)?\w+)(\.js)?$/.exec(path)?.[1];
    const own = /^\/web\/((client\/)?\w+\.js)$/.exec(path)?.[1];
    const [type, text] = files[path] ?? (module ? ["js", () => read(`../node_modules/.seeds/${module}.js`)] : own ? ["js", () => read(`../../../web/${own}`)] : []);
    if (!text) return answer.writeHead(404).end();
    answer.setHeader("content-type", TYPES[type]);
    answer.end(text());
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port, "localhost", resolve));
  return { origin: `http://localhost:${server.address().port}`, close: () => server.close() };
}

function pass(api, question, answer) {
  const url = new URL(question.url, api);
  const further = request(url, { method: question.method, headers: { ...question.headers, host: url.host } }, (found) => {
    answer.writeHead(found.statusCode, found.headers);
    found.pipe(answer);
  });
  further.on("error", () => answer.writeHead(502).end());
  question.pipe(further);
}

/** Shows the tests the connection of a page that keeps it to itself. */
export function showConnection() {
  const Native = RTCPeerConnection;
  globalThis.room = { received: [] };
  globalThis.RTCPeerConnection = class extends Native {
    constructor(...all) {
      super(...all);
      globalThis.room.peerConnection = this;
    }
  };
}

/** Lets a page gather relay candidates only: nothing else works between the two. */
export function onlyRelay() {
  const Native = RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Native {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: "relay" });
    }
  };
}
