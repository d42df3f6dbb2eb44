// @ts-check
/**
 * The tabs of the seeds' dialects. Each runs its front-end's own signaling code (`page/seeds/`) against this server; here is what
 * stands around it: camera, pictures, fields, chat, and every message as it goes over the wire, without its secrets.
 */
import { selectedPair } from "./client/stats.js";
import { $, all, capital, element } from "./page/dom.js";
import { clientOf } from "./page/seeds/io.js";
import { openMedia, TurnkeyError } from "./turnkey.js";

/**
 * @typedef {{call: () => Promise<unknown>, chat?: (text: string) => void, enable?: (kind: string, on: boolean) => void}} Running
 * @typedef {{about: string, fields: string[], needsToken?: boolean, addsTracks?: boolean, start: (around: object) => Promise<Running>}} Seed
 */

const MAX_LOG = 300;
const MAX_LINE = 400;
const LOOK = 1_000;

const params = new URLSearchParams(location.search);
const form = /** @type {HTMLFormElement} */ ($("#dialect-form"));
const video = /** @type {(id: string) => HTMLVideoElement} */ ($);
/** @type {Seed} */
let seed;
/** @type {Running | undefined} */
let running;
/** @type {RTCPeerConnection | undefined} */
let peerConnection;
/** @type {RTCDataChannel | undefined} */
let channel;
/** @type {(() => void)[]} */
let closings = [];
/** @type {MediaStream} */
let stream;

/** @param {string} name */
function field(name) {
  return /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
}

/** A message on its way; what is said again and again, as when polling, is shown once. @param {"→" | "←"} way @param {string} text */
function wire(way, text) {
  const list = $("#log");
  const told = text.replace(/("(?:token|access_token|credential)":)"[^"]*"/g, '$1"…"');
  const shown = `${way} ${told.length > MAX_LINE ? `${told.slice(0, MAX_LINE)}… (${told.length} characters)` : told}`;
  if ([list.lastElementChild, list.lastElementChild?.previousElementSibling].some((line) => line?.lastElementChild?.textContent === shown)) return;
  const line = document.createElement("li");
  line.append(element("time", new Date().toTimeString().slice(0, 8)), element("span", shown));
  list.append(line);
  while (list.childElementCount > MAX_LOG) list.firstElementChild?.remove();
  list.scrollTop = list.scrollHeight;
}

class TracedSocket extends WebSocket {
  /** @param {string | URL} url */
  constructor(url) {
    super(url);
    this.addEventListener("message", ({ data }) => wire("←", String(data)));
  }

  /** @param {string} data */
  send(data) {
    wire("→", data);
    super.send(data);
  }
}

/** As `fetch`, with the token, and what the server refuses is an error that says why. @param {string} path @param {RequestInit} [options] */
async function ask(path, options = {}) {
  const token = field("token").value.trim();
  const { method = "GET", body } = options;
  wire("→", `${method} ${path} ${body ?? ""}`);
  const answer = await fetch(path, { ...options, cache: "no-store", headers: { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) } });
  const text = await answer.clone().text();
  wire("←", `${answer.status} ${text}`);
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail ?? problem.error?.message ?? `the server answered ${answer.status}`);
}

/** Who the token says we are. */
function user() {
  try {
    return JSON.parse(atob(field("token").value.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))).sub;
  } catch {
    return "";
  }
}

/** What came from the other side, or of it. @param {string} text @param {boolean} [isChat] */
function hear(text, isChat = false) {
  const line = element("p", text);
  line.classList.toggle("note", !isChat);
  show(line);
}

/** @param {HTMLElement} line of the chat */
function show(line) {
  const list = $("#messages");
  list.append(line);
  list.scrollTop = list.scrollHeight;
}

/** Chat of the seeds whose socket has none. @param {RTCDataChannel} next */
function useChannel(next) {
  channel = next;
  next.onmessage = ({ data }) => {
    try {
      hear(JSON.parse(data).message, true);
    } catch {
      hear(String(data), true);
    }
  };
}

/** @param {string} question @returns {Promise<boolean>} */
function wantsTo(question) {
  const dialog = /** @type {HTMLDialogElement} */ ($("#ringing"));
  $("#ringing-title").textContent = capital(question);
  dialog.showModal();
  return new Promise((resolve) => {
    const answer = (/** @type {boolean} */ yes) => () => (dialog.close(), resolve(yes));
    $("#ring-accept").onclick = answer(true);
    $("#ring-decline").onclick = dialog.oncancel = answer(false);
  });
}

/** @param {unknown} [error] */
function explain(error) {
  const problem = $("#problem");
  problem.hidden = error === undefined;
  problem.textContent = error instanceof Error ? `${capital(error.message)}.` : String(error ?? "");
}

async function connect() {
  const token = field("token").value.trim();
  if (seed.needsToken && !token) throw new Error("this dialect needs the token of a user");
  const { iceServers } = await (await ask("/v1/ice")).json();
  const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: field("relay").checked ? "relay" : "all" });
  peerConnection = pc;
  closings.push(() => pc.close());
  pc.addEventListener("track", ({ streams }) => (video("#remote").srcObject = streams[0]));
  pc.addEventListener("datachannel", ({ channel }) => useChannel(channel));
  pc.addEventListener("connectionstatechange", showState);
  if (!seed.addsTracks) for (const track of stream.getTracks()) pc.addTrack(track, stream);
  const server = location.origin;
  running = await seed.start({
    server, socketServer: server.replace(/^http/, "ws"), token, user: user(), iceServers, peerConnection: pc,
    ...Object.fromEntries(["room", "role", "other", "session"].map((name) => [name, field(name).value.trim()])),
    localVideo: video("#local"), remoteVideo: video("#remote"), navigator: { userAgent: navigator.userAgent, mediaDevices: { getUserMedia: async () => stream } },
    WebSocket: TracedSocket, io: clientOf(TracedSocket, token), fetch: ask,
    useRef: (/** @type {unknown} */ current) => ({ current }), useEffect: (/** @type {() => () => void} */ effect) => closings.push(effect()),
    useChannel, hear, ask: wantsTo, made: (/** @type {string} */ id) => (field("session").value = id), closing: (/** @type {() => void} */ end) => closings.push(end),
  });
}

/** Does what somebody has asked for, and says why it cannot. @param {() => Promise<unknown>} what */
async function attempt(what) {
  explain();
  try {
    await what();
  } catch (error) {
    explain(error);
    return false;
  } finally {
    showButtons();
  }
  return true;
}

function close() {
  for (const end of closings.splice(0).reverse()) end();
  running = peerConnection = channel = undefined;
  video("#remote").srcObject = null;
  $("#path").textContent = "";
  showState();
}

function showButtons() {
  /** @type {Record<string, boolean>} */
  const possible = { "#connect": !running, "#dial": Boolean(running), "#close": Boolean(running) };
  for (const [id, is] of Object.entries(possible)) /** @type {HTMLButtonElement} */ ($(id)).disabled = !is;
  for (const input of /** @type {HTMLInputElement[]} */ (all("#dialect-form input, #dialect-form select"))) input.disabled = Boolean(running);
}

function showState() {
  const state = peerConnection?.connectionState ?? "";
  const status = $("#status");
  status.textContent = state === "connected" ? "In a call" : running || state === "connecting" ? "Connected to the server" : "Not connected";
  status.dataset.state = state === "connected" ? "good" : state === "failed" ? "bad" : "";
  showButtons();
}

async function showPath() {
  const path = peerConnection?.connectionState === "connected" && selectedPair(await peerConnection.getStats())?.path;
  $("#path").textContent = path ? path.label : "";
}

/** @param {string} name of a seed */
async function choose(name) {
  close();
  for (const tab of all("[role=tab]")) {
    tab.setAttribute("aria-selected", String(tab.dataset.seed === name));
    tab.tabIndex = tab.dataset.seed === name ? 0 : -1;
  }
  params.set("seed", name);
  const source = new URL(`./page/seeds/${name}.js`, import.meta.url);
  seed = await import(source.href);
  $("#about").textContent = seed.about;
  for (const label of all("[data-field]")) label.hidden = label.dataset.field !== "token" && !seed.fields.includes(String(label.dataset.field));
  $("#token-text").textContent = seed.needsToken ? "Of a user, as from: turnkey token --user ann --room '*'" : "";
  $("#code").textContent = await (await fetch(source)).text();
  $("#messages").replaceChildren();
  $("#log").replaceChildren();
  explain();
  document.body.dataset.seed = name;
}

/** Left and right go from tab to tab. @param {KeyboardEvent} event */
function onKey(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const tabs = all("[role=tab]");
  const next = tabs[(tabs.indexOf(/** @type {HTMLElement} */ (event.target)) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
}

/** @param {SubmitEvent} event */
function say(event) {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ ($("#chat-input"));
  const message = input.value.trim();
  if (!message) return;
  if (running?.chat) running.chat(message);
  else if (channel?.readyState === "open") channel.send(JSON.stringify({ type: "text", message, timestamp: new Date().toISOString() }));
  else return explain(new Error("nobody to write to yet"));
  const line = element("p", message);
  line.classList.add("own");
  show(line);
  input.value = "";
}

/** @param {HTMLElement} button */
function toggle(button) {
  const [kind, on] = [String(button.dataset.toggle), button.getAttribute("aria-pressed") !== "true"];
  button.setAttribute("aria-pressed", String(on));
  for (const track of stream.getTracks()) if (track.kind === kind) track.enabled = on;
  running?.enable?.(kind, on);
}

async function begin() {
  for (const name of ["token", "room", "role", "other", "session"]) if (params.has(name)) field(name).value = String(params.get(name));
  field("relay").checked = params.get("path") === "relay";
  for (const tab of all("[role=tab]")) {
    tab.addEventListener("click", () => choose(String(tab.dataset.seed)));
    tab.addEventListener("keydown", onKey);
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    /** @type {HTMLButtonElement} */ ($("#connect")).disabled = true;
    if (!(await attempt(connect))) close();
    showState();
  });
  $("#dial").addEventListener("click", () => attempt(() => Promise.resolve(running?.call())));
  $("#close").addEventListener("click", close);
  /** @type {HTMLFormElement} */ ($("#chat-form")).addEventListener("submit", say);
  for (const button of all("[data-toggle]")) button.addEventListener("click", () => toggle(button));
  addEventListener("pagehide", close);
  setInterval(showPath, LOOK);
  stream = await openMedia().catch((error) => (explain(error instanceof TurnkeyError ? error : new Error(String(error))), new MediaStream()));
  video("#local").srcObject = stream;
  const wanted = params.get("seed") ?? "";
  await choose(/^00[0-4]$/.test(wanted) ? wanted : "000");
}

begin();
