// Writes the lock of each folder anew, without an address: `just lock-js`. `.npmrc` leaves the registry's out, this the
// sponsors'.
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";

for (const folder of ["js_sdk", "browser"]) {
  const cwd = new URL(`${folder}/`, import.meta.url);
  const lock = new URL("package-lock.json", cwd);
  rmSync(lock, { force: true });
  // npm would take the versions from what is installed, and leave the hashes out.
  rmSync(new URL("node_modules/", cwd), { force: true, recursive: true });
  execFileSync("npm", ["install", "--package-lock-only"], { cwd, stdio: "inherit" });
  const kept = JSON.parse(readFileSync(lock, "utf8"), (key, value) => (key === "funding" ? undefined : value));
  writeFileSync(lock, `${JSON.stringify(kept, null, 2)}\n`);
}
