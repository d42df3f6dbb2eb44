// @ts-check
/** The others in the call: a tile with each one's picture, and beside it how the path to them is. */
import { $, capital, fromTemplate } from "./dom.js";

/**
 * @typedef {import("../turnkey.js").Member} Member
 * @typedef {{tile: HTMLElement, path: HTMLElement}} Shown
 */

/** @type {Record<string, string>} */
const LEFT = { left: "hung up", lost: "lost the connection", kicked: "was removed", "hung up": "left behind" };
/** @type {Record<string, string>} */
const CONNECTION = { failed: "No path found, trying again…", disconnected: "Interrupted…" };

/** @type {Map<string, Shown>} */
const shown = new Map();

/** @param {import("../turnkey.js").Call} call @param {(text: string) => void} complain */
export function showMembers(call, complain) {
  call.on("member-joined", ({ member }) => add(member));
  call.on("member-changed", ({ member }) => update(member));
  call.on("member-left", ({ member, reason }) => remove(member, reason));
  call.on("stream", ({ member, stream }) => showStream(member, stream, complain));
  call.on("path", ({ member, path }) => showPath(member, path));
  call.on("stats", ({ member, stats }) => showStats(member, stats));
  call.on("quality", ({ member, quality, reason }) => showQuality(member, quality, reason));
  call.on("connection", ({ member, state }) => showConnection(member, state));
  arrange();
}

/** @param {{name?: string}} member */
export function nameOf({ name }) {
  return name || "Guest";
}

/** @param {Member} member */
function add(member) {
  const tile = fromTemplate("tile-template");
  const path = fromTemplate("path-template");
  tile.dataset.video = "off";
  $(".initial", tile).textContent = nameOf(member)[0].toUpperCase();
  $("video", tile).setAttribute("aria-label", `Picture of ${nameOf(member)}`);
  $(".who", path).textContent = nameOf(member);
  $("#tiles").append(tile);
  $("#paths").append(path);
  shown.set(member.id, { tile, path });
  update(member);
  arrange();
}

/** @param {Member} member */
function update(member) {
  const tile = shown.get(member.id)?.tile;
  if (!tile) return;
  const muted = member.media.audio === false ? " · muted" : "";
  $(".who", tile).textContent = `${nameOf(member)}${member.away ? " · away" : muted}`;
  tile.toggleAttribute("data-away", member.away);
  tile.toggleAttribute("data-screen", member.media.screen === true);
  const video = /** @type {HTMLVideoElement} */ ($("video", tile));
  const has = video.srcObject instanceof MediaStream && video.srcObject.getVideoTracks().length > 0;
  tile.dataset.video = has && (member.media.video !== false || member.media.screen) ? "on" : "off";
}

/** @param {Member} member @param {string} reason */
function remove(member, reason) {
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

/** @param {Member} member @param {MediaStream} stream @param {(text: string) => void} complain */
function showStream(member, stream, complain) {
  const entry = shown.get(member.id);
  if (!entry) return;
  const video = /** @type {HTMLVideoElement} */ ($("video", entry.tile));
  if (video.srcObject !== stream) video.srcObject = stream;
  video.play().catch(({ name }) => name === "NotAllowedError" && complain("Problem: the browser waits for a click before it plays sound"));
  update(member);
}

/** @param {Member} member @param {import("../turnkey.js").Path} path */
function showPath(member, path) {
  const entry = shown.get(member.id);
  if (!entry) return;
  entry.path.dataset.kind = path.kind;
  $(".label", entry.path).textContent = capital(path.label);
  $(".types", entry.path).textContent = `${path.local} → ${path.remote}`;
  const how = $(".how", entry.tile);
  how.textContent = path.label;
  how.dataset.kind = path.kind;
}

/** @param {Member} member @param {import("../turnkey.js").PeerStats} stats */
function showStats(member, { rtt, bitrateIn, bitrateOut, loss, jitter }) {
  const entry = shown.get(member.id);
  if (!entry) return;
  /** @param {string} name @param {number | undefined} value @param {(value: number) => string} format */
  const put = (name, value, format) => ($(name, entry.path).textContent = value === undefined ? "–" : format(value));
  /** @param {number} ms */
  const time = (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  /** @param {number} bits */
  const rate = (bits) => `${(bits / 1e6).toFixed(1)} Mb/s`;
  put(".rtt", rtt, time);
  put(".jitter", jitter, time);
  put(".in", bitrateIn, rate);
  put(".out", bitrateOut, rate);
  put(".loss", loss, (part) => `${(part * 100).toFixed(part < 0.01 ? 1 : 0)} %`);
}

/** @param {Member} member @param {import("../turnkey.js").Quality} quality @param {string} reason */
function showQuality(member, quality, reason) {
  const line = shown.get(member.id)?.path.querySelector(".quality");
  if (line) line.textContent = `${capital(quality)}: ${reason}`;
}

/** @param {Member} member @param {string} state */
function showConnection(member, state) {
  const entry = shown.get(member.id);
  if (!entry || state === "connected") return;
  delete entry.path.dataset.kind;
  $(".label", entry.path).textContent = CONNECTION[state] ?? "Connecting…";
  $(".how", entry.tile).textContent = state;
}
