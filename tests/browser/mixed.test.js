/** Two dialects in one room: seed 000's page and the call page call each other. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { connected, enter, framesGrow, launch, newPage, until } from "./lib/chromium.js";
import { loopbackConfig, serve } from "./lib/server.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const read = (path) => readFileSync(here + path, "utf8");

let pages;
let server;
let browsers = [];
let open = [];
let rooms = 0;

before(async () => {
  execFileSync("node_modules/.bin/tsc", ["-p", "seed000"], { cwd: here });
  pages = await new Promise((resolve) => {
    const application = createServer((request, response) => {
      const isScript = request.url.startsWith("/VideoCallRoom.js");
      response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
      const script = () => read("node_modules/.seed000/VideoCallRoom.js").replace("ws://localhost:8000", server.url().replace(/^http/, "ws").replace(/\/$/, ""));
      response.end(isScript ? script() : read("seed000/index.html"));
    });
    application.listen(0, "localhost", () => resolve(application));
  });
  server = await serve(loopbackConfig({ origins: [`http://localhost:${pages.address().port}`] }));
  browsers = await Promise.all([launch(), launch()]);
});

afterEach(() => Promise.all(open.splice(0).map((page) => page.end())));

after(async () => {
  await Promise.allSettled(browsers.map((browser) => browser.close()));
  pages?.close();
  await server?.stop();
});

async function enterSeed(room, role) {
  const page = await newPage(browsers[0]);
  open.push(page);
  return goSeed(page, room, role);
}

async function goSeed(page, room, role) {
  const query = new URLSearchParams({ consultation: room, role, transport: "udp", server: server.url().replace(/\/$/, "") });
  await page.goto(`http://localhost:${pages.address().port}/?${query}`);
  await page.waitForFunction(() => globalThis.room?.signalingWs.current.readyState === WebSocket.OPEN);
  return page;
}

async function enterCall(room) {
  const page = await newPage(browsers[1]);
  open.push(page);
  await enter(page, `${server.url()}?room=${room}&path=relay-udp`, "Ada");
  return page;
}

const framesOfSeed = (page) => page.evaluate(async () => {
  let frames = 0;
  (await globalThis.room.peerConnection.getStats()).forEach((entry) => {
    if (entry.type === "inbound-rtp") frames += entry.framesDecoded ?? 0;
  });
  return frames;
});

async function inCall(seed, call) {
  await connected(call);
  await framesGrow(call);
  const first = await until(seed, framesOfSeed, (frames) => frames > 0);
  await until(seed, framesOfSeed, (frames) => frames > first + 10);
}

test("the call page joins a doctor of seed 000 who has offered early", async () => {
  const room = `mixed-${++rooms}`;
  const seed = await enterSeed(room, "doctor");
  await seed.evaluate(() => globalThis.room.createOffer());
  const call = await enterCall(room);
  await inCall(seed, call);
  assert.deepEqual(call.errors, []);
});

test("a patient of seed 000, who never offers, joins the call page", async () => {
  const room = `mixed-${++rooms}`;
  const call = await enterCall(room);
  const seed = await enterSeed(room, "patient");
  await inCall(seed, call);
  assert.deepEqual(call.errors, []);
});

test("a doctor of seed 000 joins the call page, and their offers cross", async () => {
  const room = `mixed-${++rooms}`;
  const call = await enterCall(room);
  const seed = await enterSeed(room, "doctor");
  await seed.evaluate(() => globalThis.room.createOffer());
  await inCall(seed, call);
  assert.deepEqual(call.errors, []);
});

test("s0_16 a doctor of seed 000 who reloads gets nothing of the old page's back and is called all the same", async () => {
  const room = `mixed-${++rooms}`;
  const seed = await enterSeed(room, "doctor");
  await seed.evaluate(() => globalThis.room.createOffer());
  await seed.waitForFunction(() => globalThis.room.peerConnection.iceGatheringState === "complete");
  const received = [];
  seed.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => received.push(payload)));
  await seed.reload();
  await seed.waitForFunction(() => globalThis.room?.signalingWs.current.readyState === WebSocket.OPEN);
  await seed.evaluate(() => globalThis.room.createOffer());
  await seed.waitForFunction(() => globalThis.room.peerConnection.iceGatheringState === "complete");
  assert.deepEqual(received, []);
  const call = await enterCall(room);
  await inCall(seed, call);
});

test("s0_16 two tabs of one browser call each other with seed 000", async () => {
  const room = `mixed-${++rooms}`;
  const doctor = await enterSeed(room, "doctor");
  await doctor.evaluate(() => globalThis.room.createOffer());
  const patient = await goSeed(await doctor.context().newPage(), room, "patient");
  for (const page of [doctor, patient]) {
    const first = await until(page, framesOfSeed, (frames) => frames > 0);
    await until(page, framesOfSeed, (frames) => frames > first + 10);
  }
});
