/**
 * Why a call failed, in words: each cause is provoked between two browsers behind symmetric NATs, and the server's
 * timeline of the call is asked. The calls run beside each other: most of the time passes until browsers give up.
 */
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { connected, enter, newPage } from "../browser/lib/chromium.js";
import { ORIGIN, laboratory } from "./laboratory.js";

const NAMES = ["Ada", "Grace"];
// What a test waits for is there far earlier; this only ends one that hangs.
const PATIENCE = 120_000;

const lab = laboratory();
let admin;

before(() => {
  admin = lab.token("--user", "root", "--room", "*", "--role", "admin");
});

/** Asks the server from its own network. */
function ask(method, path, bearer, body) {
  const more = body ? ["-H", "content-type: application/json", "-d", JSON.stringify(body)] : [];
  return JSON.parse(lab.network.run(lab.network.public, "curl", "-s", "-X", method, "-H", `authorization: Bearer ${bearer}`, ...more, `${ORIGIN}${path}`));
}

const timeline = (id) => ask("GET", `/v1/calls/${id}/timeline`, admin);

/** The timeline of a call once it says what became of it, and has what the relay tells a moment later. */
async function judged(id, cause, isWhole = () => true) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = timeline(id);
    if (found.verdict?.cause === cause && isWhole(found)) return found;
    if (Date.now() > deadline) throw new Error(`no ${cause}: ${JSON.stringify(found, null, 1)}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Both members in one room, each on a page that was prepared. */
async function call(room, prepare = async () => {}) {
  const pages = await Promise.all(lab.browsers.map((browser) => newPage(browser)));
  for (const [index, page] of pages.entries()) {
    await prepare(page);
    await enter(page, `${ORIGIN}/?room=${room}&token=${lab.token("--user", NAMES[index], "--room", room)}`, NAMES[index]);
  }
  return { pages, end: () => Promise.all(pages.map((page) => page.end())) };
}

/** Changes the ICE servers of every connection the page makes. */
function withServers(change) {
  return `{
    const Native = RTCPeerConnection;
    const change = ${change};
    const changed = (configuration) => ({ ...configuration, iceServers: configuration.iceServers.flatMap(change) });
    globalThis.RTCPeerConnection = class extends Native {
      constructor(configuration) { super(changed(configuration)); }
      setConfiguration(configuration) { super.setConfiguration(changed(configuration)); }
    };
  }`;
}

const WRONG_SECRET = withServers((one) => [one.credential ? { ...one, credential: "made with another secret" } : one]);
const EXPIRED = withServers((one) => [one.username ? { ...one, username: one.username.replace(/^\d+/, "1700000000") } : one]);
const WITHOUT_TURN = withServers((one) => [one].filter(({ credential }) => !credential));

/** One side's part of a timeline. */
const of = (found, who) => found.parties.find((party) => party.who === who);
const types = (found, who) => found.events.filter((event) => event.who === who).map((event) => event.type);

test("each cause has its sentence", async (t) => {
  const begun = Date.now();
  const say = ({ verdict }) => t.diagnostic(`${((Date.now() - begun) / 1000).toFixed(1)} s: ${verdict.sentence}`);

  await t.test("peer never joined, wrong secret, credential expired: seen before anybody gives up", async () => {
    const ring = ask("POST", "/calls/initiate", lab.token("--user", "Ada", "--room", "*"), { callee_id: "Grace" });
    assert.equal(timeline(ring.call_id).verdict.cause, "in_progress");
    ask("POST", `/calls/end/${ring.call_id}`, lab.token("--user", "Ada", "--room", "*"));
    const alone = await judged(ring.call_id, "peer_never_joined");
    say(alone);
    assert.match(alone.verdict.sentence, /^Grace never joined: Ada gave up after [\d.]+ s\.$/);

    const secret = await call("secret", (page) => page.addInitScript(WRONG_SECRET));
    const haveFailed = (found) => NAMES.every((who) => types(found, who).includes("auth_failed"));
    const refused = await judged("secret", "wrong_secret", haveFailed);
    say(refused);
    assert.equal(refused.verdict.sentence, "The relay refused the credentials of Ada and Grace: wrong secret, their password was not made with this server's credentials.secrets.");
    await secret.end();

    const late = await call("late", (page) => page.addInitScript(EXPIRED));
    const expired = await judged("late", "credential_expired", haveFailed);
    say(expired);
    assert.equal(expired.verdict.sentence, "The relay refused the credentials of Ada and Grace: they have expired, the client kept them too long or a clock is wrong.");
    await late.end();
  });

  await t.test("no relay candidate, ICE failed after it had connected, UDP blocked: browsers give up", async () => {
    const bare = await call("bare", (page) => page.addInitScript(WITHOUT_TURN));
    const lost = await call("lost");
    for (const page of lost.pages) assert.equal((await connected(page)).path.kind, "relay");
    const steps = ["joined", "credentials", "candidate", "allocated"];
    const isThere = (found, who) => steps.every((type) => types(found, who).includes(type)) && of(found, who).candidates["relay/udp"] > 0;
    // Of two relays ICE may take one, and leave the other without a byte.
    const isWhole = (found) => NAMES.every((who) => isThere(found, who)) && NAMES.some((who) => types(found, who).includes("first_byte"));
    const fine = await judged("lost", "connected", isWhole);
    say(fine);
    assert.match(fine.verdict.sentence, /^The call connected [\d.]+ s after the first offer\.$/);
    assert.doesNotMatch(JSON.stringify(fine), /10\.77\.|203\.0\.113\./, "no address is kept");

    lab.network.blockRelay(0);
    const blocked = await call("blocked");
    const [failed, gone, cut] = await Promise.all([
      judged("bare", "no_relay_candidate"),
      judged("lost", "ice_failed_after_connected"),
      judged("blocked", "udp_blocked"),
    ]);
    [failed, gone, cut].forEach(say);
    assert.match(failed.verdict.sentence, /^No relay candidate came from Ada and Grace, and there is no way between them without one: /);
    for (const who of NAMES) assert.ok(of(failed, who).candidates["srflx/udp"] > 0, "STUN was answered");
    assert.match(gone.verdict.sentence, /^ICE failed [\d.]+ s after it had connected: packets no longer pass between (Ada and Grace|Grace and Ada), /);
    assert.match(cut.verdict.sentence, /^UDP is blocked for Ada: no STUN or TURN server was reached over UDP, nor a relay over TCP or TLS\.$/);
    assert.deepEqual(Object.keys(of(cut, "Ada").candidates).filter((kind) => !kind.startsWith("host/")), []);
    await Promise.all([bare, lost, blocked].map(({ end }) => end()));
  });
});
