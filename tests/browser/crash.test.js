/**
 * The server is killed (`kill -9`) in the middle of 1,000 negotiations, again and again, and goes on from its journal.
 * What each class of clients is promised is what `loss.test.js` says of sockets that are cut, for everything that was
 * acknowledged: native, everything exactly once both ways; stock Socket.IO the same with `retries`, and without them
 * what the server acknowledged, exactly once; raw sockets, which get no acknowledgement, the descriptions that anybody
 * else has got already, and of what is said after the crash the latest description and its candidates, at least once.
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
/** Within this time the pairs begin to speak, so that a crash finds each class before, amidst and after its words. */
const SPREAD = 1000; // ms
/** Longer than anything here takes; what takes longer has been lost. */
const PATIENCE = 180_000; // ms

/** Where the numbers of a raw patient begin: its witness has to tell them from the doctor's. */
const PATIENTS = 1_000_000;

const chance = random(SEED);
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

test(`s2_16 ${PAIRS} pairs of every class: a server that is killed loses nothing it has acknowledged`, { timeout: 900_000 }, async (context) => {
  context.diagnostic(`LOSS_SEED=${SEED}`);
  const pairs = CLASSES.flatMap(({ share, ...one }) => Array.from({ length: Math.round(PAIRS * share) }, (_, n) => pair(one, n)));
  const peers = pairs.flatMap(({ doctor, patient }) => [doctor, patient]);
  try {
    await all(pairs, "enters", async ({ doctor, patient, witness }) => {
      await witness?.enter();
      await doctor.enter();
      await patient.enter();
    });
    for (let round = 0; round < ROUNDS; round++) {
      await phase(context, pairs, "doctor", "patient", "offer");
      await phase(context, pairs, "patient", "doctor", "answer");
    }
    await all(pairs, "is promised", ({ witness, doctor, patient }) => {
      if (!witness) return doctor.promises(patient), patient.promises(doctor);
      for (const { received } of [doctor, patient]) {
        const firsts = [...new Set(received)];
        assert.deepEqual(firsts, firsts.toSorted((a, b) => a - b), "what comes for the first time comes in order");
      }
    });
    const sum = (of) => peers.reduce((total, peer) => total + of(peer), 0);
    context.diagnostic(`${sum((peer) => peer.sent % PATIENTS)} messages sent, ${sum((peer) => peer.received.length)} received`);
  } finally {
    for (const { doctor, patient, witness } of pairs) [doctor, patient, witness].forEach((peer) => peer?.close());
  }
});

function pair({ name, make, isRaw }, n) {
  const room = `${name.replaceAll(/\W/g, "-")}-${n}`;
  const peer = (role, more) => make({ url: network.url, user: `${role}-${room}`, room, token: token(`${role}-${room}`, room), ...more });
  const [patient, witness] = isRaw ? [peer("patient", { sent: PATIENTS }), peer("witness")] : [peer("patient")];
  return { room, doctor: peer("doctor"), patient, witness, start: chance() * SPREAD };
}

/** One side of every pair says its description and its candidates; amidst it the server is killed. */
async function phase(context, pairs, from, to, kind) {
  const heard = () => pairs.reduce((sum, pair) => sum + pair[to].received.length, 0);
  const wanted = heard() + pairs.length * (1 + CANDIDATES) * (0.2 + 0.6 * chance());
  const said = all(pairs, `says its ${kind}`, async (pair) => {
    await new Promise((resolve) => setTimeout(resolve, pair.start));
    await pair[from].say(kind, CANDIDATES);
  });
  // All may have been said and not yet heard: each look waits for what arrives meanwhile.
  while (heard() < wanted) await Promise.race([said.then(nextLook), nextLook()]);
  for (const { doctor, patient } of pairs) for (const peer of [doctor, patient]) peer.leaps += 1;
  const line = await crash();
  await said;
  await all(pairs, `hears the ${kind}`, (pair) => pair.witness ? rawHeard(pair, from, to, kind) : pair[to].heard(pair[from]));
  context.diagnostic(`${kind}s: killed at ${Math.round(wanted)} messages, then${line}`);
}

const nextLook = () => new Promise((resolve) => setTimeout(resolve, 2));

/** Kills the server and starts it again; what the new one says of the journal. */
async function crash() {
  // While the database does not answer, signaling goes on in memory and says so: nothing is promised then.
  while (!(await fetch(`http://${server.admin()}/readyz`)).ok) await nextLook();
  await server.kill();
  server = await serve(CONFIG, { directory: server.directory });
  network.leadTo(server.port("http"));
  return /signaling goes on where it was(.*)/.exec(server.lines.join("\n"))[1];
}

/** A description that somebody else has got is written down: it comes. The rest may have died with the server, and is said again. */
async function rawHeard({ witness, ...pair }, from, to, kind) {
  for (;;) {
    const taken = witness.received.filter((n) => pair[from].descriptions.includes(n));
    const { received } = pair[to];
    await pair[to].until(() => taken.every((n) => received.includes(n)));
    if (received.includes(pair[from].sent)) return;
    await pair[from].say(kind, CANDIDATES);
    await Promise.race([pair[to].heard(pair[from]), new Promise((resolve) => setTimeout(resolve, 1000))]);
  }
}

async function all(pairs, what, act) {
  const one = async (pair) => {
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("it takes too long")), PATIENCE)));
    try {
      await Promise.race([act(pair), late]);
    } catch (error) {
      const { doctor, patient, witness } = pair;
      const seen = [doctor, patient, witness].map((peer) => peer && `sent ${peer.sent}, received ${peer.received}`).join("; ");
      throw new Error(`LOSS_SEED=${SEED} ${pair.room} ${what}: ${error.message} (${seen})`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  };
  await Promise.all(pairs.map(one));
}
