// @ts-check
/** Errors with a code that programs read and a hint that people read. */

/** What to do about an error, by its code. @type {Record<import("../turnkey.js").ErrorCode, string>} */
const HINTS = {
  unauthenticated: "The token is missing, wrong or expired: ask for a new link, or pass a `token` function that fetches a new one.",
  forbidden: "The server refuses this page or this room. Its message says which setting decides it (http.origins, signaling.access).",
  not_found: "There is no such room or signaling path on this server: check the link.",
  room_full: "The room has as many members as it may have: start another one.",
  replaced: "This call was opened again somewhere else with the same user.",
  kicked: "A moderator ended your part in this call.",
  bad_url: "The address of the signaling socket must be ws:// or wss://, and wss:// on a page that came over https.",
  protocol: "The server did not understand this client: their versions differ, reload the page.",
  signaling_lost: "The network or the server is away. Nothing needs to be done: it is tried again, and media goes on where it can.",
  path_failed: "No path works any more, another one is looked for. If that goes on, a firewall blocks this network: the connection check says what.",
  no_candidates: "This browser found no address to be reached at: a firewall or an extension blocks UDP and the relay, or the server's relay is down.",
  no_answer: "The other side is in the room but does not answer: its page may be asleep or still opening its camera.",
  negotiation: "The two browsers could not agree on a description: reload the page on both sides.",
  credential_refused: "The relay refuses the credential. A new one is asked for; if that one is refused too, the server's secret or clock is wrong.",
  device_lost: "A camera or microphone was unplugged: plug it in again or choose another one.",
  not_sent: "Send it again when the connection is back.",
  backlog: "Too much is waiting for the server: wait until the connection is back.",
  session_lost: "The server no longer knew this session; it was joined anew and this message may not have arrived.",
  closed: "The call has been left.",
  insecure_origin: "Browsers open camera and microphone only on https:// pages and on http://localhost. Use https (`turnkey serve --public`).",
  media_denied: "The browser or the system denies access: allow it beside the address bar, then reload.",
  media_missing: "Plug one in and reload, or go on without.",
  media_busy: "Another program is using the camera or microphone.",
};

/** An error with a stable `code` and a `hint` that says what to do. */
export class TurnkeyError extends Error {
  /** @param {string} code @param {string} message @param {unknown} [cause] */
  constructor(code, message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "TurnkeyError";
    this.code = code;
    this.hint = HINTS[/** @type {keyof typeof HINTS} */ (code)] ?? "";
  }
}

/** @param {unknown} error */
export function describe(error) {
  return error instanceof Error ? error.message : String(error);
}
