/**
 * What a flood from one address costs the others: their latency without it and beside it.
 *   node flood.js BINARY [--quick]
 * A process of its own floods from 127.0.0.99: sockets without end, and frames as fast as each takes them. It runs when
 * nobody else wants its core, the server's: what it costs the server is the question, not the machine. The others are pairs on
 * addresses of their own. The server has the limits it comes with, and is another one in each round.
 */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { frame, Peer } from "./peer.js";
import { onServerCores, raw, turnkey } from "./servers.js";

const FLOODER = "127.0.0.99";
const FRAMES = 5_000; // of the flood, a second
const SOCKETS = 50; // a second that the flood tries to open
const quick = process.argv.includes("--quick");
const PAIRS = 20;
const RATE = 400; // messages of the others, a second
const SECONDS = quick ? 2 : 8;
const ROUNDS = quick ? 1 : 3;
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

if (process.argv[2] === "flood") await flood(Number(process.argv[3]));
else await measure(process.argv[2]);

async function flood(port) {
  const open = new Set();
  const codes = {};
  const loud = frame(JSON.stringify({ type: "chat", chat: { message: "x".repeat(100) } }));
  process.on("message", () => process.send(codes, () => process.exit(0)));
  let [next, n] = [performance.now(), 0];
  for (;;) {
    for (; next <= performance.now(); next += 1000 / SOCKETS) void connect(port, `loud-${n++}`, open, codes);
    const all = [...open];
    for (let i = 0; i < FRAMES / 100 && all.length; i++) all[i % all.length].send(loud);
    await sleep(0.01);
  }
}

async function connect(port, room, open, codes) {
  try {
    let isOver = false;
    const peer = await Peer.open(port, `/ws/signaling/${room}`, FLOODER, (code) => {
      if (Object.keys(codes).length === 0) process.send("refused");
      codes[code] = (codes[code] ?? 0) + 1;
      isOver = true;
    });
    // It may have been refused with the upgrade.
    const end = () => (open.delete(peer), peer.close());
    peer.socket.on("error", () => {}).on("close", () => open.delete(peer));
    if (isOver) return end();
    const count = peer.onClose;
    peer.onClose = (code) => (count(code), end());
    open.add(peer);
  } catch {
    codes.none = (codes.none ?? 0) + 1;
  }
}

async function measure(binary) {
  const rounds = [];
  for (let n = 0; n < ROUNDS; n++) rounds.push(await round(binary));
  console.log("| the others | p50 | p99 | lost |");
  console.log("|---|---|---|---|");
  for (const [name, key] of [["alone", "alone"], ["beside the flood", "beside"]]) {
    const [p50, p99, lost] = ["p50", "p99", "lost"].map((figure) => median(rounds.map((one) => one[key][figure])));
    console.log(`| ${name} | ${p50.toFixed(2)} ms | ${p99.toFixed(2)} ms | ${lost} |`);
  }
  const each = rounds.map(({ alone, beside }) => `${alone.p99.toFixed(2)} → ${beside.p99.toFixed(2)}`);
  console.log(`\np99 in each round: ${each.join(", ")}\nCloses of the flood by code: ${JSON.stringify(rounds[0].codes)}`);
  const isRefused = ({ codes }) => Object.keys(codes).every((code) => code === "4429") && codes["4429"] > 0;
  const isWhole = ({ alone, beside }) => alone.lost + beside.lost === 0;
  process.exit(rounds.every(isRefused) && rounds.every(isWhole) ? 0 : 1);
}

function median(all) {
  return all.sort((x, y) => x - y)[all.length >> 1];
}

async function round(binary) {
  const server = await turnkey(binary, "");
  const ends = [];
  for (let n = 0; n < PAIRS; n++) {
    const [a, b] = [await raw.open(server.port, `quiet-${n}`, `127.0.1.${n}`), await raw.open(server.port, `quiet-${n}`, `127.0.2.${n}`)];
    const offered = b.next((text) => text.includes("sdp"));
    a.send(raw.offer());
    await offered;
    const answered = a.next((text) => text.includes("sdp"));
    b.send(raw.answer());
    await answered;
    ends.push([a, b], [b, a]);
  }
  const alone = await latency(ends);
  const [execPath, execArgv] = onServerCores("chrt", ["--idle", "0", process.execPath]);
  const flooder = fork(fileURLToPath(import.meta.url), ["flood", server.port], { execPath, execArgv });
  await new Promise((resolve) => flooder.once("message", resolve));
  const beside = await latency(ends);
  const codes = await new Promise((resolve) => (flooder.once("message", resolve), flooder.send("end")));
  ends.forEach(([a]) => a.close());
  await server.stop();
  return { alone, beside, codes };
}

async function latency(ends) {
  const times = [];
  let [sent, total, next] = [0, 0, performance.now()];
  const senders = ends.map(([from, to]) => {
    const under = [];
    to.onText = (text) => text.includes("candidate:") && times.push(performance.now() - under.shift());
    return () => (under.push(performance.now()), from.send(raw.candidate()));
  });
  for (const end = next + SECONDS * 1000; performance.now() < end; await new Promise((resolve) => setImmediate(resolve))) {
    for (; next <= performance.now(); next += 1000 / RATE, total++) senders[sent++ % senders.length]();
  }
  for (let n = 0; n < 50 && times.length < total; n++) await sleep(0.1);
  const lost = total - times.length;
  times.sort((x, y) => x - y);
  const at = (share) => times[Math.floor((times.length - 1) * share)];
  return { p50: at(0.5), p99: at(0.99), lost };
}
