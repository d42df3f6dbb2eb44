// @ts-check
/** What the browser's statistics say of a path, in few numbers and in words. */

/**
 * @typedef {import("../turnkey.js").Path} Path
 * @typedef {import("../turnkey.js").PathKind} PathKind
 * @typedef {import("../turnkey.js").PeerStats} PeerStats
 * @typedef {import("../turnkey.js").Quality} Quality
 * @typedef {{at: number, pair: string, received: number, sent: number, arrived: number, lost: number}} Look
 */

/** Above these the other person hears it: round trip in milliseconds, lost part of the packets. */
const FAIR = { rtt: 250, loss: 0.02 };
const POOR = { rtt: 500, loss: 0.08 };

const WORDS = { relay: "relayed", reflexive: "direct through a NAT", host: "direct" };

/**
 * The pair that carries the media, and how to call it.
 * @param {RTCStatsReport} report
 * @returns {{pair: any, path: Path} | undefined}
 */
export function selectedPair(report) {
  /** @type {any[]} */
  const entries = [];
  report.forEach((entry) => entries.push(entry));
  const chosen = entries.find(({ type, selectedCandidatePairId }) => type === "transport" && selectedCandidatePairId)?.selectedCandidatePairId;
  const pair = entries.find(({ type, id, selected }) => type === "candidate-pair" && (id === chosen || selected === true));
  const local = pair && report.get(pair.localCandidateId);
  const remote = pair && report.get(pair.remoteCandidateId);
  if (!local || !remote) return undefined;
  const types = [local.candidateType, remote.candidateType];
  /** @type {PathKind} */
  const kind = types.includes("relay") ? "relay" : types.every((type) => type === "host") ? "host" : "reflexive";
  const transport = (local.candidateType === "relay" && local.relayProtocol) || local.protocol || "udp";
  const label = `${WORDS[kind]} over ${transport.toUpperCase()}`;
  return { pair, path: { kind, transport, local: types[0], remote: types[1], label } };
}

/** Compares a look at a connection with the last regular one. */
export class Meter {
  /** @type {Look | undefined} */
  #last;

  /**
   * @param {RTCStatsReport} report @param {boolean} isRegular later looks are compared with this one
   * @returns {(PeerStats & {pair: string}) | null} null while there is no path
   */
  read(report, isRegular) {
    const selected = selectedPair(report);
    if (!selected) return null;
    const { pair, path } = selected;
    const media = incoming(report);
    const look = { at: performance.now(), pair: pair.id, received: pair.bytesReceived ?? 0, sent: pair.bytesSent ?? 0, arrived: media.packetsReceived, lost: media.packetsLost };
    const since = this.#last?.pair === look.pair ? this.#last : undefined;
    if (isRegular) this.#last = look;
    return {
      pair: pair.id,
      path,
      received: look.received,
      sent: look.sent,
      framesDecoded: media.framesDecoded,
      packetsLost: media.packetsLost,
      ...(pair.currentRoundTripTime !== undefined && { rtt: pair.currentRoundTripTime * 1000 }),
      ...(media.jitter !== undefined && { jitter: media.jitter * 1000 }),
      ...(since && rates(since, look)),
    };
  }
}

/** @param {RTCStatsReport} report */
function incoming(report) {
  const sum = { framesDecoded: 0, packetsReceived: 0, packetsLost: 0, jitter: /** @type {number | undefined} */ (undefined) };
  report.forEach((entry) => {
    if (entry.type !== "inbound-rtp") return;
    sum.framesDecoded += entry.framesDecoded ?? 0;
    sum.packetsReceived += entry.packetsReceived ?? 0;
    sum.packetsLost += entry.packetsLost ?? 0;
    if (entry.jitter !== undefined) sum.jitter = Math.max(sum.jitter ?? 0, entry.jitter);
  });
  return sum;
}

/** @param {Look} since @param {Look} now */
function rates(since, now) {
  const seconds = (now.at - since.at) / 1000;
  if (seconds <= 0) return {};
  const arrived = now.arrived - since.arrived;
  const lost = Math.max(0, now.lost - since.lost); // duplicates make it fall
  return {
    bitrateIn: ((now.received - since.received) * 8) / seconds,
    bitrateOut: ((now.sent - since.sent) * 8) / seconds,
    ...(arrived + lost > 0 && { loss: lost / (arrived + lost) }),
  };
}

/** @param {Pick<PeerStats, "rtt" | "loss">} stats @returns {{quality: Quality, reason: string}} */
export function qualityOf({ rtt = 0, loss = 0 }) {
  /** @param {typeof FAIR} limit */
  const exceeds = (limit) => rtt > limit.rtt || loss > limit.loss;
  if (!exceeds(FAIR)) return { quality: "good", reason: "low delay, hardly any loss" };
  const reason = loss > FAIR.loss ? `${Math.round(loss * 100)} % of the packets are lost` : `a round trip takes ${Math.round(rtt)} ms`;
  return { quality: exceeds(POOR) ? "poor" : "fair", reason };
}
