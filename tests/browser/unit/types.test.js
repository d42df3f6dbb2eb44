/** The published types are those of the source, and both modules pass the strict checker. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));

test("turnkey.js and page.js pass tsc --checkJs --strict, and turnkey.d.ts is up to date", () => {
  try {
    execFileSync("node_modules/.bin/tsc", ["-p", "."], { cwd: here, encoding: "utf8" });
  } catch (error) {
    assert.fail(error.stdout);
  }
  const [built, published] = ["node_modules/.types/turnkey.d.ts", "../../web/turnkey.d.ts"].map((path) => readFileSync(here + path, "utf8"));
  assert.equal(published, built, "run tests/browser/types");
});

test("the page needs no inline script or style, and loads nothing from elsewhere", () => {
  const page = readFileSync(`${here}../../web/index.html`, "utf8");
  assert.doesNotMatch(page, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/i);
  assert.doesNotMatch(page, /(src|href)="(https?:)?\/\//i);
});
