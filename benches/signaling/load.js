/**
 * Signaling load, side by side: messages a second, latency, processor time a message, memory of idle connections.
 *   node load.js BINARY [--quick] [--only PATTERN] [--paced ROUNDS]
 * --paced: only the latency at a steady rate, with what lies beyond p99.
 */
import { readFileSync } from "node:fs";
import { servers } from "./servers.js";

const quick = process.argv.includes("--quick");
const only = process.argv.includes("--only") ? process.argv[process.argv.indexOf("--only") + 1] : "";
const PAIRS = quick ? 20 : 250;
const WINDOW = 4; // messages of each peer under way, when as many as possible are sent
const RATE = quick ? 500 : 5_000; // messages a second, when latency is measured
const IDLE = quick ? 200 : 10_000;
const ROUNDS = quick ? 1 : 5; // the servers in turn
const STOOD = 0.25; // ms; the generator never sleeps, and looks at the clock more often than this while it runs
const [WARM_UP, SECONDS, SETTLE] = quick ? [0.2, 1, 0.5] : [1, 4, 5];
const SLICES = 8; // of each server's time, when latency is measured
const WARM_SLICE = 0.1; // seconds before each of them

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const now = () => performance.now();

/** Two peers in a room that have exchanged offer and answer. */
async function pair({ words }, port, n) {
  const room = `load-${n}`;
  const a = await words.open(port, room);
  const b = await words.open(port, room);
  const isSignal = (kind) => (text) => text.includes(`"${kind}"`) && text.includes("sdp");
  const offered = b.next(isSignal("offer"));
  a.send(words.offer(room));
  await offered;
  const answered = a.next(isSignal("answer"));
  b.send(words.answer(room));
  await answered;
  return { a, b, bytes: words.candidate(room) };
}

async function pairs(subject, port) {
  const all = [];
  for (let n = 0; n < PAIRS; n += 10) {
    all.push(...(await Promise.all(Array.from({ length: Math.min(10, PAIRS - n) }, (_, m) => pair(subject, port, n + m)))));
  }
  return all;
}

/** Both sides of each pair have WINDOW messages under way all the time. */
async function throughput([{ all, server }]) {
  let count = 0;
  let isOn = true;
  for (const { a, b, bytes } of all) {
    for (const [from, to] of [[a, b], [b, a]]) {
      to.onText = (text) => {
        if (!text.includes("candidate:")) return;
        count++;
        if (isOn) from.send(bytes);
      };
      for (let n = 0; n < WINDOW; n++) from.send(bytes);
    }
  }
  await sleep(WARM_UP);
  const [start, counted, cpu] = [now(), count, server.cpu()];
  await sleep(SECONDS);
  const [done, spent, seconds] = [count - counted, server.cpu() - cpu, (now() - start) / 1000];
  isOn = false;
  await sleep(0.5);
  return { rate: done / seconds, cpuAtMost: (spent / done) * 1e6 };
}

/**
 * RATE messages a second, evenly over the pairs, to each server in turn for a slice of the time: a machine that is
 * shared has fast and slow seconds, and so all of them get some of each. A message that was under way while the
 * generator itself stood still (something else ran on its core, or its collector) is left out: that time is no server's.
 */
async function latency(runs) {
  const pacers = runs.map((run) => new Pacer(run));
  for (const pacer of pacers) await pacer.run(WARM_UP);
  for (let slice = 0; slice < SLICES; slice++) {
    const order = slice % 2 ? [...pacers].reverse() : pacers;
    for (const pacer of order) await pacer.slice();
  }
  return pacers.map((pacer) => pacer.figures());
}

class Pacer {
  #server;
  #ends;
  #times = [];
  #turn = 0;
  #total = 0;
  #count = 0;
  #isMeasured = false;
  #measured = 0;
  #cpu = 0;
  #looked = 0;
  #stoodAt = 0;
  #stood = 0;
  #stolen = 0;

  constructor({ all, server }) {
    this.#server = server;
    this.#ends = all.flatMap(({ a, b, bytes }) => [[a, b, bytes], [b, a, bytes]]).map(([from, to, bytes]) => {
      const sent = [];
      to.onText = (text) => {
        if (!text.includes("candidate:")) return;
        this.#count++;
        const [at, arrived] = [sent.shift(), this.#look()];
        if (!this.#isMeasured) return;
        this.#measured++;
        if (at > this.#stoodAt) this.#times.push(arrived - at);
      };
      return () => (sent.push(this.#look()), from.send(bytes));
    });
  }

  #look() {
    const at = now();
    if (at - this.#looked > STOOD) {
      this.#stoodAt = at;
      this.#stood += this.#isMeasured ? at - this.#looked : 0;
    }
    return (this.#looked = at);
  }

  async slice() {
    await this.run(WARM_SLICE);
    const [cpu, taken] = [this.#server.cpu(), stolen()];
    this.#isMeasured = true;
    await this.run(SECONDS / SLICES);
    this.#isMeasured = false;
    this.#cpu += this.#server.cpu() - cpu;
    this.#stolen += stolen() - taken;
    for (let n = 0; n < 200 && this.#count !== this.#total; n++) await sleep(0.1);
    if (this.#count !== this.#total) throw new Error(`${this.#total - this.#count} of ${this.#total} messages were lost`);
  }

  /** Paces messages. Without a promise for each turn: the generator's collector is not what is measured. */
  run(seconds) {
    let next = (this.#looked = now());
    const end = next + seconds * 1000;
    return new Promise((resolve) => {
      const go = () => {
        if (this.#look() >= end) return resolve();
        // A late timer is made up for; a message is timed from when it is written.
        for (; next <= now(); next += 1000 / RATE, this.#total++) this.#ends[this.#turn++ % this.#ends.length]();
        setImmediate(go);
      };
      go();
    });
  }

  figures() {
    const times = this.#times.sort((x, y) => x - y);
    const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
    const machine = { left: (1 - times.length / this.#measured) * 100, stood: this.#stood / SECONDS, stolen: this.#stolen / SECONDS };
    return { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), cpu: (this.#cpu / this.#measured) * 1e6, ...machine };
  }
}

/** Milliseconds that a hypervisor has taken from this machine. */
function stolen() {
  try {
    return Number(readFileSync("/proc/stat", "utf8").split("\n")[0].trim().split(/ +/)[8]) * 10;
  } catch {
    return NaN;
  }
}

async function idle([{ subject: { words }, server }]) {
  const before = server.memory();
  const open = [];
  for (let n = 0; n < IDLE; n += 100) {
    const batch = Array.from({ length: Math.min(100, IDLE - n) }, (_, m) => words.open(server.port, `idle-${(n + m) >> 1}`, source(n + m)));
    open.push(...(await Promise.all(batch)));
  }
  await sleep(SETTLE);
  const memory = (server.memory() - before) / IDLE;
  open.forEach((peer) => peer.close());
  return { memory };
}

/** Ports of one address are not enough for many runs in a row. */
const source = (n) => `127.0.0.${1 + (n % 8)}`;

/** Servers that have just been started, side by side. */
async function fresh(subjects, measure) {
  const runs = [];
  for (const subject of subjects) runs.push({ subject, server: await subject.start() });
  const figures = await measure(runs);
  for (const { server } of runs) await server.stop();
  return figures;
}

const withPairs = (measure) => async (runs) => {
  for (const run of runs) run.all = await pairs(run.subject, run.server.port);
  const figures = await measure(runs);
  runs.flatMap(({ all }) => all).forEach(({ a, b }) => (a.close(), b.close()));
  return figures;
};

/** One round of latency: of those that are compared, one has its slice while the other one is idle. */
async function round() {
  for (const compared of groups) {
    const figures = await fresh(compared, withPairs(latency));
    compared.forEach((subject, n) => rows.get(subject).rounds.push(figures[n]));
  }
}

/** Latency alone. */
async function paced(count) {
  for (let n = 0; n < count; n++) await round();
  const keys = ["p50", "p90", "p99", "p999", "cpu"];
  console.log(`| server | ${keys.join(" | ")} | p50 of each round | p99 of each round |\n|---|---|---|---|---|---|---|---|`);
  for (const subject of busy) {
    const { rounds } = rows.get(subject);
    const each = (key) => rounds.map((one) => one[key].toFixed(3)).join(" ");
    console.log(`| ${subject.name} | ${keys.map((key) => median([...rounds], key).toFixed(3)).join(" | ")} | ${each("p50")} | ${each("p99")} |`);
  }
  // A machine of which others take their share has fast and slow minutes; the servers of a round share them.
  for (const [ours, theirs] of groups.filter(({ length }) => length === 2)) {
    const other = rows.get(theirs).rounds;
    const ratio = (key) => rows.get(ours).rounds.map((one, round) => ({ [key]: one[key] / other[round][key] }));
    const ratios = keys.map((key) => `${key} ${median(ratio(key), key).toFixed(2)}`).join(", ");
    console.log(`\n${ours.name} / ${theirs.name}, the median of the ratios of each round: ${ratios}`);
  }
  console.log("\nOf each second, in the same rounds: ms for which the generator stood still, ms that the hypervisor took; % of messages left out");
  for (const { name, rounds } of busy.map((subject) => ({ ...subject, ...rows.get(subject) }))) {
    const each = (key) => rounds.map((one) => one[key].toFixed(1)).join(" ");
    console.log(`- ${name}: ${each("stood")}; ${each("stolen")}; ${each("left")}`);
  }
  process.exit(0);
}

const median = (all, key) => all.map((one) => one[key]).sort((x, y) => x - y)[all.length >> 1];

const subjects = servers(process.argv[2]).filter(({ name }) => new RegExp(only).test(name));
const rows = new Map(subjects.map((subject) => [subject, { rounds: [], most: [] }]));
const busy = subjects.filter(({ isIdle }) => !isIdle);
/** turnkey and what it is compared with, whose clients say the same. */
const groups = [...new Set(busy.map(({ words }) => words))].map((words) => busy.filter((subject) => subject.words === words));
if (process.argv.includes("--paced")) await paced(Number(process.argv[process.argv.indexOf("--paced") + 1]));
for (const subject of subjects) Object.assign(rows.get(subject), await fresh([subject], idle));
// What else goes on for a moment on the machine meets all of them alike.
for (let n = 0; n < ROUNDS; n++) {
  for (const subject of busy) rows.get(subject).most.push(await fresh([subject], withPairs(throughput)));
  await round();
}
console.log("| server | messages/s | p50 | p99 | CPU a message, at most load | CPU a message | memory of an idle connection |");
console.log("|---|---|---|---|---|---|---|");
for (const [{ name, isIdle }, { rounds, most, memory }] of rows) {
  const [p50, p99, cpu] = ["p50", "p99", "cpu"].map((key) => median(rounds, key));
  const [rate, cpuAtMost] = ["rate", "cpuAtMost"].map((key) => median(most, key));
  const figures = [`${Math.round(rate).toLocaleString("en")}`, `${p50?.toFixed(3)} ms`, `${p99?.toFixed(3)} ms`, `${cpuAtMost?.toFixed(1)} µs`, `${cpu?.toFixed(1)} µs`];
  console.log(`| ${name} | ${(isIdle ? figures.map(() => "") : figures).join(" | ")} | ${memory.toFixed(1)} KiB |`);
}
process.exit(0);
