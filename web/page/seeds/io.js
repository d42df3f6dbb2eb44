// @ts-check
/**
 * The part of Socket.IO's client that the front-ends of the seeds use, over one WebSocket: `on`, `once`, `emit`, `close`.
 * What is emitted before the connection stands waits for it, as in the stock client.
 */

/** @typedef {(...values: any[]) => void} Listener */

/** @param {typeof globalThis.WebSocket} WebSocket @param {string} [token] for whoever gives no `auth` of their own */
export function clientOf(WebSocket, token) {
  /** @param {string} url @param {{auth?: object}} [options] */
  return (url, { auth = token ? { token } : undefined } = {}) => new Client(new WebSocket(`${url.replace(/^http/, "ws")}/socket.io/?EIO=4&transport=websocket`), auth);
}

class Client {
  connected = false;
  /** @type {Map<string, Listener[]>} */ #listeners = new Map();
  /** @type {string[]} */ #waiting = [];
  #socket;

  /** @param {WebSocket} socket @param {object} [auth] */
  constructor(socket, auth) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(String(data), auth);
    socket.onclose = ({ reason }) => this.#end(reason || "transport close");
  }

  /** @param {string} name @param {Listener} listener */
  on(name, listener) {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
    return this;
  }

  /** @param {string} name @param {Listener} listener */
  once(name, listener) {
    /** @type {Listener} */
    const first = (...values) => {
      this.#listeners.set(name, (this.#listeners.get(name) ?? []).filter((one) => one !== first));
      listener(...values);
    };
    return this.on(name, first);
  }

  /** @param {string} name @param {unknown[]} values */
  emit(name, ...values) {
    this.#send(`42${JSON.stringify([name, ...values])}`);
    return this;
  }

  close() {
    this.#socket.onclose = null;
    this.#socket.close();
    this.#end("io client disconnect");
  }

  /** @param {string} packet */
  #send(packet) {
    if (this.connected) this.#socket.send(packet);
    else this.#waiting.push(packet);
  }

  /** Engine.IO's type of packet comes first, then Socket.IO's. @param {string} data @param {object} [auth] */
  #receive(data, auth) {
    if (data[0] === "0") return this.#socket.send(`40${auth ? JSON.stringify(auth) : ""}`);
    if (data[0] === "2") return this.#socket.send("3");
    if (data[0] !== "4") return;
    const [, kind, text] = /^4(\d)(.*)$/s.exec(data) ?? [];
    if (kind === "0") return this.#open();
    if (kind === "1") return this.#end("io server disconnect");
    if (kind === "4") return this.#tell("connect_error", [new Error(JSON.parse(text).message)]);
    if (kind === "2") {
      const [name, ...values] = JSON.parse(text.slice(text.indexOf("[")));
      this.#tell(name, values);
    }
  }

  #open() {
    this.connected = true;
    this.#tell("connect", []);
    for (const packet of this.#waiting.splice(0)) this.#send(packet);
  }

  /** @param {string} reason */
  #end(reason) {
    if (!this.connected) return this.#tell("connect_error", [new Error(reason)]);
    this.connected = false;
    this.#tell("disconnect", [reason]);
  }

  /** @param {string} name @param {unknown[]} values */
  #tell(name, values) {
    for (const listener of this.#listeners.get(name) ?? []) listener(...values);
  }
}
