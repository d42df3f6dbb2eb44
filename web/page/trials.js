// @ts-check
/** Buttons that break a running call, and tell in words how it recovers and whether the picture went on meanwhile. */
import { $, element } from "./dom.js";

const PATIENCE = 45_000;

/**
 * @typedef {import("../turnkey.js").Call} Call
 * @typedef {import("../turnkey.js").CallEvents} CallEvents
 * @typedef {object} Stage
 * @property {Call} call
 * @property {(route: string) => void} choosePath
 * @property {(text: string) => void} say
 * @property {AbortSignal} signal ends what a trial waits for
 * @typedef {{name: string, text: string, run: (stage: Stage) => Promise<string>}} Trial
 */

/** @type {Record<string, Trial>} */
export const TRIALS = {
  socket: {
    name: "Cut the signaling socket",
    text: "The connection to the server is gone. Picture and sound go past it and should not notice.",
    async run({ call, signal }) {
      const back = once(call, "state", ({ state }) => state === "joined", signal);
      call.sabotage("socket");
      await back;
      return "A new socket took the session over; whatever was sent meanwhile has been delivered, once.";
    },
  },
  udp: {
    name: "Block UDP",
    text: "As a strict firewall would: only the relay over TCP is left.",
    async run({ call, choosePath, signal }) {
      const found = once(call, "path", ({ path }) => path.transport === "tcp" && path.kind === "relay", signal);
      choosePath("relay-tcp");
      await found;
      return "The call goes through the relay over TCP.";
    },
  },
  relay: {
    name: "Force the relay",
    text: "No direct path is allowed, as between two symmetric NATs.",
    async run({ call, choosePath, signal }) {
      const found = once(call, "path", ({ path }) => path.kind === "relay", signal);
      choosePath("relay");
      const { path } = await found;
      return `The call is ${path.label}, and neither side sees the other's address.`;
    },
  },
  direct: {
    name: "Allow every path again",
    text: "All candidates are gathered anew, and the shortest path that works wins.",
    async run({ call, choosePath, signal }) {
      const found = once(call, "path", () => true, signal);
      choosePath("auto");
      const { path } = await found;
      return `The call is ${path.label}.`;
    },
  },
  candidates: {
    name: "Lose all candidates for 8 s",
    text: "Both sides begin anew and hear of no address to try: for now there is no path at all.",
    async run({ call, say, signal }) {
      const again = once(call, "log", ({ text }) => text.includes("candidates get through again"), signal);
      call.sabotage("candidates", 8);
      await again;
      const found = once(call, "path", () => true, signal);
      say("Candidates get through again: ICE is restarted with fresh credentials…");
      const { path } = await found;
      return `A path was found as soon as there could be one: ${path.label}.`;
    },
  },
  credential: {
    name: "Expire the relay credential",
    text: "The credential is replaced by one that ended an hour ago, and a new path is looked for with it.",
    async run({ call, say, signal }) {
      const refused = once(call, "problem", ({ error }) => error.code === "credential_refused", signal);
      const renewed = once(call, "credentials", () => true, signal);
      call.sabotage("credential");
      const { error } = await refused;
      say(`${error.message}: a fresh one is asked for…`);
      await renewed;
      await once(call, "log", ({ text }) => /^(Received answer|Answer created)/.test(text), signal);
      return "The relay refused it, the client fetched a new one and negotiated again.";
    },
  },
  glare: {
    name: "Both offer at once",
    text: "Both browsers start to negotiate in the same moment. Badly written clients hang here.",
    async run({ call, signal }) {
      const agreed = once(call, "log", ({ text }) => /^(Received answer|Answer created)/.test(text), signal);
      call.sabotage("glare");
      await agreed;
      return "One side yielded to the other, as the server's roles say, and they agreed.";
    },
  },
  ice: {
    name: "Restart ICE",
    text: "A new path is looked for with fresh credentials, while the old one carries on.",
    async run({ call, signal }) {
      const agreed = once(call, "log", ({ text }) => text.startsWith("Received answer"), signal);
      call.restartIce();
      await agreed;
      return "Both sides agreed on new candidates.";
    },
  },
};

/** @param {() => Call | null} current @param {(route: string) => void} choosePath */
export function offerTrials(current, choosePath) {
  for (const [id, trial] of Object.entries(TRIALS)) {
    const button = element("button", trial.name);
    button.type = "button";
    button.dataset.trial = id;
    button.title = trial.text;
    button.addEventListener("click", () => perform(trial, current(), choosePath));
    $("#trial-buttons").append(button);
  }
}

/** Only who has somebody to talk to has something to break. @param {boolean} possible */
export function allowTrials(possible) {
  for (const button of $("#trial-buttons").querySelectorAll("button")) button.disabled = !possible;
}

/** @param {Trial} trial @param {Call | null} call @param {(route: string) => void} choosePath */
async function perform(trial, call, choosePath) {
  if (!call) return;
  /** @param {string} text @param {string} [state] */
  const say = (text, state = "busy") => {
    const line = $("#trial-text");
    line.dataset.state = state;
    line.textContent = text;
  };
  allowTrials(false);
  say(`${trial.name}. ${trial.text}`);
  const [since, frames] = [performance.now(), await framesOf(call)];
  try {
    const outcome = await trial.run({ call, choosePath, say, signal: AbortSignal.timeout(PATIENCE) });
    const seconds = ((performance.now() - since) / 1000).toFixed(1);
    const seen = (await framesOf(call)) - frames;
    say(`${trial.name}: recovered after ${seconds} s. ${outcome}${seen > 0 ? ` ${seen} pictures arrived meanwhile.` : ""}`, "good");
  } catch {
    say(`${trial.name}: not recovered after ${PATIENCE / 1000} s. The events below tell how far it came.`, "bad");
  } finally {
    allowTrials(call.members.length > 0);
  }
}

/** @param {Call} call */
async function framesOf(call) {
  const stats = await Promise.all(call.members.map(({ id }) => call.stats(id).catch(() => null)));
  return stats.reduce((sum, one) => sum + (one?.framesDecoded ?? 0), 0);
}

/**
 * The next event that fits.
 * @template {keyof CallEvents} K
 * @param {Call} call @param {K} type @param {(detail: CallEvents[K]) => boolean} fits @param {AbortSignal} signal
 * @returns {Promise<CallEvents[K]>}
 */
function once(call, type, fits, signal) {
  return new Promise((resolve, reject) => {
    const stop = call.on(type, (detail) => {
      if (!fits(detail)) return;
      stop();
      resolve(detail);
    });
    signal.addEventListener("abort", () => (stop(), reject(signal.reason)));
  });
}
