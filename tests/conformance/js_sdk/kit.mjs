// What the tests share: the SDK under test, deadlines, and a relay that can break and lengthen event streams.
import http from "node:http";

export const url = process.env.SLIPSTREAM_URL;
const name = process.env.SDK;
export const version = process.env.SDK_VERSION;
export const sdk = await import(name);
export const stream = await import(`${name}/stream`);
export const HELLO = { messages: [{ role: "user", content: "hello" }] };
export const ANSWER = "You said: hello. That was message 1 of our conversation, and the log keeps every word.";
export const TEST = { timeout: 60_000 };

export const client = (apiUrl = url, options = {}) => new sdk.Client({ apiUrl, apiKey: null, ...options });

export const newThread = async (from) => (await from.threads.create()).thread_id;

/** The value, or a failure that names what was waited for. */
export async function within(promise, what, ms = 20_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The first truthy value of `condition`. */
export async function until(condition, what, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** All items; `each` may turn one into something else. */
export async function collect(iterable, each = (item) => item) {
  const items = [];
  for await (const item of iterable) items.push(await each(item));
  return items;
}

/** The first item. A nested subscription of the SDK that begins behind the end of a run never ends by itself. */
export async function first(iterable) {
  for await (const item of iterable) return item;
  throw new Error("nothing came");
}

/** A thread stream that is closed at the end of the test. */
export function open(t, from, threadId, options) {
  const opened = threadId ? from.threads.stream(threadId, options) : from.threads.stream(options);
  t.after(() => opened.close());
  return opened;
}

export const isRootEnd = (event) =>
  event.method === "lifecycle" &&
  event.params.namespace.length === 0 &&
  ["completed", "failed", "interrupted"].includes(event.params.data.event);

/** The events of a raw subscription up to the end of that many runs. */
export async function eventsOf(subscription, ends = 1, between = () => {}) {
  const events = [];
  let left = ends;
  while (left > 0) {
    for await (const event of subscription) {
      events.push(event);
      if (isRootEnd(event)) left -= 1;
      if (left === 0) return events;
    }
    await between();
    await subscription.waitForResume();
  }
  return events;
}

/**
 * A relay between a client and the server. It passes whole frames of event streams, so that it may break a stream
 * (`cut`) or put a frame of its own behind each (`inject`). `opened` counts event streams; `cutAfter` breaks, once, the
 * first stream that has carried so many frames with data.
 */
export class Relay {
  opened = 0;
  cuts = 0;
  #open = new Set();

  constructor({ target = url, cutAfter = 0, inject = "" } = {}) {
    this.target = new URL(target);
    this.cutAfter = cutAfter;
    this.injected = inject;
    this.server = http.createServer((request, response) => this.#pass(request, response));
  }

  async start(t) {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    t.after(() => {
      this.cut();
      this.server.closeAllConnections();
      this.server.close();
    });
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  cut() {
    for (const response of this.#open) response.socket?.destroy();
  }

  #pass(request, response) {
    const { hostname, port } = this.target;
    const { method, url: path, headers } = request;
    const upstream = http.request({ hostname, port, path, method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      if (String(answer.headers["content-type"]).startsWith("text/event-stream")) this.#frames(answer, response);
      else answer.pipe(response);
    });
    upstream.on("error", () => response.destroy());
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  }

  #frames(answer, response) {
    this.opened += 1;
    this.#open.add(response);
    response.on("close", () => this.#open.delete(response));
    let rest = Buffer.alloc(0);
    let frames = 0;
    let broken = false;
    answer.on("data", (piece) => {
      rest = Buffer.concat([rest, piece]);
      for (let end = rest.indexOf("\n\n"); end >= 0 && !broken; end = rest.indexOf("\n\n")) {
        const frame = rest.subarray(0, end + 2);
        rest = rest.subarray(end + 2);
        response.write(frame);
        if (frame[0] === 58) continue;
        frames += 1;
        if (this.injected) response.write(this.injected);
        if (frames === this.cutAfter) {
          this.cuts += 1;
          this.cutAfter = 0;
          broken = true;
          // Behind what was written: a cut that loses the last frames would be another test.
          response.write("", () => response.socket?.destroy());
        }
      }
    });
    answer.on("end", () => response.end());
    answer.on("error", () => response.destroy());
  }
}
