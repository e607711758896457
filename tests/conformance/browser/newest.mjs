// The controller of the newest SDK: the hook of `@langchain/react` 1.1.0 brings an older one (1.11.0) of its own.
import { useEffect, useState, useSyncExternalStore } from "react";
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";

const observed = (store) => useSyncExternalStore(store.subscribe, store.getSnapshot, store.getSnapshot);

/** What a React binding of the controller returns, as far as the tests look at it. */
export function useNewestStream({ apiUrl, apiKey, ...options }) {
  const [controller] = useState(() => new StreamController({ client: new Client({ apiUrl, apiKey }), ...options }));
  useEffect(() => controller.activate(), [controller]);
  return {
    ...observed(controller.rootStore),
    subgraphs: observed(controller.subgraphStore),
    queued: observed(controller.queueStore),
    submit: (input, submitted) => controller.submit(input, submitted),
    respond: (answer, target) => controller.respond(answer, target),
    stop: () => controller.stop(),
    cancelQueued: (id) => controller.cancelQueued(id),
  };
}
