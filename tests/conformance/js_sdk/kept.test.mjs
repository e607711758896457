// What outlives a run: items of the store, and crons.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { TEST, client, newThread, until } from "./kit.mjs";

const api = client();
const YEARLY = "0 0 1 1 *";
const QUICK = { steps: 1, delay_s: 0 };

describe("store", { concurrency: true }, () => {
  test("an item is put, got, changed and deleted", TEST, async () => {
    const namespace = ["users", randomUUID()];
    const value = { name: "Ada", tags: ["a", "b"], deep: { n: 1.5, none: null } };
    await api.store.putItem(namespace, "profile", value);
    const item = await api.store.getItem(namespace, "profile");
    assert.deepEqual([item.namespace, item.key, item.value], [namespace, "profile", value]);
    assert(!Number.isNaN(Date.parse(item.createdAt)));
    await api.store.putItem(namespace, "profile", { name: "Bob" }, { index: false });
    const changed = await api.store.getItem(namespace, "profile");
    assert.deepEqual(changed.value, { name: "Bob" });
    assert.equal(changed.createdAt, item.createdAt);
    assert(Date.parse(changed.updatedAt) >= Date.parse(item.updatedAt));
    await api.store.deleteItem(namespace, "profile");
    assert.equal(await absent(api.store.getItem(namespace, "profile")), true);
  });

  test("items are searched by prefix and filter, in pages", TEST, async () => {
    const root = randomUUID();
    for (let n = 0; n < 5; n += 1) {
      await api.store.putItem([root, n % 2 ? "odd" : "even"], `k${n}`, { n, parity: n % 2 });
    }
    const keys = async (prefix, options) =>
      (await api.store.searchItems(prefix, options)).items.map((item) => item.key).toSorted();
    assert.deepEqual(await keys([root]), ["k0", "k1", "k2", "k3", "k4"]);
    assert.deepEqual(await keys([root, "odd"]), ["k1", "k3"]);
    assert.deepEqual(await keys([root], { filter: { parity: 0 } }), ["k0", "k2", "k4"]);
    assert.deepEqual(await keys([root], { filter: { n: { $gte: 3 } } }), ["k3", "k4"]);
    const pages = [await keys([root], { limit: 3 }), await keys([root], { limit: 3, offset: 3 })];
    assert.deepEqual([pages[0].length, pages[1].length], [3, 2]);
    assert.deepEqual(pages.flat().toSorted(), ["k0", "k1", "k2", "k3", "k4"]);
    const { items } = await api.store.searchItems([root, "odd"]);
    assert(items.every((item) => item.createdAt && item.updatedAt));
  });

  test("namespaces are listed by prefix, suffix and depth", TEST, async () => {
    const root = randomUUID();
    for (const rest of [["a", "notes"], ["a", "facts"], ["b", "notes"]]) {
      await api.store.putItem([root, ...rest], "k", {});
    }
    const found = async (options) => (await api.store.listNamespaces({ prefix: [root], ...options })).namespaces;
    assert.equal((await found()).length, 3);
    assert.deepEqual((await found({ suffix: ["notes"] })).toSorted(), [[root, "a", "notes"], [root, "b", "notes"]]);
    assert.deepEqual((await found({ maxDepth: 2 })).toSorted(), [[root, "a"], [root, "b"]]);
    assert.equal((await found({ limit: 2 })).length, 2);
  });

  test("a label that cannot be one is refused", TEST, async () => {
    await assert.rejects(api.store.putItem(["langgraph", "x"], "k", {}), { status: 422 });
    await assert.rejects(api.store.putItem([], "k", {}), { status: 422 });
    await assert.rejects(api.store.putItem(["a.b"], "k", {}), /periods/);
  });
});

describe("crons", { concurrency: true }, () => {
  test("a cron is created, found, changed and deleted", TEST, async () => {
    const metadata = { purpose: randomUUID() };
    const made = await api.crons.create("counter", {
      schedule: "0 9 * * *",
      timezone: "America/New_York",
      input: QUICK,
      metadata,
      endTime: "2099-01-01T00:00:00Z",
      multitaskStrategy: "reject",
    });
    assert.deepEqual([made.schedule, made.timezone, made.enabled], ["0 9 * * *", "America/New_York", true]);
    assert.deepEqual([made.thread_id, made.payload.input], [null, QUICK]);
    assert([13, 14].includes(new Date(made.next_run_date).getUTCHours()));
    assert.equal(Date.parse(made.end_time), Date.UTC(2099, 0, 1));
    assert.deepEqual(await api.crons.search({ metadata }), [made]);
    assert.equal(await api.crons.count({ metadata }), 1);
    const paused = await api.crons.update(made.cron_id, { schedule: YEARLY, enabled: false });
    assert.deepEqual([paused.schedule, paused.enabled, paused.next_run_date], [YEARLY, false, null]);
    assert.deepEqual(await api.crons.search({ metadata, enabled: true }), []);
    await api.crons.delete(made.cron_id);
    assert.equal(await api.crons.count({ metadata }), 0);
    await assert.rejects(api.crons.update(made.cron_id, { enabled: true }), { status: 404 });
  });

  test("the crons of a thread, in order and in pages", TEST, async (t) => {
    const threadId = await newThread(api);
    const ids = [];
    for (const month of [3, 1, 2]) {
      const made = await api.crons.createForThread(threadId, "counter", { schedule: `0 0 1 ${month} *`, input: QUICK });
      ids.push(made.cron_id);
      t.after(() => api.crons.delete(made.cron_id));
    }
    const newest = await api.crons.search({ threadId });
    assert.deepEqual(newest.map((cron) => cron.cron_id), ids.toReversed());
    const soonest = { threadId, sortBy: "next_run_date", sortOrder: "asc" };
    const dates = (await api.crons.search(soonest)).map((cron) => cron.next_run_date);
    assert.deepEqual(dates, dates.toSorted());
    const [second] = await api.crons.search({ ...soonest, limit: 1, offset: 1, select: ["cron_id", "next_run_date"] });
    assert.deepEqual(Object.keys(second).toSorted(), ["cron_id", "next_run_date"]);
    assert.equal(second.next_run_date, dates[1]);
    assert.equal(await api.crons.count({ threadId }), 3);
  });

  test("a cron runs on its thread", TEST, async (t) => {
    const threadId = await newThread(api);
    const made = await api.crons.createForThread(threadId, "counter", { schedule: "* * * * * *", input: QUICK });
    t.after(() => api.crons.delete(made.cron_id));
    const isOver = (run) => run.status === "success";
    const [run] = await until(async () => {
      const runs = (await api.runs.list(threadId)).filter(isOver);
      return runs.length > 0 && runs;
    }, "a run");
    assert.equal(run.metadata.cron_id, made.cron_id);
    assert.equal((await api.threads.getState(threadId)).values.count, 1);
  });

  test("what is no schedule is refused", TEST, async () => {
    await assert.rejects(api.crons.create("counter", { schedule: "every day" }), { status: 422 });
    await assert.rejects(api.crons.create("no-such-graph", { schedule: YEARLY }), { status: 422 });
  });
});

/** Whether a get finds nothing: the SDK raises what the server answers. */
async function absent(got) {
  return got.then((item) => item === null, (error) => error.status === 404);
}
