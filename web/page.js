// @ts-check
/**
 * The call page: a lobby, a call, and what is to be said when it is over.
 * Everything about connections is in turnkey.js; in the console the running call is `turnkey.call`.
 */
import { chooseDevice, currentMedia, prepareMedia, toggle, useIn } from "./page/devices.js";
import { $, all, capital, copy, element } from "./page/dom.js";
import { offerFindings } from "./page/findings.js";
import { nameOf, showMembers } from "./page/members.js";
import { draw } from "./page/qr.js";
import { hangUpRing, offerRinging } from "./page/ringing.js";
import { allowTrials, offerTrials } from "./page/trials.js";
import { join, TurnkeyError } from "./turnkey.js";

const MAX_LOG = 500;
const SIGNALING_INTERVAL = 2_000;
/** @type {Record<string, [string, "good" | "busy" | "bad"]>} */
const STATUS = {
  connecting: ["Connecting", "busy"], joined: ["Connected", "good"], reconnecting: ["Reconnecting", "bad"],
};

const params = new URLSearchParams(location.search);
const token = params.get("token") ?? undefined;
let room = params.get("room") ?? roomOf(token);
let route = params.get("path") ?? "auto";
/** @type {import("./turnkey.js").Call | null} */
let call = null;
let credentialEnds = 0;
/** Whether the room is that of a call by name, which ends with the call. */
let isRung = false;

/** @param {"lobby" | "call" | "ended"} view */
function show(view) {
  document.body.dataset.view = view;
  showPanel(false);
}

/** @param {boolean} open */
function showPanel(open) {
  document.body.classList.toggle("panel-open", open);
  $("#panel-toggle").setAttribute("aria-expanded", String(open));
}

/** @param {string} text @param {string} [name] */
function log(text, name) {
  const line = document.createElement("li");
  const body = element("span", name ? `${name}: ${text}` : text);
  body.classList.toggle("bad", /^(Problem|Server:|Signaling lost|Could not)/.test(text));
  line.append(element("time", new Date().toTimeString().slice(0, 8)), body);
  const list = $("#log");
  list.append(line);
  while (list.childElementCount > MAX_LOG) list.firstElementChild?.remove();
  list.scrollTop = list.scrollHeight;
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
    return typeof claims.room === "string" && claims.room !== "*" ? claims.room : "";
  } catch {
    return ""; // the server will say what is wrong with it
  }
}

function inviteLink() {
  const link = new URL(location.href);
  link.search = new URLSearchParams({ room, ...(token && { token }) }).toString();
  return link.href;
}

function showInvite() {
  $("#invite-text").textContent = inviteLink();
  const code = draw(inviteLink());
  const picture = $("#qr");
  picture.toggleAttribute("hidden", !code);
  if (!code) return;
  picture.setAttribute("viewBox", `0 0 ${code.size} ${code.size}`);
  $("path", picture).setAttribute("d", code.path);
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
  for (const select of /** @type {HTMLSelectElement[]} */ (all("select.route"))) select.value = value;
  call?.setIceTransportPolicy(policy());
}

/** What this tab remembers over a reload. @param {Storage} storage @param {string} key @param {string} [value] absent: forget it */
function keep(storage, key, value) {
  try {
    if (value === undefined) storage.removeItem(key);
    else storage.setItem(key, value);
  } catch {
    // a browser that keeps nothing asks again next time
  }
}

/** @param {Event} event */
function start(event) {
  event.preventDefault();
  room ||= newRoom();
  keep(localStorage, "turnkey.name", ownName());
  history.replaceState(null, "", inviteLink());
  begin();
}

function ownName() {
  return /** @type {HTMLInputElement} */ ($("#name")).value.trim();
}

function begin() {
  const name = ownName();
  showInvite();
  document.body.toggleAttribute("data-rung", isRung);
  $("#log").replaceChildren();
  $("#messages").replaceChildren();
  show("call");
  setStatus("connecting");
  keep(sessionStorage, "turnkey.room", room);
  call = join({ room, token, stream: currentMedia(), iceTransportPolicy: policy(), iceServers: allowedServers, ...(name && { name }) });
  Object.assign(globalThis, { turnkey: { call } });
  call.on("log", ({ text, member }) => log(text, member && nameOf(member)));
  call.on("state", ({ state }) => setStatus(state));
  call.on("credentials", ({ expiresIn }) => (credentialEnds = Date.now() + expiresIn * 1000));
  call.on("message", ({ member, message }) => addMessage(message, nameOf(member)));
  call.on("error", ({ error }) => finish("The call could not go on", error.message, error.hint));
  call.on("member-joined", () => allowTrials(true));
  call.on("member-left", () => allowTrials((call?.members.length ?? 0) > 0));
  allowTrials(false);
  showMembers(call, log);
  useIn(call);
}

/** @param {string} id of a call that was agreed on */
function enterRung(id) {
  call?.leave();
  [room, isRung] = [id, true];
  begin();
}

/** @param {string} why */
function leaveRung(why) {
  call?.leave();
  finish("The call has ended", why.replace(/\.$/, ""), "");
}

/** Once more into the same room; there is none where a call by name has been. */
function again() {
  if (!isRung) return begin();
  [room, isRung] = ["", false];
  show("lobby");
}

/** @param {string} title @param {string} text @param {string} hint */
function finish(title, text, hint) {
  call = null;
  useIn(null);
  hangUpRing();
  keep(sessionStorage, "turnkey.room");
  $("#status").hidden = true;
  $("#ended-title").textContent = title;
  $("#ended-text").textContent = text && `${capital(text)}.`;
  $("#ended-hint").textContent = hint;
  $("#again").textContent = isRung ? "Back" : text ? "Try again" : "Join again";
  show("ended");
  $("#again").focus();
}

/** @param {string} state */
function setStatus(state) {
  if (!STATUS[state]) return;
  const status = $("#status");
  [status.textContent, status.dataset.state] = STATUS[state];
  status.hidden = false;
}

/** How the session with the server is, and how long its relay credential is good for. */
async function showSignaling() {
  if (!call || document.hidden) return;
  const { signaling } = await call.collectReport();
  const minutes = Math.max(0, Math.round((credentialEnds - Date.now()) / 60_000));
  const resumed = signaling.resumes ? `, resumed ${signaling.resumes}×` : "";
  $("#signaling").textContent = `Signaling: message ${signaling.lastSeq}, ${signaling.waiting} waiting${resumed}. Relay credential good for ${minutes} min.`;
}

/** @param {string} text @param {string} [name] */
function addMessage(text, name) {
  const line = document.createElement("p");
  if (name) line.append(element("small", name));
  line.classList.toggle("own", !name);
  line.append(text);
  $("#messages").append(line);
  line.scrollIntoView({ block: "end" });
  return line;
}

/** @param {Event} event */
function sendMessage(event) {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ ($("#chat-input"));
  const text = input.value.trim();
  if (!text || !call) return;
  const line = addMessage(text);
  call.sendMessage(text).catch(() => line.append(element("small", "not sent")));
  input.value = "";
}

async function share() {
  if (call?.media.screen) return call.stopScreen();
  try {
    await call?.shareScreen();
  } catch (error) {
    log(`Could not share a screen: ${error instanceof TurnkeyError ? error.message : error}`);
  }
}

async function copyReport() {
  if (call) copy($("#copy-report"), JSON.stringify(await call.collectReport(), null, 2));
}

/** M and V switch microphone and camera, Escape closes the panel; while somebody types they are letters. @param {KeyboardEvent} event */
function onKey(event) {
  if (event.key === "Escape") return showPanel(false);
  if (!call || event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
  if (event.key === "m") toggle("audio");
  if (event.key === "v") toggle("video");
}

function wire() {
  for (const button of all("[data-toggle]")) button.addEventListener("click", () => toggle(button.dataset.toggle === "audio" ? "audio" : "video"));
  for (const select of /** @type {HTMLSelectElement[]} */ (all("select.route"))) select.addEventListener("change", () => choosePath(select.value));
  for (const select of /** @type {HTMLSelectElement[]} */ (all("[data-device]"))) {
    const kind = select.dataset.device === "audio" ? "audio" : "video";
    select.addEventListener("change", () => chooseDevice(kind, select.value).catch((error) => log(`Problem: ${error.message}`)));
  }
  $("#start-form").addEventListener("submit", start);
  $("#chat-form").addEventListener("submit", sendMessage);
  for (const id of ["#copy", "#invite"]) $(id).addEventListener("click", () => copy($(id), inviteLink()));
  $("#copy-log").addEventListener("click", () => copy($("#copy-log"), $("#log").innerText));
  $("#copy-report").addEventListener("click", copyReport);
  $("#share").hidden = !navigator.mediaDevices?.getDisplayMedia;
  $("#share").addEventListener("click", share);
  $("#panel-toggle").addEventListener("click", () => showPanel(!document.body.classList.contains("panel-open")));
  $("#again").addEventListener("click", again);
  $("#hangup").addEventListener("click", () => {
    call?.leave();
    finish("You have left the call", "", `The others have been told.${isRung ? "" : " The link stays valid."}`);
  });
  document.addEventListener("keydown", onKey);
  offerFindings({ url: new URL("/v1/ws", location.href).href.replace(/^http/, "ws"), ...(token && { token }) });
  if (token) /** @type {HTMLAnchorElement} */ ($("#dialects-link a")).search = new URLSearchParams({ token, ...(room && { room }) }).toString();
  offerTrials(() => call, choosePath);
  if (token && !roomOf(token)) offerRinging(token, { enter: enterRung, leave: leaveRung, log });
  setInterval(showSignaling, SIGNALING_INTERVAL);
}

function prepareLobby() {
  choosePath(route);
  try {
    /** @type {HTMLInputElement} */ ($("#name")).value = localStorage.getItem("turnkey.name") ?? "";
  } catch {
    // see keep()
  }
  if (!room) return;
  $("#lobby-title").textContent = "Join the call";
  $("#lobby-text").textContent = `You have been invited to the room “${room}”.`;
  $("#start").textContent = "Join the call";
}

/** Whoever reloads the page in the middle of a call is not asked again. */
function wasInCall() {
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  try {
    return navigation?.type === "reload" && room !== "" && sessionStorage.getItem("turnkey.room") === room;
  } catch {
    return false;
  }
}

wire();
prepareLobby();
const prepared = prepareMedia(log);
if (wasInCall()) prepared.then(begin);
