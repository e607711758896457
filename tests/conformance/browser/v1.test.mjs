// The hook of protocol v1: `useStream` of the SDK's `react` entry, as Agent Chat UI uses it.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Gate } from "../gate.mjs";
import { ANSWER, HALTING_ANSWER, HELLO, Page, SECOND, TEST, until, url } from "./page.mjs";

const { Client } = await import(process.env.SDK);
const { useStream } = await import(`${process.env.SDK}/react`);
const api = new Client({ apiUrl: url, apiKey: null });
const open = (t, options) => new Page(t, () => useStream({ apiUrl: url, apiKey: null, ...options }));
const newThread = async () => (await api.threads.create()).thread_id;

describe("useStream of @langchain/langgraph-sdk/react", { concurrency: true }, () => {
  test("a message is shown as far as it is written", TEST, async (t) => {
    const gate = new Gate(t);
    const page = open(t, { assistantId: "halting" });
    page.input.current = gate.input;
    page.press("send");
    await until(() => page.texts("ai")[0] === "All is ", "the first words");
    gate.open();
    await page.shows(HALTING_ANSWER);
  });

  test("a reloaded page shows the history and goes on", TEST, async (t) => {
    const threadId = await newThread();
    await api.runs.wait(threadId, "chat", { input: HELLO });
    const page = open(t, { assistantId: "chat", threadId });
    await page.shows(ANSWER);
    await page.press("send");
    await page.shows(ANSWER, SECOND);
    assert.deepEqual(page.texts("human"), ["hello", "hello"]);
  });

  test("an interrupt and its answer, also in a reloaded page", TEST, async (t) => {
    const threads = [];
    const page = open(t, { assistantId: "approval", onThreadId: (threadId) => threads.push(threadId) });
    page.input.current = { amount: 3 };
    await page.press("send");
    await until(() => page.question === "Refund 3?" && !page.isBusy, "the question");
    // Version 2.0.0 reads the thread again behind a run for those alone who want to hear of its end.
    const again = open(t, { assistantId: "approval", threadId: threads[0], onFinish: () => {} });
    await until(() => again.question === "Refund 3?", "the question in the other page");
    await again.press("yes");
    await until(() => again.stream.values.result === "refunded" && !again.isBusy, "the result");
    assert.equal(again.question, undefined);
  });

  test("a page that is reloaded in the middle of a run rejoins it", TEST, async (t) => {
    const threads = [];
    const options = { assistantId: "halting", reconnectOnMount: true };
    const gate = new Gate(t);
    const page = open(t, { ...options, onThreadId: (threadId) => threads.push(threadId) });
    page.input.current = gate.input;
    page.press("send");
    await until(() => page.texts("ai")[0] === "All is ", "the first words");
    page.close();
    const again = open(t, { ...options, threadId: threads[0] });
    await until(() => again.texts("ai")[0] === "All is ", "the first words in the other page");
    gate.open();
    await again.shows(HALTING_ANSWER);
    assert.equal(again.texts("human").length, 1);
  });

  test("stop ends the run", TEST, async (t) => {
    const threads = [];
    const page = open(t, { assistantId: "counter", onThreadId: (threadId) => threads.push(threadId) });
    page.input.current = { steps: 1000, delay_s: 0.05 };
    page.press("send");
    await until(() => page.stream.values.count > 2, "a few steps");
    await page.press("stop");
    await until(async () => (await api.runs.list(threads[0]))[0].status === "interrupted", "the run's end");
    await until(() => !page.isBusy, "rest");
  });

  test("a failure is shown", TEST, async (t) => {
    const page = open(t, { assistantId: "failing" });
    await page.press("send");
    await until(() => page.element.querySelector("em"), "the failure");
    assert.match(page.element.querySelector("em").textContent, /the node failed/);
  });
});
