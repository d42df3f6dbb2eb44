/**
 * The same two browsers behind firewalls that let nothing through but TCP to port 443: page, signaling and relay
 * share it. And the certificate is replaced while they talk. Needs root, for the namespaces.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, renameSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { connected, enter, framesGrow, newPage } from "../browser/lib/chromium.js";
import { laboratory } from "./laboratory.js";
import { SERVER } from "./network.js";

const ORIGIN = `https://${SERVER[0]}`;
const ROOM = "one-port";

const lab = laboratory(({ network, directory }) => {
  const certificates = ["first", "second"].map((name) => certificate(directory, name));
  put(directory, "first");
  [0, 1].forEach((index) => network.allowOnly443(index));
  const config = `
[relay]
listen = []
public_address = "${SERVER[0]}"
[peers]
allow = ["203.0.113.0/24"]
[tls]
cert = "${join(directory, "cert.pem")}"
key = "${join(directory, "key.pem")}"
[http]
listen = ["https+turns://${SERVER[0]}:443"]
[signaling]
jwt_secret = "a secret of the laboratory, long enough for HS256"
[admin]
listen = "127.0.0.1:0"
[log]
level = "info,turnkey::app::entrance=debug"
`;
  // The certificates are trusted by their keys, for pages and for `turns:` alike; everything else is checked.
  return { config, flags: [`--ignore-certificate-errors-spki-list=${certificates.join(",")}`] };
});
let pages = [];

/** Makes a certificate for the server's address; the hash of its key. */
function certificate(directory, name) {
  const [key, cert] = ["key", "cert"].map((kind) => join(directory, `${name}-${kind}.pem`));
  openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", `/CN=${name}`,
    "-addext", `subjectAltName=IP:${SERVER[0]}`, "-keyout", key, "-out", cert);
  const der = openssl("pkey", "-in", key, "-pubout", "-outform", "DER");
  return execFileSync("openssl", ["dgst", "-sha256", "-binary"], { input: der }).toString("base64");
}

function openssl(...args) {
  return execFileSync("openssl", args, { stdio: ["ignore", "pipe", "ignore"] });
}

/** Puts that pair in the place of the one before, as certificate clients do. */
function put(directory, name) {
  for (const kind of ["key", "cert"]) {
    const next = join(directory, "next.pem");
    execFileSync("cp", [join(directory, `${name}-${kind}.pem`), next]);
    chmodSync(next, 0o600);
    renameSync(next, join(directory, `${kind}.pem`));
  }
}

/** The name in the certificate that somebody who connects now is shown. */
function shown() {
  const from = lab.network.prefix(lab.network.clients[0]).slice(1);
  const text = execFileSync("ip", [...from, "openssl", "s_client", "-connect", `${SERVER[0]}:443`], { input: "", encoding: "utf8", stdio: ["pipe", "pipe", "ignore"] });
  return /^subject=\s*CN\s*=\s*(\w+)/m.exec(text)?.[1];
}

test("s1_11 through port 443 alone: the page, signaling, and a call relayed over TLS", async (t) => {
  pages = await Promise.all(lab.browsers.map((browser) => newPage(browser)));
  for (const [index, page] of pages.entries()) {
    const name = ["Ada", "Grace"][index];
    const token = lab.token("--user", name, "--room", ROOM);
    await enter(page, `${ORIGIN}/?room=${ROOM}&token=${token}`, name);
  }
  for (const [index, page] of pages.entries()) {
    const { path } = await connected(page);
    t.diagnostic(`client ${index + 1}: ${path.label} (${path.local} to ${path.remote}), framesDecoded ${await framesGrow(page)}`);
    assert.equal(path.local, "relay");
    assert.equal(path.transport, "tls");
  }
  for (const index of [0, 1]) assert.ok(lab.network.blockedPackets(index) > 0, "other ways were tried and dropped");
  const relayed = lab.server.lines.filter((line) => /guest="?relay/.test(line));
  assert.ok(relayed.length > 0 && lab.server.lines.some((line) => /guest="?web/.test(line)), "both came through the one port");
  t.diagnostic(`Chromium's ALPN for turns: ${[...new Set(relayed.map((line) => /alpn="?([\w.]+)/.exec(line)?.[1]))].join(", ")}`);
});

test("a certificate replaced during the call: the call goes on, and new handshakes see the new one", async () => {
  assert.equal(shown(), "first");
  put(lab.directory, "second");
  const deadline = Date.now() + 30_000;
  while (shown() !== "second") assert.ok(Date.now() < deadline, "the new certificate is not shown");
  for (const page of pages) {
    await framesGrow(page, 40);
    assert.equal((await connected(page)).path.transport, "tls");
    assert.deepEqual(page.errors, []);
  }
  // Whoever comes now is shown the new one, and is served.
  const late = await newPage(lab.browsers[0]);
  assert.equal((await late.goto(`${ORIGIN}/health`)).status(), 200);
  await late.end();
});
