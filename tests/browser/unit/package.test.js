/** The npm package, as somebody finds it who has installed it. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { runInNewContext } from "node:vm";
import { gzipSync } from "node:zlib";
import * as client from "../../../web/turnkey.js";
import { install } from "../lib/package.js";

const here = fileURLToPath(new URL("..", import.meta.url));
const web = fileURLToPath(new URL("../../../web", import.meta.url));
let installed;

before(() => (installed = install()));
after(() => installed?.remove());

test("npm pack holds the client, its types and the hook, and nothing of the page", () => {
  const modules = readdirSync(join(web, "client")).map((name) => `client/${name}`);
  assert.deepEqual(installed.files, ["README.md", "package.json", "react.d.ts", "react.js", "turnkey.d.ts", "turnkey.iife.js", "turnkey.js", ...modules].sort());
  assert.ok(installed.size < 60_000, `${installed.size} bytes`);
});

test("one script for pages without modules: all of the client under one name, below 15 KB as it travels", () => {
  const script = readFileSync(join(installed.root, "turnkey.iife.js"));
  const size = gzipSync(script, { level: 9 }).length;
  assert.ok(size < 15 * 1024, `${size} bytes`);
  const page = {};
  runInNewContext(`${script}; this.names = Object.keys(turnkey)`, page);
  assert.deepEqual([...page.names].sort(), Object.keys(client).sort());
});

test("node imports both entries by name, and React only with the hook", () => {
  const run = (code) => execFileSync("node", ["--input-type=module", "--eval", code], { cwd: installed.directory, encoding: "utf8" }).trim();
  assert.equal(run('import { TurnkeyError, createCall, join } from "turnkey-client"; console.log(typeof join, typeof createCall, new TurnkeyError("kicked", "x").hint.length > 0)'), "function function true");
  assert.equal(run('import { useWebRTC } from "turnkey-client/react"; console.log(typeof useWebRTC)'), "function");
  assert.throws(() => run('import "turnkey-client/client/session.js"'), /ERR_PACKAGE_PATH_NOT_EXPORTED/);
});

const CONSUMER = `
import { createCall, join, listDevices, openMedia, TurnkeyError, type Call, type CallSnapshot, type PeerStats, type Report } from "turnkey-client";
import { useWebRTC } from "turnkey-client/react";

async function use(): Promise<Report> {
  const call: Call = join({ room: "r", token: async () => "t", stream: await openMedia(), iceTransportPolicy: "relay", storage: sessionStorage });
  const stop: () => void = call.on("stats", ({ stats }: { stats: PeerStats }) => console.log(stats.rtt?.toFixed(), stats.path.kind === "relay"));
  call.on("problem", ({ error, member }) => console.warn(error.code === "path_failed", error.hint, member?.name));
  call.on("quality", ({ quality }) => quality === "poor");
  await call.sendMessage("hello");
  const { delivered }: { delivered: number } = await call.sendCustom({ a: 1 });
  const [device] = await listDevices();
  if (device) await call.useDevice(device.kind, device.id);
  call.sabotage("glare");
  stop();
  if (delivered === 0) throw new TurnkeyError("closed", "nobody");
  // @ts-expect-error there is no such event
  call.on("streem", () => {});
  // @ts-expect-error a call says what state it is in
  call.state = "joined";
  // @ts-expect-error a room is needed
  join({});
  return call.collectReport();
}

export function Component() {
  const { localStream, remoteStream, connectionState, isInitialized, initialize, endCall, sendChatMessage, setAudioEnabled, setVideoEnabled } =
    useWebRTC({ callId: "1", token: "t", wsUrl: "ws://localhost:8000/ws", onRemoteStream: (stream: MediaStream) => stream.id, onError: (error) => error.hint });
  const snapshot: CallSnapshot = { localStream, remoteStream, connectionState, isInitialized };
  // @ts-expect-error chat is text
  sendChatMessage(7);
  return { snapshot, start: () => initialize().then(use), endCall, off: () => (setAudioEnabled(false), setVideoEnabled(false)), simple: createCall({ callId: "1" }).call };
}
`;

for (const [module, moduleResolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
  test(`tsc --strict accepts a program that uses the types, and refuses one that misuses them (${moduleResolution})`, () => {
    writeFileSync(join(installed.directory, "consumer.ts"), CONSUMER);
    const options = { noEmit: true, strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, target: "es2022", module, moduleResolution, lib: ["es2022", "dom", "dom.iterable"], types: [] };
    writeFileSync(join(installed.directory, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["consumer.ts"] }));
    try {
      execFileSync(`${here}node_modules/.bin/tsc`, ["-p", installed.directory], { encoding: "utf8" });
    } catch (error) {
      assert.fail(error.stdout);
    }
  });
}
