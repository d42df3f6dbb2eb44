/** The front-ends of all five seeds, their code as it stands, on their own ports of one server. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { twoBrowsers, until } from "./lib/chromium.js";
import { onlyRelay, read, serveSeeds, showConnection } from "./lib/seeds.js";
import * as seed000 from "./lib/seed000.js";
import { serve } from "./lib/server.js";

const PROFILE = readFileSync(new URL("../../turn-config/five-front-ends.toml", import.meta.url), "utf8");

/** What may differ from a seed's text: the value of `iceServers`, and what stands for an ellipsis of its author. */
const SUBSTITUTED = {
  "001.txt": [],
  "002.txt": [[/\{\.\.\.\}/g, /\{ [\w, ]+ \}/g]],
  "003.txt": [],
  "004.txt": [['iceServers: [{ urls: "stun:stun.l.google.com:19302" }]', "iceServers: iceServers"]],
};
const PAGES = { "001.txt": "CallModal.ts", "002.txt": "useConsultationWebRTC.ts", "003.txt": "VideoCall.tsx", "004.txt": "consultation.ts" };

const open = twoBrowsers();
let server;
let applications;
let first;
let rooms = 0;

before(async () => {
  // The relay on loopback, and no port that somebody else may have: what the profile says of HTTP stands.
  const environment = {
    RELAY__PUBLIC_ADDRESS: "127.0.0.1", RELAY__LISTEN: '["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]', PEERS__ALLOW: '["127.0.0.0/8"]',
    ADMIN__LISTEN: "127.0.0.1:0", SIGNALING__CONNECTS_PER_MINUTE: "1000", HTTP__ICE_PER_MINUTE: "1000",
  };
  for (const [key, value] of Object.entries(environment)) process.env[`TURNKEY_${key}`] = value;
  [server, applications, first] = await Promise.all([
    serve(PROFILE), serveSeeds(), seed000.serveSeed(() => "http://localhost:8000", 5173),
  ]);
});

after(async () => {
  applications?.close();
  first?.close();
  await server?.stop();
});

const token = (user) => server.token("--user", user, "--room", "*");

async function page(index, query, { cookie, scripts = [] } = {}) {
  const opened = await open(index);
  opened.said = [];
  opened.on("console", (message) => opened.said.push(message.text()));
  if (cookie) await opened.context().addCookies([{ name: "turnkey_token", value: cookie, url: applications.origin }]);
  for (const script of [onlyRelay, ...scripts]) await opened.addInitScript(script);
  await opened.goto(`${applications.origin}/?${new URLSearchParams(query)}`);
  await opened.waitForFunction(() => document.body.dataset.ready);
  return opened;
}

const received = (one) => one.evaluate(() => globalThis.room.received);
const hears = (one, text) => until(one, received, (all) => all.includes(text));
const call = (one, ...how) => one.evaluate((how) => globalThis.room.call(...how), how);

/** Video grows on both sides over the relay, and the data channel works both ways. */
async function inCall(t, pages, greetings = []) {
  for (const [index, one] of pages.entries()) {
    const before = await until(one, seed000.state, ({ framesDecoded }) => framesDecoded > 0);
    const { pair, framesDecoded } = await until(one, seed000.state, (now) => now.framesDecoded >= before.framesDecoded + 20 && now.pair);
    t.diagnostic(`${pair.join(" to ")}, framesDecoded ${framesDecoded}`);
    assert.deepEqual(pair, ["relay", "relay"]);
    if (greetings[index]) await hears(one, greetings[index]);
    assert.deepEqual(one.errors, []);
  }
}

for (const [copy, file] of Object.entries(PAGES)) {
  test(`${copy}: every line stands in the page as in the seed`, () => {
    const blocks = read(copy).split("----\n");
    const marked = [...read(file).matchAll(/^\/\/ ---- verbatim: (\S+) (\d+)\n([^]*?)^\/\/ ---- end$/gm)];
    const shown = blocks.map(() => "");
    for (const [, name, number, text] of marked) {
      assert.equal(name, copy);
      shown[number - 1] += text;
    }
    for (const [number, block] of blocks.entries()) {
      // Of a block that is spread over the page, empty lines and the comment above each part are left out.
      const lines = (text) => text.split("\n").map((line) => line.trimEnd()).filter((line) => line && line !== "// Emit events");
      const [wanted, found] = [block, shown[number]].map((text, is) => SUBSTITUTED[copy].reduce((now, pair) => now.replaceAll(pair[is], "SUBSTITUTED"), text));
      const [a, b] = [lines(wanted), lines(found)];
      assert.deepEqual(copy === "002.txt" ? b.sort() : b, copy === "002.txt" ? a.sort() : a);
    }
  });
}

test("s0_01 s0_05 s0_06 s0_07 seed 000 on port 8000, nothing substituted", async (t) => {
  const pages = [];
  for (const [index, role] of ["doctor", "patient"].entries()) {
    const opened = await open(index);
    pages.push(await first.enter(opened, { consultation: "five", role }));
  }
  await seed000.offer(pages[0]);
  await inCall(t, pages, ["from the patient", "from the doctor"]);
});

test("s2_12 the server's log says that its handlers are there", () => {
  assert.ok(server.lines.some((line) => line.includes("[WebRTC] ✅ WebRTC handlers registered on root namespace")));
});

const WAYS = { "polling first": "polling,websocket", "WebSocket only": "websocket" };

for (const [way, transports] of Object.entries(WAYS)) {
  const invite = async () => {
    const names = ["ann", "bob"].map((name) => `${name}${++rooms}`);
    return Promise.all(names.map((name, index) => page(index, { page: "CallModal", role: name, other: names[1 - index], token: token(name), transports }).then((one) => Object.assign(one, { user: name }))));
  };

  test(`s1_02 s1_03 s1_04 s1_05 seed 001, ${way}`, async (t) => {
    const [ann, bob] = await invite();
    await call(ann);
    await hears(bob, `invited by ${ann.user}`);
    await inCall(t, [ann, bob], [`from the ${bob.user}`, `from the ${ann.user}`]);
  });

  test(`s1_08 the candidate race: all candidates are on their way before the offer, none is dropped (${way})`, async (t) => {
    const [ann, bob] = await invite();
    await call(ann, true);
    await inCall(t, [ann, bob]);
    for (const one of [ann, bob]) assert.ok(!one.said.some((line) => line.includes("arrived before remote description")), one.said.join("\n"));
  });

  const consult = (role, room) => page(role === "doctor" ? 0 : 1, { page: "useConsultationWebRTC", role, room, transports });

  test(`s2_01 s2_04 s2_05 s2_06 s2_08 s2_14 seed 002 on port 4000, ${way}`, async (t) => {
    const room = `two-${++rooms}`;
    const [doctor, patient] = [await consult("doctor", room), await consult("patient", room)];
    await call(doctor);
    await inCall(t, [doctor, patient], ["from the patient", "from the doctor"]);
    for (const one of [doctor, patient]) {
      await until(one, seed000.state, ({ soundPackets }) => soundPackets > 0);
    }
    await doctor.evaluate(() => globalThis.room.say("how are you?"));
    await hears(patient, "chat: how are you?");
    await patient.evaluate(() => globalThis.room.say("fine"));
    await hears(doctor, "chat: fine");
  });

  test(`s2_11 doctor first: the offer and its candidates are sent before the patient's page is open (${way})`, async (t) => {
    const room = `early-${++rooms}`;
    const doctor = await consult("doctor", room);
    await call(doctor);
    await doctor.waitForFunction(() => globalThis.room.peerConnection.iceGatheringState === "complete");
    const patient = await consult("patient", room);
    await inCall(t, [doctor, patient], ["from the patient", "from the doctor"]);
    const lines = await until(doctor, () => doctor.said.filter((line) => line.startsWith("[WebRTC]")), (all) => all.length >= 3);
    const wanted = ["Successfully joined room", "Doctor creating offer...", "Offer created and sent"];
    assert.deepEqual(lines, wanted.map((line) => `[WebRTC] ${line}`));
  });

  const session = async () => {
    const created = await fetch("http://localhost:8086/api/video/sessions", {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token("dora")}` },
      body: JSON.stringify({ doctor_id: "dora", patient_id: "paul" }),
    });
    assert.equal(created.status, 201);
    return created.json();
  };
  const attend = (user, { session_id }) => page(user === "dora" ? 0 : 1, { page: "consultation", role: user, session: session_id, token: token(user), transports }, { cookie: token(user) });

  test(`c9 s4_10 s4_29 seed 004 on port 8086, its literal patient_peer_id reaches the patient; toggles and chat arrive (${way})`, async (t) => {
    const made = await session();
    const [doctor, patient] = [await attend("dora", made), await attend("paul", made)];
    for (const one of [doctor, patient]) await hears(one, `joined ${made.room_id}`);
    await hears(doctor, "user_joined paul");
    await call(doctor);
    await inCall(t, [doctor, patient], ["from the paul", "from the dora"]);
    await doctor.evaluate(() => globalThis.room.control());
    for (const text of ["audio_toggled dora false", "video_toggled dora false", "chat_message dora Hello!"]) await hears(patient, text);
    await patient.evaluate(() => globalThis.room.control());
    await hears(doctor, "chat_message paul Hello!");
    const ended = await fetch(`http://localhost:8086/api/video/sessions/${made.session_id}/end`, { method: "POST", headers: { authorization: `Bearer ${token("dora")}` } });
    const { session_duration_minutes: minutes } = await ended.json();
    assert.ok(Number.isInteger(minutes) && minutes >= 1, `it took ${minutes} minutes`);
    for (const one of [doctor, patient]) await one.waitForFunction(() => !globalThis.room.socket.connected);
  });

  test(`s4_06 the namespace trap: a patient whose page makes signaling_server_url a namespace is called all the same (${way})`, async () => {
    const made = await session();
    const doctor = await attend("dora", made);
    const patient = await attend("paul", made);
    const heard = await patient.evaluate(async (transports) => {
      const { io } = await import("socket.io-client");
      const { attendee, signaling_server_url, socket: older } = globalThis.room;
      older.close();
      const socket = io(signaling_server_url, { forceNew: true, transports: transports.split(",") });
      const offered = new Promise((resolve) => socket.on("webrtc_offer", resolve));
      const joined = new Promise((resolve) => socket.on("joined_room", resolve));
      socket.emit("join_room", { room_id: (await (await fetch(`/api/video/sessions/${new URLSearchParams(location.search).get("session")}/join`, { method: "POST" })).json()).room_id, user_id: attendee.user_id, role: attendee.role, token: attendee.access_token });
      Object.assign(globalThis, { trap: offered });
      return { url: signaling_server_url, name: socket.nsp, peer: (await joined).peer_id, own: attendee.peer_id };
    }, transports);
    assert.deepEqual([heard.url, heard.name], ["http://localhost:8086/socket.io", "/socket.io"]);
    await call(doctor);
    const offer = await patient.evaluate(() => globalThis.trap);
    assert.match(offer.from_peer_id, /^doctor_dora_/);
    assert.equal(offer.offer.type, "offer");
  });
}

/** The pages of two users, and the REST of seed 003 up to where both have the call's id. */
async function ring({ caller, callee }) {
  const users = { caller: `carla${++rooms}`, callee: `emil${rooms}` };
  const tokens = { caller: token(users.caller), callee: token(users.callee) };
  const api = async (who, method, path, body) => {
    const headers = { authorization: `Bearer ${tokens[who]}`, "content-type": "application/json" };
    const answer = await fetch(`http://localhost:8000${path}`, { method, headers, body: body && JSON.stringify(body) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
    return answer.json();
  };
  const scripts = (of) => (of.startsWith("own/") ? [showConnection] : []);
  const pages = [
    await page(0, { page: caller, role: "caller", token: tokens.caller }, { scripts: scripts(caller) }),
    await page(1, { page: callee, role: "callee", token: tokens.callee }, { scripts: scripts(callee) }),
  ];
  const { call_id, status } = await api("caller", "POST", "/calls/initiate", { callee_id: users.callee });
  assert.equal(status, "pending");
  assert.equal((await api("callee", "GET", "/calls/active")).call_id, call_id);
  assert.equal((await api("callee", "POST", `/calls/accept/${call_id}`)).status, "ongoing");
  await pages[1].evaluate((id) => globalThis.open(id), call_id);
  const active = await api("caller", "GET", "/calls/active");
  await pages[0].evaluate((id) => globalThis.open(id), active.call_id);
  for (const one of pages) await one.waitForFunction(() => globalThis.room?.peerConnection);
  return { pages, api, call_id };
}

test("s3_01 s3_02 s3_03 s3_06 s3_11 s3_16 s3_27 seed 003 on port 8000: REST, JWT, the component as it stands", async (t) => {
  const { pages, api, call_id } = await ring({ caller: "VideoCall", callee: "VideoCall" });
  const [caller, callee] = pages;
  await inCall(t, pages);
  for (const one of pages) await one.waitForFunction(() => globalThis.room.hook.channel?.readyState === "open");
  await caller.fill("input", "Hello!");
  await caller.press("input", "Enter");
  await hears(callee, "Hello!");
  await callee.fill("input", "Good morning");
  await callee.press("input", "Enter");
  await hears(caller, "Good morning");
  await until(caller, (one) => one.locator("p").innerText(), (text) => text === "Connection: connected");
  const state = await until(caller, () => api("caller", "GET", `/ws/webrtc/connection-state/${call_id}`), (now) => now.connection_state === "connected");
  assert.ok(state.ice_candidates_count >= 2, JSON.stringify(state));
  await caller.click("button");
  assert.equal((await api("caller", "POST", `/calls/end/${call_id}`)).status, "ended");
});

/** What the user of the component types arrives at the other one. */
async function type(from, to, text) {
  await from.fill("input", text);
  await from.press("input", "Enter");
  await hears(to, text);
}

const connection = (one) => one.locator("p").innerText();

test("s3_18 s3_19 the component as it stands, with React itself and the hook of turnkey.js on both sides", async (t) => {
  const { pages, api, call_id } = await ring({ caller: "own/VideoCall", callee: "own/VideoCall" });
  const [caller, callee] = pages;
  await inCall(t, pages);
  await type(caller, callee, "Hello!");
  await type(callee, caller, "Good morning");
  for (const one of pages) {
    await until(one, connection, (text) => text === "Connection: connected");
    assert.deepEqual(await one.evaluate(() => [...document.querySelectorAll("main video")].map(({ srcObject }) => srcObject?.getTracks().length)), [2, 2]);
  }
  await caller.click("button");
  await until(caller, connection, (text) => text === "Connection: closed");
  const ended = await until(caller, () => api("caller", "GET", `/calls/${call_id}`), ({ status }) => status === "ended");
  t.diagnostic(`the call is ${ended.status}`);
  for (const one of pages) assert.deepEqual(one.said.filter((line) => /Error/.test(line)), []);
});

test("s3_18 the hook of turnkey.js takes a call from seed 003's own code", async (t) => {
  const { pages } = await ring({ caller: "VideoCall", callee: "own/VideoCall" });
  await inCall(t, pages);
  const [caller, callee] = pages;
  await caller.waitForFunction(() => globalThis.room.hook.channel?.readyState === "open");
  await type(caller, callee, "Hello!");
  await type(callee, caller, "Good morning");
});

test("s3_07 without a token, or with another user's, the socket of a call closes with a code", async () => {
  const opened = await page(0, { page: "VideoCall", role: "caller", token: token("carla") });
  const close = (query) => opened.evaluate((query) => new Promise((resolve) => {
    new WebSocket(`ws://localhost:8000/ws/webrtc/nothing${query}`).onclose = ({ code }) => resolve(code);
  }), query);
  assert.equal(await close("?token=nonsense"), 4401);
  assert.equal(await close(`?token=${token("carla")}`), 4404);
});
