// A page without a browser: happy-dom is its document, React renders into it, Node's own fetch is its network.
import { createElement as h } from "react";
import { Window } from "happy-dom";
import { until } from "../wait.mjs";
import { View } from "./view.mjs";

export { HELLO } from "./view.mjs";
export { until };

export const url = process.env.SLIPSTREAM_URL;
export const ANSWER = "You said: hello. That was message 1 of our conversation, and the log keeps every word.";
export const SECOND = /message 2 of our conversation, and the log keeps every word\.$/;
export const HALTING_ANSWER = "All is well down here.";
export const TEST = { timeout: 60_000 };

const window = new Window({ url: "http://page.test/" });
for (const [name, value] of Object.entries({ window, document: window.document, navigator: window.navigator })) {
  Object.defineProperty(globalThis, name, { value, configurable: true });
}
// React looks for the document when it is loaded.
const { createRoot } = await import("react-dom/client");
const { flushSync } = await import("react-dom");

/**
 * A page that shows what a hook returns: its messages, whether it is busy, what it asks, where it failed. `renders` is
 * all that it has shown, in order; `stream` is what the hook returned last.
 */
export class Page {
  renders = [];

  constructor(t, useHook) {
    const element = document.createElement("main");
    document.body.append(element);
    this.element = element;
    this.root = createRoot(element);
    flushSync(() => this.root.render(h(View, { useHook, page: this })));
    t.after(() => this.close());
  }

  close() {
    this.root.unmount();
    this.element.remove();
  }

  texts(kind) {
    return [...this.element.querySelectorAll(`p.${kind}`)].map((paragraph) => paragraph.textContent);
  }

  get isBusy() {
    return this.element.querySelector("output")?.textContent === "busy";
  }

  get question() {
    return this.element.querySelector("q")?.textContent;
  }

  /** Press a button, as a user does; what its handler promises is kept in `pressed`. */
  press(name) {
    this.element.querySelector(`button[name=${name}]`).click();
    return this.pressed;
  }

  /**
   * Wait until it shows these answers and is at rest. Two streams feed the hook of v2, so that it may be at rest a moment
   * before it has the last word.
   */
  async shows(...answers) {
    const wanted = (text, at) => (answers[at] instanceof RegExp ? answers[at].test(text) : answers[at] === text);
    const isThere = () => this.texts("ai").length === answers.length && this.texts("ai").every(wanted) && !this.isBusy;
    await until(isThere, answers.join(", then "));
  }
}
