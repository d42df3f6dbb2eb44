/** Stock socket.io-client against the built server: transports, namespaces, recovery, retries, calls. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { io } from "socket.io-client";
import { WebSocket } from "ws";
import { loopbackConfig, serve, turnkey } from "./lib/server.js";

const KEY = "a key of at least thirty-two bytes for the tokens";
const OFFER = { type: "offer", sdp: "v=0\r\n" };
const ANSWER = { type: "answer", sdp: "v=0\r\n" };
const candidate = (n) => ({ candidate: `candidate:${n} 1 udp 1 192.0.2.1 9 typ host`, sdpMid: "0" });

let server;
const sockets = [];
let rooms = 0;

before(async () => {
  server = await serve(loopbackConfig({ extra: `[signaling]\njwt_secret = "${KEY}"\naccess = "token"\nconnects_per_minute = 1000\n` }));
});

after(async () => {
  sockets.forEach((socket) => socket.close());
  await server?.stop();
});

function token(user, room = "*") {
  process.env.TURNKEY_SIGNALING__JWT_SECRET = KEY;
  return turnkey("token", "--user", user, "--room", room);
}

function client(options = {}, path = "") {
  const socket = io(server.url().replace(/\/$/, "") + path, { forceNew: true, reconnectionDelay: 50, ...options });
  sockets.push(socket);
  return socket;
}

const event = (socket, name) => new Promise((resolve) => socket.once(name, resolve));

async function connected(user, options = {}, path = "") {
  const socket = client({ auth: { token: token(user) }, ...options }, path);
  socket.hello = await event(socket, "connected");
  return socket;
}

/** Cuts the transport as a lost network does. */
const cut = (socket) => socket.io.engine.close();

for (const [name, transports] of [["polling, then WebSocket", undefined], ["polling only", ["polling"]], ["WebSocket only", ["websocket"]], ["as seed 004 asks", ["websocket", "polling"]]]) {
  test(`s1_01 s4_01 ${name}: offer, answer and candidates in order`, async () => {
    const room = `order-${++rooms}`;
    const [ann, bob] = [await connected("ann", { transports }), await connected("bob", { transports })];
    assert.equal(ann.hello.sid, ann.id);
    for (const socket of [ann, bob]) assert.equal((await socket.emitWithAck("webrtc:join_room", { roomId: room })).ok, true);
    const heard = [];
    for (const name of ["webrtc:offer", "webrtc:ice_candidate", "chat:message"]) bob.on(name, (payload) => heard.push([name, payload.candidate?.candidate]));
    ann.emit("webrtc:offer", { roomId: room, offer: OFFER });
    for (let n = 0; n < 50; n++) ann.emit("webrtc:ice_candidate", { roomId: room, candidate: candidate(n) });
    await ann.emitWithAck("chat:send_message", { roomId: room, message: "done" });
    await until(() => heard.length === 52);
    assert.deepEqual(heard.slice(0, -1), [["webrtc:offer", undefined], ...Array.from({ length: 50 }, (_, n) => ["webrtc:ice_candidate", candidate(n).candidate])]);
    const answered = event(ann, "webrtc:answer");
    bob.emit("webrtc:answer", { roomId: room, answer: ANSWER, kept: [1.5, null] });
    assert.deepEqual(await answered, { roomId: room, answer: ANSWER, kept: [1.5, null], from: "bob" });
  });
}

async function until(is, ms = 20_000) {
  const end = Date.now() + ms;
  while (!is()) {
    assert.ok(Date.now() < end, "still not so");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test("s2_02 s4_06 c15 clients of three namespaces meet, a fourth is refused aloud", async () => {
  const room = `names-${++rooms}`;
  const all = await Promise.all(["/", "/consultation", "/socket.io"].map((path, n) => connected(`user${n}`, {}, path)));
  const heard = all.map(() => 0);
  all.forEach((socket, n) => socket.on("webrtc:offer", () => heard[n]++));
  for (const socket of all) await socket.emitWithAck("webrtc:join_room", { roomId: room });
  await all[1].emitWithAck("webrtc:offer", { roomId: room, offer: OFFER });
  await until(() => heard[0] === 1 && heard[2] === 1);
  const error = await event(client({ auth: { token: token("ann") } }, "/elsewhere"), "connect_error");
  assert.equal(error.message, "Invalid namespace");
});

test("s2_10 a token travels in auth, query or header, and a bad one is a connect_error with data", async () => {
  for (const options of [{ auth: { token: token("ann") } }, { query: { token: token("ann") } }, { extraHeaders: { authorization: `Bearer ${token("ann")}` } }]) {
    await event(client(options), "connect");
  }
  const error = await event(client({ auth: { token: "nonsense" } }), "connect_error");
  assert.equal(error.data.code, "unauthenticated");
});

test("s1_14 two sockets over one connection", async () => {
  const first = client({ forceNew: false, multiplex: true, auth: { token: token("ann") } }, "/");
  const second = client({ forceNew: false, multiplex: true, auth: { token: token("bob") } }, "/consultation");
  await Promise.all([event(first, "connected"), event(second, "connected")]);
  assert.notEqual(first.id, second.id);
  const room = `multiplex-${++rooms}`;
  await first.emitWithAck("webrtc:join_room", { roomId: room });
  await second.emitWithAck("webrtc:join_room", { roomId: room });
  const heard = event(second, "webrtc:offer");
  first.emit("webrtc:offer", { roomId: room, offer: OFFER });
  assert.equal((await heard).from, "ann");
});

for (const transports of [["websocket"], ["polling"]]) {
  test(`s1_09 socket.recovered: nothing lost or doubled over ten cuts (${transports})`, async () => {
    const room = `recover-${++rooms}`;
    const [ann, bob] = [await connected("ann", { transports }), await connected("bob", { transports })];
    for (const socket of [ann, bob]) await socket.emitWithAck("webrtc:join_room", { roomId: room });
    const heard = [];
    bob.on("chat:message", ({ message }) => heard.push(message));
    const { id } = bob;
    for (let n = 0; n < 10; n++) {
      const back = event(bob, "connect");
      cut(bob);
      for (let m = 0; m < 5; m++) await ann.emitWithAck("chat:send_message", { roomId: room, message: `${n}.${m}` });
      await back;
      assert.equal(bob.recovered, true);
      assert.equal(bob.id, id);
    }
    await until(() => heard.length === 50);
    assert.deepEqual(heard, Array.from({ length: 50 }, (_, n) => `${Math.floor(n / 5)}.${n % 5}`));
  });
}

test("with retries, what a client sends while its connection is cut arrives exactly once, in order", async () => {
  const room = `retries-${++rooms}`;
  const ann = await connected("ann", { retries: 50, ackTimeout: 60_000, transports: ["websocket"] });
  const bob = await connected("bob");
  for (const socket of [ann, bob]) await socket.emitWithAck("webrtc:join_room", { roomId: room });
  const heard = [];
  bob.on("chat:message", ({ message }) => heard.push(message));
  for (let n = 0; n < 40; n++) {
    ann.emit("chat:send_message", { roomId: room, message: n });
    if (n % 4 === 2) cut(ann);
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  await until(() => heard.length >= 40, 40_000);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual(heard, Array.from({ length: 40 }, (_, n) => n));
});

test("s1_03 s1_04 s1_05 a call by user, in seed 001's words", async () => {
  const [ann, bob] = [await connected("carla"), await connected("dan")];
  const invited = event(bob, "call.invite");
  const offered = event(bob, "call.offer");
  const { ok, callId } = await ann.emitWithAck("call.invite", { to: "dan", kind: "video" });
  assert.equal(ok, true);
  assert.deepEqual(await invited, { to: "dan", kind: "video", from: "carla", callId, status: "pending" });
  ann.emit("call.offer", { to: "dan", offer: OFFER });
  assert.deepEqual((await offered).offer, OFFER);
  const answered = event(ann, "call.answer");
  bob.emit("call.answer", { to: "carla", answer: ANSWER });
  assert.equal((await answered).callId, callId);
  const ice = event(ann, "call.ice");
  bob.emit("call.ice", { candidate: candidate(1) });
  assert.deepEqual((await ice).candidate, candidate(1));
  const over = event(bob, "call.end");
  await ann.emitWithAck("call.end", {});
  assert.equal((await over).status, "ended");
});

test("c14 s4_07 s4_15 s4_16 s4_21 the flow of seed 004, its token in the join", async () => {
  const room = `s4-${++rooms}`;
  const socket = client({ transports: ["websocket", "polling"] });
  assert.equal(typeof (await event(socket, "connected")).sid, "string");
  const refused = event(socket, "error");
  socket.emit("join_room", { room_id: room, user_id: "7", role: "DOCTOR" });
  const { code, message } = await refused;
  assert.equal(code, "unauthenticated");
  assert.match(message, /token/);
  const joined = event(socket, "joined_room");
  socket.emit("join_room", { room_id: room, user_id: "7", role: "DOCTOR", token: token("7", room) });
  const { room_id, peer_id, role, participants_count, participants } = await joined;
  assert.deepEqual([room_id, role, participants_count, participants], [room, "DOCTOR", 1, []]);
  assert.match(peer_id, /^doctor_7_/);
});

/** A raw socket; `heard` resolves with the next message of that type. */
async function raw(path, user) {
  const socket = new WebSocket(`${server.url().replace(/^http/, "ws")}${path}?token=${token(user)}`);
  const [waiting, early] = [new Map(), []];
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    const take = waiting.get(message.type);
    if (take) take(message);
    else early.push(message);
  };
  await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }));
  sockets.push(socket);
  const heard = (type) => new Promise((resolve) => {
    const at = early.findIndex((message) => message.type === type);
    if (at >= 0) resolve(early.splice(at, 1)[0]);
    else waiting.set(type, resolve);
  });
  return { say: (message) => socket.send(JSON.stringify(message)), heard };
}

for (const [seed, words] of Object.entries({
  "002": { join: "webrtc:join_room", room: "roomId", offer: "webrtc:offer", answer: "webrtc:answer", ice: "webrtc:ice_candidate" },
  "004": { join: "join_room", room: "room_id", offer: "webrtc_offer", answer: "webrtc_answer", ice: "ice_candidate" },
})) {
  test(`c1 raw sockets of seed 000 and Socket.IO of seed ${seed} call each other`, async () => {
    const room = `pair-${++rooms}`;
    const ann = await connected("ann");
    await ann.emitWithAck(words.join, { [words.room]: room });
    const bob = await raw(`ws/signaling/${room}`, "bob");
    const heard = ["answer", "ice", "offer"].map((name) => event(ann, words[name]));
    ann.emit(words.offer, { [words.room]: room, offer: OFFER });
    ann.emit(words.ice, { [words.room]: room, candidate: candidate(1) });
    assert.deepEqual((await bob.heard("offer")).offer, OFFER);
    assert.deepEqual((await bob.heard("ice-candidate")).candidate, candidate(1));
    bob.say({ type: "answer", answer: ANSWER });
    bob.say({ type: "ice-candidate", candidate: candidate(2) });
    assert.deepEqual((await heard[0]).answer, ANSWER);
    assert.deepEqual((await heard[1]).candidate, candidate(2));
    bob.say({ type: "offer", offer: OFFER });
    assert.deepEqual((await heard[2]).offer, OFFER);
  });
}

test("a stop of the server sends clients away to come back", async () => {
  const other = await serve(loopbackConfig({ extra: `[signaling]\njwt_secret = "${KEY}"\naccess = "token"\n` }));
  const socket = io(other.url(), { forceNew: true, reconnection: false, auth: { token: token("ann") } });
  await event(socket, "connected");
  const gone = event(socket, "disconnect");
  assert.equal(await other.stop(), 0);
  assert.match(await gone, /transport (close|error)/);
  socket.close();
});
