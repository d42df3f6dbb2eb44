/** The call page and turnkey.js against the built server, in two headless Chromium. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { connected, enter, framesGrow, launch, logOf, newPage, stats, twoBrowsers, until } from "./lib/chromium.js";
import { proxy } from "./lib/proxy.js";
import { loopbackConfig, lowPort, serve } from "./lib/server.js";

const page = twoBrowsers();
let server;
let rooms = 0;

before(async () => {
  server = await serve(loopbackConfig());
});

after(() => server?.stop());

/** Two members in a new room, Ada before Grace. */
async function pair({ path = "auto", base = server.url() } = {}) {
  const room = `room-${++rooms}`;
  const members = [await page(0), await page(1)];
  await enter(members[0], `${base}?room=${room}&path=${path}`, "Ada");
  await enter(members[1], `${base}?room=${room}&path=${path}`, "Grace");
  const since = Date.now();
  await Promise.all(members.map((member) => connected(member)));
  return { ada: members[0], grace: members[1], members, time: Date.now() - since };
}

const memberId = (member) => member.evaluate(() => globalThis.turnkey.call.member);
const state = (member) => member.evaluate(() => globalThis.turnkey.call.state);
const count = (member, words) => logOf(member).then((log) => log.split(words).length - 1);
const offers = (member) => count(member, "Offer created");
const usernames = (member) => member.evaluate(() => {
  const { call } = globalThis.turnkey;
  return call.connection(call.members[0].id).getConfiguration().iceServers.map(({ username }) => username).filter(Boolean);
});

/** Until the other side has answered. */
async function restartIce(member) {
  const answers = (one) => count(one, "Received answer");
  const before = await answers(member);
  await member.evaluate(() => globalThis.turnkey.call.restartIce());
  await until(member, answers, (now) => now > before);
}

async function say(from, to, text) {
  await from.waitForFunction(() => {
    const { call } = globalThis.turnkey;
    return call.members.length > 0;
  });
  await from.fill("#chat-input", text);
  await from.press("#chat-input", "Enter");
  await to.waitForFunction((wanted) => document.querySelector("#messages").innerText.includes(wanted), text);
}

/** What the browser says of the encryption of its one transport. */
const encryption = (one) => one.evaluate(async () => {
  const [pc] = globalThis.turnkey.call.members.map(({ id }) => globalThis.turnkey.call.connection(id));
  return [...(await pc.getStats()).values()].find(({ type }) => type === "transport");
});

for (const transport of ["udp", "tcp"]) {
  test(`s3_26 turnkey.js: relay only over ${transport.toUpperCase()}, video and data both ways`, async (t) => {
    const { ada, grace, members, time } = await pair({ path: `relay-${transport}` });
    for (const [index, member] of members.entries()) {
      const frames = await framesGrow(member);
      const { path } = await stats(member);
      t.diagnostic(`${["Ada", "Grace"][index]}: ${path.local} to ${path.remote} over ${path.transport}, framesDecoded ${frames}, connected in ${time} ms`);
      assert.equal(path.local, "relay");
      assert.equal(path.kind, "relay");
      assert.equal(path.transport, transport);
      await until(member, (one) => one.locator(".path .label").innerText(), (label) => label === `Relayed over ${transport.toUpperCase()}`);
      await until(member, logOf, (log) => log.includes("Data channel open"));
      const { dtlsState, srtpCipher } = await encryption(member);
      assert.equal(dtlsState, "connected");
      assert.match(srtpCipher, /AES/, "what is relayed is ciphertext");
    }
    await say(ada, grace, "hello from Ada");
    await say(grace, ada, "hello from Grace");
    for (const member of members) assert.deepEqual(member.errors, []);
  });
}

test("s1_12 s2_13 page: start a call, join by its link, see each other, hang up", async (t) => {
  const ada = await page(0);
  await ada.goto(server.url());
  await ada.waitForFunction(() => document.querySelector("#preview").srcObject);
  await ada.click("#start");
  await ada.waitForFunction(() => globalThis.turnkey?.call.state === "joined");
  const link = ada.url();
  assert.match(link, /\?room=[a-z]{4}-[a-z]{4}-[a-z]{4}$/);
  assert.equal(await ada.locator("#invite-text").innerText(), link);
  assert.ok(await ada.locator("#waiting").isVisible());

  const grace = await page(1);
  await enter(grace, link, "Grace");
  for (const member of [ada, grace]) {
    await connected(member);
    await framesGrow(member);
    await member.waitForFunction(() => document.querySelector(".tile video").videoWidth > 0);
    const label = await until(member, (one) => one.locator(".path .label").innerText(), (text) => /^Direct/.test(text));
    t.diagnostic(`path label: ${label}`);
    const log = await logOf(member);
    for (const line of ["Signaling connected", "Successfully joined room", "Connection connected", "Path: direct"]) assert.ok(log.includes(line), `${line}\n${log}`);
    assert.doesNotMatch(log, /Problem/);
  }
  assert.match(await logOf(ada), /Offer created and sent/);
  assert.match(await logOf(grace), /Received offer[^]*Answer created and sent/);

  await grace.click("#bar [data-toggle=audio]");
  await ada.waitForFunction(() => document.querySelector(".tile .who").textContent.includes("muted"));
  await grace.click("#bar [data-toggle=video]");
  await ada.waitForFunction(() => document.querySelector(".tile").dataset.video === "off");

  await grace.click("#hangup");
  assert.match(await grace.locator("#ended-title").innerText(), /left the call/);
  await ada.waitForFunction(() => document.querySelector("#waiting h2").textContent === "Grace hung up");
  assert.equal(await ada.locator(".tile").count(), 0);
  await grace.click("#again");
  await connected(ada);
  assert.deepEqual([...ada.errors, ...grace.errors], []);
});

test("s3_31 page: the connection check names what works", async (t) => {
  const ada = await page(0);
  await ada.goto(server.url());
  await ada.click("#examine");
  await ada.waitForFunction(() => /Everything|No relay|UDP does not/.test(document.querySelector("#findings p").textContent));
  const findings = await ada.locator("#findings").innerText();
  t.diagnostic(findings.replace(/\n+/g, " | "));
  assert.match(findings, /Relay over UDP[^]*both ways[^]*Relay over TCP[^]*both ways[^]*Everything a call needs works/);
  assert.equal(await ada.locator("#findings .bad").count(), 0);
  assert.match(findings, /Server\s+it answers over HTTP/);
  await ada.context().setOffline(true);
  await ada.click("#examine");
  await ada.waitForFunction(() => /The server cannot be reached from here/.test(document.querySelector("#findings p").textContent));
  assert.match(await ada.locator("#findings .bad").innerText(), /no answer over HTTP, and the browser is offline/);
});

test("page: without a camera the call goes on, and says why", async () => {
  const bare = await launch({ withCamera: false });
  try {
    const room = `room-${++rooms}`;
    const ada = await page(0);
    await enter(ada, `${server.url()}?room=${room}`, "Ada");
    const grace = await newPage(bare);
    await grace.goto(`${server.url()}?room=${room}`);
    await grace.waitForSelector("#notice:not([hidden])");
    assert.match(await grace.locator("#notice").innerText(), /You can go on without/);
    await grace.click("#start");
    await connected(grace);
    await framesGrow(grace);
    await until(ada, (one) => one.locator(".tile").getAttribute("data-video"), (video) => video === "off");
    assert.deepEqual([...ada.errors, ...grace.errors], []);
  } finally {
    await bare.close();
  }
});

test("s4_33 page: under a foreign host name the camera is explained, and the refusal says what to set", async () => {
  const elsewhere = await launch({ flags: ["--host-resolver-rules=MAP call.example 127.0.0.1"] });
  try {
    const ada = await newPage(elsewhere);
    await ada.goto(`http://call.example:${server.port("http")}/?room=x`);
    await ada.waitForSelector("#notice:not([hidden])");
    assert.match(await ada.locator("#notice").innerText(), /https/);
    await ada.click("#start");
    await ada.waitForSelector("#ended", { state: "visible" });
    assert.match(await ada.locator("#ended-text").innerText(), /signaling\.jwt_secret/);
  } finally {
    await elsewhere.close();
  }
});

test("s4_27 s4_33 --public: two people meet over https by the invite link, and nobody comes in without it", async () => {
  const config = loopbackConfig().replace("127.0.0.1:0\"]\norigins", "https://127.0.0.1:0\"]\norigins");
  const shared = await serve(`${config}\n[tls]\nself_signed = true\n`, { args: ["--public", "127.0.0.1"] });
  try {
    const link = await until({ waitForTimeout: (ms) => new Promise((done) => setTimeout(done, ms)) }, () => /https:\/\/\S+token=\S+/.exec(shared.output())?.[0], Boolean);
    const members = [await page(0, { ignoreHTTPSErrors: true }), await page(1, { ignoreHTTPSErrors: true })];
    for (const [index, member] of members.entries()) await enter(member, link, ["Ada", "Grace"][index]);
    for (const member of members) {
      await connected(member);
      await framesGrow(member);
    }
    const stranger = await page(0, { ignoreHTTPSErrors: true });
    await stranger.goto(new URL("/", link).href);
    await stranger.click("#start");
    await stranger.waitForSelector("#ended", { state: "visible" });
    assert.match(await stranger.locator("#ended-hint").innerText(), /token/);
  } finally {
    await page.end();
    await shared.stop();
  }
});

test("signaling that drops in the middle of a call resumes, and the call never stops", async () => {
  const gate = await proxy(server.port("http"));
  try {
    const { ada, grace } = await pair({ base: gate.url });
    const before = [await memberId(ada), await memberId(grace)];
    const negotiated = await offers(ada);
    gate.cut();
    await until(ada, logOf, (log) => log.includes("Signaling resumed"));
    await until(grace, logOf, (log) => log.includes("Signaling resumed"));
    for (const member of [ada, grace]) await framesGrow(member);
    assert.deepEqual([await memberId(ada), await memberId(grace)], before);
    assert.equal(await offers(ada), negotiated, "nothing was negotiated again");
    await say(ada, grace, "after the gap");
  } finally {
    gate.close();
  }
});

test("a socket that falls silent is noticed when the browser comes back, and resumed", async () => {
  const gate = await proxy(server.port("http"));
  try {
    const { ada, grace } = await pair({ base: gate.url });
    gate.silence(true);
    await ada.evaluate(() => dispatchEvent(new Event("online")));
    await until(ada, state, (now) => now === "reconnecting");
    await framesGrow(ada);
    gate.silence(false);
    gate.cut();
    for (const member of [ada, grace]) await until(member, state, (now) => now === "joined");
    await until(ada, logOf, (log) => log.includes("Signaling resumed"));
  } finally {
    gate.close();
  }
});

test("after a restart of the server both join again by themselves", async (t) => {
  // Nothing else takes them between the two: no socket bound to port 0 gets one below the ephemeral range.
  const [http, relay] = [await lowPort(), await lowPort()];
  const first = await serve(loopbackConfig({ http, relay }));
  const { ada, grace } = await pair({ base: first.url(), path: "relay-udp" });
  const before = await memberId(ada);
  assert.equal(await first.stop(), 0);
  const second = await serve(loopbackConfig({ http, relay }));
  const since = Date.now();
  try {
    for (const member of [ada, grace]) {
      await until(member, state, (now) => now === "joined");
      await connected(member);
      await framesGrow(member);
      assert.equal((await stats(member)).path.kind, "relay");
    }
    t.diagnostic(`video again ${Date.now() - since} ms after the server was back`);
    assert.notEqual(await memberId(ada), before);
    assert.deepEqual([...ada.errors, ...grace.errors], []);
  } finally {
    await page.end();
    await second.stop();
  }
});

test("an ICE restart uses fresh credentials and goes on relayed", async (t) => {
  const { ada, members } = await pair({ path: "relay" });
  const before = await usernames(ada);
  await ada.waitForTimeout(1100); // the expiry in a user name counts in seconds
  await restartIce(ada);
  for (const member of members) await framesGrow(member);
  const after = await usernames(ada);
  t.diagnostic(`${before} then ${after}`);
  assert.notDeepEqual(after, before);
  assert.equal((await stats(ada)).path.kind, "relay");
  await ada.waitForFunction(() => document.querySelector(".path").dataset.kind === "relay");
});

test("credentials are renewed while a call runs, and the call outlives the first ones", async (t) => {
  const brief = await serve(loopbackConfig({ extra: '[credentials]\nttl = "8s"' }));
  try {
    const { ada, members } = await pair({ base: brief.url(), path: "relay" });
    const first = await usernames(ada);
    const expiry = Number(first[0].split(":")[0]) * 1000;
    await until(ada, usernames, (now) => now[0] !== first[0]);
    await ada.waitForTimeout(Math.max(0, expiry + 2000 - Date.now()));
    for (const member of members) await framesGrow(member);
    await restartIce(ada);
    for (const member of members) await framesGrow(member);
    t.diagnostic(`${first[0]} then ${(await usernames(ada))[0]}`);
    assert.doesNotMatch(await logOf(ada), /Problem|Signaling lost/);
  } finally {
    await page.end();
    await brief.stop();
  }
});

test("switching to relay only, and back, moves a running call", async () => {
  const { ada } = await pair();
  const kind = (wanted) => until(ada, stats, ({ path }) => path.kind === wanted);
  await kind("host");
  await ada.selectOption("#panel select.route", "relay");
  await kind("relay");
  await framesGrow(ada);
  await ada.selectOption("#panel select.route", "auto");
  await kind("host");
  await framesGrow(ada);
});

test("glare: when both negotiate at once, again and again, they agree and go on", async () => {
  const { ada, grace, members } = await pair();
  const signalingState = (member) => member.evaluate(() => {
    const { call } = globalThis.turnkey;
    return call.connection(call.members[0].id).signalingState;
  });
  for (let round = 1; round <= 3; round++) {
    await Promise.all(members.map(offerAndHold));
    const since = { ada: (await logOf(ada)).length, grace: (await logOf(grace)).length };
    // Both have offered. The one who ignores hears of the other's offer first, as a stable one would take it.
    await release(grace);
    await until(ada, logOf, (log) => log.slice(since.ada).includes("while offering: ignored"));
    await release(ada);
    await until(grace, logOf, (log) => log.slice(since.grace).includes("ours is taken back"));
    for (const member of members) await until(member, signalingState, (now) => now === "stable");
  }
  for (const member of members) {
    await connected(member);
    await framesGrow(member);
    assert.doesNotMatch(await logOf(member), /Problem/);
  }
});

/** Makes a page offer, and keeps the offer and what it says after it. */
async function offerAndHold(member) {
  await member.evaluate(() => {
    const { prototype } = WebSocket;
    const { send } = prototype;
    const held = [];
    prototype.send = function (text) {
      held.push({ text, go: () => send.call(this, text) });
    };
    globalThis.hasOffered = () => held.some(({ text }) => JSON.parse(text).t === "offer");
    globalThis.release = () => {
      prototype.send = send;
      held.forEach(({ go }) => go());
    };
    const { call } = globalThis.turnkey;
    call.connection(call.members[0].id).restartIce();
  });
  await member.waitForFunction(() => globalThis.hasOffered());
}

const release = (member) => member.evaluate(() => globalThis.release());

test("three members see each other", async () => {
  const room = `room-${++rooms}`;
  const members = [];
  for (const [index, name] of ["Ada", "Grace", "Linus"].entries()) {
    members.push(await page(index % 2));
    await enter(members[index], `${server.url()}?room=${room}`, name);
  }
  for (const member of members) {
    await member.waitForFunction(() => {
      const { call } = globalThis.turnkey;
      return call.members.length === 2 && call.members.every(({ id }) => call.connection(id).connectionState === "connected");
    });
    await framesGrow(member);
    assert.equal(await member.locator(".tile").count(), 2);
  }
});
