/**
 * One call between two browsers, each behind a symmetric NAT of its own, through the built server.
 * Needs root, for the namespaces.
 */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { connected, enter, framesGrow, logOf, newPage, stats, until } from "../browser/lib/chromium.js";
import { serve } from "../browser/lib/server.js";
import { ORIGIN, laboratory } from "./laboratory.js";
import { OFFLOAD, SERVER, relayedInKernel } from "./network.js";

const lab = laboratory();
let pages = [];

afterEach(async () => {
  await Promise.all(pages.splice(0).map((page) => page.end()));
  [0, 1].forEach((index) => lab.network.openUdp(index));
});

/** Both members in one room, entered through the page by the links a server with tokens gives. */
async function call(room, prepare = async () => {}) {
  pages = await Promise.all(lab.browsers.map((browser) => newPage(browser)));
  for (const [index, page] of pages.entries()) {
    await prepare(page);
    const name = ["Ada", "Grace"][index];
    const token = lab.token("--user", name, "--room", room);
    await enter(page, `${ORIGIN}/?room=${room}&token=${token}`, name);
  }
  return { pages, since: Date.now() };
}

/** Leaves of each configuration only what a page without a relay would have. */
function withoutTurn() {
  const Native = RTCPeerConnection;
  const strip = (configuration) => ({
    ...configuration,
    iceServers: configuration.iceServers.map((one) => ({ urls: [one.urls].flat().filter((url) => url.startsWith("stun:")) })).filter(({ urls }) => urls.length > 0),
  });
  globalThis.RTCPeerConnection = class extends Native {
    constructor(configuration) {
      super(strip(configuration));
    }
    setConfiguration(configuration) {
      super.setConfiguration(strip(configuration));
    }
  };
}

function candidateTypes(page) {
  return page.evaluate(async () => {
    const { call } = globalThis.turnkey;
    const types = new Set();
    (await call.connection(call.members[0].id).getStats()).forEach((entry) => entry.type === "local-candidate" && types.add(entry.candidateType));
    return [...types].sort();
  });
}

for (const index of [0, 1]) {
  test(`client ${index + 1} is behind a symmetric NAT: two servers see two ports`, (t) => {
    const probe = fileURLToPath(new URL("mapped.js", import.meta.url));
    const mapped = lab.network.run(lab.network.clients[index], process.execPath, probe, ...SERVER.map((address) => `${address}:3478`)).trim().split("\n");
    t.diagnostic(`one socket is seen as ${mapped.join(" and ")}`);
    assert.equal(mapped.length, 2);
    for (const one of mapped) assert.equal(one.split(":")[0], `203.0.113.1${index + 1}`);
    assert.notEqual(mapped[0].split(":")[1], mapped[1].split(":")[1]);
  });
}

test("with STUN only the browsers do not connect", async (t) => {
  const { pages, since } = await call("stun-only", (page) => page.addInitScript(withoutTurn));
  const failed = pages[0].waitForFunction(() => {
    const { call } = globalThis.turnkey;
    const state = call.members[0] && call.connection(call.members[0].id).connectionState;
    if (state === "connected") throw new Error("connected without a relay");
    return state === "failed";
  }, null, { timeout: 120_000 });
  await failed;
  // Asked again: what failed is tried anew, with candidates that come one by one.
  await until(pages[0], candidateTypes, (types) => String(types) === "host,srflx");
  assert.equal(await stats(pages[0]), null);
  t.diagnostic(`ICE failed after ${((Date.now() - since) / 1000).toFixed(1)} s`);
});

test("s0_15 s4_28 with the relay they connect, and video flows both ways", async (t) => {
  const { pages, since } = await call("relay");
  for (const [index, page] of pages.entries()) {
    const { path } = await connected(page);
    const time = Date.now() - since;
    assert.equal(path.kind, "relay", JSON.stringify(path));
    t.diagnostic(`client ${index + 1}: ${path.label} (${path.local} to ${path.remote}), connected ${time} ms after the second joined, framesDecoded ${await framesGrow(page)}`);
    await shows(page, /^Relayed over/);
  }
  await chat(pages);
  if (OFFLOAD) t.diagnostic(`${relayedInKernel(lab.network.public, lab.server)} packets were relayed in the kernel`);
});

test("with all UDP dropped for one side they connect over TCP 3478", async (t) => {
  lab.network.blockUdp(0);
  const { pages, since } = await call("tcp");
  const [{ path }] = [await connected(pages[0])];
  t.diagnostic(`client 1: ${path.label} (${path.local} to ${path.remote}), connected ${Date.now() - since} ms after the second joined`);
  assert.equal(path.local, "relay");
  assert.equal(path.transport, "tcp");
  for (const [index, page] of pages.entries()) t.diagnostic(`client ${index + 1}: framesDecoded ${await framesGrow(page)}`);
  assert.ok(lab.network.blockedPackets(0) > 0, "UDP was tried and dropped");
  await shows(pages[0], /Relayed over TCP/);
  await chat(pages);
});

test("UDP that dies in the middle of a call is replaced by TCP", async (t) => {
  const { pages } = await call("dying");
  const first = await connected(pages[0]);
  assert.equal(first.path.kind, "relay");
  await framesGrow(pages[0]);
  lab.network.blockUdp(0);
  const since = Date.now();
  await pages[0].waitForFunction(async () => {
    const { call } = globalThis.turnkey;
    const stats = call.members[0] && (await call.stats(call.members[0].id));
    return stats?.path.transport === "tcp" && stats.path.local === "relay";
  }, null, { timeout: 120_000, polling: 250 });
  for (const page of pages) await framesGrow(page);
  t.diagnostic(`from ${first.path.label} to relayed over TCP in ${((Date.now() - since) / 1000).toFixed(1)} s`);
});

test("s1_13 a client whose public address changes in the middle of a call comes back", async (t) => {
  const { pages } = await call("moving");
  await connected(pages[0]);
  for (const page of pages) await framesGrow(page);
  const before = await pages[0].evaluate(() => globalThis.turnkey.call.member);
  lab.network.renumber(0);
  const since = Date.now();
  const offers = (page) => logOf(page).then((log) => log.match(/Offer created|Received offer/g)?.length ?? 0);
  await until(pages[0], offers, (count) => count >= 2);
  for (const page of pages) await connected(page);
  t.diagnostic(`connected again ${((Date.now() - since) / 1000).toFixed(1)} s after the change`);
  for (const page of pages) await framesGrow(page);
  assert.equal(await pages[0].evaluate(() => globalThis.turnkey.call.member), before, "signaling resumed");
  assert.match(await logOf(pages[0]), /Signaling resumed/);
});

test("s4_23 without any configuration: one command, the page it prints, and a relayed call", async (t) => {
  const plain = await serve(undefined, { prefix: lab.network.prefix(lab.network.clients[0]) });
  try {
    pages = await Promise.all([newPage(lab.browsers[0]), newPage(lab.browsers[0])]);
    for (const [index, page] of pages.entries()) await enter(page, "http://127.0.0.1:8080/?room=plain&path=relay", ["Ada", "Grace"][index]);
    for (const page of pages) {
      const { path } = await connected(page);
      assert.equal(path.local, "relay");
      t.diagnostic(`${path.label} (${path.local} to ${path.remote}), framesDecoded ${await framesGrow(page)}`);
    }
    assert.match(plain.output(), /http:\/\/127\.0\.0\.1:8080\//);
  } finally {
    await Promise.all(pages.splice(0).map((page) => page.end()));
    await plain.stop();
  }
});

/** What the page says of the path. */
const shows = (page, words) => until(page, (one) => one.locator(".path .label").innerText(), (label) => words.test(label));

async function chat(pages) {
  for (const [from, to, text] of [[pages[0], pages[1], "from Ada"], [pages[1], pages[0], "from Grace"]]) {
    await from.waitForFunction(() => globalThis.turnkey.call.members.length > 0);
    await from.fill("#chat-input", text);
    await from.press("#chat-input", "Enter");
    await to.waitForFunction((wanted) => document.querySelector("#messages").innerText.includes(wanted), text);
  }
  await until(pages[0], logOf, (log) => log.includes("Data channel open"));
}

