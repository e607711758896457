// A real browser: a static page of one origin, the API on another, and an API that is killed in the middle of a message.
// Chromium and the next API are started by the test that runs this file.
import assert from "node:assert/strict";
import http from "node:http";
import { after, before, describe, test } from "node:test";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { Gate } from "../gate.mjs";

const api = process.env.SLIPSTREAM_URL;
const TEST = { timeout: 120_000 };
const STEP_MS = 45_000;
const RESTART_MS = 60_000;
const ANSWER = "All is well down here.";
const FIRST_WORDS = "All is ";

let browser;
let site;

/** The bundle, and an HTML page around it, on a port of its own. */
async function serve() {
  const bundled = await build({
    entryPoints: [new URL("app.mjs", import.meta.url).pathname],
    bundle: true,
    format: "esm",
    platform: "browser",
    define: { "process.env.NODE_ENV": '"production"' },
    write: false,
  });
  const files = {
    "/": ["text/html", '<!doctype html><meta charset="utf-8"><main></main><script type="module" src="/app.js"></script>'],
    "/app.js": ["text/javascript", bundled.outputFiles[0].text],
  };
  const server = http.createServer((request, response) => {
    const [type, text] = files[request.url.split("?")[0]] ?? ["text/plain", ""];
    response.writeHead(text ? 200 : 404, { "content-type": type }).end(text);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

before(async () => {
  site = await serve();
  browser = await chromium.connectOverCDP(process.env.CHROMIUM_URL, { timeout: STEP_MS });
}, TEST);

after(async () => {
  // Closes the connection; the browser itself is the other process's to end.
  await browser?.close();
  site?.closeAllConnections();
  site?.close();
}, TEST);

/** A page in a profile of its own, and what went wrong in it. */
async function open(t, hook, assistant) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(STEP_MS);
  page.errors = [];
  page.sockets = 0;
  page.on("websocket", () => (page.sockets += 1));
  page.on("pageerror", (error) => page.errors.push(String(error)));
  const asked = new URLSearchParams({ api, hook, assistant });
  await page.goto(`http://127.0.0.1:${site.address().port}/?${asked}`);
  await page.waitForSelector("button[name=send]");
  return page;
}

const said = (page) => page.locator("p.ai").allTextContents();

/** Wait until the page shows this one answer; `isDone` says that the hook rests too. */
async function shows(page, text, isDone, ms = STEP_MS) {
  const isThere = ([wanted, done]) => {
    const texts = [...document.querySelectorAll("p.ai")].map((paragraph) => paragraph.textContent);
    return texts.length === 1 && texts[0] === wanted && (!done || document.querySelector("output").textContent === "idle");
  };
  await page.waitForFunction(isThere, [text, isDone], { timeout: ms, polling: 20 }).catch(async (error) => {
    throw new Error(`not shown: ${text}; but ${JSON.stringify(await said(page))}, ${page.errors}`, { cause: error });
  });
}

/** Whatever a page has ever rendered of the answer is a beginning of it: no token is missing and none is there twice. */
async function grewWhole(page) {
  const renders = await page.evaluate(() => window.page.renders.map((shown) => shown.messages));
  const texts = renders.flat().filter(([type]) => type === "ai").map(([, text]) => text);
  assert(texts.includes(ANSWER));
  for (const text of texts) assert(ANSWER.startsWith(text), `rendered: ${text}`);
}

describe("Chromium, across origins", () => {
  test("a page reads the headers that the SDKs read", TEST, async (t) => {
    const page = await open(t, "sse", "chat");
    const seen = await page.evaluate(async (url) => {
      const json = { "content-type": "application/json", "x-api-key": "any" };
      const post = (path, body) => fetch(`${url}${path}`, { method: "POST", headers: json, body: JSON.stringify(body) });
      const thread = await (await post("/threads", {})).json();
      const run = await post(`/threads/${thread.thread_id}/runs/stream`, { assistant_id: "counter", input: { steps: 1 } });
      await run.text();
      const found = await post("/threads/search", { limit: 1 });
      return {
        isOther: new URL(url).origin !== location.origin,
        location: run.headers.get("content-location"),
        total: found.headers.get("x-pagination-total"),
        threadId: thread.thread_id,
      };
    }, api);
    assert(seen.isOther);
    assert(seen.location.includes(`/threads/${seen.threadId}/runs/`));
    assert(Number(seen.total) >= 1);
  });

  test("the API is killed in the middle of a message, which goes on and stands there once", TEST, async (t) => {
    const gate = new Gate(t);
    const hooks = ["sse", "websocket", "v1"];
    const pages = await Promise.all(hooks.map((hook) => open(t, hook, "halting")));
    for (const page of pages) {
      await page.evaluate((input) => {
        window.page.input.current = input;
        document.querySelector("button[name=send]").click();
      }, gate.input);
    }
    for (const page of pages) await shows(page, FIRST_WORDS, false);
    process.kill(Number(process.env.API_PID), "SIGKILL");
    await serves(RESTART_MS);
    const [sse, websocket, v1] = pages;
    // The hook of v1 gives up when a connection is refused; its page is reloaded, as a user would.
    await v1.reload();
    await shows(v1, FIRST_WORDS, false);
    gate.open();
    for (const page of [sse, websocket, v1]) await shows(page, ANSWER, true);
    for (const page of pages) {
      await grewWhole(page);
      assert.equal(await page.locator("p.human").count(), 1);
      assert.deepEqual(page.errors, []);
    }
    assert(websocket.sockets >= 2, "before and after");
    assert.equal(sse.sockets, 0);
  });
});

/** Wait until an API answers again. */
async function serves(ms) {
  const end = Date.now() + ms;
  while (!(await fetch(`${api}/ok`, { signal: AbortSignal.timeout(2_000) }).catch(() => ({}))).ok) {
    if (Date.now() > end) throw new Error(`no other API within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
