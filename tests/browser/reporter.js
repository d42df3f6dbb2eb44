/** One line per check, the cause below a failed one, and the sum at the end. */
export default async function* report(events) {
  let passed = 0;
  let failed = 0;
  for await (const { type, data } of events) {
    if (data?.skip !== undefined) continue;
    if (type === "test:pass" && data.details?.type !== "suite") {
      passed++;
      yield `ok    ${data.name}  (${Math.round(data.details.duration_ms)} ms)\n`;
    } else if (type === "test:fail" && data.details?.type !== "suite") {
      failed++;
      const { error } = data.details;
      yield `FAIL  ${data.name}\n      ${String(error?.cause?.stack ?? error?.stack ?? error).replaceAll("\n", "\n      ")}\n`;
    } else if (type === "test:diagnostic" && data.file) {
      yield `      ${data.message}\n`;
    }
  }
  yield `${passed} passed, ${failed} failed\n`;
}
