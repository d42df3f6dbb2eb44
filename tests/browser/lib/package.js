/** The browser client as npm packs it, installed in a directory of its own. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const source = fileURLToPath(new URL("../../../web", import.meta.url));

/** Packs and installs it; beside it stands React, as it would in an application that uses the hook. */
export function install() {
  const directory = mkdtempSync(join(tmpdir(), "turnkey-package-"));
  // What bundles the client is installed here.
  const env = { ...process.env, PATH: `${here}node_modules/.bin:${process.env.PATH}` };
  const npm = (cwd, ...args) => execFileSync("npm", args, { cwd, env, encoding: "utf8" });
  const [packed] = JSON.parse(npm(source, "pack", "--json", "--foreground-scripts=false", "--pack-destination", directory));
  writeFileSync(join(directory, "package.json"), '{ "private": true, "type": "module" }');
  npm(directory, "install", "--offline", "--no-audit", "--no-fund", `./${packed.filename}`);
  mkdirSync(join(directory, "node_modules/@types"), { recursive: true });
  for (const name of ["react", "@types/react", "csstype"]) symlinkSync(`${here}node_modules/${name}`, join(directory, "node_modules", name));
  return {
    directory,
    files: packed.files.map(({ path }) => path).sort(),
    size: packed.size,
    root: join(directory, "node_modules/turnkey-client"),
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
}
