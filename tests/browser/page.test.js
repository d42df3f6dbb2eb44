/** The call page's own features, each between two headless Chromium: what breaks and recovers, screens, chat, keys. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { connected, enter, framesGrow, launch, logOf, newPage, stats, twoBrowsers, until } from "./lib/chromium.js";
import { loopbackConfig, serve } from "./lib/server.js";
import { draw } from "../../web/page/qr.js";

const page = twoBrowsers();
let server;
let rooms = 0;

before(async () => {
  server = await serve(loopbackConfig());
});

after(() => server?.stop());

async function pair({ path = "auto" } = {}) {
  const room = `page-${++rooms}`;
  const members = [await page(0), await page(1)];
  for (const [index, name] of ["Ada", "Grace"].entries()) await enter(members[index], `${server.url()}?room=${room}&path=${path}`, name);
  await Promise.all(members.map((member) => connected(member)));
  for (const member of members) await framesGrow(member, 1);
  return { ada: members[0], grace: members[1], members };
}

/** The paths that a trial is about. */
const PATHS = {
  udp: ({ kind, transport }) => kind === "relay" && transport === "tcp",
  relay: ({ kind }) => kind === "relay",
  direct: ({ kind }) => kind === "host",
};

const messages = (one) => one.locator("#messages").innerText();

test("what breaks on purpose recovers, and the page says how", async (t) => {
  const { ada, grace } = await pair();
  await ada.click("#trials summary");
  const trials = await ada.locator("#trial-buttons button").evaluateAll((all) => all.map(({ dataset }) => dataset.trial));
  assert.deepEqual(trials, ["socket", "udp", "relay", "direct", "candidates", "credential", "glare", "ice"]);
  for (const trial of trials) {
    const button = ada.locator(`[data-trial=${trial}]`);
    await until(ada, () => button.isEnabled(), Boolean);
    await button.click();
    const told = await until(ada, (one) => one.locator("#trial-text").innerText(), (text) => /recovered after/.test(text));
    t.diagnostic(told);
    assert.doesNotMatch(told, /not recovered/);
    for (const one of [ada, grace]) await connected(one);
    await framesGrow(ada, 5);
    // A path that works may be followed by a shorter one.
    if (PATHS[trial]) await until(ada, stats, ({ path }) => PATHS[trial](path));
  }
  const log = await logOf(ada);
  for (const line of ["Signaling resumed", "with a fresh credential", "candidates get through again"]) assert.ok(log.includes(line), `${line}\n${log}`);
  assert.deepEqual([...ada.errors, ...grace.errors], []);
});

test("a relay credential that has expired is refused by the relay, renewed, and the call goes on relayed", async () => {
  const { ada } = await pair({ path: "relay" });
  await ada.evaluate(() => {
    globalThis.codes = [];
    globalThis.turnkey.call.on("problem", ({ error }) => globalThis.codes.push(error.code));
    globalThis.turnkey.call.sabotage("credential");
  });
  await until(ada, () => ada.evaluate(() => globalThis.codes), (codes) => codes.includes("credential_refused"));
  await until(ada, logOf, (log) => /fresh credential[^]*Received answer/.test(log));
  await framesGrow(ada);
  assert.equal((await stats(ada)).path.kind, "relay");
});

test("s3_28 a shared screen takes the camera's place on the other side, and gives it back", async () => {
  const { ada, grace } = await pair();
  // On a busy machine pictures get smaller, and keep their shape.
  const shape = (one) => one.evaluate(() => {
    const { videoWidth, videoHeight } = document.querySelector(".tile video");
    return videoWidth / videoHeight;
  });
  await until(grace, shape, (now) => now < 2);
  await ada.evaluate(() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1000, height: 300 });
    setInterval(() => canvas.getContext("2d").fillRect(Math.random() * 900, 0, 9, 300), 50);
    return globalThis.turnkey.call.shareScreen(canvas.captureStream(20));
  });
  await until(grace, shape, (now) => now > 3);
  await grace.waitForSelector(".tile[data-screen][data-video=on]");
  assert.equal(await ada.locator("#share").getAttribute("aria-pressed"), "true");
  await ada.click("#share");
  await until(grace, shape, (now) => now < 2);
  assert.equal(await ada.locator("#share").getAttribute("aria-pressed"), "false");
});

test("another camera is chosen in the middle of a call, and its picture goes on to the other side", async () => {
  // The second of Chromium's fake cameras measures depths, which nobody can watch.
  const cameras = await launch({ withCamera: false, flags: ["--use-fake-device-for-media-stream=device-count=3"] });
  try {
    const room = `page-${++rooms}`;
    const members = [await newPage(cameras), await page(1)];
    for (const [index, name] of ["Ada", "Grace"].entries()) await enter(members[index], `${server.url()}?room=${room}`, name);
    const [ada, grace] = members;
    for (const member of members) await framesGrow(member, 1);
    const camera = () => ada.evaluate(() => globalThis.turnkey.call.stream.getVideoTracks().map((track) => track.getSettings().deviceId).join());
    const before = await camera();
    const ids = await ada.locator("[data-device=video] option").evaluateAll((all) => all.map(({ value }) => value));
    assert.deepEqual([ids.length, before], [3, ids[0]]);
    const other = ids[2];
    await ada.locator("summary", { hasText: "Devices" }).click();
    await ada.selectOption("[data-device=video]", other);
    await until(ada, camera, (now) => now === other);
    await framesGrow(grace);
    assert.deepEqual(ada.errors, []);
  } finally {
    await cameras.close();
  }
});

test("chat over a channel that is open and carries nothing reaches the other side through the server, once", async () => {
  const { ada, grace, members } = await pair();
  for (const member of members) await until(member, logOf, (log) => log.includes("Data channel open"));
  await ada.evaluate(() => {
    const [peer] = globalThis.turnkey.call.peers.values();
    const { channel } = peer;
    const send = channel.send.bind(channel);
    globalThis.late = [];
    channel.send = (text) => globalThis.late.push(() => send(text));
  });
  await ada.fill("#chat-input", "over a dead path");
  await ada.press("#chat-input", "Enter");
  await until(grace, messages, (text) => text.includes("over a dead path"));
  await ada.evaluate(() => globalThis.late.forEach((send) => send()));
  await ada.evaluate(() => globalThis.turnkey.call.sendCustom("marker"));
  await grace.waitForTimeout(300);
  assert.equal((await messages(grace)).match(/over a dead path/g).length, 1);
  assert.doesNotMatch(await messages(ada), /not sent/);
});

test("a reload comes back into the call, a closed tab has left at once, and the heartbeat ticks in a worker", async () => {
  const { ada, grace } = await pair();
  await until(ada, () => ada.workers().length, (count) => count === 1);
  await ada.reload();
  await ada.waitForFunction(() => globalThis.turnkey?.call.state === "joined");
  await connected(grace);
  await framesGrow(grace);
  await framesGrow(ada);
  await ada.close({ runBeforeUnload: false });
  await until(grace, (one) => one.locator("#waiting h2").innerText(), (text) => text === "Ada hung up");
});

test("the link to invite with is also a QR code", async () => {
  const ada = await page(0);
  await ada.goto(server.url());
  await ada.waitForFunction(() => document.querySelector("#preview").srcObject);
  await ada.click("#start");
  await ada.waitForFunction(() => globalThis.turnkey?.call.state === "joined");
  assert.ok(await ada.locator("#qr").isVisible());
  assert.equal(await ada.locator("#qr path").getAttribute("d"), draw(ada.url()).path);
});

test("by keyboard: microphone, camera, and the panel that Escape closes; every control has a name", async () => {
  const { ada, grace } = await pair();
  await ada.keyboard.press("m");
  await grace.waitForFunction(() => document.querySelector(".tile .who").textContent.includes("muted"));
  await ada.keyboard.press("v");
  await grace.waitForFunction(() => document.querySelector(".tile").dataset.video === "off");
  await ada.fill("#chat-input", "mv"); // letters where somebody types
  assert.equal(await ada.locator("#bar [data-toggle=audio]").getAttribute("aria-pressed"), "false");
  await ada.setViewportSize({ width: 390, height: 800 });
  await ada.click("#panel-toggle");
  assert.equal(await ada.locator("#panel-toggle").getAttribute("aria-expanded"), "true");
  await ada.waitForTimeout(300);
  await ada.keyboard.press("Escape");
  assert.equal(await ada.locator("#panel-toggle").getAttribute("aria-expanded"), "false");
  const nameless = await ada.evaluate(() => [...document.querySelectorAll("button, select, input, video")]
    .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.closest("label") || one.id === "preview")).map(({ outerHTML }) => outerHTML));
  assert.deepEqual(nameless, []);
});

for (const [name, options] of [["a phone", { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true }], ["a desktop", { viewport: { width: 1280, height: 720 } }]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`on ${name}, ${colorScheme}: nothing is wider than the screen, and text stands out from what is behind it`, async () => {
      const ada = await page(1, { ...options, colorScheme });
      await ada.goto(server.url());
      await ada.waitForFunction(() => document.querySelector("#preview").srcObject);
      const narrow = () => ada.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
      assert.ok(await narrow());
      assert.ok(await contrast(ada, "#lobby-title", "body") > 7 && await contrast(ada, "#lobby-text", "body") > 4.5);
      await ada.click("#start");
      await ada.waitForFunction(() => globalThis.turnkey?.call.state === "joined");
      assert.ok(await narrow());
      assert.ok(await contrast(ada, "#log", "#panel .card") > 7 && await contrast(ada, "#panel .card h2", "#panel .card") > 4.5);
    });
  }
}

/** The ratio of WCAG between the text of one element and the background of another. */
function contrast(one, text, background) {
  return one.evaluate(([text, background]) => {
    const luminance = (color) => {
      const [r, g, b] = /\d+, \d+, \d+/.exec(color)[0].split(", ").map((part) => part / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const [a, b] = [getComputedStyle(document.querySelector(text)).color, getComputedStyle(document.querySelector(background)).backgroundColor].map(luminance).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }, [text, background]);
}
