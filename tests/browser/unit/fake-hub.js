/**
 * A stand-in for the server's native signaling, small enough to be read: rooms, resume, acknowledgement, no limits.
 * For the client's unit tests only; what the server really does is tested against the server.
 */
export class FakeHub {
  sessions = new Map();      // resume secret -> session
  sockets = new Set();
  iceServers = [{ urls: ["stun:127.0.0.1:3478"] }];
  iceTtl = 3600;
  minted = 0;
  log = [];                  // every frame a client sent
  #next = 1;

  /** @param {{send: (text: string) => void, close: (code: number, reason?: string) => void}} socket */
  connect(socket) {
    const link = { socket, session: null };
    this.sockets.add(link);
    return {
      receive: (text) => this.#receive(link, JSON.parse(text)),
      closed: () => {
        this.sockets.delete(link);
        if (link.session?.link === link) {
          link.session.link = null;
          this.#others(link.session, { t: "member-away", d: { member: link.session.id } });
        }
      },
    };
  }

  /** Closes every socket, as a dropped network does. */
  drop(code = 1006, reason = "") {
    for (const { socket } of [...this.sockets]) socket.close(code, reason);
  }

  /** Forgets every session, as a restarted server does. */
  forget() {
    for (const session of this.sessions.values()) session.gone = true;
    this.sessions.clear();
  }

  ice() {
    this.minted++;
    return { ice_servers: this.iceServers, ttl: this.iceTtl, expires_at: Math.floor(Date.now() / 1000) + this.iceTtl };
  }

  #receive(link, frame) {
    this.log.push(frame);
    if (frame.t === "hello") return this.#hello(link, frame.d);
    const session = link.session;
    if (!session) return link.socket.close(4400, "hello first");
    if (frame.ack) session.outbox = session.outbox.filter(({ seq }) => seq > frame.ack);
    if (frame.t === "ping") return this.#raw(link, { t: "pong" });
    if (frame.t === "ack" || frame.t === "pong") return;
    if (frame.t === "bye") return this.#leave(session, "left");
    if (frame.t === "ice") return this.#raw(link, { t: "ice", ref: frame.id, d: this.ice() });
    if (frame.t === "state" && !frame.id) return;
    if (frame.t === "token") return this.#raw(link, { t: "ok", ref: frame.id, d: {} });
    if (session.seen.has(frame.id)) return this.#raw(link, { t: "ok", ref: frame.id, d: { delivered: 0, held: 0 } });
    session.seen.add(frame.id);
    if (frame.t === "join") return this.#join(session, frame);
    if (frame.t === "mute") return this.#mute(link, frame);
    if (frame.t === "leave") {
      this.#others(session, { t: "member-left", d: { room: session.room, member: session.id, reason: "left" } });
      session.room = null;
      session.id = `m${this.#next++}`;
      return this.#raw(link, { t: "left", ref: frame.id, d: {} });
    }
    const targets = this.#members(session.room).filter((other) => other !== session && (!frame.to || other.id === frame.to));
    if (frame.to && targets.length === 0) {
      return this.#raw(link, { t: "error", ref: frame.id, d: { code: "no_such_member", message: "nobody of that id" } });
    }
    for (const target of targets) this.#deliver(target, { t: frame.t, from: session.id, d: frame.d });
    this.#raw(link, { t: "ok", ref: frame.id, d: { delivered: targets.length, held: 0 } });
  }

  #hello(link, { resume, last_seq: last = 0 }) {
    const old = this.sessions.get(resume);
    const session = old ?? { id: `m${this.#next++}`, seq: 0, outbox: [], seen: new Set(), room: null, link: null };
    this.sessions.delete(resume);
    session.secret = `r${this.#next++}`;
    this.sessions.set(session.secret, session);
    if (session.link) session.link.socket.close(4440, "replaced");
    session.link = link;
    link.session = session;
    const replay = session.outbox.filter(({ seq }) => seq > last);
    const { ice_servers, ttl, expires_at } = this.ice();
    this.#raw(link, { t: "welcome", d: { session: session.id, resume: session.secret, resume_window: 60, ping: 15, server_time: Math.floor(Date.now() / 1000), ice_servers, ice_ttl: ttl, ice_expires_at: expires_at, resumed: Boolean(old), replayed: replay.length } });
    for (const frame of replay) this.#raw(link, frame);
    if (old) this.#others(session, { t: "member-back", d: { member: session.id } });
  }

  #join(session, { id, d }) {
    const present = this.#members(d.room);
    session.room = d.room;
    session.name = d.name;
    session.joined = this.#next++;
    this.#deliver(session, { t: "joined", ref: id, d: { room: d.room, member: session.id, members: present.map((other) => this.#info(other, true)) } });
    for (const other of present) this.#deliver(other, { t: "member-joined", d: { room: d.room, member: this.#info(session, false) } });
  }

  #mute(link, { id, to, d }) {
    const muted = this.#members(link.session.room).find((other) => other.id === to);
    this.#deliver(muted, { t: "mute", d: { track: d.track, by: link.session.id } });
    this.#raw(link, { t: "ok", ref: id, d: {} });
  }

  #leave(session, reason) {
    this.#others(session, { t: "member-left", d: { room: session.room, member: session.id, reason } });
    this.sessions.delete(session.secret);
    session.room = null;
  }

  #info({ id, name }, polite) {
    return { id, user: id, name, role: "", polite, media: {} };
  }

  #members(room) {
    return [...this.sessions.values()].filter((session) => room && session.room === room);
  }

  #others(session, frame) {
    for (const other of this.#members(session.room)) if (other !== session) this.#deliver(other, frame);
  }

  #deliver(session, frame) {
    const numbered = { ...frame, seq: ++session.seq };
    session.outbox.push(numbered);
    if (session.link) this.#raw(session.link, numbered);
  }

  #raw(link, frame) {
    link.socket.send(JSON.stringify(frame));
  }
}
