/** Headless Chromium with a fake camera, and what the tests ask its pages. */
import { after, afterEach, before } from "node:test";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--disable-features=WebRtcHideLocalIpsWithMdns", "--use-fake-ui-for-media-stream",
];

// Waits end as soon as what they wait for is there; these bounds only end a test that hangs.
const PATIENCE = 60_000;

/** @param {{executable?: string, flags?: string[], withCamera?: boolean}} [options] */
export function launch({ executable = process.env.CHROMIUM ?? "/usr/bin/chromium", flags = [], withCamera = true } = {}) {
  const camera = withCamera ? ["--use-fake-device-for-media-stream"] : [];
  return chromium.launch({ executablePath: executable, args: [...FLAGS, ...camera, ...flags] });
}

/** A page of its own profile whose errors fail the test that asks for them. */
export async function newPage(browser, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  return Object.assign(page, { errors, end: () => context.close() });
}

/**
 * Two browsers for all tests of a file. Returns what opens a page in one of them, by its index; the page ends with its
 * test, or by `end` of what is returned, which ends them all.
 */
export function twoBrowsers() {
  let browsers = [];
  const pages = [];
  const end = () => Promise.all(pages.splice(0).map((page) => page.end()));
  before(async () => {
    browsers = await Promise.all([launch(), launch()]);
  });
  afterEach(end);
  after(() => Promise.allSettled(browsers.map((browser) => browser.close())));
  const open = async (index, options) => {
    const page = await newPage(browsers[index], options);
    pages.push(page);
    return page;
  };
  return Object.assign(open, { end });
}

/** Goes through the lobby of the call page. */
export async function enter(page, url, name) {
  await page.goto(url);
  await page.waitForFunction(() => document.querySelector("#preview").srcObject);
  await page.fill("#name", name);
  await page.click("#start");
  await page.waitForFunction(() => globalThis.turnkey?.call.state === "joined");
}

/** Waits until the page has a path to somebody, and returns the statistics. */
export async function connected(page, timeout = PATIENCE) {
  await page.waitForFunction(() => {
    // There is none yet where an answer to a ring is on its way.
    const call = globalThis.turnkey?.call;
    return call?.members.some(({ id }) => call.connection(id)?.connectionState === "connected");
  }, null, { timeout });
  // Chromium answers with a report it has, which may be of the moment before.
  return until(page, stats, Boolean, timeout);
}

export function stats(page) {
  return page.evaluate(async () => {
    const { call } = globalThis.turnkey;
    const [member] = call.members;
    return member ? call.stats(member.id) : null;
  });
}

/** Waits until `count` more frames than before have been decoded; returns how many there are then. */
export async function framesGrow(page, count = 20, timeout = PATIENCE) {
  const before = (await stats(page))?.framesDecoded ?? 0;
  return (await until(page, stats, ({ framesDecoded }) => framesDecoded >= before + count, timeout)).framesDecoded;
}

/** Asks the page again until the answer satisfies the condition. */
export async function until(page, ask, condition, timeout = PATIENCE) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const answer = await ask(page);
    if (answer && condition(answer)) return answer;
    if (Date.now() > deadline) throw new Error(`in ${timeout} ms it came only to ${JSON.stringify(answer)}`);
    await page.waitForTimeout(100);
  }
}

export function logOf(page) {
  return page.locator("#log").innerText();
}
