// The page that Chromium shows, bundled for it: `?api=…&hook=v1|sse|websocket&assistant=…&thread=…`. What it has rendered
// is kept in `window.page`; `page.input` is what the button sends.
import { createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { useStream as useStreamV2 } from "@langchain/react";
import { useStream as useStreamV1 } from "@langchain/langgraph-sdk/react";
import { View } from "./view.mjs";

const asked = new URLSearchParams(location.search);
const hook = asked.get("hook");
const options = {
  apiUrl: asked.get("api"),
  apiKey: null,
  assistantId: asked.get("assistant"),
  // As pages do that may be reloaded: the thread stays in the address.
  threadId: asked.get("thread"),
  onThreadId: (threadId) => {
    asked.set("thread", threadId);
    history.replaceState(null, "", `?${asked}`);
  },
};
// The five attempts of the default last twenty seconds; a busy machine may take longer to start an API.
const v2 = { ...options, transport: hook, maxReconnectAttempts: 20 };
const useHook = () => (hook === "v1" ? useStreamV1({ ...options, reconnectOnMount: true }) : useStreamV2(v2));

window.page = { renders: [] };
createRoot(document.querySelector("main")).render(h(View, { useHook, page: window.page }));
