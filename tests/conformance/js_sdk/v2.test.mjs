// Protocol v2: `client.threads.stream`, over server-sent events or a socket.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Gate } from "../gate.mjs";
import { ANSWER, HELLO, TEST, Relay, client, collect, eventsOf, first, isSocket, message, newThread, open, until, within } from "./kit.mjs";

const api = client();
const ALL = ["lifecycle", "values", "updates", "messages", "tools", "custom", "checkpoints", "tasks", "input"];
const QUICK = { steps: 2, delay_s: 0 };
const LISBON = { city: "Lisbon" };

const names = (event) => event.params.namespace.map((part) => part.split(":")[0]).join("/");

const life = (events) =>
  events
    .filter((event) => event.method === "lifecycle")
    .map((event) => `${names(event)} ${event.params.data.event}`.trim());

/** Every event that the thread has, read by a client that has seen none of them. */
async function history(t, threadId, ends = 1) {
  const thread = open(t, client(), threadId, { assistantId: "any" });
  return within(eventsOf(await thread.subscribe({ channels: ALL }), ends), "the history");
}

async function interruptsOf(thread, count) {
  await until(() => thread.interrupted && thread.interrupts.length === count, `${count} interrupts`);
  return thread.interrupts;
}

describe("v2", { concurrency: true }, () => {
  test("messages, values and the output of a new thread", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "chat" });
    const { messages, values } = thread;
    const { run_id: runId } = await thread.run.start({ input: HELLO });
    assert.equal((await api.runs.get(thread.threadId, runId)).run_id, runId);
    const pieces = [];
    for await (const message of messages) {
      for await (const piece of message.text) pieces.push(piece);
      assert.equal(message.node, "chat");
      assert.equal((await message.output).text, ANSWER);
    }
    assert(pieces.length > 5);
    assert.equal(pieces.join(""), ANSWER);
    const seen = await within(collect(values), "all values");
    assert.equal(seen.at(-1).messages.at(-1).text, ANSWER);
    const output = await within(thread.output, "the output");
    assert.deepEqual(output.messages.map((message) => message.type), ["human", "ai"]);
    assert.equal(thread.interrupted, false);
  });

  test("parallel tool calls: whole arguments and their results", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "agent" });
    const { messages, toolCalls } = thread;
    await thread.run.start({ input: HELLO });
    const made = await within(collect(messages), "the messages");
    const calls = await within(made[0].toolCalls, "the calls of a message");
    assert.deepEqual(calls.map((call) => [call.id, call.name, call.args]), [
      ["call-weather", "weather", LISBON],
      ["call-population", "population", LISBON],
    ]);
    const whole = await made[0].output;
    assert.deepEqual(whole.tool_calls.map((call) => [call.name, call.args]), [
      ["weather", LISBON],
      ["population", LISBON],
    ]);
    // The SDK shows a call when it begins and once more when it has ended.
    const ran = new Map((await within(collect(toolCalls), "the tool calls")).map((call) => [call.name, call]));
    assert.deepEqual(ran.get("weather").input, LISBON);
    assert.equal(await ran.get("weather").output, "22 degrees and sunny in Lisbon");
    assert.equal(await ran.get("population").output, "6 million in Lisbon");
  });

  test("the slices of a call's arguments make up the whole", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "agent" });
    const { messages } = thread;
    await thread.run.start({ input: HELLO });
    const message = await within(first(messages), "a message");
    const slices = new Map();
    const finished = new Map();
    for await (const event of message) {
      const args = event.event === "content-block-delta" ? (event.delta?.args ?? event.content?.args) : undefined;
      if (args !== undefined) slices.set(event.index, [...(slices.get(event.index) ?? []), args]);
      if (event.event === "content-block-finish") finished.set(event.index, event.content);
    }
    assert.equal(slices.size, 2);
    for (const [index, parts] of slices) {
      assert(parts.length > 1);
      assert.deepEqual(JSON.parse(parts.join("")), LISBON);
      assert.deepEqual(finished.get(index).args, LISBON);
    }
  });

  test("subgraphs are discovered level by level", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "deep" });
    const { subgraphs } = thread;
    const gate = new Gate(t);
    await thread.run.start({ input: { count: 4, gate: gate.path } });
    const found = [await within(first(subgraphs), "the first level")];
    while (found.length < 3) found.push(await within(first(found.at(-1).subgraphs), "the next level"));
    assert.deepEqual(found.map((handle) => handle.name), ["outer", "middle", "inner"]);
    const innermost = found.at(-1);
    assert.equal(innermost.namespace.length, 3);
    const { messages, output } = innermost;
    // The SDK has opened its stream for both once it has opened the next one.
    await innermost.subscribe(["messages", "values"]);
    gate.open();
    const message = await within(first(messages), "its message");
    assert.equal(await within(message.text, "its text"), "All is well down here.");
    assert.equal((await within(output, "its output")).count, 5);
  });

  test("a subgraph three levels down begins before it ends", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "deep" });
    await thread.run.start({ input: { count: 4 } });
    const events = await history(t, thread.threadId);
    assert.deepEqual(life(events), [
      "running",
      "outer started",
      "outer/middle started",
      "outer/middle/inner started",
      "outer/middle/inner completed",
      "outer/middle completed",
      "outer completed",
      "completed",
    ]);
    assert.equal(life(events.slice(-1))[0], "completed");
    assert.equal(events.filter((event) => event.method === "values").at(-1).params.data.count, 5);
  });

  test("named custom events are an extension", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "counter" });
    const { progress } = thread.extensions;
    await thread.run.start({ input: { steps: 3, delay_s: 0.01 } });
    const counts = (await within(collect(progress), "the progress")).map((payload) => payload.count);
    assert.deepEqual(counts, [1, 2, 3]);
    const again = await thread.subscribe("custom:progress");
    assert.equal((await within(first(again), "a named event")).count, 1);
  });

  test("an interrupt and its answer", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "approval" });
    const raw = eventsOf(await thread.subscribe({ channels: ALL }), 2);
    const started = await thread.run.start({ input: { amount: 9 } });
    const [asked] = await interruptsOf(thread, 1);
    assert.equal(asked.payload.question, "Refund 9?");
    const unknown = { interrupt_id: "0".repeat(32), namespace: [], response: "yes" };
    await assert.rejects(thread.input.respond(unknown), { code: "no_such_interrupt" });
    await thread.input.respond({ interrupt_id: asked.interruptId, namespace: asked.namespace, response: "yes" });
    const events = await within(raw, "the end of both runs");
    assert.deepEqual(life(events), ["running", "interrupted", "running", "completed"]);
    assert.equal(events.filter((event) => event.method === "values").at(-1).params.data.result, "refunded");
    assert.equal(events.filter((event) => event.method === "input.requested").length, 1);
    const answer = { interrupt_id: asked.interruptId, namespace: asked.namespace, response: "no" };
    await assert.rejects(thread.input.respond(answer), { code: "no_such_interrupt" });
    assert.deepEqual((await api.runs.list(thread.threadId)).map((run) => run.run_id).includes(started.run_id), true);
  });

  test("two interrupts side by side, answered together", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "approvals" });
    await thread.run.start({ input: {} });
    const asked = await interruptsOf(thread, 2);
    const responses = asked.map(({ interruptId, namespace, payload }) => ({
      interrupt_id: interruptId,
      namespace,
      response: `${payload.who} agrees`,
    }));
    await thread.input.respond({ responses });
    await until(async () => (await api.threads.get(thread.threadId)).status === "idle", "the end");
    const { values } = await api.threads.getState(thread.threadId);
    assert.deepEqual(values.answers.toSorted(), ["first: first agrees", "second: second agrees"]);
  });

  test("a run that fails says why", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "failing" });
    await thread.run.start({ input: {} });
    const events = await history(t, thread.threadId);
    assert.deepEqual(life(events), ["running", "failed"]);
    assert.match(events.at(-1).params.data.error, /the node failed/);
  });

  test("a command that is refused has a code", TEST, async (t) => {
    const none = open(t, api, null, { assistantId: "no-such-graph" });
    await assert.rejects(none.run.start({ input: {} }), { code: "no_such_run" });
    const thread = open(t, api, null, { assistantId: "counter" });
    await thread.run.start({ input: { steps: 1000, delay_s: 0.05 } });
    await assert.rejects(thread.run.start({ input: {}, multitaskStrategy: "reject" }), /409/);
    await assert.rejects(thread.run.start({ input: {}, multitaskStrategy: "bogus" }), { code: "invalid_argument" });
    await thread.run.start({ input: QUICK, multitaskStrategy: "interrupt" });
    const ends = life(await history(t, thread.threadId, 2));
    assert.deepEqual(ends, ["running", "interrupted", "running", "completed"]);
  });

  test("the tree, the state, its checkpoints and a fork from one of them", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "counter" });
    const { run_id: runId } = await thread.run.start({ input: { ...QUICK, steps: 3 } });
    await within(thread.output, "the output");
    const { tree } = await thread.agent.getTree({ run_id: runId });
    assert.deepEqual([tree.namespace, tree.status], [[], "completed"]);
    assert.equal((await thread.state.get({ namespace: [], keys: ["count"] })).values.count, 3);
    const { checkpoints } = await thread.state.listCheckpoints({ namespace: [], limit: 2 });
    assert.equal(checkpoints.length, 2);
    const [latest, before] = checkpoints;
    assert(latest.step > before.step);
    const fork = await thread.state.fork({ checkpoint_id: before.id });
    assert.equal(fork.thread_id, thread.threadId);
    await until(async () => (await api.runs.get(thread.threadId, fork.run_id)).status === "success", "the fork");
    await assert.rejects(thread.state.fork({ checkpoint_id: "none" }), { code: "no_such_checkpoint" });
    await assert.rejects(thread.input.inject({ message: "hurry" }), { code: "not_supported" });
  });

  test("several runs on one stream, and the same history for who comes later", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "counter" });
    const subscription = await thread.subscribe({ channels: ALL });
    const runs = [];
    const start = async () => runs.push((await thread.run.start({ input: { ...QUICK, steps: runs.length + 1 } })).run_id);
    await start();
    // SDKs up to 1.12 pause at the end of a run for good when the next one was started before they saw it.
    const events = await within(eventsOf(subscription, 3, start), "three runs");
    const begun = events.filter((event) => event.params.data.event === "running").map((event) => event.event_id);
    assert.deepEqual(begun, runs.map((runId) => `synth:${runId}:lc||running`));
    assert.deepEqual(await history(t, thread.threadId, 3), events);
    const seqs = events.map((event) => event.seq);
    assert.deepEqual(seqs, [...new Set(seqs)].toSorted((a, b) => a - b));
  });

  test("a thread with a history is opened again and goes on", TEST, async (t) => {
    const threadId = await newThread(api);
    await api.runs.wait(threadId, "chat", { input: HELLO });
    const thread = open(t, client(), threadId, { assistantId: "chat" });
    const subscription = await thread.subscribe({ channels: ["lifecycle", "messages", "values"] });
    const before = await within(eventsOf(subscription, 1), "the first run");
    assert.equal(before.findLast((event) => event.method === "values").params.data.messages.length, 2);
    const next = eventsOf(await thread.subscribe({ channels: ["lifecycle", "messages", "values"] }), 2);
    await thread.run.start({ input: HELLO });
    const events = await within(next, "the second run");
    assert.equal(events.findLast((event) => event.method === "values").params.data.messages.length, 4);
    // The SDK changes the messages of its events in place, so the events themselves no longer compare.
    const keys = events.map((event) => [event.seq, event.event_id]);
    assert.deepEqual(keys.slice(0, before.length), before.map((event) => [event.seq, event.event_id]));
  });

  test("a cancelled run ends its streams", TEST, async (t) => {
    const thread = open(t, api, null, { assistantId: "counter" });
    const live = eventsOf(await thread.subscribe({ channels: ["lifecycle"] }));
    const { run_id: runId } = await thread.run.start({ input: { steps: 1000, delay_s: 0.05 } });
    await until(async () => (await api.runs.get(thread.threadId, runId)).status === "running", "a running run");
    await api.runs.cancel(thread.threadId, runId);
    assert.deepEqual(life(await within(live, "the end")), ["running", "interrupted"]);
    await within(thread.output, "the output");
  });

  test("a stream that breaks loses and repeats nothing", TEST, async (t) => {
    const relay = await new Relay({ cutAfter: 9 }).start(t);
    const reconnects = [];
    const options = { assistantId: "counter", onReconnect: (info) => reconnects.push(info.attempt) };
    const thread = open(t, client(relay.url), null, options);
    const live = eventsOf(await thread.subscribe({ channels: ALL }));
    // `run.start` would open wider streams in place of the one that is to break.
    await thread.submitRun({ input: { steps: 5, delay_s: 0.05 } });
    const events = await within(live, "the whole run");
    assert.equal(relay.cuts, 1);
    assert.deepEqual(reconnects, [1]);
    assert.equal(relay.upgraded, isSocket ? 2 : 0);
    assert.deepEqual(events, await history(t, thread.threadId));
  });

  test("a message that breaks in the middle ends whole", TEST, async (t) => {
    const relay = await new Relay({ cutAfter: 9 }).start(t);
    const thread = open(t, client(relay.url), null, { assistantId: "chat" });
    const { messages } = thread;
    await thread.run.start({ input: HELLO });
    const pieces = await within(collect((await first(messages)).text), "the message");
    assert.equal(relay.cuts, 1);
    assert.equal(pieces.join(""), ANSWER);
  });

  test("comments and frames that it does not know are no harm", TEST, async (t) => {
    const gap = '{"type":"gap","earliest":7}';
    const inject = { event: `: caught-up 7\n\nevent: gap\ndata: ${gap}\n\n`, message: message(gap) };
    const relay = await new Relay({ inject }).start(t);
    const thread = open(t, client(relay.url), null, { assistantId: "counter" });
    const live = eventsOf(await thread.subscribe({ channels: ALL }));
    await thread.run.start({ input: { steps: 3, delay_s: 0 } });
    const events = await within(live, "the whole run");
    assert.deepEqual(events, await history(t, thread.threadId));
  });
});
