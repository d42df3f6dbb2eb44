/** The tabs of the seeds' dialects: what they run is the seeds' own code, and each makes a call between two Chromium. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { twoBrowsers, until } from "./lib/chromium.js";
import { loopbackConfig, serve } from "./lib/server.js";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const open = twoBrowsers();
let server;
let rooms = 0;

before(async () => {
  process.env.TURNKEY_HTTP__ICE_PER_MINUTE = "1000";
  server = await serve(loopbackConfig({ extra: "[signaling]\njwt_generate = true\nconnects_per_minute = 1000\n" }));
});

after(() => server?.stop());

const token = (user) => server.token("--user", user, "--room", "*");

/** A tab with these fields, connected. */
async function enter(index, fields) {
  const page = await open(index);
  await page.goto(`${server.url()}dialects.html?${new URLSearchParams({ path: "relay", ...fields })}`);
  await page.waitForFunction((seed) => document.body.dataset.seed === seed, fields.seed);
  await page.click("#connect");
  await until(page, async () => (await page.locator("#dial").isEnabled()) || (await page.locator("#problem").innerText()), Boolean);
  assert.equal(await page.locator("#problem").innerText(), "");
  return page;
}

const messages = (page) => page.locator("#messages").innerText();
const wire = (page) => page.locator("#log").innerText();

/** Both see each other through the relay, and what one writes the other reads. */
async function inCall(pages) {
  for (const page of pages) {
    await page.waitForFunction(() => document.querySelector("#remote").videoWidth > 0 && document.querySelector("#remote").currentTime > 0);
    await until(page, (one) => one.locator("#path").innerText(), (text) => text.startsWith("relayed over"));
    assert.equal(await page.locator("#status").innerText(), "In a call");
  }
  for (const [from, to] of [pages, pages.toReversed()]) {
    // A channel opens on one side first.
    const text = `hello ${++rooms}`;
    await until(from, async () => {
      await from.fill("#chat-input", text);
      await from.press("#chat-input", "Enter");
      return (await from.locator("#problem").innerText()) === "";
    }, Boolean);
    await until(to, messages, (all) => all.includes(text));
  }
  for (const page of pages) assert.deepEqual(page.errors, []);
}

/** What each tab says of its own on the wire. */
const WORDS = {
  "000": ['{"type":"offer"', '{"type":"answer"', '{"type":"ice-candidate"'],
  "001": ['42["call.invite"', '["call.offer"', '["call.answer"', '["call.ice"'],
  "002": ['42["webrtc:join_room"', '["webrtc:offer"', '["webrtc:answer"', '["webrtc:ice_candidate"', '["chat:send_message"'],
  "003": ["POST /calls/initiate", '{"type":"offer"', '{"type":"answer"', '{"type":"ice_candidate"', '{"type":"connection_state"'],
  "004": ["POST /api/video/sessions", '42["join_room"', '"target_peer_id":"patient_peer_id"', '["webrtc_answer"', '["ice_candidate"', '["send_message"'],
};

async function speaks(page, seed) {
  const said = await wire(page);
  for (const word of WORDS[seed]) assert.ok(said.includes(word), `${word}\n${said}`);
}

for (const seed of ["000", "002"]) {
  test(`the tab of seed ${seed} calls its like`, async () => {
    const room = `tab-${++rooms}`;
    const pages = [await enter(0, { seed, room, role: "doctor" }), await enter(1, { seed, room, role: "patient" })];
    await pages[0].click("#dial");
    await inCall(pages);
    await speaks(pages[0], seed);
    await pages[0].click("#close");
    await pages[0].waitForFunction(() => !document.querySelector("#connect").disabled);
  });
}

test("the tab of seed 001 calls a user", async () => {
  const [ann, bob] = [`ann${++rooms}`, `bob${rooms}`];
  const pages = [await enter(0, { seed: "001", token: token(ann), other: bob }), await enter(1, { seed: "001", token: token(bob), other: ann })];
  await pages[0].click("#dial");
  await until(pages[1], messages, (all) => all.includes(`${ann} is calling`));
  await inCall(pages);
  await speaks(pages[0], "001");
  assert.ok(!(await wire(pages[0])).includes("eyJ"), "tokens are not shown");
});

test("the tab of seed 003 calls a user, who accepts; one who declines is not called", async () => {
  const [ann, bob] = [`ann${++rooms}`, `bob${rooms}`];
  const pages = [await enter(0, { seed: "003", token: token(ann), other: bob }), await enter(1, { seed: "003", token: token(bob), other: ann })];
  await pages[0].click("#dial");
  await pages[1].click("#ring-decline");
  await until(pages[0], messages, (all) => all.includes("the call is rejected"));
  await pages[0].click("#dial");
  await pages[1].click("#ring-accept");
  await inCall(pages);
  await speaks(pages[0], "003");
});

test("the tab of seed 004 calls the patient of its session; switches arrive", async () => {
  const [dora, paul] = [`dora${++rooms}`, `paul${rooms}`];
  const doctor = await enter(0, { seed: "004", token: token(dora), other: paul, role: "doctor" });
  const session = await doctor.locator("[name=session]").inputValue();
  const patient = await enter(1, { seed: "004", token: token(paul), other: dora, role: "patient", session });
  await until(doctor, messages, (all) => all.includes(`${paul} has joined`));
  await doctor.click("#dial");
  await inCall([doctor, patient]);
  await doctor.click("[data-toggle=video]");
  await until(patient, messages, (all) => all.includes(`${dora} turned the camera off`));
  await speaks(doctor, "004");
});

test("in one room the tabs of 000 and 002 understand each other", async () => {
  const room = `mixed-${++rooms}`;
  const pages = [await enter(0, { seed: "002", room, role: "doctor" }), await enter(1, { seed: "000", room })];
  await pages[0].click("#dial");
  for (const page of pages) await page.waitForFunction(() => document.querySelector("#remote").videoWidth > 0);
});

test("without a token the tabs that need one say so, and go on", async () => {
  for (const seed of ["001", "003", "004"]) {
    const page = await open(0);
    await page.goto(`${server.url()}dialects.html?seed=${seed}&other=bob`);
    await page.waitForFunction((seed) => document.body.dataset.seed === seed, seed);
    await page.click("#connect");
    await page.waitForSelector("#problem:not([hidden])");
    assert.ok(await page.locator("#connect").isEnabled(), seed);
    assert.deepEqual(page.errors, []);
  }
});

test("by keyboard from tab to tab; nothing is wider than a phone, and every control has a name", async () => {
  const page = await open(0, { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true });
  await page.goto(`${server.url()}dialects.html`);
  await page.waitForFunction(() => document.body.dataset.seed === "000");
  await page.focus("[role=tab][data-seed='000']");
  for (const seed of ["001", "002", "003", "004", "000"]) {
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction((seed) => document.body.dataset.seed === seed, seed);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), seed);
  }
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, select, input")]
    .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.closest("label"))).map(({ outerHTML }) => outerHTML));
  assert.deepEqual(nameless, []);
});

/** What differs from a seed's text: its server, its types, the value of `iceServers`, where its client comes from. */
const SUBSTITUTED = {
  "000": { "ws://localhost:8000": "${socketServer}", "useRef<WebSocket | null>(null)": "useRef(null)" },
  "001": { "payload: any": "payload", "err: any": "err", "buildIceConfig(): RTCConfiguration": "buildIceConfig()", "defaultStun: RTCIceServer": "defaultStun" },
  "002": {},
  "004": { 'iceServers: [{ urls: "stun:stun.l.google.com:19302" }]': "iceServers: iceServers", 'import io from "socket.io-client";\n': "" },
};
/** Parts whose values a person chooses on the page: what seed 004 sends of toggles and chat. */
const LEFT_OUT = { "004": 8 };

for (const [seed, substituted] of Object.entries(SUBSTITUTED)) {
  test(`the tab of seed ${seed} runs the seed's own lines`, () => {
    const code = read(`../../web/page/seeds/${seed}.js`);
    const marked = [...code.matchAll(/^\/\/ ---- verbatim: (\S+) ?(\d*)\n([^]*?)^\/\/ ---- end$/gm)];
    const blocks = read(marked[0][1]).split("----\n");
    const shown = blocks.map(() => "");
    for (const [, , number, text] of marked) shown[(Number(number) || 1) - 1] += text;
    for (const [number, block] of blocks.entries()) {
      if (LEFT_OUT[seed] === number + 1) continue;
      const wanted = Object.entries(substituted).reduce((now, [from, to]) => now.replaceAll(from, to), block).replace(/ {2}\/\/ .* Connects to root.*/, "");
      // Of a block that is spread over the page, empty lines and the comment above each part are left out; an ellipsis is its author's.
      const lines = (text) => text.replaceAll(/\{ roomId, \w+ \}|\{ roomId \}/g, "{...}").split("\n").map((line) => line.trimEnd()).filter((line) => line && line !== "// Emit events");
      const [a, b] = [lines(wanted), lines(shown[number])];
      assert.ok(a.length > 0);
      assert.deepEqual(seed === "002" ? b.sort() : b, seed === "002" ? a.sort() : a);
    }
  });
}
