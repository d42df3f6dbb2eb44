/** The stock PeerJS client with the code of seed 000's second option, against the built server over HTTPS. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { twoBrowsers, until } from "./lib/chromium.js";
import { loopbackConfig, serve } from "./lib/server.js";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const MAIN = `
const params = new URLSearchParams(location.search);
const localStream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
Object.assign(globalThis, {
  PORT: params.get("port"), userId: params.get("user"), otherUserId: params.get("other"), localStream, problems: [],
  remoteVideoRef: { current: document.querySelector("#remote") },
});
await import("/page.js");
document.body.dataset.ready = "yes";`;
const FILES = {
  "/": ["text/html", () => read("peerjs/index.html")],
  "/page.js": ["text/javascript", () => read("peerjs/page.js")],
  "/main.js": ["text/javascript", () => MAIN],
  "/peerjs.min.js": ["text/javascript", () => read("node_modules/peerjs/dist/peerjs.min.js")],
  "/peerjs.js": ["text/javascript", () => "export default globalThis.Peer;"],
};

const open = twoBrowsers();
let application;
let server;

before(async () => {
  application = createServer((question, answer) => {
    const [type, text] = FILES[question.url.split("?")[0]] ?? [];
    if (!text) return answer.writeHead(404).end();
    answer.setHeader("content-type", type);
    answer.end(text());
  });
  await new Promise((resolve) => application.listen(0, "localhost", resolve));
  application.origin = `http://localhost:${application.address().port}`;
  const config = loopbackConfig({ origins: [application.origin] }).replace('listen = ["127.0.0.1:0"]\norigins', 'listen = ["https://127.0.0.1:0"]\norigins');
  server = await serve(`${config}\n[tls]\nself_signed = true\n`);
});

after(async () => {
  application?.close();
  await server?.stop();
});

async function page(index, user, other) {
  const opened = await open(index, { ignoreHTTPSErrors: true });
  await opened.goto(`${application.origin}/?${new URLSearchParams({ port: server.port("https"), user, other })}`);
  await opened.waitForFunction(() => document.body.dataset.ready);
  return opened;
}

const frames = (one) => one.evaluate(() => document.querySelector("#remote").getVideoPlaybackQuality().totalVideoFrames);

test("s0_14 every line of the PeerJS option stands in the page", () => {
  const shown = [...read("peerjs/page.js").matchAll(/^\/\/ ---- verbatim\n([^]*?)^\/\/ ---- end$/gm)].map(([, text]) => text).join("");
  assert.equal(shown.replace("'localhost'", "'peerjs-server.com'").replace("Number(PORT)", "443"), read("peerjs/peerjs.txt"));
});

test("s0_14 the_stock_peerjs_client connects, calls and is called", async (t) => {
  const ann = await page(0, "ann", "bob");
  const bob = await page(1, "bob", "ann");
  await ann.evaluate(() => globalThis.dial());
  for (const one of [ann, bob]) {
    const first = await until(one, frames, (count) => count > 0);
    t.diagnostic(`frames ${first} to ${await until(one, frames, (count) => count >= first + 20)}`);
    assert.deepEqual(await one.evaluate(() => globalThis.problems), []);
    assert.deepEqual(one.errors, []);
  }
  // Data connections are PeerJS's own, with a second peer connection between the same two.
  await bob.evaluate(() => globalThis.peer.on("connection", (data) => data.on("data", (text) => data.send(`${text}, too`))));
  const heard = await ann.evaluate(() => new Promise((resolve) => {
    const data = globalThis.peer.connect("bob");
    data.on("open", () => data.send("hello"));
    data.on("data", resolve);
  }));
  assert.equal(heard, "hello, too");
});

test("s0_14 a peer that is not there is told as unavailable, an id that is taken as such", async () => {
  // A peer's id is free once the server has noticed that its page is gone.
  const eve = await page(0, "eve", "nobody");
  await eve.evaluate(() => globalThis.dial());
  await until(eve, (one) => one.evaluate(() => globalThis.problems), (all) => all.includes("peer-unavailable"));
  const again = await eve.evaluate(() => new Promise((resolve) => {
    const second = new globalThis.Peer("eve", { host: "localhost", port: globalThis.PORT, secure: true });
    second.on("error", ({ type }) => resolve(type));
  }));
  assert.equal(again, "unavailable-id");
  const named = await eve.evaluate(() => new Promise((resolve) => {
    new globalThis.Peer({ host: "localhost", port: globalThis.PORT, secure: true }).on("open", resolve);
  }));
  assert.match(named, /^[0-9a-f]{16}$/);
});
