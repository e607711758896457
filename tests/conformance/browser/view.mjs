// What a page shows of a hook, whichever of the two and wherever it is rendered.
import { createElement as h, useRef } from "react";

export const HELLO = { messages: [{ type: "human", content: "hello" }] };

const textOf = (message) =>
  message.text ?? (Array.isArray(message.content) ? message.content.map((block) => block.text ?? "").join("") : message.content);

/** Renders what `useHook` returns and keeps each rendering in `page.renders`, the last return in `page.stream`. */
export function View({ useHook, page }) {
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
