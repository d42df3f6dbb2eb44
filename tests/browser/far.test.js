/** Other countries: everything between the two and the server takes 250 ms each way, and 2 % of the datagrams are lost. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { proxy } from "./lib/chaos.js";
import { connected, enter, framesGrow, logOf, stats, twoBrowsers, until } from "./lib/chromium.js";
import { farRelay } from "./lib/far.js";
import { random, seed } from "./lib/random.js";
import { loopbackConfig, serve } from "./lib/server.js";

const DELAY = 250;
const open = twoBrowsers();
const SEED = seed();
const chance = random(SEED);
let server;
let web;
let relay;

before(async () => {
  server = await serve(loopbackConfig());
  web = await proxy(server.port("http"), chance, DELAY);
  relay = await farRelay(server.port("udp"), { delay: DELAY, jitter: 30, loss: 0.02, chance });
});

after(async () => {
  web?.close();
  relay?.close();
  await server?.stop();
});

/** The relay is where the proxy is. */
function throughProxy([from, to]) {
  const Native = RTCPeerConnection;
  const lead = (configuration) => JSON.parse(JSON.stringify(configuration).replaceAll(`127.0.0.1:${from}`, `127.0.0.1:${to}`));
  globalThis.RTCPeerConnection = class extends Native {
    constructor(configuration) {
      super(lead(configuration));
    }
    setConfiguration(configuration) {
      super.setConfiguration(lead(configuration));
    }
  };
}

test("s0_16 different countries: 250 ms, jitter and 2 % loss; the call stands, is told to be slow, and survives a cut", { timeout: 300_000 }, async (t) => {
  t.diagnostic(`LOSS_SEED=${SEED}`);
  const pages = [];
  for (const [index, name] of ["Ada", "Grace"].entries()) {
    const page = await open(index);
    await page.addInitScript(throughProxy, [server.port("udp"), relay.port]);
    await enter(page, `${web.url}?room=far&path=relay-udp`, name);
    pages.push(page);
  }
  for (const page of pages) await connected(page);
  for (const page of pages) await framesGrow(page, 60);
  // Through the relay and back a packet goes four times past the proxies.
  const far = await until(pages[0], stats, ({ rtt }) => rtt >= 4 * DELAY);
  assert.equal(far.path.kind, "relay");
  t.diagnostic(`${far.path.label}, round trip ${Math.round(far.rtt)} ms; ${relay.counts.lost} of ${relay.counts.carried} datagrams lost`);
  await until(pages[0], () => relay.counts.lost, Boolean);
  await pages[0].locator(".path .quality").waitFor();
  await until(pages[0], (page) => page.locator(".path .quality").innerText(), (text) => /round trip|lost/.test(text));
  await pages[0].fill("#chat-input", "from far away");
  await pages[0].press("#chat-input", "Enter");
  await until(pages[1], (page) => page.locator("#messages").innerText(), (text) => text.includes("from far away"));
  await pages[0].evaluate(() => globalThis.turnkey.call.sabotage("socket"));
  await until(pages[0], logOf, (log) => log.includes("Signaling resumed"));
  for (const page of pages) await framesGrow(page);
  assert.equal((await pages[1].locator("#messages").innerText()).match(/from far away/g).length, 1);
  for (const page of pages) assert.deepEqual(page.errors, []);
});
