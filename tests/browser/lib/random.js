/** Random numbers in [0, 1) that a seed repeats (mulberry32). */
export function random(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** The seed of a run: the same every time, so that a failure is nobody's luck; `LOSS_SEED` is another one, or `random`. */
export function seed() {
  const wish = process.env.LOSS_SEED ?? "1";
  return wish === "random" ? Math.floor(Math.random() * 2 ** 31) : Number(wish);
}
