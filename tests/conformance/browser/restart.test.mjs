// Pages whose server is killed in the middle of a message. What starts another is the test that runs this file.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Gate } from "../gate.mjs";
import { HALTING_ANSWER, Page, TEST, until, url } from "./page.mjs";

const v2 = await import("@langchain/react");
const v1 = await import("@langchain/langgraph-sdk/react");

test("the message goes on, and stands there once", TEST, async (t) => {
  const gate = new Gate(t);
  const options = { assistantId: "halting", apiUrl: url, apiKey: null };
  const threads = [];
  const usePage = (threadId) => () =>
    v1.useStream({ ...options, threadId, reconnectOnMount: true, onThreadId: (made) => threads.push(made) });
  // The five attempts of the default last twenty seconds; a busy machine may take longer to start an API.
  const page = new Page(t, () => v2.useStream({ ...options, maxReconnectAttempts: 20 }));
  const old = new Page(t, usePage());
  for (const each of [page, old]) each.input.current = gate.input;
  page.press("send");
  old.press("send").catch(() => {});
  await until(() => [page, old].every((each) => each.texts("ai")[0] === "All is "), "the first words");
  process.kill(Number(process.env.API_PID), "SIGKILL");
  await until(async () => (await fetch(`${url}/ok`).catch(() => ({}))).ok, "another API", 40_000);
  gate.open();
  await page.shows(HALTING_ANSWER);
  assert.equal(page.texts("human").length, 1);
  // The hook of v1 gives up when a connection is refused; a reload of its page rejoins the run.
  const reloaded = new Page(t, usePage(threads[0]));
  await reloaded.shows(HALTING_ANSWER);
  assert.equal(reloaded.texts("human").length, 1);
});
