// The hook of protocol v2: `useStream` of `@langchain/react`.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Client } from "@langchain/langgraph-sdk";
import { Gate } from "../gate.mjs";
import { ANSWER, HALTING_ANSWER, HELLO, Page, SECOND, TEST, until, url } from "./page.mjs";

const { useStream } = await import("@langchain/react");
const { useNewestStream } = await import("./newest.mjs");
const api = new Client({ apiUrl: url, apiKey: null });

const open = (t, options) => new Page(t, () => useStream({ apiUrl: url, apiKey: null, ...options }));
const openNewest = (t, options) => new Page(t, () => useNewestStream({ apiUrl: url, apiKey: null, ...options }));
const newThread = async () => (await api.threads.create()).thread_id;
const named = (page) => page.renders.at(-1).subgraphs.map(([name]) => name);

/** Wait until the page asks something. It may have that from the thread's state, before a stream says where it is asked. */
const asks = (page) => until(() => !page.isBusy && page.stream.interrupt, "a question");

describe("useStream of @langchain/react", { concurrency: true }, () => {
  test("a message is shown as far as it is written", TEST, async (t) => {
    const gate = new Gate(t);
    const page = open(t, { assistantId: "halting" });
    page.input.current = gate.input;
    page.press("send");
    await until(() => page.texts("ai")[0] === "All is ", "the first words");
    assert(page.isBusy);
    gate.open();
    await page.shows(HALTING_ANSWER);
  });

  test("one question after another", TEST, async (t) => {
    const page = open(t, { assistantId: "chat" });
    await page.press("send");
    await page.shows(ANSWER);
    await page.press("send");
    await page.shows(ANSWER, SECOND);
    assert.deepEqual(page.texts("human"), ["hello", "hello"]);
  });

  test("tool calls and their results", TEST, async (t) => {
    const page = open(t, { assistantId: "agent" });
    await page.press("send");
    await page.shows("Let me look that up.", /^I looked it up: .*Lisbon\.$/);
    const shown = page.stream.toolCalls.map((call) => [call.name, call.args, call.output]);
    assert.deepEqual(shown.toSorted(), [
      ["population", { city: "Lisbon" }, "6 million in Lisbon"],
      ["weather", { city: "Lisbon" }, "22 degrees and sunny in Lisbon"],
    ]);
    assert.deepEqual(page.stream.messages[1].tool_calls.map((call) => call.args), [{ city: "Lisbon" }, { city: "Lisbon" }]);
  });

  test("a reloaded page shows the history and goes on", TEST, async (t) => {
    const threadId = await newThread();
    await api.runs.wait(threadId, "chat", { input: HELLO });
    const page = open(t, { assistantId: "chat", threadId });
    await page.shows(ANSWER);
    page.press("send");
    // This version of the hook is at rest as soon as it sees the end of the first run; what it shows goes on.
    await page.shows(ANSWER, SECOND);
    assert.deepEqual(page.texts("human"), ["hello", "hello"]);
  });

  test("a page that is opened in the middle of a run joins it", TEST, async (t) => {
    const threadId = await newThread();
    const run = await api.runs.create(threadId, "counter", { input: { steps: 1000, delay_s: 0.05 } });
    await until(async () => (await api.runs.get(threadId, run.run_id)).status === "running", "a running run");
    const page = open(t, { assistantId: "counter", threadId });
    await until(() => page.isBusy && page.stream.values.count > 2, "the run");
    const { count } = page.stream.values;
    await until(() => page.stream.values.count > count + 2, "its progress");
    await api.runs.cancel(threadId, run.run_id);
    await until(() => !page.isBusy, "its end");
  });

  test("an interrupt and its answer", TEST, async (t) => {
    const page = open(t, { assistantId: "approval" });
    page.input.current = { amount: 3 };
    page.press("send");
    await until(() => page.question === "Refund 3?" && !page.isBusy, "the question");
    await page.press("yes");
    await until(() => page.stream.values.result === "refunded" && !page.isBusy, "the result");
    assert.equal(page.question, undefined);
  });

  test("a page that is reloaded at an interrupt still asks, and not what was answered before", TEST, async (t) => {
    const threadId = await newThread();
    await api.runs.wait(threadId, "approval", { input: { amount: 4 } });
    await api.runs.wait(threadId, "approval", { command: { resume: "no" } });
    await api.runs.wait(threadId, "approval", { input: { amount: 5 } });
    const page = open(t, { assistantId: "approval", threadId });
    await until(() => page.question === "Refund 5?" && !page.isBusy, "the question");
    assert.equal(page.stream.interrupts.length, 1);
    await page.press("yes");
    await until(() => page.stream.values.result === "refunded" && !page.isBusy, "the result");
    assert.equal(page.question, undefined);
  });

  test("a question from two subgraphs down is answered, after a reload too", TEST, async (t) => {
    const page = open(t, { assistantId: "buried" });
    page.input.current = {};
    page.press("send");
    await asks(page);
    await page.press("yes");
    await until(() => page.stream.values.answers?.length === 1 && !page.isBusy, "the answer");
    const threadId = await newThread();
    await api.runs.wait(threadId, "buried", { input: {} });
    const again = open(t, { assistantId: "buried", threadId });
    await asks(again);
    await again.press("yes");
    await until(() => again.stream.values.answers?.length === 1 && !again.isBusy, "the answer after the reload");
    assert.deepEqual(again.stream.values.answers, ["deep: yes"]);
  });

  test("subgraphs are discovered: live, and past ones from the root stream of a page opened later", TEST, async (t) => {
    const page = open(t, { assistantId: "deep" });
    page.input.current = { count: 1 };
    await page.press("send");
    await until(() => !page.isBusy && named(page).length === 2, "the end, and what was discovered on the way");
    assert.deepEqual(named(page), ["outer", "middle"]);
    const past = [...page.stream.subgraphs.keys()][0];
    const { threadId } = page.stream;
    const reloaded = open(t, { assistantId: "deep", threadId });
    await until(() => reloaded.stream.subgraphs.get(past)?.status === "complete", "the past, from the history");
    const gate = new Gate(t);
    await api.runs.create(threadId, "deep", { input: { count: 1, gate: gate.path } });
    const later = open(t, { assistantId: "deep", threadId });
    await until(() => later.stream.subgraphs.has(past) && named(later).length === 3, "the past and the present");
    assert.equal(later.stream.subgraphs.get(past).status, "complete");
    assert.deepEqual(named(later).toSorted(), ["middle", "outer", "outer"]);
    gate.open();
    await until(() => later.stream.values.count === 2 && !later.isBusy, "the end");
  });

  test("stop ends the run", TEST, async (t) => {
    const page = open(t, { assistantId: "counter" });
    page.input.current = { steps: 1000, delay_s: 0.05 };
    page.press("send");
    await until(() => page.stream.values.count > 2, "a few steps");
    await page.press("stop");
    assert.equal(page.isBusy, false);
    const { threadId } = page.stream;
    await until(async () => (await api.runs.list(threadId))[0].status === "interrupted", "the run's end");
  });

  test("a failure is shown", TEST, async (t) => {
    const page = open(t, { assistantId: "failing" });
    await page.press("send");
    await until(() => page.element.querySelector("em"), "the failure");
    assert.match(page.element.querySelector("em").textContent, /the node failed/);
    assert.equal(page.isBusy, false);
  });

  for (const [which, opened] of [["the hook", open], ["the newest controller", openNewest]]) {
    test(`${which}: a run that is cancelled while it waits does not touch the one that is shown`, TEST, async (t) => {
      const gate = new Gate(t);
      const threadId = await newThread();
      await api.runs.create(threadId, "halting", { input: gate.input });
      const page = opened(t, { assistantId: "halting", threadId });
      await until(() => page.isBusy && page.texts("ai")[0] === "All is ", "the first words");
      const waiting = await api.runs.create(threadId, "halting", { input: gate.input, multitaskStrategy: "enqueue" });
      await api.runs.cancel(threadId, waiting.run_id);
      // Who waits for that run is told at once, and would have been after the page.
      await api.runs.join(threadId, waiting.run_id);
      gate.open();
      await page.shows(HALTING_ANSWER);
      const shown = page.renders.slice(page.renders.findIndex((each) => each.isBusy && each.messages.length === 2));
      const whole = shown.findIndex((each) => each.messages[1]?.[1] === HALTING_ANSWER);
      assert(shown.slice(0, whole + 1).every((each) => each.isBusy && each.messages.length === 2));
    });

    test(`${which}: a page that is opened while an answer is worked on does not ask again`, TEST, async (t) => {
      const gate = new Gate(t);
      const threadId = await newThread();
      await api.runs.wait(threadId, "answering", { input: { gate: gate.path } });
      const run = await api.runs.create(threadId, "answering", { command: { resume: "yes" } });
      await until(async () => (await api.runs.get(threadId, run.run_id)).status === "running", "a running run");
      const page = opened(t, { assistantId: "answering", threadId });
      await until(() => page.isBusy, "the run");
      gate.open();
      await until(() => page.stream.values.answers?.length === 1 && !page.isBusy, "the end");
      assert(page.renders.every((each) => each.question === undefined));
      assert.deepEqual(page.stream.interrupts, []);
    });
  }

  test("the newest controller: what one page has answered is taken off another", TEST, async (t) => {
    const page = openNewest(t, { assistantId: "approval" });
    page.input.current = { amount: 6 };
    page.press("send");
    await until(() => page.question === "Refund 6?" && !page.isBusy, "the question");
    const other = openNewest(t, { assistantId: "approval", threadId: page.stream.threadId });
    // It has the question from the state; an answer is told to who has seen the replay as well.
    const hasReplayed = () => other.renders.some((each) => each.isBusy) && !other.isBusy;
    await until(() => other.question === "Refund 6?" && hasReplayed(), "the question on the other page");
    await page.press("yes");
    await until(() => other.stream.values.result === "refunded" && !other.isBusy, "the result on the other page");
    assert.equal(other.question, undefined);
  });

  test("the newest controller: the queue of another page, and what is taken out of it", TEST, async (t) => {
    const [gate, opened] = [new Gate(t), new Gate(t)];
    opened.open();
    const threadId = await newThread();
    const page = openNewest(t, { assistantId: "halting", threadId, queue: "server" });
    await until(() => !page.stream.isThreadLoading, "the thread");
    page.stream.submit(gate.input);
    await until(() => page.isBusy && page.texts("ai")[0] === "All is ", "the first words");
    for (let n = 0; n < 2; n++) await page.stream.submit(opened.input, { multitaskStrategy: "enqueue" });
    const late = openNewest(t, { assistantId: "halting", threadId, queue: "server" });
    await until(() => page.stream.queued.length === 2 && late.stream.queued.length === 2, "the queue on both pages");
    await late.stream.cancelQueued(late.stream.queued[0].id);
    await api.runs.join(threadId, page.stream.queued[1].runId);
    assert.deepEqual(page.texts("ai"), ["All is "]);
    gate.open();
    await late.shows(HALTING_ANSWER, HALTING_ANSWER);
    await until(() => page.stream.queued.length === 0 && late.stream.queued.length === 0, "empty queues");
  });
});
