/** What the tests of a file have in common: the network, the server in its middle, and a browser behind each NAT. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { launch } from "../browser/lib/chromium.js";
import { serve, turnkey } from "../browser/lib/server.js";
import { Network, SERVER } from "./network.js";

export const ORIGIN = `http://${SERVER[0]}:8080`;

/** Every transport but those that need a certificate; the page over plain HTTP, where a browser has to be told to trust it. */
function plain() {
  const config = `
[relay]
listen = ["udp://0.0.0.0:3478", "tcp://0.0.0.0:3478"]
public_address = "${SERVER[0]}"
[peers]
allow = ["203.0.113.0/24"]
[http]
listen = ["${SERVER[0]}:8080"]
[signaling]
jwt_secret = "a secret of the laboratory, long enough for HS256"
[admin]
listen = "127.0.0.1:0"
`;
  return { config, flags: [`--unsafely-treat-insecure-origin-as-secure=${ORIGIN}`] };
}

/**
 * Builds the laboratory before the tests and takes it down after them. `prepare` is given the network and a directory,
 * and says how the server is configured and which flags the browsers get.
 */
export function laboratory(prepare = plain) {
  const lab = { browsers: [] };
  lab.token = (...who) => turnkey("token", "--config", join(lab.directory, "turnkey.toml"), ...who);
  before(async () => {
    lab.network = new Network();
    lab.directory = mkdtempSync(join(tmpdir(), "turnkey-lab-"));
    const { config, flags } = prepare(lab);
    writeFileSync(join(lab.directory, "turnkey.toml"), config);
    lab.server = await serve(config, { prefix: lab.network.prefix(lab.network.public) });
    lab.browsers = await Promise.all(lab.network.clients.map((space) => launch({ executable: lab.network.chromium(space, lab.directory), flags })));
  });
  after(async () => {
    await Promise.allSettled(lab.browsers.map((browser) => browser.close()));
    await lab.server?.stop();
    lab.network?.remove();
    if (lab.directory) rmSync(lab.directory, { recursive: true, force: true });
  });
  return lab;
}
