/**
 * 1,000 pairs negotiate while their sockets are cut, delayed and reordered. What each class of clients is promised:
 * native, everything exactly once both ways; stock Socket.IO the same with `retries`, and without them what the server
 * acknowledged, exactly once; raw sockets, the latest description and its candidates at least once. Always in the
 * sender's order.
 *   LOSS_SEED   other random numbers than those of every run: a number, or `random`
 *   LOSS_PAIRS  how many pairs
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { CLASSES, CONFIG } from "./lib/peers.js";
import { proxy } from "./lib/chaos.js";
import { random, seed } from "./lib/random.js";
import { serve } from "./lib/server.js";
import { token } from "./lib/token.js";

const SEED = seed();
const PAIRS = Number(process.env.LOSS_PAIRS ?? 1000);
const ROUNDS = 2;
const CANDIDATES = 4;

let server;
let network;

before(async () => {
  server = await serve(CONFIG);
  network = await proxy(server.port("http"), random(SEED));
});

after(async () => {
  network?.close();
  await server?.stop();
});

/** Pairs that negotiate at the same time. */
const AT_ONCE = 100;

for (const { name, share, make, isRaw } of CLASSES) {
  const count = Math.round(PAIRS * share);
  test(`s1_09 ${count} pairs, ${name}: nothing is lost, doubled or out of order beyond what is promised`, { timeout: 900_000 }, async (context) => {
    context.diagnostic(`LOSS_SEED=${SEED}`);
    const totals = { sent: 0, received: 0, cuts: 0 };
    for (let first = 0; first < count; first += AT_ONCE) {
      const pairs = Array.from({ length: Math.min(AT_ONCE, count - first) }, (_, n) => pair(name, make, first + n));
      await negotiate(pairs, totals, isRaw);
    }
    context.diagnostic(`${totals.sent} messages sent, ${totals.received} received, ${totals.cuts} sockets cut`);
    assert.ok(totals.cuts > count / 2, "chaos came about");
  });
}

function pair(name, make, n) {
  const room = `${name.replaceAll(/\W/g, "-")}-${n}`;
  const peer = (role) => make({ url: network.url, user: `${role}-${room}`, room, token: token(`${role}-${room}`, room) });
  return { room, doctor: peer("doctor"), patient: peer("patient"), chance: random(SEED ^ hash(room)) };
}

/** Offers of the doctors, answers of the patients, candidates of both, under fire. */
async function negotiate(pairs, totals, isRaw) {
  const all = (act) => Promise.all(pairs.map(async (pair) => {
    try {
      await act(pair);
    } catch (error) {
      throw new Error(`LOSS_SEED=${SEED} ${pair.room}: ${error.message}`, { cause: error });
    }
  }));
  const settle = async () => {
    if (!isRaw) return;
    await all(({ doctor, patient }) => Promise.all([doctor.isThere(), patient.isThere()]));
    await settled(2 * pairs.length);
  };
  try {
    await all(async ({ doctor, patient }) => (await doctor.enter(), await patient.enter()));
    for (let round = 0; round < ROUNDS; round++) {
      await all(({ doctor, patient, chance }) => phase(doctor, patient, "offer", chance, totals));
      await settle();
      await all(({ doctor, patient, chance }) => phase(patient, doctor, "answer", chance, totals));
      await settle();
    }
    await all(({ doctor, patient }) => (doctor.promises(patient), patient.promises(doctor)));
  } finally {
    for (const peer of pairs.flatMap(({ doctor, patient }) => [doctor, patient])) {
      totals.sent += peer.sent;
      totals.received += peer.received.length;
      peer.close();
    }
  }
  await settled(0);
}

/** Until the server knows of every death, and has so many sockets. A raw socket says so little about whose it is that one death at a time is what can be told. */
async function settled(sockets) {
  for (let seen = 0; seen < 2;) {
    const page = await (await fetch(`http://${server.admin()}/metrics`)).text();
    seen = Number(/^turnkey_signal_sockets (\d+)/m.exec(page)[1]) === sockets ? seen + 1 : 0;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** One side says its description and its candidates; sockets are cut meanwhile. */
async function phase(from, to, kind, chance, totals) {
  const said = from.say(kind, CANDIDATES);
  const victims = from.mayBeCutWhileItSpeaks ? [from, to] : [to];
  for (let cuts = Math.floor(chance() * (1 + from.mostCuts)); cuts > 0; cuts--) {
    await new Promise((resolve) => setTimeout(resolve, chance() * 30));
    victims[Math.floor(chance() * victims.length)].cut(chance() < 0.5);
    totals.cuts++;
  }
  await said;
  await to.heard(from);
}

function hash(text) {
  let sum = 0;
  for (const character of text) sum = (Math.imul(sum, 31) + character.codePointAt(0)) | 0;
  return sum;
}
