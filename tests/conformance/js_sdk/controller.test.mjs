// What the hooks of protocol v2 are made of: `StreamController`, without a framework around it.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ANSWER, HELLO, TEST, client, importStream, newThread, until, version } from "./kit.mjs";

const api = client();
const { StreamController } = await importStream();
const SECOND = /message 2 of our conversation, and the log keeps every word\.$/;

function open(t, assistantId, threadId, options = {}) {
  const controller = new StreamController({ assistantId, client: client(), threadId, ...options });
  const shown = [];
  controller.rootStore.subscribe(() => shown.push(controller.rootStore.getSnapshot()));
  t.after(() => controller.dispose());
  return { controller, shown, now: () => controller.rootStore.getSnapshot() };
}

describe("StreamController", { concurrency: true }, () => {
  test("a thread with a history goes on, and is busy until the new run is over", TEST, async (t) => {
    const threadId = await newThread(api);
    await api.runs.wait(threadId, "chat", { input: HELLO });
    const { controller, shown, now } = open(t, "chat", threadId);
    await controller.hydrate(threadId);
    await until(() => now().messages.length === 2, "the history");
    assert.deepEqual(now().messages.map((message) => message.text), ["hello", ANSWER]);
    assert.equal(now().isLoading, false);
    shown.length = 0;
    await controller.submit({ messages: [{ type: "human", content: "again" }] });
    await until(() => now().messages.length === 4 && SECOND.test(now().messages[3].text), "the second answer");
    await until(() => !now().isLoading, "rest");
    // Up to 1.12 the controller takes the replayed end of the first run for that of its own.
    if (version === "1.15.0") {
      const rested = shown.findIndex((snapshot) => snapshot.isLoading === false);
      assert(shown.slice(0, rested).some((snapshot) => snapshot.messages.length === 4));
      assert.match(shown[rested].messages[3].text, /message 2 of our/);
    }
  });

  test("queued submissions run one after another", TEST, async (t) => {
    const { controller, now } = open(t, "counter", null);
    const first = controller.submit({ steps: 3, delay_s: 0.1 });
    await controller.submit({ count: 10, steps: 12, delay_s: 0 }, { multitaskStrategy: "enqueue" });
    await first;
    await until(() => now().values.count === 12 && !now().isLoading, "the second run");
    assert.equal((await api.runs.list(now().threadId)).length, 2);
  });

  test("a submission in place of another", TEST, async (t) => {
    const { controller, now } = open(t, "counter", null);
    controller.submit({ steps: 1000, delay_s: 0.05 });
    // Further than the second one will count.
    await until(() => now().values.count > 2, "the first run");
    await controller.submit({ count: 0, steps: 2, delay_s: 0 }, { multitaskStrategy: "rollback" });
    await until(() => now().values.count === 2 && !now().isLoading, "the second run");
    const runs = await api.runs.list(now().threadId);
    assert.deepEqual(runs.map((run) => run.status), ["success"]);
  });

  test("a fork goes on from an older checkpoint", TEST, async (t) => {
    const { controller, now } = open(t, "counter", null);
    await controller.submit({ steps: 2, delay_s: 0 });
    const { checkpoint } = await api.threads.getState(now().threadId);
    await controller.submit({ count: 0, steps: 5, delay_s: 0 });
    await until(() => now().values.count === 5 && !now().isLoading, "the second run");
    await controller.submit({ steps: 3 }, { forkFrom: checkpoint.checkpoint_id });
    await until(async () => (await api.threads.getState(now().threadId)).values.count === 3, "the fork");
  });

  test("a question from two subgraphs down is answered by who has only the thread's state of it", TEST, async (t) => {
    const threadId = await newThread(api);
    await api.runs.wait(threadId, "buried", { input: {} });
    const { interrupts } = await api.threads.get(threadId);
    const [[asked]] = Object.values(interrupts);
    const sent = [];
    // A reloaded page whose event streams are not there yet.
    const released = new Promise((resolve) => t.after(resolve));
    const withoutStreams = async (target, init) => {
      if (String(target).endsWith("/commands")) sent.push(JSON.parse(init.body));
      else await released;
      return fetch(target, init);
    };
    const { controller, now } = open(t, "buried", threadId, { fetch: withoutStreams });
    await until(() => now().interrupts.length === 1, "the question, from the state");
    await controller.respond("yes", { interruptId: now().interrupts[0].id });
    const values = () => api.threads.getState(threadId).then((state) => state.values);
    await until(async () => (await values()).answers?.length === 1, "the answer");
    assert.deepEqual((await values()).answers, ["deep: yes"]);
    const [{ method, params }] = sent;
    assert.deepEqual([method, params.interrupt_id], ["input.respond", asked.id]);
    // It is asked in ["outer:…", "middle:…"]; the state names the root's task.
    assert.deepEqual(params.namespace.map((part) => part.split(":")[0]), ["outer"]);
  });
});
