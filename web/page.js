// @ts-check
/**
 * The call page: a lobby, a call, and what is to be said when it is over.
 * Everything about connections is in turnkey.js; in the console the running call is `turnkey.call`.
 */
import { examine } from "./doctor.js";
import { join, openMedia, TurnkeyError } from "./turnkey.js";

const MAX_LOG = 500;
/** @type {Record<string, [string, "good" | "busy" | "bad"]>} */
const STATUS = {
  connecting: ["Connecting", "busy"], joined: ["Connected", "good"], reconnecting: ["Reconnecting", "bad"],
};
/** @type {Record<string, string>} */
const LEFT = { left: "hung up", lost: "lost the connection", kicked: "was removed", "hung up": "left behind" };

const params = new URLSearchParams(location.search);
const token = params.get("token") ?? undefined;
let room = params.get("room") ?? roomOf(token);
let route = params.get("path") ?? "auto";
/** @type {import("./turnkey.js").Call | null} */
let call = null;
/** @type {MediaStream | null} */
let media = null;
const wanted = { audio: true, video: true };
/** @type {Map<string, {tile: HTMLElement, path: HTMLElement, bytes: {received: number, sent: number, at: number}}>} */
const shown = new Map();

/** @template {Element} [T=HTMLElement] @param {string} selector @param {ParentNode} [root] @returns {T} */
function $(selector, root = document) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return /** @type {T} */ (/** @type {unknown} */ (found));
}

/** @param {string} id @returns {HTMLElement} */
function fromTemplate(id) {
  const copy = /** @type {HTMLTemplateElement} */ ($(`#${id}`)).content.firstElementChild?.cloneNode(true);
  return /** @type {HTMLElement} */ (copy);
}

/** @param {"lobby" | "call" | "ended"} view */
function show(view) {
  document.body.dataset.view = view;
  document.body.classList.remove("panel-open");
}

/** @param {string} text @param {string} [name] */
function log(text, name) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toTimeString().slice(0, 8);
  const body = document.createElement("span");
  body.textContent = name ? `${name}: ${text}` : text;
  body.classList.toggle("bad", /^(Problem|Server:|Signaling lost|Could not)/.test(text));
  line.append(time, body);
  const list = $("#log");
  list.append(line);
  while (list.childElementCount > MAX_LOG) list.firstElementChild?.remove();
  list.scrollTop = list.scrollHeight;
}

/** @param {unknown} error */
function explainMedia(error) {
  const { message, hint } = error instanceof TurnkeyError ? error : { message: String(error), hint: "" };
  const notice = $("#notice");
  notice.hidden = false;
  $("strong", notice).textContent = "You can go on without: you will see and hear the others.";
  $("span", notice).textContent = `${message[0].toUpperCase()}${message.slice(1)}. ${hint}`;
  $("#preview-text").textContent = "No camera";
  log(`No camera or microphone: ${message}`);
}

/** Both, else whichever there is. */
async function openAnyMedia() {
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  try {
    return await openMedia();
  } catch (error) {
    if (!(error instanceof TurnkeyError) || error.code === "insecure_origin") throw error;
    return openMedia({ audio }).catch(() => openMedia({ video: true })).catch(() => { throw error; });
  }
}

async function prepareMedia() {
  try {
    media = await openAnyMedia();
  } catch (error) {
    explainMedia(error);
  }
  for (const button of document.querySelectorAll("[data-toggle]")) {
    const kind = /** @type {HTMLElement} */ (button).dataset.toggle;
    /** @type {HTMLButtonElement} */ (button).disabled = !media?.getTracks().some((track) => track.kind === kind);
  }
  if (!media) return showOwnVideo();
  for (const video of /** @type {NodeListOf<HTMLVideoElement>} */ (document.querySelectorAll("#preview, #self video"))) video.srcObject = media;
  for (const track of media.getTracks()) track.enabled = wanted[/** @type {"audio" | "video"} */ (track.kind)];
  call?.setStream(media);
  showOwnVideo();
}

function showOwnVideo() {
  const on = wanted.video && Boolean(media?.getVideoTracks().length);
  $("#self").dataset.video = on ? "on" : "off";
  $("#preview").hidden = !on;
  if (media) $("#preview-text").textContent = media.getVideoTracks().length ? "Camera is off" : "No camera, microphone only";
  $("#preview-text").hidden = on;
}

/** @param {"audio" | "video"} kind */
function toggle(kind) {
  wanted[kind] = !wanted[kind];
  for (const button of document.querySelectorAll(`[data-toggle=${kind}]`)) button.setAttribute("aria-pressed", String(wanted[kind]));
  if (call) call.setEnabled(kind, wanted[kind]);
  else for (const track of media?.getTracks() ?? []) if (track.kind === kind) track.enabled = wanted[kind];
  showOwnVideo();
}

/** A name that nobody guesses and everybody can read out. */
function newRoom() {
  const letters = "abcdefghjkmnpqrstuvwxyz";
  const random = crypto.getRandomValues(new Uint8Array(12));
  const text = Array.from(random, (byte) => letters[byte % letters.length]).join("");
  return `${text.slice(0, 4)}-${text.slice(4, 8)}-${text.slice(8)}`;
}

/** The room a token is for, so that a link needs no more than the token. @param {string | undefined} jwt */
function roomOf(jwt) {
  try {
    const claims = JSON.parse(atob(String(jwt).split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return typeof claims.room === "string" ? claims.room : "";
  } catch {
    return ""; // the server will say what is wrong with it
  }
}

function inviteLink() {
  const link = new URL(location.href);
  link.search = new URLSearchParams({ room, ...(token && { token }) }).toString();
  return link.href;
}

/** @param {HTMLElement} button @param {string} text */
async function copy(button, text) {
  const label = button.querySelector("span") ?? button;
  const before = label.textContent;
  try {
    await navigator.clipboard.writeText(text);
    label.textContent = "Copied";
  } catch {
    prompt("Copy this:", text); // the clipboard is closed to pages that are not on https
  }
  setTimeout(() => (label.textContent = before), 1200);
}

/** Keeps of the server's list what the chosen path may use. @param {RTCIceServer[]} servers @returns {RTCIceServer[]} */
function allowedServers(servers) {
  const transport = route.split("-")[1];
  if (!transport) return servers;
  /** @param {string} url */
  const fits = (url) => (url.startsWith("turns:") ? "tls" : url.startsWith("turn:") ? (/transport=tcp/.test(url) ? "tcp" : "udp") : "") === transport;
  const kept = servers.map((server) => ({ ...server, urls: [server.urls].flat().filter(fits) })).filter(({ urls }) => urls.length > 0);
  if (kept.length === 0) log(`Problem: this server offers no relay over ${transport.toUpperCase()}`);
  return kept;
}

/** @returns {RTCIceTransportPolicy} */
function policy() {
  return route === "auto" ? "all" : "relay";
}

/** @param {string} value */
function choosePath(value) {
  route = value;
  for (const select of /** @type {NodeListOf<HTMLSelectElement>} */ (document.querySelectorAll("select.route"))) select.value = value;
  call?.setIceTransportPolicy(policy());
}

/** @param {Event} event */
function start(event) {
  event.preventDefault();
  room ||= newRoom();
  const name = /** @type {HTMLInputElement} */ ($("#name")).value.trim();
  try {
    localStorage.setItem("turnkey.name", name);
  } catch {
    // a browser that keeps nothing asks again next time
  }
  history.replaceState(null, "", inviteLink());
  $("#invite-text").textContent = inviteLink();
  begin(name);
}

/** @param {string} name */
function begin(name) {
  $("#log").replaceChildren();
  $("#messages").replaceChildren();
  show("call");
  setStatus("connecting");
  call = join({ room, token, stream: media, iceTransportPolicy: policy(), iceServers: allowedServers, ...(name && { name }) });
  Object.assign(globalThis, { turnkey: { call } });
  call.on("log", ({ text, member }) => log(text, member && nameOf(member)));
  call.on("state", ({ state }) => setStatus(state));
  call.on("member-joined", ({ member }) => addMember(member));
  call.on("member-changed", ({ member }) => showMember(member));
  call.on("member-left", ({ member, reason }) => removeMember(member, reason));
  call.on("stream", ({ member, stream }) => showStream(member, stream));
  call.on("path", ({ member, path }) => showPath(member, path));
  call.on("stats", ({ member, stats }) => showStats(member, stats));
  call.on("connection", ({ member, state }) => showConnection(member, state));
  call.on("message", ({ member, message }) => addMessage(message, nameOf(member)));
  call.on("error", ({ error }) => finish("The call could not go on", error.message, error.hint));
  for (const kind of /** @type {const} */ (["audio", "video"])) if (!wanted[kind]) call.setEnabled(kind, false);
  arrange();
}

/** Shows in the lobby what of a connection works. */
async function showFindings() {
  const [button, box] = [/** @type {HTMLButtonElement} */ ($("#examine")), $("#findings")];
  const [list, verdict] = [$("ul", box), $("p", box)];
  button.disabled = true;
  box.hidden = false;
  list.replaceChildren();
  verdict.textContent = "Checking…";
  verdict.textContent = await examine({
    url: new URL("/v1/ws", location.href).href.replace(/^http/, "ws"),
    ...(token && { token }),
    onFinding({ what, ok, text }) {
      const line = document.createElement("li");
      line.classList.toggle("bad", !ok);
      line.append(what, document.createElement("span"));
      $("span", line).textContent = text;
      list.append(line);
    },
  });
  button.disabled = false;
  box.scrollIntoView({ behavior: "smooth", block: "nearest" });
}

/** @param {string} title @param {string} text @param {string} hint */
function finish(title, text, hint) {
  call = null;
  $("#status").hidden = true;
  $("#ended-title").textContent = title;
  $("#ended-text").textContent = text && `${text[0].toUpperCase()}${text.slice(1)}.`;
  $("#ended-hint").textContent = hint;
  $("#again").textContent = text ? "Try again" : "Join again";
  show("ended");
}

/** @param {string} state */
function setStatus(state) {
  if (!STATUS[state]) return;
  const status = $("#status");
  [status.textContent, status.dataset.state] = STATUS[state];
  status.hidden = false;
}

/** @param {{name?: string}} member */
function nameOf({ name }) {
  return name || "Guest";
}

/** @param {import("./turnkey.js").Member} member */
function addMember(member) {
  const tile = fromTemplate("tile-template");
  const path = fromTemplate("path-template");
  tile.dataset.video = "off";
  $(".initial", tile).textContent = nameOf(member)[0].toUpperCase();
  $(".who", path).textContent = nameOf(member);
  $("#tiles").append(tile);
  $("#paths").append(path);
  shown.set(member.id, { tile, path, bytes: { received: 0, sent: 0, at: performance.now() } });
  showMember(member);
  arrange();
}

/** @param {import("./turnkey.js").Member} member */
function showMember(member) {
  const tile = shown.get(member.id)?.tile;
  if (!tile) return;
  const muted = member.media.audio === false ? " · muted" : "";
  $(".who", tile).textContent = `${nameOf(member)}${member.away ? " · away" : muted}`;
  tile.toggleAttribute("data-away", member.away);
  const video = /** @type {HTMLVideoElement} */ ($("video", tile));
  const has = video.srcObject instanceof MediaStream && video.srcObject.getVideoTracks().length > 0;
  tile.dataset.video = has && member.media.video !== false ? "on" : "off";
}

/** @param {import("./turnkey.js").Member} member @param {string} reason */
function removeMember(member, reason) {
  const entry = shown.get(member.id);
  entry?.tile.remove();
  entry?.path.remove();
  shown.delete(member.id);
  $("#waiting h2").textContent = `${nameOf(member)} ${LEFT[reason] ?? "has gone"}`;
  arrange();
}

function arrange() {
  const count = shown.size;
  $("#tiles").dataset.count = count > 4 ? "many" : String(count);
  $("#waiting").hidden = count > 0;
  $("#paths .empty").hidden = count > 0;
}

/** @param {import("./turnkey.js").Member} member @param {MediaStream} stream */
function showStream(member, stream) {
  const entry = shown.get(member.id);
  if (!entry) return;
  const video = /** @type {HTMLVideoElement} */ ($("video", entry.tile));
  if (video.srcObject !== stream) video.srcObject = stream;
  video.play().catch(({ name }) => name === "NotAllowedError" && log("Problem: the browser waits for a click before it plays sound"));
  showMember(member);
}

/** @param {import("./turnkey.js").Member} member @param {import("./turnkey.js").Path} path */
function showPath(member, path) {
  const entry = shown.get(member.id);
  if (!entry) return;
  entry.path.dataset.kind = path.kind;
  entry.bytes = { received: 0, sent: 0, at: performance.now() };
  $(".label", entry.path).textContent = path.label[0].toUpperCase() + path.label.slice(1);
  $(".types", entry.path).textContent = `${path.local} → ${path.remote}`;
  const how = $(".how", entry.tile);
  how.textContent = path.label;
  how.dataset.kind = path.kind;
}

/** @param {import("./turnkey.js").Member} member @param {import("./turnkey.js").PeerStats} stats */
function showStats(member, { rtt, received, sent }) {
  const entry = shown.get(member.id);
  if (!entry) return;
  const at = performance.now();
  const seconds = (at - entry.bytes.at) / 1000;
  /** @param {number} bytes */
  const rate = (bytes) => (bytes < 0 ? "–" : `${((bytes * 8) / 1e6 / seconds).toFixed(1)} Mb/s`);
  $(".rtt", entry.path).textContent = rtt === undefined ? "–" : `${rtt.toFixed(rtt < 10 ? 1 : 0)} ms`;
  $(".in", entry.path).textContent = rate(received - entry.bytes.received);
  $(".out", entry.path).textContent = rate(sent - entry.bytes.sent);
  entry.bytes = { received, sent, at };
}

/** @param {import("./turnkey.js").Member} member @param {string} state */
function showConnection(member, state) {
  const entry = shown.get(member.id);
  if (!entry || state === "connected") return;
  delete entry.path.dataset.kind;
  $(".label", entry.path).textContent = { failed: "No path found, trying again…", disconnected: "Interrupted…" }[state] ?? "Connecting…";
  $(".how", entry.tile).textContent = state;
}

/** @param {string} text @param {string} [name] */
function addMessage(text, name) {
  const line = document.createElement("p");
  if (name) {
    const who = document.createElement("small");
    who.textContent = name;
    line.append(who);
  }
  line.classList.toggle("own", !name);
  line.append(text);
  $("#messages").append(line);
  line.scrollIntoView({ block: "end" });
}

/** @param {Event} event */
function sendMessage(event) {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ ($("#chat-input"));
  const text = input.value.trim();
  if (!text || !call) return;
  call.sendMessage(text);
  addMessage(text);
  input.value = "";
}

function wire() {
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-toggle]"))) {
    button.addEventListener("click", () => toggle(button.dataset.toggle === "audio" ? "audio" : "video"));
  }
  for (const select of /** @type {NodeListOf<HTMLSelectElement>} */ (document.querySelectorAll("select.route"))) {
    select.addEventListener("change", () => choosePath(select.value));
  }
  $("#start-form").addEventListener("submit", start);
  $("#examine").addEventListener("click", showFindings);
  $("#chat-form").addEventListener("submit", sendMessage);
  $("#copy").addEventListener("click", () => copy($("#copy"), inviteLink()));
  $("#invite").addEventListener("click", () => copy($("#invite"), inviteLink()));
  $("#copy-log").addEventListener("click", () => copy($("#copy-log"), $("#log").innerText));
  $("#panel-toggle").addEventListener("click", () => {
    const open = document.body.classList.toggle("panel-open");
    $("#panel-toggle").setAttribute("aria-expanded", String(open));
  });
  $("#again").addEventListener("click", () => begin(/** @type {HTMLInputElement} */ ($("#name")).value.trim()));
  $("#hangup").addEventListener("click", () => {
    call?.leave();
    finish("You have left the call", "", "The others have been told. The link stays valid.");
  });
}

function prepareLobby() {
  choosePath(route);
  try {
    /** @type {HTMLInputElement} */ ($("#name")).value = localStorage.getItem("turnkey.name") ?? "";
  } catch {
    // see start()
  }
  if (!room) return;
  $("#lobby-title").textContent = "Join the call";
  $("#lobby-text").textContent = `You have been invited to the room “${room}”.`;
  $("#start").textContent = "Join the call";
}

wire();
prepareLobby();
prepareMedia();
