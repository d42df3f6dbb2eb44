// @ts-check
/** Our own camera and microphone on the page: opened, previewed, chosen, switched on and off. */
import { listDevices, openMedia, TurnkeyError, watchDevices } from "../turnkey.js";
import { $, all, capital } from "./dom.js";

/** @typedef {import("../turnkey.js").MediaKind} MediaKind */

const wanted = { audio: true, video: true };
/** @type {MediaStream | null} */
let media = null;
/** @type {import("../turnkey.js").Call | null} */
let call = null;

/** What is open now, for a call that begins. */
export function currentMedia() {
  return media;
}

/** From now on the switches are those of a call; null: of none. @param {import("../turnkey.js").Call | null} next */
export function useIn(next) {
  call = next;
  for (const kind of /** @type {const} */ (["audio", "video"])) if (!wanted[kind]) call?.setEnabled(kind, false);
  next?.on("media", ({ media: { audio, video, screen } }) => {
    if (audio !== undefined) wanted.audio = audio;
    if (video !== undefined) wanted.video = video;
    $("#share").setAttribute("aria-pressed", String(screen === true));
    showSwitches();
  });
  next?.on("device", () => showMedia());
}

/** @param {(text: string) => void} log */
export async function prepareMedia(log) {
  try {
    media = await openAnyMedia();
  } catch (error) {
    explain(error, log);
  }
  showMedia();
  if (media) call?.setStream(media);
  try {
    watchDevices(showDevices);
    showDevices(await listDevices());
  } catch {
    // no camera may be opened here, which has been explained
  }
}

/** @param {MediaKind} kind */
export function toggle(kind) {
  wanted[kind] = !wanted[kind];
  if (call) call.setEnabled(kind, wanted[kind]);
  else for (const track of media?.getTracks() ?? []) if (track.kind === kind) track.enabled = wanted[kind];
  showSwitches();
}

/** @param {MediaKind} kind @param {string} id */
export async function chooseDevice(kind, id) {
  if (call) await call.useDevice(kind, id);
  else await replaceTrack(kind, id);
  media = call?.stream ?? media;
  showMedia();
}

/** @param {MediaKind} kind @param {string} id */
async function replaceTrack(kind, id) {
  const [track] = (await openMedia({ [kind]: { deviceId: { exact: id } } })).getTracks();
  for (const one of media?.getTracks() ?? []) {
    if (one.kind !== kind) continue;
    one.stop();
    media?.removeTrack(one);
  }
  media ??= new MediaStream();
  media.addTrack(track);
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

/** @param {unknown} error @param {(text: string) => void} log */
function explain(error, log) {
  const { message, hint } = error instanceof TurnkeyError ? error : { message: String(error), hint: "" };
  const notice = $("#notice");
  notice.hidden = false;
  $("strong", notice).textContent = "You can go on without: you will see and hear the others.";
  $("span", notice).textContent = `${capital(message)}. ${hint}`;
  $("#preview-text").textContent = "No camera";
  log(`No camera or microphone: ${message}`);
}

function showMedia() {
  for (const button of all("[data-toggle]")) {
    /** @type {HTMLButtonElement} */ (button).disabled = !media?.getTracks().some((track) => track.kind === button.dataset.toggle);
  }
  for (const video of /** @type {HTMLVideoElement[]} */ (all("#preview, #self video"))) video.srcObject = media;
  for (const track of media?.getTracks() ?? []) track.enabled = wanted[/** @type {MediaKind} */ (track.kind)];
  showSwitches();
}

function showSwitches() {
  for (const button of all("[data-toggle]")) button.setAttribute("aria-pressed", String(wanted[/** @type {MediaKind} */ (button.dataset.toggle)]));
  const on = wanted.video && Boolean(media?.getVideoTracks().length);
  $("#self").dataset.video = on ? "on" : "off";
  $("#preview").hidden = !on;
  if (media) $("#preview-text").textContent = media.getVideoTracks().length ? "Camera is off" : "No camera, microphone only";
  $("#preview-text").hidden = on;
}

/** @param {import("../turnkey.js").Device[]} devices */
function showDevices(devices) {
  for (const select of /** @type {HTMLSelectElement[]} */ (all("[data-device]"))) {
    const kind = /** @type {MediaKind} */ (select.dataset.device);
    const current = media?.getTracks().find((track) => track.kind === kind)?.getSettings().deviceId;
    const found = devices.filter((device) => device.kind === kind);
    select.replaceChildren(...found.map(({ id, label }, index) => new Option(label || `${capital(kind)} ${index + 1}`, id, false, id === current)));
    select.disabled = found.length === 0;
  }
}
