/** The page's QR codes, read by a decoder that is not ours. */
import assert from "node:assert/strict";
import { test } from "node:test";
import jsqr from "jsqr";
import { draw, encode } from "../../../web/page/qr.js";

const SCALE = 4;
const QUIET = 4;

function read(modules) {
  const size = (modules.length + 2 * QUIET) * SCALE;
  const pixels = new Uint8ClampedArray(size * size * 4).fill(255);
  modules.forEach((row, y) => row.forEach((dark, x) => {
    if (!dark) return;
    for (let dy = 0; dy < SCALE; dy++) {
      const from = (((y + QUIET) * SCALE + dy) * size + (x + QUIET) * SCALE) * 4;
      for (let at = from; at < from + SCALE * 4; at += 4) pixels.fill(0, at, at + 3);
    }
  }));
  return jsqr(pixels, size, size);
}

test("links of every length are read as they were written, in the smallest version that holds them", () => {
  const versions = new Set();
  for (const length of [20, 33, 60, 100, 150, 200, 280, 400, 600, 900]) {
    const link = `https://call.example.org/?token=${"aB3-_.".repeat(200)}`.slice(0, length);
    const found = read(encode(link));
    assert.equal(found?.data, link);
    versions.add(found.version);
  }
  assert.equal(versions.size, 10);
  assert.equal(read(encode("https://example.org/?room=zweiundzwanzig-ü"))?.data, "https://example.org/?room=zweiundzwanzig-ü");
});

test("what no QR code holds is not drawn", () => {
  assert.equal(draw("x".repeat(3000)), null);
  assert.equal(draw("x".repeat(2953))?.size, 177 + 2 * QUIET);
});
