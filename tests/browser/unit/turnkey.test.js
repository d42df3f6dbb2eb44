/** turnkey.js against a fake server and fake peer connections. */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { join, openMedia, TurnkeyError } from "../../../web/turnkey.js";
import { FakePeerConnection, lab, until } from "./fake-webrtc.js";

let room;
afterEach(() => room?.end());

function newLab() {
  room = lab(join);
  return room;
}

const connection = (one, other) => one.call.connection(other.call.member);
const settled = (one, other) => connection(one, other)?.signalingState === "stable" && connection(one, other).remoteDescription;

const problems = (...members) => members.flatMap(({ of }) => of("log")).filter(({ text }) => text.startsWith("Problem"));

/** Two members whose negotiation is over. */
async function pair(options = [{}, {}]) {
  const { hub, enter } = newLab();
  const ada = enter({ name: "Ada", ...options[0] });
  await ada.call.ready;
  const bob = enter({ name: "Bob", ...options[1] });
  await bob.call.ready;
  await until(() => settled(ada, bob) && settled(bob, ada), "negotiation");
  await until(() => connection(ada, bob).candidates.length === 3 && connection(bob, ada).candidates.length === 3, "candidates");
  return { hub, ada, bob, enter };
}

test("the earlier member makes the first offer, the later one answers, all candidates arrive", async () => {
  const { hub, ada, bob } = await pair();
  assert.equal(hub.log.filter(({ t }) => t === "offer").length, 1);
  assert.equal(connection(ada, bob).rollbacks + connection(bob, ada).rollbacks, 0);
  assert.deepEqual(problems(ada, bob), []);
});

test("when both offer at once the polite one yields and both agree on the other's offer", async () => {
  const { hub, ada, bob } = await pair();
  const before = connection(ada, bob).remoteDescription;
  connection(ada, bob).restartIce();
  connection(bob, ada).restartIce();
  await until(() => settled(ada, bob) !== before && settled(ada, bob) && settled(bob, ada), "agreement");
  assert.equal(hub.log.filter(({ t }) => t === "offer").length, 3);
  assert.equal(connection(bob, ada).rollbacks, 1, "the later joiner is the polite one");
  assert.equal(connection(ada, bob).rollbacks, 0);
  assert.equal(connection(ada, bob).localDescription.sdp, connection(bob, ada).remoteDescription.sdp);
  assert.deepEqual(problems(ada, bob), []);
});

test("the later member starts when the earlier one makes no offer", async () => {
  const { hub, enter } = newLab();
  const silent = hub.connect({ send: () => {}, close: () => {} });
  silent.receive(JSON.stringify({ t: "hello", d: {} }));
  silent.receive(JSON.stringify({ t: "join", id: "1", d: { room: "r" } }));
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (run, ms, ...rest) => real(run, ms === 3000 ? 1 : ms, ...rest);
  try {
    enter();
    await until(() => hub.log.some(({ t }) => t === "offer"));
  } finally {
    globalThis.setTimeout = real;
  }
});

test("a candidate that overtakes its description waits for it", async () => {
  const { ada, bob } = await pair();
  const pc = connection(ada, bob);
  const before = pc.candidates.length;
  const init = { candidate: "candidate:early", sdpMid: "0", usernameFragment: "later" };
  bob.call.session.request("candidate", init, ada.call.member);
  bob.call.session.request("candidate", { ...init, usernameFragment: "never" }, ada.call.member);
  await bob.call.session.request("offer", { type: "offer", sdp: "v=0\r\na=ice-ufrag:later\r\n" }, ada.call.member);
  await until(() => pc.candidates.length > before, "the early candidate");
  assert.deepEqual(pc.candidates.at(-1), init);
  assert.equal(pc.candidates.length, before + 1, "one of a generation that never came is dropped");
});

test("the end of candidates, null or empty, is no error", async () => {
  const { ada, bob } = await pair();
  for (const end of [null, { candidate: "", sdpMid: "0" }]) await bob.call.session.request("candidate", end, ada.call.member);
  await bob.call.sendCustom("marker");
  await until(() => ada.of("custom").length);
  assert.equal(connection(ada, bob).candidates.length, 3);
});

test("candidates leave only after their description", async () => {
  const { hub } = await pair();
  const described = new Set();
  for (const frame of hub.log) {
    if (frame.d?.sdp) described.add(/ufrag:(\w+)/.exec(frame.d.sdp)[1]);
    if (frame.t === "candidate") assert.ok(described.has(frame.d.usernameFragment), JSON.stringify(frame));
  }
});

test("a lost socket resumes: same member, same connections, nothing lost or doubled", async () => {
  const { hub, ada, bob } = await pair();
  const [member, pc] = [ada.call.member, connection(ada, bob)];
  hub.drop();
  const sent = ["one", "two", "three"].map((text) => bob.call.sendCustom(text));
  await Promise.all(sent);
  await until(() => ada.call.state === "joined" && ada.of("custom").length === 3, "what was sent meanwhile");
  assert.deepEqual(ada.of("custom").map(({ data }) => data), ["one", "two", "three"]);
  assert.equal(ada.call.member, member);
  assert.equal(connection(ada, bob), pc);
  assert.ok(ada.of("log").some(({ text }) => text.startsWith("Signaling resumed")));
  assert.equal(hub.log.filter(({ t }) => t === "join").length, 2, "nobody joined again");
});

test("a message whose acknowledgement was lost is sent again under its id and delivered once", async () => {
  const { hub, ada, bob } = await pair();
  const { sockets } = hub;
  for (const link of sockets) link.socket.send = () => {}; // the server hears, its answers are lost
  const sending = ada.call.sendCustom("once");
  hub.drop();
  await sending;
  await until(() => bob.of("custom").length && bob.call.state === "joined");
  const copies = hub.log.filter(({ t }) => t === "custom");
  assert.equal(copies.length, 2);
  assert.equal(copies[0].id, copies[1].id);
  assert.equal(bob.of("custom").length, 1);
});

test("a server that forgot the session is joined anew, with new connections", async () => {
  const { hub, ada, bob } = await pair();
  const [member, pc] = [ada.call.member, connection(ada, bob)];
  hub.forget();
  hub.drop();
  await until(() => ada.call.member !== member && ada.call.members.length === 1 && bob.call.members.length === 1, "both joined again");
  await until(() => settled(ada, bob) && settled(bob, ada), "a new negotiation");
  assert.ok(pc.closed);
  assert.notEqual(connection(ada, bob), pc);
});

test("s3_22 s4_27 the socket is tried again until it opens, later and later up to a limit", async () => {
  const waits = [];
  const { enter } = newLab();
  const real = globalThis.setTimeout;
  const ada = enter({ random: () => 0.5 });
  await ada.call.ready;
  ada.WebSocket.refused = 6;
  globalThis.setTimeout = (run, ms, ...rest) => {
    const isRetry = [150, 300, 600, 1200, 2400, 4800, 5000].includes(ms);
    if (isRetry) waits.push(ms);
    return real(run, isRetry ? 1 : ms, ...rest);
  };
  try {
    room.hub.drop();
    await until(() => ada.call.state === "reconnecting");
    await until(() => ada.call.state === "joined", "the seventh try");
  } finally {
    globalThis.setTimeout = real;
  }
  assert.deepEqual(waits, [150, 300, 600, 1200, 2400, 4800, 5000]);
});

test("a wake-up ends the wait", async () => {
  const target = new EventTarget();
  const methods = ["addEventListener", "removeEventListener"];
  for (const method of methods) globalThis[method] = target[method].bind(target);
  try {
    const { enter, hub } = newLab();
    const ada = enter({ random: () => 1 });
    await ada.call.ready;
    ada.WebSocket.refused = 1;
    hub.drop();
    await until(() => ada.of("log").filter(({ text }) => text.startsWith("Signaling lost")).length === 2, "a second failure");
    target.dispatchEvent(new Event("online"));
    await until(() => ada.call.state === "joined");
    assert.equal(ada.WebSocket.opened, 2);
    room.end();
  } finally {
    for (const method of methods) delete globalThis[method];
  }
});

for (const [code, name] of [[4403, "forbidden"], [4441, "kicked"], [4440, "replaced"], [4409, "room_full"], [4401, "unauthenticated"]]) {
  test(`close code ${code} ends the call with "${name}" and a hint`, async () => {
    const { ada, hub } = await pair([{ token: "t" }, {}]);
    [...hub.sockets][0].socket.close(code, "because");
    const { error } = await until(() => ada.of("error")[0]);
    assert.ok(error instanceof TurnkeyError);
    assert.equal(error.code, name);
    assert.equal(error.message, "because");
    assert.ok(error.hint.length > 10);
    assert.equal(ada.call.state, "closed");
    assert.equal(ada.WebSocket.opened, 1);
    await assert.rejects(ada.call.sendCustom("x"), { code: "closed" });
  });
}

test("4401 with a new token, and 4450, connect again", async () => {
  let issued = 0;
  const { ada, hub } = await pair([{ token: () => `t${issued++}` }, {}]);
  [...hub.sockets][0].socket.close(4401, "expired");
  await until(() => ada.WebSocket.opened === 2 && ada.call.state === "joined");
  [...hub.sockets].at(-1).socket.close(4450, "draining");
  await until(() => ada.WebSocket.opened === 3 && ada.call.state === "joined");
  assert.deepEqual(ada.of("error"), []);
  assert.ok(hub.log.filter(({ t, d }) => t === "hello" && d.token?.startsWith("t")).length >= 3);
});

test("a refused upgrade says why, in the server's words", async () => {
  const { enter } = newLab();
  const real = globalThis.fetch;
  globalThis.fetch = async (url) => {
    assert.equal(url, "http://fake/v1/ws");
    return new Response(JSON.stringify({ error: { code: "forbidden", message: "set signaling.access" } }), { status: 403 });
  };
  try {
    const ada = enter();
    ada.WebSocket.refused = 1;
    await assert.rejects(ada.call.ready, { code: "forbidden", message: "set signaling.access" });
  } finally {
    globalThis.fetch = real;
  }
});

test("a token that cannot be fetched is asked for again, an address that is none ends the call", async () => {
  const { enter } = newLab();
  let asked = 0;
  const ada = enter({ token: async () => { if (asked++ < 2) throw new Error("offline"); return "t"; } });
  await ada.call.ready;
  assert.equal(asked, 3);
  const bob = enter({ WebSocket: class { constructor() { throw new SyntaxError("not a URL"); } } });
  await assert.rejects(bob.call.ready, { code: "bad_url" });
});

test("a path that fails makes sure of the socket too", async () => {
  const { ada, bob } = await pair();
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (run, ms, ...rest) => real(run, ms === 3000 ? 1 : ms, ...rest);
  try {
    const { WebSocket } = ada;
    const [link] = [...room.hub.sockets];
    link.socket.send = () => {}; // the network is gone, and nobody said so
    connection(ada, bob).setIce("failed");
    await until(() => WebSocket.opened === 2 && ada.call.state === "joined", "another socket");
    await until(() => connection(ada, bob).restarts === 1, "the restart");
  } finally {
    globalThis.setTimeout = real;
  }
});

test("s3_22 a failed path restarts at once, with fresh credentials before the restart", async () => {
  const { hub, ada, bob } = await pair();
  const pc = connection(ada, bob);
  hub.iceServers = [{ urls: ["turn:new"], username: "fresh", credential: "c" }];
  const minted = hub.minted;
  const restart = pc.restartIce;
  let usernameAtRestart;
  pc.restartIce = function () {
    usernameAtRestart = this.configuration.iceServers[0].username;
    restart.call(this);
  };
  const old = connection(bob, ada).remoteDescription.sdp;
  pc.setIce("failed");
  await until(() => pc.restarts === 1);
  assert.equal(usernameAtRestart, "fresh");
  assert.equal(hub.minted, minted + 1);
  await until(() => connection(bob, ada).remoteDescription.sdp !== old && settled(ada, bob), "the new generation");
});

test("a disconnected path is restarted only if nothing arrives any more", async () => {
  const { ada, bob } = await pair();
  const pc = connection(ada, bob);
  const restarts = () => ada.of("log").filter(({ text }) => text.startsWith("Restarting")).length;
  const real = globalThis.setTimeout;
  let checks = 0;
  globalThis.setTimeout = (run, ms, ...rest) => real(ms === 2500 ? () => (checks++, run()) : run, ms === 2500 ? 1 : ms, ...rest);
  try {
    pc.getStats = ((original) => () => ((pc.received += 1000), original.call(pc)))(pc.getStats);
    pc.setIce("disconnected");
    await until(() => checks === 1);
    await new Promise(setImmediate);
    assert.equal(restarts(), 0, "bytes still arrive");
    delete pc.getStats;
    pc.setIce("disconnected");
    await until(() => checks === 2 && restarts() === 1, "the restart");
  } finally {
    globalThis.setTimeout = real;
  }
});

test("the other side may ask for a restart", async () => {
  const { ada, bob } = await pair();
  await ada.call.session.request("restart", {}, bob.call.member);
  await until(() => connection(bob, ada).restarts === 1);
});

test("pushed credentials reach every connection, and the policy and filter stay", async () => {
  const { hub, ada, bob } = await pair([{ iceTransportPolicy: "relay", iceServers: (servers) => servers.slice(0, 1) }, {}]);
  for (const { socket } of hub.sockets) {
    socket.send(JSON.stringify({ t: "ice", d: { ice_servers: [{ urls: ["turn:pushed"] }, { urls: ["turn:other"] }], ttl: 60, expires_at: 99 } }));
  }
  await until(() => ada.of("credentials").some(({ expiresAt }) => expiresAt === 99));
  assert.deepEqual(connection(ada, bob).configuration, { iceServers: [{ urls: ["turn:pushed"] }], iceTransportPolicy: "relay", bundlePolicy: "max-bundle" });
  assert.equal(connection(bob, ada).configuration.iceServers.length, 2);
});

test("another transport policy enters the room anew, with connections that know no other", async () => {
  const { ada, bob } = await pair();
  const [member, pc] = [ada.call.member, connection(ada, bob)];
  ada.call.setIceTransportPolicy("relay");
  assert.ok(pc.closed);
  await until(() => ada.call.member !== member && settled(ada, bob) && settled(bob, ada), "new connections");
  assert.equal(connection(ada, bob).configuration.iceTransportPolicy, "relay");
  assert.equal(bob.call.members.length, 1);
  assert.equal(ada.call.state, "joined");
});

test("three members make a mesh, and who hangs up is gone for the others", async () => {
  const { ada, bob, enter } = await pair();
  const eve = enter({ name: "Eve" });
  await eve.call.ready;
  await until(() => [ada, bob, eve].every(({ call }) => call.members.length === 2));
  await until(() => settled(eve, ada) && settled(eve, bob) && settled(ada, eve) && settled(bob, eve));
  const pc = connection(bob, ada);
  ada.call.leave();
  await until(() => bob.of("member-left").length && eve.of("member-left").length);
  assert.equal(bob.of("member-left")[0].reason, "left");
  assert.ok(pc.closed);
  assert.deepEqual(ada.of("error"), [], "hanging up is no error");
  assert.equal(ada.call.state, "closed");
  assert.ok(FakePeerConnection.all.filter(({ closed }) => !closed).length === 2);
});

test("away, back and mute are told", async () => {
  const { hub, ada, bob } = await pair();
  await until(() => hub.sockets.size === 2);
  bob.WebSocket.refused = 2;
  [...hub.sockets][1].socket.close(1006);
  await until(() => ada.call.members[0]?.away, "away");
  await until(() => ada.call.members[0]?.away === false, "back");
  bob.call.setEnabled("audio", false);
  await until(() => ada.call.members[0].media.audio === false);
});

test("chat takes the data channel when it is open, the server when it is not", async () => {
  const { ada, bob } = await pair();
  ada.call.sendMessage("by the server");
  await until(() => bob.of("message").length === 1);
  assert.equal(bob.of("message")[0].message, "by the server");
  const { channel } = connection(ada, bob);
  channel.readyState = "open";
  ada.call.sendMessage("directly");
  assert.equal(JSON.parse(channel.sent[0]).message, "directly");
  connection(bob, ada).channel.onmessage({ data: channel.sent[0] });
  assert.equal(bob.of("message")[1].message, "directly");
});

test("the path is told in words", async () => {
  const { ada, bob } = await pair();
  const { path, rtt } = await ada.call.stats(bob.call.member);
  assert.deepEqual(path, { kind: "relay", transport: "tcp", local: "relay", remote: "srflx", label: "relayed over TCP" });
  assert.equal(rtt, 20);
  await until(() => ada.of("path").length > 0);
});

test("what waits for the server is bounded", async () => {
  const { hub, ada } = await pair();
  ada.WebSocket.refused = 1e9;
  hub.drop();
  await until(() => ada.call.state === "reconnecting");
  const results = await Promise.all(Array.from({ length: 300 }, (_, n) => Promise.race([ada.call.sendCustom(n).catch((error) => error.code), new Promise((r) => setTimeout(r, 20))])));
  assert.ok(results.filter((code) => code === "backlog").length >= 44);
});

test("a rate-limited message is sent again after the time the server names", async () => {
  const { hub, ada, bob } = await pair();
  const link = [...hub.sockets][0];
  const sending = ada.call.sendCustom("patient");
  const { id } = hub.log.findLast(({ t }) => t === "custom");
  link.session.seen.delete(id);
  link.socket.send(JSON.stringify({ t: "error", ref: id, d: { code: "rate_limited", message: "slow down", retry_after: 0 } }));
  await sending;
  await until(() => bob.of("custom").length >= 1);
});

test("garbage from the server is ignored", async () => {
  const { hub, ada, bob } = await pair();
  for (const { socket } of hub.sockets) for (const text of ["{", "null", "7", '"x"', "{}", '{"t":"offer","from":"nobody","d":{}}', '{"t":"new-kind","d":1}']) socket.send(text);
  await bob.call.sendCustom("still here");
  await until(() => ada.of("custom").length === 1);
});

test("no camera in this environment is a typed error with a hint", async () => {
  await assert.rejects(openMedia(), (error) => error instanceof TurnkeyError && error.code === "insecure_origin" && /https/.test(error.hint));
});
