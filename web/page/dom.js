// @ts-check
/** What the page asks of its document. */

/** @template {Element} [T=HTMLElement] @param {string} selector @param {ParentNode} [root] @returns {T} */
export function $(selector, root = document) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return /** @type {T} */ (/** @type {unknown} */ (found));
}

/** @template {Element} [T=HTMLElement] @param {string} selector @returns {T[]} */
export function all(selector) {
  return /** @type {T[]} */ (/** @type {unknown} */ ([...document.querySelectorAll(selector)]));
}

/** @param {string} id @returns {HTMLElement} */
export function fromTemplate(id) {
  const copy = /** @type {HTMLTemplateElement} */ ($(`#${id}`)).content.firstElementChild?.cloneNode(true);
  return /** @type {HTMLElement} */ (copy);
}

/** @template {keyof HTMLElementTagNameMap} K @param {K} name @param {string} text @returns {HTMLElementTagNameMap[K]} */
export function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** @param {HTMLElement} button @param {string} text */
export async function copy(button, text) {
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

/** @param {string} text */
export function capital(text) {
  return text && text[0].toUpperCase() + text.slice(1);
}
