/** Two dialects in one room: seed 000's page and the call page call each other. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { connected, enter, framesGrow, newPage, twoBrowsers, until } from "./lib/chromium.js";
import { offer, serveSeed, state } from "./lib/seed000.js";
import { loopbackConfig, serve } from "./lib/server.js";

const open = twoBrowsers();
let application;
let server;
let rooms = 0;

before(async () => {
  application = await serveSeed(() => server.url());
  server = await serve(loopbackConfig({ origins: [application.origin] }));
});

after(async () => {
  application?.close();
  await server?.stop();
});

async function enterSeed(room, role) {
  const page = await open(0);
  return application.enter(page, { consultation: room, role });
}

async function enterCall(room) {
  const page = await open(1);
  await enter(page, `${server.url()}?room=${room}&path=relay-udp`, "Ada");
  return page;
}

async function framesGrowInSeed(seed) {
  const first = await until(seed, state, ({ framesDecoded }) => framesDecoded > 0);
  await until(seed, state, ({ framesDecoded }) => framesDecoded > first.framesDecoded + 10);
}

async function inCall(seed, call) {
  await connected(call);
  await framesGrow(call);
  await framesGrowInSeed(seed);
}

test("the call page joins a doctor of seed 000 who has offered early", async () => {
  const room = `mixed-${++rooms}`;
  const seed = await enterSeed(room, "doctor");
  await offer(seed);
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
  await offer(seed);
  await inCall(seed, call);
  assert.deepEqual(call.errors, []);
});

test("s0_16 a doctor of seed 000 who reloads gets nothing of the old page's back and is called all the same", async () => {
  const room = `mixed-${++rooms}`;
  const seed = await enterSeed(room, "doctor");
  await offer(seed);
  await seed.waitForFunction(() => globalThis.room.peerConnection.iceGatheringState === "complete");
  const received = [];
  seed.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => received.push(payload)));
  await seed.reload();
  await seed.waitForFunction(() => globalThis.room?.signalingWs.current.readyState === WebSocket.OPEN);
  await offer(seed);
  await seed.waitForFunction(() => globalThis.room.peerConnection.iceGatheringState === "complete");
  assert.deepEqual(received, []);
  const call = await enterCall(room);
  await inCall(seed, call);
});

test("s0_16 two tabs of one browser call each other with seed 000", async () => {
  const room = `mixed-${++rooms}`;
  const doctor = await enterSeed(room, "doctor");
  await offer(doctor);
  const patient = await application.enter(await doctor.context().newPage(), { consultation: room, role: "patient" });
  for (const page of [doctor, patient]) await framesGrowInSeed(page);
});
