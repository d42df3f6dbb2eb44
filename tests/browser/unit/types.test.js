/** The modules keep what turnkey.d.ts promises, and the page loads nothing that its policy forbids. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import * as client from "../../../web/turnkey.js";

const here = fileURLToPath(new URL("..", import.meta.url));
const read = (path) => readFileSync(`${here}../../web/${path}`, "utf8");

test("all modules pass tsc --checkJs --strict, against the types that are published", () => {
  try {
    execFileSync("node_modules/.bin/tsc", ["-p", "."], { cwd: here, encoding: "utf8" });
  } catch (error) {
    assert.fail(error.stdout);
  }
});

test("turnkey.d.ts declares what turnkey.js exports, and every error code has a hint", () => {
  const types = read("turnkey.d.ts");
  const declared = [...types.matchAll(/^export declare (?:class|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(client).sort());
  const codes = [.../export type ErrorCode =([^;]*);/.exec(types)[1].matchAll(/"(\w+)"/g)].map(([, code]) => code);
  assert.ok(codes.length > 20);
  for (const code of codes) assert.ok(new client.TurnkeyError(code, "").hint.length > 10, code);
});

for (const name of ["index.html", "dialects.html"]) {
  test(`${name} needs no inline script or style, and loads nothing from elsewhere`, () => {
    const page = read(name);
    assert.doesNotMatch(page, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/i);
    assert.doesNotMatch(page, /(src|href)="(https?:)?\/\//i);
  });
}
