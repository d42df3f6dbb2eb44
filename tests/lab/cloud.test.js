/**
 * A server in a cloud: private addresses, each mapped one to one to a public one by a provider that does not let a host
 * reach itself by its public name. Clients are coturn's. Needs root, for the namespaces.
 *
 *     client 203.0.113.50 ── provider 203.0.113.1, .10 to .12 ── server 10.66.0.5 and .6
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";
import { serve } from "../browser/lib/server.js";
import { OFFLOAD, leaveNothing, relayedInKernel } from "./network.js";

const space = (role) => `turnkeycloud-${process.pid}-${role}`;
const [CLIENT, PROVIDER, SERVER] = ["client", "provider", "server"].map(space);
const HOSTS = `/etc/netns/${SERVER}`;
const inside = (name) => ["ip", "netns", "exec", name];
const ip = (...args) => execFileSync("ip", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

let servers = [];

before(() => {
  leaveNothing(remove);
  for (const name of [CLIENT, PROVIDER, SERVER]) {
    ip("netns", "add", name);
    ip("-n", name, "link", "set", "lo", "up");
  }
  wire(CLIENT, "eth0", PROVIDER, "wan");
  wire(SERVER, "eth0", PROVIDER, "lan");
  address(CLIENT, "eth0", "203.0.113.50");
  ["203.0.113.1", "203.0.113.10", "203.0.113.11", "203.0.113.12"].forEach((ip) => address(PROVIDER, "wan", ip));
  address(PROVIDER, "lan", "10.66.0.1");
  ["10.66.0.5", "10.66.0.6"].forEach((ip) => address(SERVER, "eth0", ip));
  ip("-n", SERVER, "route", "add", "default", "via", "10.66.0.1");
  // As in network.js: a packet whose checksum is yet to be filled in is not relayed in the kernel.
  if (OFFLOAD) execFileSync("ip", ["netns", "exec", CLIENT, "ethtool", "-K", "eth0", "tx", "off"]);
  execFileSync("ip", ["netns", "exec", PROVIDER, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
  mkdirSync(HOSTS, { recursive: true });
  hosts("");
});

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});

after(remove);

function remove() {
  for (const name of [CLIENT, PROVIDER, SERVER]) spawnSync("ip", ["netns", "del", name]);
  rmSync(HOSTS, { recursive: true, force: true });
}

function wire(one, link, other, peer) {
  ip("link", "add", link, "netns", one, "type", "veth", "peer", "name", peer, "netns", other);
  ip("-n", one, "link", "set", link, "up");
  ip("-n", other, "link", "set", peer, "up");
}

function address(name, link, ip4) {
  ip("-n", name, "addr", "add", `${ip4}/24`, "dev", link);
}

/** What the server's host names resolve to; the file stays the same one, mounted over /etc/hosts. */
function hosts(lines) {
  writeFileSync(`${HOSTS}/hosts`, `127.0.0.1 localhost\n${lines}\n`);
}

/** The provider's mapping. Only what comes from outside is mapped to a host: no way back in for the host itself. */
function map(pairs) {
  const rules = Object.entries(pairs);
  const nft = `
    table ip cloud
    delete table ip cloud
    table ip cloud {
      chain prerouting {
        type nat hook prerouting priority dstnat;
        ${rules.map(([own, world]) => `iifname "wan" ip daddr ${world} dnat to ${own}`).join("\n")}
      }
      chain postrouting {
        type nat hook postrouting priority srcnat;
        ${rules.map(([own, world]) => `oifname "wan" ip saddr ${own} snat to ${world}`).join("\n")}
      }
    }`;
  execFileSync("ip", ["netns", "exec", PROVIDER, "nft", "-f", "-"], { input: nft, stdio: ["pipe", "ignore", "inherit"] });
}

async function start(name, relay, extra = "") {
  const server = await serve(`
[relay]
listen = ["udp://0.0.0.0:3478"]
workers = 4
legacy_channels = true
${relay}
[credentials]
users = { alice = "wonderland" }
[http]
listen = []
[admin]
listen = "127.0.0.1:0"
${extra}`, { prefix: inside(name) });
  servers.push(server);
  return server;
}

/** Clients that call each other through that address of the server; the relayed addresses they got. */
function call(server) {
  const args = ["-v", "-y", "-c", "-X", "-m", "4", "-n", "20", "-z", "3", "-u", "alice", "-w", "wonderland", "-L", "203.0.113.50"];
  const [command, ...prefix] = inside(CLIENT);
  const done = spawnSync(command, [...prefix, "turnutils_uclient", ...args, server], { encoding: "utf8", timeout: 60_000 });
  const output = done.stdout + done.stderr;
  assert.equal(done.status, 0, output);
  const totals = [...output.matchAll(/tot_send_msgs=(\d+), tot_recv_msgs=(\d+)/g)].at(-1);
  assert.ok(totals && totals[1] === totals[2] && totals[1] !== "0", output);
  assert.match(output, /Total lost packets 0 /, output);
  return new Set([...output.matchAll(/relay addr: :? ?([\d.]+):\d+/g)].map(([, relayed]) => relayed));
}

async function logged(server, text) {
  const deadline = Date.now() + 60_000;
  while (!server.lines.some((line) => line.includes(text))) {
    assert.ok(Date.now() < deadline, `no line with ${text}:\n${server.lines.join("\n")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("two clients meet by their public relayed addresses, which the provider would not lead back", async (t) => {
  map({ "10.66.0.5": "203.0.113.10" });
  const server = await start(SERVER, `public_address = "203.0.113.10"`);
  assert.deepEqual(call("203.0.113.10"), new Set(["203.0.113.10"]));
  if (OFFLOAD) t.diagnostic(`${relayedInKernel(SERVER, server)} packets were relayed in the kernel`);
});

test("of several public addresses a client is relayed from the one it came to", async () => {
  map({ "10.66.0.5": "203.0.113.10", "10.66.0.6": "203.0.113.11" });
  await start(SERVER, `public_address = ["203.0.113.10/10.66.0.5", "203.0.113.11/10.66.0.6"]`);
  for (const server of ["203.0.113.10", "203.0.113.11"]) assert.deepEqual(call(server), new Set([server]));
});

test("a STUN server tells the public address, and tells it again when it has changed", async () => {
  map({ "10.66.0.5": "203.0.113.10" });
  await start(CLIENT, `public_address = "203.0.113.50"`);
  const server = await start(SERVER, `detect_from = "stun:203.0.113.50"\nresolve_every = "1s"`);
  await logged(server, "203.0.113.50 sees 10.66.0.5 as 203.0.113.10");
  assert.deepEqual(call("203.0.113.10"), new Set(["203.0.113.10"]));
  map({ "10.66.0.5": "203.0.113.12" });
  await logged(server, "relay address changed");
  assert.deepEqual(call("203.0.113.12"), new Set(["203.0.113.12"]));
});

test("a STUN server that does not answer stops the start, by name", async () => {
  map({ "10.66.0.5": "203.0.113.10" });
  await assert.rejects(start(SERVER, `detect_from = "stun:203.0.113.50:9"`), /relay\.detect_from: no answer from 203\.0\.113\.50:9 to 10\.66\.0\.5/);
});

test("a host name is resolved again, and new allocations get the new address", async () => {
  map({ "10.66.0.5": "203.0.113.10" });
  hosts("203.0.113.10 turn.example.org");
  const server = await start(SERVER, `public_address = "turn.example.org"\nresolve_every = "1s"`);
  assert.deepEqual(call("203.0.113.10"), new Set(["203.0.113.10"]));
  hosts("203.0.113.11 turn.example.org");
  map({ "10.66.0.5": "203.0.113.11" });
  await logged(server, "relay address changed");
  assert.deepEqual(call("203.0.113.11"), new Set(["203.0.113.11"]));
});
