// A page without a browser: happy-dom is its document, React renders into it, Node's own fetch is its network.
import { createElement as h, useRef } from "react";
import { Window } from "happy-dom";

export const url = process.env.SLIPSTREAM_URL;
export const HELLO = { messages: [{ type: "human", content: "hello" }] };
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

/** The first truthy value of `condition`. */
export async function until(condition, what, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

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

const textOf = (message) =>
  message.text ?? (Array.isArray(message.content) ? message.content.map((block) => block.text ?? "").join("") : message.content);

function View({ useHook, page }) {
  const stream = useHook();
  const input = useRef(HELLO);
  page.stream = stream;
  page.input = input;
  const button = (name, act) =>
    h("button", {
      name,
      onClick: () => {
        page.pressed = act();
      },
    });
  const ask = stream.interrupt?.value;
  const shown = {
    messages: (stream.messages ?? []).map((message) => [message.type, textOf(message)]),
    isBusy: stream.isLoading,
    question: ask?.question,
    subgraphs: [...(stream.subgraphs?.values() ?? [])].map((each) => [each.nodeName, each.status]),
  };
  page.renders.push(shown);
  return h(
    "div",
    null,
    shown.messages.map(([type, text], at) => h("p", { key: at, className: type }, text)),
    h("output", null, stream.isLoading ? "busy" : "idle"),
    ask && h("q", null, ask.question),
    stream.error && h("em", null, String(stream.error)),
    button("send", () => stream.submit(page.input.current)),
    button("yes", () =>
      stream.respond
        ? stream.respond("yes", { interruptId: stream.interrupt?.id })
        : stream.submit(undefined, { command: { resume: "yes" } }),
    ),
    button("stop", () => stream.stop()),
  );
}
