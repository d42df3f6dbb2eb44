/** What turnkey.js does beyond negotiating and resuming, against the fake server and fake peer connections. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, test } from "node:test";
import { createCall, join, listDevices, openMedia, openScreen, watchDevices } from "../../../web/turnkey.js";
import { FakePeerConnection, FakeStream, FakeTrack, lab, socketTo, until } from "./fake-webrtc.js";

let room;
let restore = [];
afterEach(() => {
  room?.end();
  for (const undo of restore.splice(0).reverse()) undo();
});

/** Replaces a global until the test is over. */
function stub(name, value) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  restore.push(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
}

/** Timers of these lengths run at once, all others as they are. */
function hurry(...lengths) {
  const real = globalThis.setTimeout;
  stub("setTimeout", (run, ms, ...rest) => real(run, lengths.includes(ms) ? 1 : ms, ...rest));
}

/** A browser's devices, of which each is opened anew. */
function devices({ kinds = ["audio", "video"], screen = () => new FakeStream([new FakeTrack("video")]) } = {}) {
  const target = new EventTarget();
  const asked = [];
  Object.assign(target, {
    asked,
    kinds,
    async getUserMedia(constraints) {
      asked.push(constraints);
      const wanted = Object.keys(constraints).filter((kind) => constraints[kind]);
      const missing = wanted.find((kind) => !target.kinds.includes(kind) || constraints[kind].deviceId?.exact === "gone");
      if (missing) throw Object.assign(new Error(`no ${missing}`), { name: "NotFoundError" });
      return new FakeStream(wanted.map((kind) => new FakeTrack(kind)));
    },
    getDisplayMedia: async () => screen(),
    enumerateDevices: async () => target.kinds.map((kind) => ({ kind: `${kind}input`, deviceId: `${kind}1`, label: `my ${kind}` })),
  });
  stub("navigator", { mediaDevices: target, userAgent: "a test" });
  stub("MediaStream", FakeStream);
  return target;
}

async function pair(options = [{}, {}]) {
  room = lab(join);
  const ada = room.enter({ name: "Ada", ...options[0] });
  await ada.call.ready;
  const bob = room.enter({ name: "Bob", ...options[1] });
  await bob.call.ready;
  const settled = (one, other) => connection(one, other)?.signalingState === "stable" && connection(one, other).remoteDescription;
  await until(() => settled(ada, bob) && settled(bob, ada), "negotiation");
  return { hub: room.hub, ada, bob, settled };
}

const connection = (one, other) => one.call.connection(other.call.member);
const said = (one, start) => one.of("log").filter(({ text }) => text.startsWith(start)).length;
const codes = (one) => one.of("problem").map(({ error }) => error.code);

/** Joins the open data channels of two fake connections. */
function connectChannels(one, other) {
  const ends = [connection(one, other).channel, connection(other, one).channel];
  ends.forEach((end, index) => {
    end.readyState = "open";
    end.send = (data) => (end.sent.push(data), queueMicrotask(() => end.dead || ends[1 - index].onmessage({ data })));
  });
  return ends;
}

test("chat: confirmed on the data channel, it never goes through the server", async () => {
  const { hub, ada, bob } = await pair();
  connectChannels(ada, bob);
  await ada.call.sendMessage("hello");
  assert.deepEqual(bob.of("message").map(({ message }) => message), ["hello"]);
  assert.equal(hub.log.filter(({ t }) => t === "chat").length, 0);
});

test("chat: an open channel over a dead path falls back to the server, and what comes both ways is shown once", async () => {
  const { hub, ada, bob } = await pair();
  const [channel, far] = connectChannels(ada, bob);
  hurry(1500);
  channel.dead = true;
  await ada.call.sendMessage("through the server");
  assert.equal(hub.log.filter(({ t }) => t === "chat").length, 1);
  await until(() => bob.of("message").length === 1);
  far.onmessage({ data: channel.sent[0] }); // the path is back, and the channel repeats itself
  await ada.call.sendCustom("marker");
  await until(() => bob.of("custom").length === 1);
  assert.deepEqual(bob.of("message").map(({ message }) => message), ["through the server"]);
});

test("chat: two messages of the same words are two", async () => {
  const { ada, bob } = await pair();
  connectChannels(ada, bob);
  await Promise.all([ada.call.sendMessage("yes"), ada.call.sendMessage("yes")]);
  assert.equal(bob.of("message").length, 2);
});

test("chat: a channel that another kind of client has opened is used both ways, once", async () => {
  const { hub, ada, bob } = await pair();
  const channel = { readyState: "open", sent: [], send(data) { this.sent.push(data); } };
  connection(ada, bob).ondatachannel({ channel });
  channel.onmessage({ data: JSON.stringify({ type: "text", message: "from a stranger", timestamp: "now" }) });
  assert.equal(ada.of("message")[0].message, "from a stranger");
  await ada.call.sendMessage("to a stranger");
  assert.equal(JSON.parse(channel.sent[0]).message, "to a stranger");
  assert.equal(hub.log.filter(({ t }) => t === "chat").length, 0);
});

test("chat that cannot be sent is told, as a rejection and as a problem", async () => {
  const { ada } = await pair();
  ada.call.session.request = () => Promise.reject(new Error("too large"));
  await assert.rejects(ada.call.sendMessage("x"), /too large/);
  assert.deepEqual(codes(ada), ["not_sent"]);
});

test("a relay that refuses the credential is asked again with a fresh one, once for all its transports", async () => {
  const { hub, ada, bob } = await pair();
  const pc = connection(ada, bob);
  const minted = hub.minted;
  for (let url = 0; url < 3; url++) pc.onicecandidateerror({ errorCode: 401, errorText: "Unauthorized" });
  pc.onicecandidateerror({ errorCode: 701, errorText: "unreachable" });
  await until(() => pc.restarts === 1);
  assert.equal(hub.minted, minted + 1);
  assert.deepEqual(codes(ada), ["credential_refused"]);
});

test("when restarts find no path, connections begin anew, unless another member would suffer", async () => {
  const { ada, bob, settled } = await pair();
  const [pc, member] = [connection(ada, bob), ada.call.member];
  const real = pc.setIce;
  pc.setIce = (state) => state === "failed" && real.call(pc, state); // whatever is negotiated, no path is found
  for (let failure = 1; failure <= 4; failure++) {
    pc.setIce("failed");
    await until(() => pc.restarts === failure, `restart ${failure}`);
  }
  pc.setIce("failed");
  await until(() => ada.call.member !== member && settled(ada, bob) && settled(bob, ada), "a new connection");
  assert.ok(pc.closed);
  assert.ok(codes(ada).includes("path_failed"));
});

/** The browser's events of a page, and whether its server answers. */
function network() {
  const target = new EventTarget();
  const found = { hint: new EventTarget(), isThere: true, asked: [], says: (event) => target.dispatchEvent(new Event(event)) };
  for (const method of ["addEventListener", "removeEventListener"]) stub(method, target[method].bind(target));
  stub("navigator", { connection: found.hint });
  stub("fetch", async (url, { method }) => {
    found.asked.push(`${method} ${url}`);
    if (!found.isThere) throw new TypeError("Failed to fetch");
  });
  return found;
}

test("another network: after being offline the path restarts at once, on a hint only if nothing arrives", async () => {
  const web = network();
  const { ada, bob } = await pair();
  const pc = connection(ada, bob);
  web.says("online");
  assert.equal(said(ada, "Restarting"), 0, "nothing says that it was away");
  assert.deepEqual(web.asked, []);
  web.isThere = false;
  web.says("offline");
  web.isThere = true;
  web.says("online");
  await until(() => pc.restarts === 1, "the restart");
  assert.deepEqual(new Set(web.asked), new Set(["HEAD http://fake/health"]));
  pc.setIce("connected");
  hurry(2500);
  const arriving = pc.getStats;
  pc.getStats = () => ((pc.received += 1000), arriving.call(pc));
  web.hint.dispatchEvent(new Event("change"));
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(said(ada, "Restarting"), 1, "bytes still arrive");
  pc.getStats = arriving;
  web.hint.dispatchEvent(new Event("change"));
  await until(() => said(ada, "Restarting") === 2, "the second restart");
  room.end();
});

test("a browser that says offline while the server answers changes nothing", async () => {
  const web = network();
  const { hub, ada } = await pair();
  web.says("offline");
  await until(() => web.asked.length >= 2, "both sides ask"); // the pages of this test share their events
  await new Promise(setImmediate);
  const pings = hub.log.filter(({ t }) => t === "ping").length;
  web.says("online");
  await until(() => hub.log.filter(({ t }) => t === "ping").length === pings + 2, "it was a wake-up like any other");
  assert.equal(said(ada, "Restarting"), 0);
  assert.equal(ada.WebSocket.opened, 1);
  room.end();
});

test("a browser that says online too early: the path restarts once the server is there", async () => {
  const web = network();
  const { hub, ada, bob } = await pair();
  web.isThere = false;
  web.says("offline");
  await until(() => web.asked.length >= 2, "both sides ask");
  web.says("online");
  await until(() => web.asked.length >= 4, "and again");
  await new Promise(setImmediate);
  assert.equal(said(ada, "Restarting"), 0, "it leads nowhere");
  hub.drop();
  await until(() => said(ada, "Restarting") === 1 && ada.call.state === "joined", "the restart");
  // It asks for fresh credentials first.
  await until(() => connection(ada, bob).restarts === 1, "that of its path");
  room.end();
});

test("a token from a function is renewed in band before it ends", async () => {
  const jwt = (exp) => `h.${Buffer.from(JSON.stringify({ exp })).toString("base64url")}.s`;
  let issued = 0;
  const now = Math.floor(Date.now() / 1000);
  const { hub } = await pair([{ token: () => jwt(now + (issued++ ? 3600 : 1)) }, {}]);
  const renewal = await until(() => hub.log.find(({ t }) => t === "token"), "the renewal");
  assert.equal(renewal.d.token, jwt(now + 3600));
  assert.equal(hub.log.filter(({ t }) => t === "hello").length, 2, "on the socket that is open");
});

test("a reload takes the session over, leaves what went with the page, and enters anew", async () => {
  const target = new EventTarget();
  for (const method of ["addEventListener", "removeEventListener"]) stub(method, target[method].bind(target));
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, text) => kept.set(key, text), removeItem: (key) => kept.delete(key) };
  const { hub, ada, bob, settled } = await pair([{ storage }, {}]);
  const before = [...hub.sessions.values()].length;
  target.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: true }));
  assert.equal(kept.size, 0, "a page that may come back keeps its call");
  ada.call.options.storage && ada.call.session.suspend();
  assert.equal(ada.call.state, "closed");
  assert.equal(kept.size, 1);
  await until(() => bob.call.members[0]?.away, "away, not gone");
  const again = room.enter({ name: "Ada", storage });
  await again.call.ready;
  assert.equal(kept.size, 0, "a duplicate of the tab finds nothing");
  await until(() => settled(again, bob) && settled(bob, again), "a new negotiation");
  assert.equal(bob.call.members.length, 1, "and no ghost");
  assert.equal(hub.sessions.size, before);
  const ids = hub.log.filter(({ t }) => t === "join").map(({ id }) => id);
  assert.equal(new Set([ids[0], ids[2]]).size, 2, "ids go on, so that nothing is taken for a repetition");
  room.end();
});

test("a closed tab has left at once where no storage keeps its session", async () => {
  const target = new EventTarget();
  for (const method of ["addEventListener", "removeEventListener"]) stub(method, target[method].bind(target));
  const { ada, bob } = await pair();
  target.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: false }));
  await until(() => [ada, bob].every(({ call }) => call.state === "closed"));
});

test("a moderator's mute turns the track off and is told on both sides", async () => {
  const stream = new FakeStream([new FakeTrack("audio"), new FakeTrack("video")]);
  const { ada, bob } = await pair([{}, { stream }]);
  await ada.call.mute(bob.call.member, "audio");
  await until(() => bob.of("media").length === 1);
  assert.deepEqual(bob.of("media")[0], { type: "media", media: { audio: false }, by: ada.call.member });
  assert.equal(stream.getTracks()[0].enabled, false);
  assert.equal(stream.getTracks()[1].enabled, true);
  await until(() => ada.call.members[0].media.audio === false);
});

test("a screen takes the camera's place, and gives it back when the browser's button ends it", async () => {
  devices();
  const [audio, camera] = [new FakeTrack("audio"), new FakeTrack("video")];
  const { ada, bob } = await pair([{ stream: new FakeStream([audio, camera]) }, {}]);
  const pc = connection(ada, bob);
  assert.equal(pc.sent("video"), camera);
  await ada.call.shareScreen();
  const screen = pc.sent("video");
  assert.notEqual(screen, camera);
  assert.equal(pc.sent("audio"), audio);
  await until(() => bob.call.members[0].media.screen === true);
  screen.unplug();
  assert.equal(pc.sent("video"), camera);
  await until(() => bob.call.members[0].media.screen === false);
  await ada.call.shareScreen(new FakeStream([new FakeTrack("video")]));
  ada.call.stopScreen();
  assert.equal(pc.sent("video"), camera);
  await assert.rejects(ada.call.shareScreen(new FakeStream([new FakeTrack("audio")])), { code: "media_missing" });
});

test("who has no camera may share a screen", async () => {
  devices();
  const { ada, bob } = await pair();
  await ada.call.shareScreen();
  assert.equal(connection(ada, bob).sent("video").kind, "video");
});

test("a device that vanishes is replaced by another one, and where there is none that is told", async () => {
  const media = devices();
  const [audio, camera] = [new FakeTrack("audio"), new FakeTrack("video")];
  const stream = new FakeStream([audio, camera]);
  const { ada, bob } = await pair([{ stream }, {}]);
  const pc = connection(ada, bob);
  ada.call.setEnabled("video", false);
  camera.unplug();
  await until(() => ada.of("device").length === 1);
  assert.deepEqual(ada.of("device")[0], { type: "device", kind: "video", replaced: true });
  const other = stream.getVideoTracks()[0];
  assert.notEqual(other, camera);
  assert.equal(pc.sent("video"), other);
  assert.equal(other.enabled, false, "what was off stays off");
  media.kinds = [];
  audio.unplug();
  await until(() => ada.of("device").length === 2);
  assert.equal(ada.of("device")[1].replaced, false);
  assert.deepEqual(codes(ada), ["device_lost"]);
  await until(() => bob.call.members[0].media.audio === false);
});

test("another camera is chosen by its id, and the one before is switched off", async () => {
  const media = devices();
  const camera = new FakeTrack("video");
  const stream = new FakeStream([camera]);
  const { ada, bob } = await pair([{ stream }, {}]);
  const [device] = (await listDevices()).filter(({ kind }) => kind === "video");
  assert.deepEqual(device, { id: "video1", kind: "video", label: "my video" });
  await ada.call.useDevice("video", device.id);
  assert.deepEqual(media.asked.at(-1).video.deviceId, { exact: "video1" });
  assert.equal(camera.readyState, "ended");
  assert.equal(connection(ada, bob).sent("video"), stream.getVideoTracks()[0]);
  assert.equal(ada.of("device").length, 0, "nothing was lost");
  await assert.rejects(ada.call.useDevice("video", "gone"), { code: "media_missing" });
  assert.equal(stream.getVideoTracks().length, 1, "the one before is there again");
  assert.equal(connection(ada, bob).sent("video").readyState, "live");
});

test("devices that come and go are told until nobody listens", async () => {
  const media = devices();
  const heard = [];
  const stop = watchDevices((list) => heard.push(list.map(({ id }) => id)));
  media.kinds = ["audio"];
  media.dispatchEvent(new Event("devicechange"));
  await until(() => heard.length === 1);
  assert.deepEqual(heard, [["audio1"]]);
  stop();
  media.dispatchEvent(new Event("devicechange"));
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(heard.length, 1);
});

test("s3_20 the defaults of a call; a camera without such sizes is taken as it is", async () => {
  const media = devices();
  await openMedia();
  const { audio, video } = media.asked[0];
  assert.deepEqual(audio, { echoCancellation: true, noiseSuppression: true, autoGainControl: true });
  assert.deepEqual(video, { width: { min: 320, ideal: 640, max: 1280 }, height: { min: 240, ideal: 480, max: 720 }, frameRate: { ideal: 30, max: 60 } });
  const open = media.getUserMedia;
  media.getUserMedia = (constraints) => (constraints.video.width ? Promise.reject(Object.assign(new Error("width"), { name: "OverconstrainedError" })) : open(constraints));
  assert.equal((await openMedia()).getTracks().length, 2);
});

for (const [name, code] of [["NotAllowedError", "media_denied"], ["NotReadableError", "media_busy"], ["NotFoundError", "media_missing"]]) {
  test(`s3_21 ${name} of a camera or a screen is "${code}" with a hint`, async () => {
    const fail = () => { throw Object.assign(new Error("why"), { name }); };
    const media = devices({ screen: fail });
    media.getUserMedia = async () => fail();
    for (const open of [openMedia, openScreen]) await assert.rejects(open(), (error) => error.code === code && error.hint.length > 10 && /why/.test(error.message));
  });
}

test("s3_25 s4_27 quality is told in words when it changes, with loss and rates since the last look", async () => {
  const { ada, bob } = await pair();
  const pc = connection(ada, bob);
  const { recovery } = ada.call.peers.get(bob.call.member);
  await recovery.poll();
  assert.deepEqual(ada.of("quality").map(({ quality }) => quality), ["good"]);
  pc.received += 100_000;
  pc.lost = 30;
  const still = pc.getStats;
  pc.getStats = async () => new Map([...(await still.call(pc))].map(([id, entry]) => [id, entry.type === "inbound-rtp" ? { ...entry, packetsReceived: 170 } : entry]));
  await recovery.poll();
  const { quality, reason } = ada.of("quality")[1];
  assert.deepEqual([quality, reason], ["poor", "30 % of the packets are lost"]);
  const { stats } = ada.of("stats").at(-1);
  assert.ok(stats.bitrateIn > 0);
  assert.equal(stats.loss, 0.3);
  assert.equal(stats.jitter, 3);
  pc.setIce("disconnected");
  assert.equal(ada.of("quality")[2].quality, "lost");
});

test("s3_21 an offer without an answer, and a gathering without candidates, have a code and a hint", async () => {
  const { hub, ada, bob } = await pair();
  hurry(12_000);
  const pc = connection(ada, bob);
  connection(bob, ada).setRemoteDescription = () => new Promise(() => {});
  pc.restartIce();
  await until(() => codes(ada).includes("no_answer"));
  assert.equal(hub.log.filter(({ t }) => t === "offer").length, 2);
  const { gathered } = ada.call.peers.get(bob.call.member);
  for (const type of Object.keys(gathered)) delete gathered[type];
  pc.onicecandidate({ candidate: null });
  await until(() => codes(ada).includes("no_candidates"));
  for (const { error } of ada.of("problem")) assert.ok(error.hint.length > 10, error.code);
});

test("s3_21 a lost socket is a problem once, not an error", async () => {
  const { hub, ada } = await pair();
  ada.WebSocket.refused = 3;
  hub.drop();
  await until(() => ada.WebSocket.opened === 2 && ada.call.state === "joined");
  assert.deepEqual(codes(ada), ["signaling_lost"]);
  assert.deepEqual(ada.of("error"), []);
});

test("the report says what happened, and holds no credential and no token", async () => {
  const { ada, bob, hub } = await pair([{ url: "ws://fake/v1/ws?token=SECRET1", token: "SECRET2" }, {}]);
  hub.iceServers = [{ urls: ["turn:relay"], username: "SECRET3", credential: "SECRET4" }];
  await ada.call.refreshIce();
  connection(ada, bob).setIce("failed");
  const report = await ada.call.collectReport();
  const text = JSON.stringify(report);
  assert.doesNotMatch(text, /SECRET/);
  assert.deepEqual(report.iceServers, ["turn:relay"]);
  assert.equal(report.url, "ws://fake/v1/ws");
  assert.equal(report.members[0].iceConnectionState, "failed");
  assert.equal(report.members[0].stats.path.label, "relayed over TCP");
  assert.ok(report.log.some((line) => /Successfully joined/.test(line)));
  assert.deepEqual(report.problems.map(({ code }) => code), ["path_failed"]);
  const published = JSON.parse(readFileSync(new URL("../../../web/package.json", import.meta.url), "utf8"));
  assert.equal(report.version, published.version);
  for (let line = 0; line < 600; line++) ada.call.log("noise");
  assert.equal((await ada.call.collectReport()).log.length, 500, "what it remembers is bounded");
});

test("sabotage: a lost socket, an expired credential and glare recover", async () => {
  const { hub, ada, bob, settled } = await pair();
  ada.call.sabotage("socket");
  await until(() => ada.WebSocket.opened === 2 && ada.call.state === "joined", "the resume");
  hub.iceServers = [{ urls: ["turn:relay"], username: "2000000000:ada", credential: "c" }];
  await ada.call.refreshIce();
  const pc = connection(ada, bob);
  ada.call.sabotage("credential");
  assert.ok(Number(pc.configuration.iceServers[0].username.split(":")[0]) < Date.now() / 1000);
  pc.onicecandidateerror({ errorCode: 401, errorText: "" });
  await until(() => pc.configuration.iceServers[0].username === "2000000000:ada", "the fresh credential");
  await until(() => settled(ada, bob));
  const restarts = [said(ada, "Restarting"), said(bob, "Restarting")];
  ada.call.sabotage("glare");
  await until(() => said(ada, "Restarting") > restarts[0] && said(bob, "Restarting") > restarts[1], "both restart");
  await until(() => settled(ada, bob) && settled(bob, ada));
});

test("sabotage: while candidates get lost none goes out or comes in, then the path is looked for again", async () => {
  const { hub, ada, bob } = await pair();
  const from = hub.log.length;
  ada.call.sabotage("candidates", 0.05);
  await until(() => ada.of("log").some(({ text }) => text.includes("get through again")), "the end of it");
  const joined = hub.log.findLastIndex(({ t }) => t === "join");
  assert.ok(joined > from, "with new connections");
  const during = hub.log.slice(joined, hub.log.findLastIndex(({ t }) => t === "ice"));
  assert.deepEqual(during.filter(({ t, to }) => t === "candidate" && to === bob.call.member), []);
  assert.equal(ada.call.peers.size, 1);
  await until(() => connection(ada, bob)?.candidates.length > 0, "candidates again");
});

test("createCall: initialize, chat, mute, the other's stream, and the end, under the names of seed 003", async () => {
  devices();
  room = lab(join);
  const WebSocket = socketTo(room.hub);
  const errors = [];
  const streams = [];
  const texts = [];
  const call = createCall({
    callId: "r", token: "t", wsUrl: "ws://fake/ws", WebSocket, RTCPeerConnection: FakePeerConnection,
    onRemoteStream: (stream) => streams.push(stream), onChatMessage: (text) => texts.push(text), onError: (error) => errors.push(error),
  });
  let changes = 0;
  const stop = call.subscribe(() => changes++);
  assert.deepEqual({ ...call.snapshot() }, { localStream: null, remoteStream: null, connectionState: "new", isInitialized: false });
  const { initialize, endCall, sendChatMessage, setAudioEnabled } = call;
  assert.equal(initialize(), initialize(), "asked twice it begins once");
  await initialize();
  assert.ok(call.isInitialized && call.localStream.getTracks().length === 2);
  const bob = room.enter({ room: "r", name: "Bob" });
  await until(() => call.connectionState === "connected");
  await bob.call.ready;
  call.call.connection(bob.call.member).ontrack({ track: new FakeTrack("video"), streams: ["theirs"] });
  assert.deepEqual([streams, call.remoteStream], [["theirs"], "theirs"]);
  await sendChatMessage("hello");
  await until(() => bob.of("message").length === 1);
  await bob.call.sendMessage("hi");
  await until(() => texts.length === 1);
  setAudioEnabled(false);
  assert.equal(call.localStream.getTracks()[0].enabled, false);
  await until(() => bob.call.members[0].media.audio === false);
  const [track] = call.localStream.getTracks();
  endCall();
  assert.equal(track.readyState, "ended");
  assert.deepEqual({ ...call.snapshot() }, { localStream: null, remoteStream: null, connectionState: "closed", isInitialized: false });
  await until(() => bob.of("member-left").length === 1);
  await initialize();
  assert.ok(call.isInitialized, "and once more");
  assert.ok(changes >= 6);
  stop();
  endCall();
  assert.deepEqual(errors, []);
});

test("createCall: ended while it opens, nothing stays open; a refusal reaches onError once", async () => {
  const media = devices();
  room = lab(join);
  const opened = [];
  const open = media.getUserMedia;
  let allow;
  const allowed = new Promise((resolve) => (allow = resolve));
  media.getUserMedia = async (constraints) => {
    const stream = await open(constraints);
    opened.push(...stream.getTracks());
    await allowed; // the user thinks about it
    return stream;
  };
  const errors = [];
  const options = { callId: "r", wsUrl: "ws://fake/ws", WebSocket: socketTo(room.hub), RTCPeerConnection: FakePeerConnection, onError: ({ code }) => errors.push(code) };
  const call = createCall(options);
  const starting = call.initialize();
  await until(() => opened.length > 0);
  call.endCall();
  allow();
  await starting;
  assert.ok(opened.every(({ readyState }) => readyState === "ended"));
  assert.equal(room.hub.sessions.size, 0);
  media.kinds = [];
  await assert.rejects(call.initialize(), { code: "media_missing" });
  assert.deepEqual(errors, ["media_missing"]);
  const bad = createCall({ ...options, constraints: false, WebSocket: class { constructor() { throw new SyntaxError("not a URL"); } } });
  await assert.rejects(bad.initialize(), { code: "bad_url" });
  assert.deepEqual(errors, ["media_missing", "bad_url"]);
  assert.equal(bad.isInitialized, false);
});
