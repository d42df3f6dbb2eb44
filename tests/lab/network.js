/**
 * A small internet of network namespaces:
 *
 *     client1 10.77.1.2 ── nat1 203.0.113.11 ─┐
 *                                             ├─ public: 203.0.113.1 and .2 (the server)
 *     client2 10.77.2.2 ── nat2 203.0.113.12 ─┘
 *
 * Each NAT is symmetric: every destination gets a port of its own, drawn at random, and only it may answer.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Whether the server relays in the kernel. */
export const OFFLOAD = Boolean(process.env.TURNKEY_RELAY__OFFLOAD);
export const SERVER = ["203.0.113.1", "203.0.113.2"];
const PREFIX = "turnkeylab";

/** Packets that the kernel has relayed for the server in that namespace; a good part of all. */
export function relayedInKernel(space, server) {
  const metrics = ["netns", "exec", space, "curl", "-s", `http://${server.admin()}/metrics`];
  const page = execFileSync("ip", metrics, { encoding: "utf8" });
  const sum = (name) => [...page.matchAll(new RegExp(`^${name}\\{.*\\} (\\d+)`, "gm"))].reduce((all, [, n]) => all + Number(n), 0);
  const [kernel, all] = [sum("turnkey_offload_packets_total"), sum("turnkey_relayed_packets_total")];
  assert.ok(kernel > all / 4 && kernel > 0, `${kernel} in the kernel, ${all} in all`);
  return kernel;
}

function ip(...args) {
  return execFileSync("ip", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Has `remove` called when the process ends, also by a signal. */
export function leaveNothing(remove) {
  process.once("exit", remove);
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
}

export class Network {
  #names = [];

  constructor() {
    removeLeftovers();
    leaveNothing(() => this.remove());
    this.public = this.#space("pub");
    this.clients = [1, 2].map((n) => this.#space(`client${n}`));
    this.nats = [1, 2].map((n) => this.#space(`nat${n}`));
    this.#buildPublic();
    [0, 1].forEach((index) => this.#buildClient(index));
  }

  #space(role) {
    const name = `${PREFIX}-${process.pid}-${role}`;
    ip("netns", "add", name);
    this.#names.push(name);
    // An interface would get its link-local address a second or two after it is up. To Chromium that is another network: it gives
    // up what it is loading, be it a page (ERR_NETWORK_CHANGED) or, without a word, a script of it.
    this.run(name, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1");
    ip("-n", name, "link", "set", "lo", "up");
    return name;
  }

  #buildPublic() {
    ip("-n", this.public, "link", "add", "net", "type", "bridge");
    for (const address of SERVER) ip("-n", this.public, "addr", "add", `${address}/24`, "dev", "net");
    ip("-n", this.public, "link", "set", "net", "up");
  }

  #buildClient(index) {
    const [nat, client, n] = [this.nats[index], this.clients[index], index + 1];
    ip("link", "add", "wan", "netns", nat, "type", "veth", "peer", "name", `to-nat${n}`, "netns", this.public);
    ip("-n", this.public, "link", "set", `to-nat${n}`, "master", "net", "up");
    ip("-n", nat, "addr", "add", `203.0.113.1${n}/24`, "dev", "wan");
    ip("link", "add", "lan", "netns", nat, "type", "veth", "peer", "name", "eth0", "netns", client);
    ip("-n", nat, "addr", "add", `10.77.${n}.1/24`, "dev", "lan");
    ip("-n", client, "addr", "add", `10.77.${n}.2/24`, "dev", "eth0");
    for (const [space, link] of [[nat, "wan"], [nat, "lan"], [client, "eth0"]]) ip("-n", space, "link", "set", link, "up");
    ip("-n", client, "route", "add", "default", "via", `10.77.${n}.1`);
    // A veth would leave the checksums of UDP to the receiver, and such packets are not relayed in the kernel.
    if (OFFLOAD) this.run(client, "ethtool", "-K", "eth0", "tx", "off");
    this.run(nat, "sysctl", "-qw", "net.ipv4.ip_forward=1");
    this.#nft(nat, `
      table ip lab {
        chain blocked { }
        chain forward {
          type filter hook forward priority filter; policy drop;
          jump blocked
          iifname "lan" accept
          ct state established,related accept
        }
        chain postrouting {
          type nat hook postrouting priority srcnat;
          oifname "wan" masquerade random,fully-random
        }
      }`);
  }

  #nft(space, rules) {
    execFileSync("ip", ["netns", "exec", space, "nft", "-f", "-"], { input: rules, stdio: ["pipe", "ignore", "inherit"] });
  }

  /** Drops every UDP packet that client would send or receive. */
  blockUdp(index) {
    this.#nft(this.nats[index], "flush chain ip lab blocked; add rule ip lab blocked meta l4proto udp counter drop");
  }

  /** Drops every UDP packet of that client, and what goes to the relay over TCP. Signaling goes on. */
  blockRelay(index) {
    this.#nft(this.nats[index], `flush chain ip lab blocked
      add rule ip lab blocked meta l4proto udp counter drop
      add rule ip lab blocked tcp dport 3478 drop`);
  }

  /** How many packets that rule has dropped. */
  blockedPackets(index) {
    return Number(/packets (\d+)/.exec(this.run(this.nats[index], "nft", "list", "chain", "ip", "lab", "blocked"))?.[1] ?? 0);
  }

  /** Drops whatever is not TCP to port 443 or an answer to it. */
  allowOnly443(index) {
    this.#nft(this.nats[index], `flush chain ip lab blocked
      add rule ip lab blocked iifname "lan" tcp dport 443 return
      add rule ip lab blocked iifname "wan" tcp sport 443 return
      add rule ip lab blocked counter drop`);
  }

  openUdp(index) {
    this.#nft(this.nats[index], "flush chain ip lab blocked");
  }

  /** Gives that client's NAT another public address; every mapping of the old one is gone. */
  renumber(index) {
    const nat = this.nats[index];
    ip("-n", nat, "addr", "flush", "dev", "wan");
    ip("-n", nat, "addr", "add", `203.0.113.2${index + 1}/24`, "dev", "wan");
  }

  /** The command line prefix that runs something in that namespace. */
  prefix(space) {
    return ["ip", "netns", "exec", space];
  }

  /** A script in that directory that starts Chromium in that namespace: playwright talks to it over inherited pipes. */
  chromium(space, directory) {
    const script = join(directory, `chromium-${space}`);
    writeFileSync(script, `#!/bin/sh\nexec ${this.prefix(space).join(" ")} ${process.env.CHROMIUM ?? "/usr/bin/chromium"} "$@"\n`);
    chmodSync(script, 0o755);
    return script;
  }

  run(space, ...command) {
    return execFileSync("ip", ["netns", "exec", space, ...command], { encoding: "utf8" });
  }

  remove() {
    for (const name of this.#names.splice(0)) removeSpace(name);
  }
}

function removeSpace(name) {
  for (const pid of spawnSync("ip", ["netns", "pids", name], { encoding: "utf8" }).stdout?.split(/\s+/).filter(Boolean) ?? []) {
    try {
      process.kill(Number(pid), "SIGKILL"); // only what was started inside
    } catch {
      // gone by itself
    }
  }
  spawnSync("ip", ["netns", "del", name]);
}

/** What a lab that was killed could not remove. */
function removeLeftovers() {
  const names = spawnSync("ip", ["netns", "list"], { encoding: "utf8" }).stdout ?? "";
  for (const [name, pid] of names.matchAll(new RegExp(`^${PREFIX}-(\\d+)-\\w+`, "gm"))) {
    if (!existsSync(`/proc/${pid}`)) removeSpace(name);
  }
}
