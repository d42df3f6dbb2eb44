/** A front-end that knows nothing of this server, its code as it stands, from another origin. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { connected, enter as enterPage, framesGrow, twoBrowsers, until } from "./lib/chromium.js";
import { offer, read, serveSeed, state } from "./lib/seed000.js";
import { loopbackConfig, serve } from "./lib/server.js";

const open = twoBrowsers();
let application;
let server;
let consultation = 0;

before(async () => {
  application = await serveSeed(() => server.url());
  server = await serve(loopbackConfig({ origins: [application.origin] }));
});

after(async () => {
  application?.close();
  await server?.stop();
});

async function enter(index, role, transport) {
  return application.enter(await open(index), { consultation: `c${consultation}`, role, transport });
}

/** Video grows on both sides within ten seconds, over the relay, and the data channel works both ways. */
async function inCall(t, doctor, patient, transport) {
  const since = Date.now();
  for (const [page, name, expected] of [[doctor, "doctor", "from the patient"], [patient, "patient", "from the doctor"]]) {
    const first = await until(page, state, ({ framesDecoded }) => framesDecoded > 0);
    const later = await until(page, state, ({ framesDecoded }) => framesDecoded >= first.framesDecoded + 20);
    const { pair, relayProtocol, framesDecoded, received } = await until(page, state, (found) => found.received.length > 0)
      .catch(async (error) => assert.fail(`${error.message}; doctor ${JSON.stringify(await state(doctor))}, patient ${JSON.stringify(await state(patient))}`));
    t.diagnostic(`${name}: ${pair.join(" to ")}, relay over ${relayProtocol}, framesDecoded ${first.framesDecoded} to ${Math.max(later.framesDecoded, framesDecoded)} after ${Date.now() - since} ms`);
    assert.equal(pair[0], "relay");
    assert.equal(relayProtocol, transport);
    assert.deepEqual(received, [expected]);
    assert.deepEqual(page.errors, []);
  }
}

for (const [name, text] of [["configuration.txt", read("seed000/configuration.txt")], ["frontend.txt", read("seed000/frontend.txt")]]) {
  test(`seed 000: every line of ${name} is verbatim in the page's code`, () => {
    const source = read("seed000/VideoCallRoom.ts");
    const marked = source.split(`// ---- verbatim: ${name}\n`)[1].split("// ---- end")[0];
    assert.equal(marked, text);
  });
}

for (const transport of ["udp", "tcp"]) {
  test(`s0_17 seed 000: doctor and patient talk through the relay over ${transport.toUpperCase()}`, async (t) => {
    consultation++;
    const doctor = await enter(0, "doctor", transport);
    const patient = await enter(1, "patient", transport);
    await offer(doctor);
    await inCall(t, doctor, patient, transport);
  });
}

test("s0_11 an offer sent before the patient's page is open reaches it", async (t) => {
  consultation++;
  const doctor = await enter(0, "doctor", "udp");
  await offer(doctor);
  await doctor.waitForFunction(() => globalThis.room.peerConnection.iceGatheringState === "complete");
  const patient = await enter(1, "patient", "udp");
  await inCall(t, doctor, patient, "udp");
});

for (const role of ["doctor", "patient"]) {
  test(`seed 000: a ${role} on that front-end talks with somebody on the call page`, async (t) => {
    consultation++;
    const old = await enter(0, role, "udp");
    const other = await open(1);
    await enterPage(other, `${server.url()}?room=c${consultation}&path=relay`, "Grace");
    if (role === "doctor") await offer(old);
    await connected(other);
    t.diagnostic(`framesDecoded ${await framesGrow(other)} on the page`);
    await until(old, state, ({ framesDecoded }) => framesDecoded >= 20);
  });
}
