// @ts-check
/** Calling by name: who has a token of a user can be rung, and rings others. What is agreed on is entered as a room. */
import { openLine } from "../turnkey.js";
import { $, capital } from "./dom.js";

/**
 * @typedef {import("../turnkey.js").Ring} Ring
 * @typedef {{enter: (room: string) => void, leave: (why: string) => void, log: (text: string) => void}} Page
 */

/** @type {Partial<Record<Ring["status"], string>>} */
const OVER = {
  rejected: "declined", missed: "did not answer", cancelled: "hung up before anybody answered", ended: "ended the call", failed: "lost the connection",
};

/** @type {import("../turnkey.js").Line} */
let line;
/** Whom this page is about to ring: other pages of the same user hear of it as well. */
let wanted = "";
/** The call that rings here or is talked in here. @type {(Ring & {incoming: boolean}) | undefined} */
let current;
/** Whether it is this page that called or answered. */
let isOurs = false;

/** @param {string} token @param {Page} page */
export function offerRinging(token, page) {
  line = openLine({ token });
  line.on("open", ({ user }) => {
    $("#ring-form").hidden = false;
    $("#ring-user").textContent = user;
    /** @type {HTMLInputElement} */ ($("#name")).value ||= user;
  });
  line.on("call", ({ ring, incoming }) => onCall({ ...ring, incoming }, page));
  line.on("error", ({ error }) => page.log(`Problem: no calls by name: ${error.message}`));
  $("#ring-form").addEventListener("submit", ring);
  $("#ring-accept").addEventListener("click", accept);
  $("#ring-decline").addEventListener("click", stop);
  $("#ringing").addEventListener("cancel", (event) => (event.preventDefault(), stop())); // the Escape key
}

/** Whoever hangs up ends the call for the other one, too. */
export function hangUpRing() {
  const ours = isOurs ? current : undefined;
  current = undefined;
  isOurs = false;
  if (ours) line.end(ours.id).catch(() => {}); // it is over already
}

/** @param {Event} event */
function ring(event) {
  event.preventDefault();
  wanted = /** @type {HTMLInputElement} */ ($("#callee")).value.trim();
  if (wanted) line.call(wanted).catch(say);
}

function accept() {
  isOurs = true;
  if (current) line.accept(current.id).catch(say);
}

/** Declines, or stops calling. */
function stop() {
  if (current) (current.incoming ? line.reject(current.id) : line.end(current.id)).catch(say);
}

/** @param {Ring & {incoming: boolean}} call @param {Page} page */
function onCall(call, page) {
  if (call.status === "pending") return onRing(call);
  if (current?.id !== call.id) return;
  const dialog = /** @type {HTMLDialogElement} */ ($("#ringing"));
  const rang = dialog.open;
  dialog.close();
  if (call.status === "ongoing" && isOurs) return page.enter(call.id);
  const text = call.status === "ongoing" ? "Answered on another page of yours." : `${capital(doerOf(call))} ${OVER[call.status]}.`;
  current = undefined;
  isOurs = false;
  if (rang) say(text);
  else page.leave(text);
}

/** One at a time: another one rings on elsewhere, or is missed. @param {Ring & {incoming: boolean}} call */
function onRing(call) {
  if (current || (!call.incoming && call.callee !== wanted)) return;
  current = call;
  isOurs = !call.incoming;
  wanted = "";
  $("#ring-text").hidden = true;
  $("#ringing-title").textContent = call.incoming ? `${otherOf(call)} is calling` : `Ringing ${otherOf(call)}`;
  $("#ring-accept").hidden = !call.incoming;
  $("#ring-decline").textContent = call.incoming ? "Decline" : "Cancel";
  /** @type {HTMLDialogElement} */ ($("#ringing")).showModal();
}

/** @param {Ring & {incoming: boolean}} call */
function otherOf({ incoming, caller, callee }) {
  return incoming ? caller : callee;
}

/** Who has ended it, as far as it is known. @param {Ring & {incoming: boolean}} call */
function doerOf(call) {
  if (call.status === "cancelled") return call.incoming ? call.caller : "you";
  if (call.status === "rejected" || call.status === "missed") return call.incoming ? "you" : call.callee;
  return otherOf(call);
}

/** @param {unknown} what */
function say(what) {
  const line = $("#ring-text");
  line.hidden = false;
  line.textContent = what instanceof Error ? `${capital(what.message)}.` : String(what);
}
