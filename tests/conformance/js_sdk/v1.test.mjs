// Protocol v1: runs, their streams and what is left of them.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ANSWER, HELLO, TEST, Relay, client, collect, newThread, until, within } from "./kit.mjs";

const api = client();
const SLOW = { steps: 1000, delay_s: 0.05 };

async function parts(iterable) {
  return within(collect(iterable), "the end of the stream");
}

async function isRunning(threadId, runId) {
  await until(async () => (await api.runs.get(threadId, runId)).status === "running", "a running run");
}

describe("v1", { concurrency: true }, () => {
  test("a stream in every mode that it asks for", TEST, async () => {
    const streamMode = ["values", "messages-tuple", "updates", "custom", "tasks", "checkpoints", "debug"];
    const seen = await parts(api.runs.stream(await newThread(api), "chat", { input: HELLO, streamMode }));
    assert.equal(seen[0].event, "metadata");
    const events = new Set(seen.map((part) => part.event));
    for (const event of ["values", "messages", "updates", "tasks", "checkpoints", "debug"]) assert(events.has(event));
    const words = seen.filter((part) => part.event === "messages").map((part) => part.data[0].content);
    assert(words.length > 5);
    assert.equal(words.join(""), ANSWER);
    assert.equal(seen.findLast((part) => part.event === "values").data.messages.at(-1).content, ANSWER);
  });

  test("the message grows in the messages mode", TEST, async () => {
    const seen = await parts(
      api.runs.stream(await newThread(api), "chat", { input: HELLO, streamMode: "messages" }),
    );
    const grown = seen.filter((part) => part.event === "messages/partial").map((part) => part.data[0].content);
    assert(grown.length > 5);
    grown.slice(1).forEach((later, at) => assert(later.startsWith(grown[at])));
  });

  test("subgraphs and custom events", TEST, async () => {
    const streamMode = ["custom", "values"];
    const options = { input: HELLO, streamMode, streamSubgraphs: true };
    const seen = await parts(api.runs.stream(await newThread(api), "subgraphs", options));
    const custom = seen.find((part) => part.event.startsWith("custom|"));
    assert.match(custom.event, /^custom\|team:[^|]+\|researcher:[^|]+$/);
    assert.deepEqual(custom.data, { name: "progress", sources: 3 });
  });

  test("wait, and the state that is left", TEST, async () => {
    const threadId = await newThread(api);
    const values = await api.runs.wait(threadId, "chat", { input: HELLO });
    assert.equal(values.messages.at(-1).content, ANSWER);
    const state = await api.threads.getState(threadId);
    assert.deepEqual(state.values.messages.map((message) => message.type), ["human", "ai"]);
    assert.deepEqual(state.next, []);
    assert.deepEqual(state.tasks, []);
    assert.equal((await api.threads.get(threadId)).status, "idle");
  });

  test("wait without a thread, and a run's error", TEST, async () => {
    assert.equal((await api.runs.wait(null, "counter", { input: { steps: 2, delay_s: 0 } })).count, 2);
    await assert.rejects(api.runs.wait(await newThread(api), "failing", { input: {} }), /the node failed/);
    const seen = await parts(api.runs.stream(await newThread(api), "failing", { input: {}, streamMode: "values" }));
    assert.deepEqual(seen.at(-1).data, { error: "ValueError", message: "the node failed" });
    assert.equal(seen.at(-1).event, "error");
  });

  test("a join from any event delivers the rest, and only the rest", TEST, async () => {
    const threadId = await newThread(api);
    const streamMode = ["values", "custom"];
    const run = await api.runs.create(threadId, "counter", { input: { steps: 4, delay_s: 0.02 }, streamMode });
    const whole = await parts(api.runs.joinStream(threadId, run.run_id, { lastEventId: "-1", streamMode }));
    assert.equal(whole.at(-1).data.count, 4);
    const ids = whole.map((part) => part.id);
    assert.equal(new Set(ids).size, ids.length);
    for (const at of [0, 2, ids.length - 2]) {
      const rest = await parts(api.runs.joinStream(threadId, run.run_id, { lastEventId: ids[at], streamMode }));
      assert.deepEqual(rest, whole.slice(at + 1));
    }
    const joined = await within(api.runs.join(threadId, run.run_id), "the joined run");
    assert.equal(joined.count, 4);
  });

  test("a stream that breaks goes on behind the last event", TEST, async (t) => {
    const relay = await new Relay({ cutAfter: 4 }).start(t);
    const broken = client(relay.url);
    const options = { input: { steps: 6, delay_s: 0.05 }, streamMode: ["values", "custom"], streamResumable: true };
    const seen = await parts(broken.runs.stream(await newThread(broken), "counter", options));
    assert.equal(relay.cuts, 1);
    assert.equal(relay.opened, 2);
    const counts = seen.filter((part) => part.event === "values").map((part) => part.data.count ?? 0);
    assert.deepEqual(counts, [0, 1, 2, 3, 4, 5, 6]);
    assert.equal(seen.filter((part) => part.event === "custom").length, 6);
  });

  test("cancel ends a running and a waiting run", TEST, async () => {
    const threadId = await newThread(api);
    const running = await api.runs.create(threadId, "counter", { input: SLOW });
    const waiting = await api.runs.create(threadId, "counter", { input: SLOW });
    await isRunning(threadId, running.run_id);
    assert.deepEqual(
      (await api.runs.list(threadId, { status: "pending" })).map((run) => run.run_id),
      [waiting.run_id],
    );
    await api.runs.cancel(threadId, waiting.run_id);
    await within(api.runs.cancel(threadId, running.run_id, true), "the cancel");
    const statuses = (await api.runs.list(threadId)).map((run) => run.status);
    assert.deepEqual(statuses, ["interrupted", "interrupted"]);
  });

  test("a rolled back run leaves nothing", TEST, async () => {
    const threadId = await newThread(api);
    await api.runs.wait(threadId, "counter", { input: { steps: 1, delay_s: 0 } });
    const before = (await api.threads.getState(threadId)).checkpoint;
    const running = await api.runs.create(threadId, "counter", { input: SLOW });
    await isRunning(threadId, running.run_id);
    await within(api.runs.cancel(threadId, running.run_id, true, "rollback"), "the rollback");
    await assert.rejects(api.runs.get(threadId, running.run_id), { status: 404 });
    assert.deepEqual((await api.threads.getState(threadId)).checkpoint, before);
  });

  test("a run that is rejected, one that interrupts", TEST, async () => {
    const threadId = await newThread(api);
    const first = await api.runs.create(threadId, "counter", { input: SLOW });
    await assert.rejects(api.runs.create(threadId, "counter", { input: {}, multitaskStrategy: "reject" }), /409/);
    const options = { input: { steps: 1, delay_s: 0 }, multitaskStrategy: "interrupt" };
    await within(api.runs.wait(threadId, "counter", options), "the run that interrupts");
    assert.equal((await api.runs.get(threadId, first.run_id)).status, "interrupted");
  });

  test("an interrupt and its answer", TEST, async () => {
    const threadId = await newThread(api);
    const asked = await api.runs.wait(threadId, "approval", { input: { amount: 7 } });
    assert.equal(asked.__interrupt__[0].value.question, "Refund 7?");
    const state = await api.threads.getState(threadId);
    assert.deepEqual(state.next, ["ask"]);
    assert.equal(state.tasks[0].interrupts[0].id, asked.__interrupt__[0].id);
    const done = await api.runs.wait(threadId, "approval", { command: { resume: "yes" } });
    assert.equal(done.result, "refunded");
  });

  test("runs without a thread", TEST, async () => {
    const values = await parts(api.runs.stream(null, "counter", { input: { steps: 2, delay_s: 0 }, streamMode: "values" }));
    assert.equal(values.at(-1).data.count, 2);
    const created = [];
    const options = { input: HELLO, streamMode: "messages-tuple", onRunCreated: (run) => created.push(run) };
    const seen = await parts(api.runs.stream(null, "chat", options));
    assert.equal(seen.filter((part) => part.event === "messages").map((part) => part.data[0].content).join(""), ANSWER);
    assert.equal(created[0].run_id, seen[0].data.run_id);
  });

  test("parallel tool calls in messages mode end with whole arguments", TEST, async () => {
    const streamMode = ["messages", "values"];
    const seen = await parts(api.runs.stream(await newThread(api), "agent", { input: HELLO, streamMode }));
    const last = seen.findLast((part) => part.event === "messages/partial" && part.data[0].tool_calls?.length === 2);
    const args = { city: "Lisbon" };
    assert.deepEqual(last.data[0].tool_calls.map((call) => [call.name, call.args]), [
      ["weather", args],
      ["population", args],
    ]);
    const state = seen.findLast((part) => part.event === "values").data;
    assert.deepEqual(state.messages.map((message) => message.type), ["human", "ai", "tool", "tool", "ai"]);
  });

  test("the events mode", TEST, async () => {
    const seen = await parts(api.runs.stream(await newThread(api), "chat", { input: HELLO, streamMode: "events" }));
    const kinds = new Set(seen.filter((part) => part.event === "events").map((part) => part.data.event));
    for (const kind of ["on_chain_start", "on_chat_model_stream", "on_chain_end"]) assert(kinds.has(kind), kind);
  });

  test("errors carry their status", TEST, async () => {
    const threadId = await newThread(api);
    await assert.rejects(api.threads.get(crypto.randomUUID()), { status: 404 });
    await assert.rejects(api.runs.create(crypto.randomUUID(), "counter", { input: {} }), { status: 404 });
    await assert.rejects(api.runs.create(threadId, "no-such-graph", { input: {} }), { status: 422 });
    await assert.rejects(api.runs.create(threadId, "counter", { streamMode: "bogus" }), { status: 422 });
    await assert.rejects(api.runs.get(threadId, crypto.randomUUID()), { status: 404 });
    await assert.rejects(api.runs.cancel(threadId, crypto.randomUUID()), { status: 404 });
    await assert.rejects(api.assistants.get(crypto.randomUUID()), { status: 404 });
    assert.deepEqual(await api.runs.list(threadId), []);
    const made = await api.runs.create(crypto.randomUUID(), "counter", { input: {}, ifNotExists: "create" });
    assert.equal((await api.threads.get(made.thread_id)).thread_id, made.thread_id);
  });

  test("assistants", TEST, async () => {
    const [found] = await api.assistants.search({ graphId: "chat", limit: 10 });
    assert.equal(found.graph_id, "chat");
    assert.deepEqual(await api.assistants.get(found.assistant_id), found);
    const values = await api.runs.wait(await newThread(api), found.assistant_id, { input: HELLO });
    assert.equal(values.messages.at(-1).content, ANSWER);
  });

  test("threads are found, changed and deleted", TEST, async () => {
    const purpose = crypto.randomUUID();
    const made = await api.threads.create({ metadata: { purpose } });
    assert.deepEqual(
      (await api.threads.search({ metadata: { purpose } })).map((thread) => thread.thread_id),
      [made.thread_id],
    );
    await api.threads.update(made.thread_id, { metadata: { stage: 2 } });
    assert.deepEqual((await api.threads.get(made.thread_id)).metadata, { purpose, stage: 2 });
    await api.threads.delete(made.thread_id);
    await assert.rejects(api.threads.get(made.thread_id), /404/);
  });
});
