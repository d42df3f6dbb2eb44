// @ts-check
/** Regular ticks that go on in the background, where browsers slow the timers of a page down but not those of a worker. */

const TICKER = "onmessage = ({ data }) => setInterval(postMessage, data, null)";
/** @type {string | undefined} */
let source;

/**
 * Calls `run` every so many milliseconds; the result ends it. Where no worker may start, the page's own timer ticks.
 * @param {number} interval @param {() => void} run @returns {() => void}
 */
export function every(interval, run) {
  const worker = startWorker();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer = worker ? undefined : setInterval(run, interval);
  if (worker) {
    worker.onmessage = run;
    worker.onerror = () => (timer ??= setInterval(run, interval)); // a page's policy may forbid it, which shows late
    worker.postMessage(interval);
  }
  return () => {
    worker?.terminate();
    if (worker) worker.onerror = null;
    clearInterval(timer);
  };
}

function startWorker() {
  if (!globalThis.Worker || !globalThis.document) return undefined;
  try {
    source ??= URL.createObjectURL(new Blob([TICKER], { type: "text/javascript" }));
    return new Worker(source);
  } catch {
    return undefined;
  }
}
