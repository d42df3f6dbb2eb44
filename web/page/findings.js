// @ts-check
/** Shows in the lobby what of a connection works, and hands it over as a report. */
import { examine } from "./doctor.js";
import { $, copy, element } from "./dom.js";

/** @param {{url: string, token?: string}} server */
export function offerFindings(server) {
  /** @type {object | undefined} */
  let report;
  $("#examine").addEventListener("click", async () => (report = await showFindings(server)));
  $("#copy-findings").addEventListener("click", () => copy($("#copy-findings"), JSON.stringify(report, null, 2)));
}

/** @param {{url: string, token?: string}} server */
async function showFindings(server) {
  const [button, box] = [/** @type {HTMLButtonElement} */ ($("#examine")), $("#findings")];
  const [list, text] = [$("ul", box), $("p", box)];
  /** @type {import("./doctor.js").Finding[]} */
  const findings = [];
  button.disabled = true;
  box.hidden = false;
  $("#copy-findings").hidden = true;
  list.replaceChildren();
  text.textContent = "Checking…";
  const verdict = await examine({
    ...server,
    onFinding(finding) {
      findings.push(finding);
      const line = element("li", finding.what);
      line.classList.toggle("bad", !finding.ok);
      line.append(element("span", finding.text));
      list.append(line);
    },
  });
  text.textContent = verdict;
  button.disabled = false;
  $("#copy-findings").hidden = false;
  box.scrollIntoView({ behavior: "smooth", block: "nearest" });
  return { created: new Date().toISOString(), page: location.origin, userAgent: navigator.userAgent, findings, verdict };
}
