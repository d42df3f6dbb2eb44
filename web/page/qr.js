// @ts-check
/**
 * A link as a QR code (ISO/IEC 18004): bytes, error correction level L, the smallest version that holds it.
 * Draws one SVG path; reads nothing and knows nothing of calls.
 */

// By version, for level L.
const ECC_PER_BLOCK = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30];
const BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25];
const QUIET = 4;
/** @type {((x: number, y: number) => boolean)[]} */
const MASKS = [
  (x, y) => (x + y) % 2 === 0, (x, y) => y % 2 === 0, (x) => x % 3 === 0, (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0, (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0, (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

/** @param {string} text @returns {{size: number, path: string} | null} null when it is too long for any QR code */
export function draw(text) {
  const modules = encode(text);
  if (!modules) return null;
  const path = modules.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : ""))).join("");
  return { size: modules.length + 2 * QUIET, path };
}

/** @param {string} text @returns {boolean[][] | null} rows of modules, true is dark */
export function encode(text) {
  const bytes = [...new TextEncoder().encode(text)];
  const version = BLOCKS.findIndex((_, index) => bytes.length <= dataLength(index + 1) - (index < 9 ? 2 : 3)) + 1;
  if (version === 0) return null;
  const size = version * 4 + 17;
  /** @type {(boolean | undefined)[][]} */
  const fixed = Array.from({ length: size }, () => Array(size).fill(undefined));
  drawFixed(fixed, version);
  const bits = interleave(pad(bytes, version), version).flatMap((byte) => toBits(byte, 8));
  const candidates = MASKS.map((_, mask) => fill(fixed, bits, mask));
  return candidates.reduce((best, one) => (sameness(one) < sameness(best) ? one : best));
}

/** @param {number} value @param {number} length @returns {boolean[]} most significant first */
function toBits(value, length) {
  return Array.from({ length }, (_, index) => ((value >>> (length - 1 - index)) & 1) === 1);
}

/** Codewords of a version, data and error correction. @param {number} version */
function totalLength(version) {
  let modules = (16 * version + 128) * version + 64;
  if (version >= 2) {
    const count = Math.floor(version / 7) + 2;
    modules -= (25 * count - 10) * count - 55;
    if (version >= 7) modules -= 36;
  }
  return modules >>> 3;
}

/** @param {number} version */
function dataLength(version) {
  return totalLength(version) - ECC_PER_BLOCK[version - 1] * BLOCKS[version - 1];
}

/** Mode, length, bytes, terminator, and padding. @param {number[]} bytes @param {number} version */
function pad(bytes, version) {
  const bits = [...toBits(4, 4), ...toBits(bytes.length, version < 10 ? 8 : 16), ...bytes.flatMap((byte) => toBits(byte, 8)), ...toBits(0, 4)];
  const words = [];
  for (let at = 0; at < bits.length; at += 8) words.push(bits.slice(at, at + 8).reduce((sum, bit, index) => sum | (Number(bit) << (7 - index)), 0));
  for (let filler = 0xec; words.length < dataLength(version); filler ^= 0xec ^ 0x11) words.push(filler);
  return words.slice(0, dataLength(version));
}

/** Splits into blocks, corrects each, and mixes them. @param {number[]} data @param {number} version */
function interleave(data, version) {
  const [count, ecc] = [BLOCKS[version - 1], ECC_PER_BLOCK[version - 1]];
  const short = Math.floor(data.length / count);
  const longer = data.length % count;
  const generator = polynomial(ecc);
  const blocks = Array.from({ length: count }, (_, index) => {
    const from = index * short + Math.max(0, index - (count - longer));
    return data.slice(from, from + short + (index >= count - longer ? 1 : 0));
  });
  const corrections = blocks.map((block) => remainder(block, generator));
  /** @param {number[][]} lists @param {number} length */
  const mix = (lists, length) => Array.from({ length }, (_, at) => lists.filter((list) => at < list.length).map((list) => list[at])).flat();
  return [...mix(blocks, short + 1), ...mix(corrections, ecc)];
}

/** In the field of 256 elements, modulo x^8 + x^4 + x^3 + x^2 + 1. @param {number} a @param {number} b */
function multiply(a, b) {
  let product = 0;
  for (let bit = 7; bit >= 0; bit--) product = (product << 1) ^ ((product >>> 7) * 0x11d) ^ (((b >>> bit) & 1) * a);
  return product;
}

/** The generator of Reed-Solomon without its leading one. @param {number} degree */
function polynomial(degree) {
  const result = [...Array(degree - 1).fill(0), 1];
  for (let step = 0, root = 1; step < degree; step++, root = multiply(root, 2)) {
    for (let at = 0; at < degree; at++) result[at] = multiply(result[at], root) ^ (result[at + 1] ?? 0);
  }
  return result;
}

/** @param {number[]} data @param {number[]} generator */
function remainder(data, generator) {
  let result = generator.map(() => 0);
  for (const byte of data) {
    const factor = byte ^ result[0];
    result = [...result.slice(1), 0].map((value, at) => value ^ multiply(generator[at], factor));
  }
  return result;
}

/** Finders, timing, alignment, version, and room for the format. @param {(boolean | undefined)[][]} grid @param {number} version */
function drawFixed(grid, version) {
  const size = grid.length;
  const last = size - 1;
  /** @param {number} x @param {number} y @param {boolean} dark */
  const put = (x, y, dark) => {
    if (x >= 0 && y >= 0 && x < size && y < size) grid[y][x] = dark;
  };
  for (let at = 0; at < size; at++) for (const [x, y] of [[6, at], [at, 6]]) put(x, y, at % 2 === 0);
  const positions = alignments(version, size);
  for (const x of positions) {
    for (const y of positions) {
      const isCorner = (x === 6 && y === 6) || (x === 6 && y === last - 6) || (x === last - 6 && y === 6);
      if (!isCorner) square(2, (dx, dy, ring) => put(x + dx, y + dy, ring !== 1));
    }
  }
  for (const [x, y] of [[3, 3], [last - 3, 3], [3, last - 3]]) square(4, (dx, dy, ring) => put(x + dx, y + dy, ring !== 2 && ring !== 4));
  drawFormat(grid, 0);
  if (version < 7) return;
  let rest = version;
  for (let step = 0; step < 12; step++) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
  toBits((version << 12) | rest, 18).reverse().forEach((dark, index) => {
    const [near, far] = [Math.floor(index / 3), size - 11 + (index % 3)];
    put(near, far, dark);
    put(far, near, dark);
  });
}

/** @param {number} radius @param {(dx: number, dy: number, ring: number) => void} visit */
function square(radius, visit) {
  for (let dy = -radius; dy <= radius; dy++) for (let dx = -radius; dx <= radius; dx++) visit(dx, dy, Math.max(Math.abs(dx), Math.abs(dy)));
}

/** @param {number} version @param {number} size @returns {number[]} */
function alignments(version, size) {
  if (version === 1) return [];
  const count = Math.floor(version / 7) + 2;
  const step = version === 32 ? 26 : Math.ceil((version * 4 + 4) / (count * 2 - 2)) * 2;
  return [6, ...Array.from({ length: count - 1 }, (_, index) => size - 7 - (count - 2 - index) * step)];
}

/** Level and mask, twice. @param {(boolean | undefined)[][]} grid @param {number} mask */
function drawFormat(grid, mask) {
  const size = grid.length;
  const data = (1 << 3) | mask; // 1: level L
  let rest = data;
  for (let step = 0; step < 10; step++) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
  const bits = toBits(((data << 10) | rest) ^ 0x5412, 15).reverse();
  bits.forEach((dark, index) => {
    const along = index < 6 ? index : index < 8 ? index + 1 : 14 - index; // past the timing pattern, and back
    if (index < 8) grid[along][8] = dark;
    else grid[8][index === 8 ? 7 : along] = dark;
    if (index < 8) grid[8][size - 1 - index] = dark;
    else grid[size - 15 + index][8] = dark;
  });
  grid[size - 8][8] = true;
}

/** The data in its zigzag, masked. @param {(boolean | undefined)[][]} fixed @param {boolean[]} bits @param {number} mask @returns {boolean[][]} */
function fill(fixed, bits, mask) {
  const size = fixed.length;
  const grid = fixed.map((row) => [...row]);
  let next = 0;
  for (let right = size - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5;
    const isUpward = ((right + 1) & 2) === 0;
    for (let step = 0; step < size; step++) {
      const y = isUpward ? size - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (fixed[y][x] === undefined) grid[y][x] = (bits[next++] ?? false) !== MASKS[mask](x, y);
      }
    }
  }
  drawFormat(grid, mask);
  return grid.map((row) => row.map(Boolean));
}

/** How many neighbours look the same: the fewer, the easier a camera tells them apart. @param {boolean[][]} grid */
function sameness(grid) {
  let sum = 0;
  grid.forEach((row, y) => row.forEach((dark, x) => (sum += Number(dark === row[x + 1]) + Number(dark === grid[y + 1]?.[x]))));
  return sum;
}
