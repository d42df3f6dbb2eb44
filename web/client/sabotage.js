// @ts-check
/** Breaks a call on purpose, each time the way a network, a clock or chance would, so that its recovery can be seen. */

const DEAF_SECONDS = 8;

/** @param {import("./call.js").Call} call @param {import("../turnkey.js").Sabotage} what @param {number} [seconds] */
export function sabotage(call, what, seconds = DEAF_SECONDS) {
  switch (what) {
    case "socket": return call.session.cut();
    case "candidates": return loseCandidates(call, seconds);
    case "credential": return expireCredential(call);
    case "glare": return offerAtOnce(call);
  }
}

/** @param {import("./call.js").Call} call @param {number} seconds */
function loseCandidates(call, seconds) {
  call.isDeaf = true;
  call.reenter("candidates get lost on purpose");
  setTimeout(() => {
    call.isDeaf = false;
    for (const { recovery } of call.peers.values()) recovery.restart("candidates get through again");
  }, seconds * 1000);
}

/** @param {import("./call.js").Call} call */
function expireCredential(call) {
  const configuration = call.configuration;
  const iceServers = configuration.iceServers?.map((server) => (server.username ? { ...server, username: expired(server.username) } : server));
  for (const peer of call.peers.values()) {
    peer.log("The relay credential is replaced by one that has expired");
    // With a direct path a browser is content before the relay has answered.
    peer.pc.setConfiguration({ ...configuration, iceServers, iceTransportPolicy: "relay" });
    peer.pc.restartIce();
  }
}

/** A user name begins with the second at which it ends. @param {string} username */
function expired(username) {
  return username.replace(/^\d+/, String(Math.floor(Date.now() / 1000) - 3600));
}

/** @param {import("./call.js").Call} call */
function offerAtOnce(call) {
  for (const { member, recovery } of call.peers.values()) {
    call.session.request("restart", {}, member.id).catch(() => {}); // who has left offers nothing
    recovery.restart("both sides are to offer at once");
  }
}
