// The requests of Agent Chat UI, in its order: find threads, open one, stream, come back, answer, branch.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ANSWER, HELLO, TEST, client, collect, newThread, until, url, within } from "./kit.mjs";

const api = client();
const MODES = { streamMode: ["values", "messages-tuple", "custom"], streamSubgraphs: true, streamResumable: true };

const answerOf = (state) => state.values.messages.at(-1).content;

async function streamed(threadId, options) {
  const created = [];
  const all = api.runs.stream(threadId, options.graph ?? "chat", { ...MODES, ...options, onRunCreated: (run) => created.push(run) });
  return { parts: await within(collect(all), "the stream"), run: created[0] };
}

describe("Agent Chat UI", { concurrency: true }, () => {
  test("the server is there, and its threads are found by graph", TEST, async () => {
    assert((await fetch(`${url}/info`, { headers: { "X-Api-Key": "any" } })).ok);
    const threadId = await newThread(api);
    await api.runs.wait(threadId, "chat", { input: HELLO });
    for (const key of ["graph_id", "assistant_id"]) {
      const { metadata } = await api.threads.get(threadId);
      const found = await api.threads.search({ metadata: { [key]: metadata[key] }, limit: 100 });
      assert(found.some((thread) => thread.thread_id === threadId), key);
    }
  });

  test("a conversation, its history, and a branch of it", TEST, async () => {
    const threadId = await newThread(api);
    assert.deepEqual(await api.threads.getHistory(threadId, { limit: 10 }), []);
    const { parts, run } = await streamed(threadId, { input: HELLO });
    assert.equal(run.thread_id, threadId);
    assert.equal(parts.filter((part) => part.event === "messages").map((part) => part.data[0].content).join(""), ANSWER);
    const history = await api.threads.getHistory(threadId, { limit: 10 });
    assert.equal(answerOf(history[0]), ANSWER);
    for (const [at, state] of history.slice(0, -1).entries()) {
      assert.equal(state.parent_checkpoint.checkpoint_id, history[at + 1].checkpoint.checkpoint_id);
    }
    // The message is edited: the run begins at the checkpoint before it.
    const { checkpoint } = history.find((state) => !state.values.messages?.length);
    const edited = { messages: [{ type: "human", content: "goodbye" }] };
    await streamed(threadId, { input: edited, checkpoint: { ...checkpoint, thread_id: undefined } });
    const after = await api.threads.getHistory(threadId, { limit: 100 });
    assert.match(answerOf(after[0]), /^You said: goodbye\. That was message 1 /);
    assert(after.some((state) => state.values.messages?.length === 2 && answerOf(state) === ANSWER), "the first branch stays");
    const children = after.filter((state) => state.parent_checkpoint?.checkpoint_id === checkpoint.checkpoint_id);
    assert.equal(children.length, 2);
  });

  test("a reload in the middle: the stored run is joined from its beginning", TEST, async () => {
    const threadId = await newThread(api);
    const aborted = new AbortController();
    let run;
    const onRunCreated = (created) => {
      run = created;
    };
    const options = { ...MODES, input: { steps: 20, delay_s: 0.05 }, onDisconnect: "continue", signal: aborted.signal, onRunCreated };
    for await (const part of api.runs.stream(threadId, "counter", options)) if (part.event === "custom") break;
    aborted.abort();
    const joined = api.runs.joinStream(threadId, run.run_id, { lastEventId: "-1", streamMode: MODES.streamMode });
    const parts = await within(collect(joined), "the rest");
    assert.deepEqual(parts.filter((part) => part.event === "custom").map((part) => part.data.count).slice(0, 3), [1, 2, 3]);
    assert.equal(parts.findLast((part) => part.event === "values").data.count, 20);
  });

  test("an interrupt is seen in the history, and resumed with a command", TEST, async () => {
    const threadId = await newThread(api);
    const { parts } = await streamed(threadId, { graph: "approval", input: { amount: 8 } });
    const [asked] = parts.findLast((part) => part.data.__interrupt__).data.__interrupt__;
    const [head] = await api.threads.getHistory(threadId, { limit: 10 });
    assert.deepEqual(head.next, ["ask"]);
    assert.deepEqual(head.tasks.at(-1).interrupts[0], { id: asked.id, value: asked.value });
    assert.equal((await api.threads.search({ ids: [threadId], status: "interrupted" })).length, 1);
    const resumed = await streamed(threadId, { graph: "approval", command: { resume: "yes" } });
    assert.equal(resumed.parts.findLast((part) => part.event === "values").data.result, "refunded");
  });

  test("a run is cancelled", TEST, async () => {
    const threadId = await newThread(api);
    const run = await api.runs.create(threadId, "counter", { ...MODES, input: { steps: 1000, delay_s: 0.05 } });
    await until(async () => (await api.runs.get(threadId, run.run_id)).status === "running", "a running run");
    await api.runs.cancel(threadId, run.run_id);
    await until(async () => (await api.runs.get(threadId, run.run_id)).status === "interrupted", "its end");
  });
});
