/** The built server as a child process: real ports learnt from its log, gone with the test. */
import { execFileSync, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const START_TIMEOUT = 60_000;
const STOP_TIMEOUT = 30_000;

/** The binary under test. */
export function binary() {
  if (process.env.TURNKEY_BIN) return process.env.TURNKEY_BIN;
  const built = ["release", "debug"].map((profile) => join(root, "target", profile, "turnkey")).filter(existsSync);
  if (built.length === 0) throw new Error("no binary: run `cargo build`, or set TURNKEY_BIN");
  return built.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
}

/** Runs another command of the binary and returns its output. */
export function turnkey(...args) {
  return execFileSync(binary(), args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
}

let nextPort = process.pid;

/** A port that is free for UDP and TCP, and stays so: no socket bound to port 0 gets one below the ephemeral range. */
export async function lowPort() {
  for (;;) {
    // Test processes that run at the same time begin elsewhere.
    const port = 20_000 + (nextPort++ % 10_000);
    const [udp, tcp] = [createSocket("udp4"), createServer()];
    const isFree = await canBind(udp, () => udp.bind(port, "127.0.0.1")) && await canBind(tcp, () => tcp.listen(port, "127.0.0.1"));
    if (isFree) return port;
  }
}

function canBind(socket, bind) {
  return new Promise((resolve) => {
    socket.once("listening", () => socket.close(() => resolve(true)));
    socket.once("error", () => (socket.close(), resolve(false)));
    bind();
  });
}

/** A configuration on one loopback address and free ports. */
export function loopbackConfig({ http = 0, relay = 0, origins = [], extra = "" } = {}) {
  return `
[relay]
listen = ["udp://127.0.0.1:${relay}", "tcp://127.0.0.1:${relay}"]
public_address = "127.0.0.1"
[peers]
allow = ["127.0.0.0/8"]
[http]
listen = ["127.0.0.1:${http}"]
origins = ${JSON.stringify(origins)}
[admin]
listen = "127.0.0.1:0"
${extra}`;
}

/**
 * Starts `turnkey serve` with that configuration, or on built-in defaults; resolves when it is ready.
 * @param {string} [config]
 * @param {{prefix?: string[], args?: string[], directory?: string}} [options] prefix: a command to run it under;
 *   directory: the state of one that was killed
 */
export async function serve(config, { prefix = [], args: more = [], directory = mkdtempSync(join(tmpdir(), "turnkey-test-")) } = {}) {
  const file = join(directory, "turnkey.toml");
  if (config !== undefined) writeFileSync(file, config);
  const [command, ...args] = [...prefix, binary(), "serve", ...(config === undefined ? [] : ["--config", file]), ...more];
  const environment = { ...process.env, STATE_DIRECTORY: directory, NO_COLOR: "1" };
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env: environment });
  const lines = [];
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const server = {
    pid: child.pid,
    directory,
    lines,
    /** What it has told the person who started it. */
    output: () => output,
    /** The port of the first listener of that scheme: udp, tcp, http. */
    port: (scheme) => Number(address(lines, scheme)?.split(":").at(-1)),
    url: () => `http://${address(lines, "http")}/`,
    /** A token signed with the server's own key. */
    token: (...args) => execFileSync(binary(), ["token", "--config", file, ...args], { encoding: "utf8", env: environment }).trim(),
    /** Where metrics are. */
    admin: () => /url=http:\/\/(\S+) listener="admin"/.exec(lines.join("\n"))[1],
    /** Ends it as a crash does; another one that starts in its directory goes on with its state. */
    async kill() {
      kill();
      await exited;
      process.removeListener("exit", kill);
    },
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(kill, STOP_TIMEOUT);
      const code = await exited;
      clearTimeout(timer);
      process.removeListener("exit", kill);
      rmSync(directory, { recursive: true, force: true });
      return code;
    },
  };
  await ready(child, lines, exited).catch(async (error) => {
    await server.stop();
    throw error;
  });
  return server;
}

function ready(child, lines, exited) {
  return new Promise((resolve, reject) => {
    let rest = "";
    const fail = (why) => reject(new Error(`turnkey serve ${why}:\n${lines.join("\n")}${rest}`));
    const timer = setTimeout(() => fail("is not ready"), START_TIMEOUT);
    exited.then((code) => (clearTimeout(timer), fail(`ended with ${code}`)));
    child.once("error", (error) => fail(String(error)));
    child.stderr.setEncoding("utf8").on("data", (text) => {
      const parts = (rest + text).split("\n");
      rest = parts.pop();
      lines.push(...parts);
      if (!parts.some((line) => /\bready\b/.test(line))) return;
      clearTimeout(timer);
      resolve();
    });
  });
}

function address(lines, scheme) {
  const line = lines.find((text) => text.includes("listening") && text.includes(`url=${scheme}://`) && !text.includes("admin"));
  return line && new RegExp(`url=${scheme}://([^\\s/]+)`).exec(line)?.[1];
}
