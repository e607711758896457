// A gate at which a run of the test graphs waits until the test opens it.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class Gate {
  #folder = mkdtempSync(join(tmpdir(), "gate-"));
  path = join(this.#folder, "open");

  constructor(t) {
    t.after(() => rmSync(this.#folder, { recursive: true }));
  }

  open() {
    writeFileSync(this.path, "");
  }

  /** What a human says to the graph `halting`. */
  get input() {
    return { messages: [{ type: "human", content: this.path }] };
  }
}
