/** Calling by name: lines against the built server, and pages that ring each other. */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { WebSocket } from "ws";
import { openLine } from "../../web/turnkey.js";
import { connected, framesGrow, twoBrowsers } from "./lib/chromium.js";
import { loopbackConfig, serve } from "./lib/server.js";

const newPage = twoBrowsers();
let server;
let lines = [];

before(async () => {
  const extra = '[signaling]\njwt_secret = "a key of at least thirty-two bytes for the tokens"\naccess = "token"\nconnects_per_minute = 1000\n';
  server = await serve(loopbackConfig({ extra }));
});

afterEach(() => lines.splice(0).forEach((one) => one.close()));

after(() => server?.stop());

/** The line of a user, and what it has told. */
async function line(user, token = server.token("--user", user, "--room", "*"), options = {}) {
  const url = `${server.url().replace(/^http/, "ws")}v1/ws`;
  const opened = openLine({ url, token, WebSocket, ...options });
  const [heard, waiting, rang] = [[], [], []];
  const tell = (what) => (heard.push(what), waiting.splice(0).forEach((look) => look()));
  opened.on("call", ({ ring, incoming }) => {
    if (ring.status === "pending") rang.push(ring.id);
    tell(`${incoming ? "in" : "out"} ${ring.status}`);
  });
  opened.on("error", ({ error }) => tell(error.code));
  lines.push(opened);
  const hears = async (what) => {
    while (!heard.includes(what)) await new Promise((resolve) => waiting.push(resolve));
    heard.splice(0);
  };
  return Object.assign(opened, { heard, hears, rang });
}

test("s1_07 a call rings on all lines of a user, also on one that is opened late; the first answer wins", async () => {
  const [ann, first, second] = await Promise.all(["ann", "bob", "bob"].map((user) => line(user)));
  await Promise.all([ann, first, second].map((one) => new Promise((resolve) => one.on("open", resolve))));
  const ring = await ann.call("bob", { video: true });
  assert.deepEqual(ring, { id: ring.id, caller: "ann", callee: "bob", status: "pending", media: { video: true } });
  const late = await line("bob");
  await Promise.all([first, second, late].map((one) => one.hears("in pending")));
  await ann.hears("out pending");
  assert.equal((await second.accept(ring.id)).status, "ongoing");
  await Promise.all([first, second, late].map((one) => one.hears("in ongoing")));
  await ann.hears("out ongoing");
  assert.equal((await ann.end(ring.id)).status, "ended");
  await first.hears("in ended");
  const again = await ann.call("bob");
  await first.reject(again.id);
  await ann.hears("out rejected");
});

test("a call that ends while a new line still asks what rings does not ring there", async () => {
  const ann = await line("ann");
  const ring = await ann.call("bob");
  const answers = [];
  let release;
  const released = new Promise((resolve) => (release = resolve));
  // The answer is there, and takes its time.
  const slow = async (...request) => {
    const answer = await fetch(...request);
    answers.push(await answer.clone().json());
    await released;
    return answer;
  };
  const bob = await line("bob", undefined, { fetch: slow });
  while (answers.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual(answers[0].calls.map(({ status }) => status), ["pending"]);
  await ann.end(ring.id);
  await bob.hears("in cancelled");
  release();
  const next = await ann.call("bob");
  await bob.hears("in pending");
  assert.deepEqual(bob.rang, [next.id]);
  // None rings on for the tests after this one.
  await ann.end(next.id);
});

test("a line says why: nobody to call, no such call, no token", async () => {
  const ann = await line("ann");
  await assert.rejects(ann.call("ann"), { code: "bad_frame" });
  await assert.rejects(ann.accept("call_0"), { code: "no_such_call" });
  const stranger = await line("eve", "nonsense");
  await stranger.hears("unauthenticated");
});

async function page(index, user) {
  const opened = await newPage(index);
  await opened.goto(`${server.url()}?token=${server.token("--user", user, "--room", "*")}`);
  await opened.waitForFunction(() => document.querySelector("#preview").srcObject);
  await opened.waitForSelector("#ring-form:not([hidden])");
  return opened;
}

async function ring(one, name) {
  await one.fill("#callee", name);
  await one.click("#ring-form button");
}

const says = (one, selector, text) => one.waitForFunction(([selector, text]) => document.querySelector(selector).checkVisibility() && document.querySelector(selector).textContent === text, [selector, text]);

test("page: a user is called by name, accepts and talks, hangs up; declines; is called off", async () => {
  const [ann, bob, elsewhere] = [await page(0, "ann"), await page(1, "bob"), await page(1, "bob")];
  await ring(ann, "bob");
  await says(ann, "#ringing-title", "Ringing bob");
  for (const one of [bob, elsewhere]) await says(one, "#ringing-title", "ann is calling");
  await bob.click("#ring-accept");
  await says(elsewhere, "#ring-text", "Answered on another page of yours.");
  for (const one of [ann, bob]) {
    await connected(one);
    await framesGrow(one);
    assert.equal(await one.locator("#copy").isVisible(), false, "a token of a user is no invitation");
  }
  assert.equal(await ann.locator(".tile .who").innerText(), "bob");
  await bob.click("#hangup");
  await says(ann, "#ended-text", "Bob ended the call.");
  for (const one of [ann, bob]) await one.click("#again");

  await ring(ann, "bob");
  await says(bob, "#ringing-title", "ann is calling");
  await bob.click("#ring-decline");
  await says(ann, "#ring-text", "Bob declined.");
  for (const one of [bob, elsewhere]) await says(one, "#ring-text", "You declined.");

  await ring(ann, "bob");
  // Each page learns of the call in its own time: the Escape key is for a dialog that is there.
  await says(ann, "#ringing-title", "Ringing bob");
  await says(bob, "#ringing-title", "ann is calling");
  await ann.keyboard.press("Escape");
  await says(bob, "#ring-text", "Ann hung up before anybody answered.");
  await says(ann, "#ring-text", "You hung up before anybody answered.");
  assert.deepEqual([...ann.errors, ...bob.errors, ...elsewhere.errors], []);
});
