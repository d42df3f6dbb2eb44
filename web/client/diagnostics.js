// @ts-check
/** What a call remembers of itself, and the report that people send to whoever can help. */

const MAX_LINES = 500;
const MAX_PROBLEMS = 50;
export const VERSION = "0.1.0";

/** @typedef {import("../turnkey.js").Report} Report */

export class Journal {
  /** @type {string[]} */ lines = [];
  /** @type {Report["problems"]} */ problems = [];

  /** @param {import("./call.js").Call} call */
  constructor(call) {
    call.on("log", ({ text, member }) => keep(this.lines, `${now()} ${member ? `${member.name || member.id}: ` : ""}${text}`, MAX_LINES));
    call.on("problem", ({ error }) => this.#note(error));
    call.on("error", ({ error }) => this.#note(error));
  }

  /** @param {import("../turnkey.js").TurnkeyError} error */
  #note({ code, message }) {
    keep(this.problems, { at: now(), code, message }, MAX_PROBLEMS);
  }
}

/** @param {import("./call.js").Call} call @param {Journal} journal @returns {Promise<Report>} */
export async function collect(call, journal) {
  const { iceServers = [], iceTransportPolicy = "all" } = call.configuration;
  return {
    version: VERSION,
    created: now(),
    userAgent: globalThis.navigator?.userAgent ?? "",
    url: call.url.split("?")[0], // a query may hold a token
    room: call.options.room,
    state: call.state,
    ...(call.member !== undefined && { member: call.member }),
    iceTransportPolicy,
    iceServers: iceServers.flatMap(({ urls }) => urls),
    media: call.media,
    signaling: call.session.figures,
    members: await Promise.all([...call.peers.values()].map(describePeer)),
    problems: [...journal.problems],
    log: [...journal.lines],
  };
}

/** @param {import("./peer.js").Peer} peer @returns {Promise<Report["members"][number]>} */
async function describePeer({ pc, member, recovery, gathered, arrived }) {
  const { connectionState, iceConnectionState, iceGatheringState, signalingState } = pc;
  return {
    id: member.id,
    ...(member.name !== undefined && { name: member.name }),
    away: member.away,
    connectionState, iceConnectionState, iceGatheringState, signalingState,
    restarts: recovery.restarts,
    gathered: { ...gathered },
    arrived: { ...arrived },
    stats: await recovery.stats().catch(() => null),
  };
}

function now() {
  return new Date().toISOString();
}

/** @template T @param {T[]} list @param {T} item @param {number} most */
function keep(list, item, most) {
  list.push(item);
  if (list.length > most) list.shift();
}
