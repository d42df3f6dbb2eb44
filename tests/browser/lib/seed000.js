/** The application of seed 000: its own web server, and what its users do on its page. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));

/** A file of the application. */
export const read = (path) => readFileSync(here + path, "utf8");

/**
 * Starts the application's web server. Only origin and port of its signaling server are substituted: `signaling()`
 * gives that server's URL. `port` is the application's own; 0: any.
 */
export async function serveSeed(signaling, port = 0) {
  execFileSync("node_modules/.bin/tsc", ["-p", "seed000"], { cwd: here });
  const script = () => read("node_modules/.seed000/VideoCallRoom.js").replace("ws://localhost:8000", base(signaling()).replace(/^http/, "ws"));
  const application = createServer((request, response) => {
    const isScript = request.url.startsWith("/VideoCallRoom.js");
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? script() : read("seed000/index.html"));
  });
  await new Promise((resolve) => application.listen(port, "localhost", resolve));
  const origin = `http://localhost:${application.address().port}`;
  return { origin, close: () => application.close(), enter };

  /** Opens the application on `page` and waits for its signaling. */
  async function enter(page, { consultation, role, transport = "udp" }) {
    const query = new URLSearchParams({ consultation, role, transport, server: base(signaling()) });
    await page.goto(`${origin}/?${query}`);
    await page.waitForFunction(() => globalThis.room?.signalingWs.current.readyState === WebSocket.OPEN);
    return page;
  }
}

const base = (url) => url.replace(/\/$/, "");

/** The doctor presses the button, and again where an offer of the other side was just being answered. */
export function offer(page) {
  return page.evaluate(async () => {
    for (;;) {
      try {
        return await globalThis.room.createOffer();
      } catch (error) {
        if (error.name !== "InvalidStateError") throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  });
}

/** Video frames decoded, the selected pair, and what came over the data channel. */
export function state(page) {
  return page.evaluate(async () => {
    const { peerConnection, received } = globalThis.room;
    const report = await peerConnection.getStats();
    const found = { state: peerConnection.connectionState, sctp: peerConnection.sctp?.state, received, framesDecoded: 0, soundPackets: 0 };
    report.forEach((entry) => {
      if (entry.type === "inbound-rtp") found.framesDecoded += entry.framesDecoded ?? 0;
      if (entry.type === "inbound-rtp" && entry.kind === "audio") found.soundPackets += entry.packetsReceived;
      if (entry.type === "data-channel") found.channel = `${entry.state}, ${entry.messagesSent} sent, ${entry.messagesReceived} received`;
      if (entry.type !== "transport" || !entry.selectedCandidatePairId) return;
      const pair = report.get(entry.selectedCandidatePairId);
      const local = report.get(pair.localCandidateId);
      found.pair = [local.candidateType, report.get(pair.remoteCandidateId).candidateType];
      found.relayProtocol = local.relayProtocol;
    });
    return found;
  });
}
