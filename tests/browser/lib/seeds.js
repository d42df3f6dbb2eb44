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

/** Starts the applications' web server. Like those of their frameworks it passes their API on to the back end. */
export async function serveSeeds({ port = 3000, api = "http://localhost:8086" } = {}) {
  execFileSync("node_modules/.bin/tsc", ["-p", "seeds"], { cwd: here });
  const files = {
    "/": ["html", () => read("index.html")],
    "/socket.io-client.js": ["js", () => CLIENT],
    "/socket.io.esm.min.js": ["js", () => read("../node_modules/socket.io-client/dist/socket.io.esm.min.js")],
  };
  const server = createServer((question, answer) => {
    const path = question.url.split("?")[0];
    if (path.startsWith("/api/")) return pass(api, question, answer);
    const module = /^\/((hooks\/)?\w+)(\.js)?$/.exec(path)?.[1];
    const [type, text] = files[path] ?? (module ? ["js", () => read(`../node_modules/.seeds/${module}.js`)] : []);
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

/** Lets a page gather relay candidates only: nothing else works between the two. */
export function onlyRelay() {
  const Native = RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Native {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: "relay" });
    }
  };
}
