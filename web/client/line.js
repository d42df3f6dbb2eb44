// @ts-check
/** A user's line: tells when somebody calls, and calls others. A call is a room; `join()` is what enters it. */
import { Emitter } from "./emitter.js";
import { describe, TurnkeyError } from "./errors.js";
import { Session } from "./session.js";

/**
 * @typedef {import("../turnkey.js").Line} Contract
 * @typedef {import("../turnkey.js").LineEvents} LineEvents
 * @typedef {import("../turnkey.js").LineOptions} LineOptions
 * @typedef {import("../turnkey.js").Ring} Ring
 */

/** @type {typeof import("../turnkey.js").openLine} */
export function openLine(options) {
  return new Line(options);
}

/**
 * @extends {Emitter<LineEvents>}
 * @implements {Contract}
 */
class Line extends Emitter {
  /** @type {string | undefined} */ user = undefined;

  /** @param {LineOptions} options */
  constructor(options) {
    super();
    this.options = options;
    this.url = options.url ?? new URL("/v1/ws", location.href).href.replace(/^http/, "ws");
    const { token, WebSocket = globalThis.WebSocket, random = Math.random } = options;
    this.session = new Session({ url: this.url, token, WebSocket, random, key: "" });
    this.session.on("open", (d) => this.#onOpen(d));
    this.session.on("frame", ({ t, d }) => t === "call" && this.#tell(d));
    this.session.on("stop", (error) => error.code !== "closed" && this.emit("error", { error }));
  }

  /** @param {string} user @param {unknown} [media] @returns {Promise<Ring>} */
  call(user, media) {
    return this.#ask("POST", "initiate", { callee_id: user, ...(media !== undefined && { media }) });
  }

  /** @param {string} id */
  accept(id) {
    return this.#ask("POST", `accept/${encodeURIComponent(id)}`);
  }

  /** @param {string} id */
  reject(id) {
    return this.#ask("POST", `reject/${encodeURIComponent(id)}`);
  }

  /** @param {string} id */
  end(id) {
    return this.#ask("POST", `end/${encodeURIComponent(id)}`);
  }

  close() {
    this.session.close();
  }

  /** Who opens the line while it rings hears it as well. @param {any} d the payload of a welcome */
  async #onOpen(d) {
    this.user = d.user;
    this.emit("open", { user: d.user });
    if (d.resumed) return;
    // What the line tells meanwhile is newer than the answer.
    const told = new Set();
    const stop = this.on("call", ({ ring }) => told.add(ring.id));
    try {
      const { calls } = await this.#request("GET", "active");
      for (const call of calls) if (call.status === "pending" && !told.has(call.call_id)) this.#tell(call);
    } catch (error) {
      this.emit("error", { error: error instanceof TurnkeyError ? error : new TurnkeyError("signaling_lost", describe(error), error) });
    } finally {
      stop();
    }
  }

  /** @param {any} d a call as the server describes it */
  #tell(d) {
    const ring = read(d);
    this.emit("call", { ring, incoming: ring.callee === this.user });
  }

  /** @param {string} method @param {string} path @param {object} [body] */
  async #ask(method, path, body) {
    return read(await this.#request(method, path, body));
  }

  /** @param {string} method @param {string} path @param {object} [body] */
  async #request(method, path, body) {
    const { token, fetch = globalThis.fetch } = this.options;
    const bearer = typeof token === "function" ? await token() : token;
    const answer = await fetch(new URL(`/calls/${path}`, this.url.replace(/^ws/, "http")), {
      method,
      cache: "no-store",
      headers: { ...(bearer && { authorization: `Bearer ${bearer}` }), ...(body && { "content-type": "application/json" }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    const d = await answer.json().catch(() => null);
    if (answer.ok) return d;
    throw new TurnkeyError(d?.code ?? "protocol", d?.detail ?? `the server answered ${answer.status}`);
  }
}

/** @param {any} d @returns {Ring} */
function read({ call_id: id, caller_id: caller, callee_id: callee, status, media }) {
  return { id, caller, callee, status, ...(media != null && { media }) };
}
