// What the tests share: the SDK under test, its transport, deadlines, and a relay that can break and lengthen event
// streams.
import http from "node:http";
import { WebSocket } from "ws";

export { until } from "../wait.mjs";

export const url = process.env.SLIPSTREAM_URL;
const name = process.env.SDK;
export const version = process.env.SDK_VERSION;
export const isSocket = process.env.TRANSPORT === "websocket";
export const sdk = await import(name);
/** The entry of what the hooks are made of; 2.0.0 has none. */
export const importStream = () => import(`${name}/stream`);
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

/** A thread stream, over the transport under test, that is closed at the end of the test. */
export function open(t, from, threadId, given) {
  // Node before 22 has no WebSocket of its own.
  const socket = { transport: "websocket", webSocketFactory: (target) => new WebSocket(target) };
  const options = isSocket ? { ...given, ...socket } : given;
  const opened = threadId ? from.threads.stream(threadId, options) : from.threads.stream(options);
  t.after(() => opened.close());
  return opened;
}

export const isRootEnd = (event) =>
  event.method === "lifecycle" &&
  event.params.namespace.length === 0 &&
  ["completed", "failed", "interrupted"].includes(event.params.data.event);

/**
 * Wait until a subscription that paused at the end of a run goes on. SDKs up to 1.12 do not resume for the root's own
 * events, so that the end of a second run stays in their buffer: it is looked at again.
 */
async function resumed(subscription) {
  const waits = [subscription.waitForResume()];
  if (version !== "1.15.0") waits.push(new Promise((resolve) => setTimeout(resolve, 20)));
  await Promise.race(waits);
}

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
    await resumed(subscription);
  }
  return events;
}

/**
 * A relay between a client and the server. It passes whole frames of event streams and sockets, so that it may break one
 * (`cut`) or put frames of its own behind each (`inject`: its text in an event stream, and in a socket). `opened` counts
 * event streams and sockets, `upgraded` sockets; `cutAfter` breaks, once, the first that has carried so many events.
 */
export class Relay {
  opened = 0;
  upgraded = 0;
  cuts = 0;
  #open = new Set();

  constructor({ target = url, cutAfter = 0, inject } = {}) {
    this.target = new URL(target);
    this.cutAfter = cutAfter;
    this.inject = inject;
    this.server = http.createServer((request, response) => this.#pass(request, response));
    this.server.on("upgrade", (request, socket) => this.#upgrade(request, socket));
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
    for (const socket of this.#open) socket.destroy();
  }

  #ask({ method, url: path, headers }) {
    const { hostname, port } = this.target;
    return http.request({ hostname, port, path, method, headers });
  }

  #pass(request, response) {
    const upstream = this.#ask(request);
    upstream.on("response", (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.on("end", () => response.end());
      answer.on("error", () => response.destroy());
      const isStream = String(answer.headers["content-type"]).startsWith("text/event-stream");
      if (isStream) this.#frames(answer, response, eventEnd, (frame) => frame[0] !== 58, this.inject?.event);
      else answer.on("data", (piece) => response.write(piece));
    });
    upstream.on("error", () => response.destroy());
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  }

  #upgrade(request, socket) {
    // Compressed frames could not be told apart.
    delete request.headers["sec-websocket-extensions"];
    const upstream = this.#ask(request);
    upstream.on("upgrade", (answer, server, head) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`);
      this.upgraded += 1;
      const isEvent = (frame) => frame[0] === 0x81 && frame.includes('"type":"event"');
      const client = { socket, write: (...written) => socket.write(...written) };
      this.#frames(server, client, messageEnd, isEvent, this.inject?.message);
      server.unshift(head);
      for (const [one, other] of [[socket, server], [server, socket]]) {
        one.on("close", () => other.destroy());
        one.on("error", () => other.destroy());
      }
      socket.pipe(server);
    });
    upstream.on("error", () => socket.destroy());
    upstream.end();
  }

  #frames(from, to, endOf, isEvent, inject) {
    this.opened += 1;
    this.#open.add(to.socket);
    to.socket.on("close", () => this.#open.delete(to.socket));
    let rest = Buffer.alloc(0);
    let events = 0;
    let broken = false;
    from.on("data", (piece) => {
      rest = Buffer.concat([rest, piece]);
      for (let end = endOf(rest); end > 0 && !broken; end = endOf(rest)) {
        const frame = rest.subarray(0, end);
        rest = rest.subarray(end);
        to.write(frame);
        if (!isEvent(frame)) continue;
        events += 1;
        if (inject) to.write(inject);
        if (events === this.cutAfter) {
          this.cuts += 1;
          this.cutAfter = 0;
          broken = true;
          // Behind what was written: a cut that loses the last frames would be another test.
          to.write("", () => to.socket.destroy());
        }
      }
    });
  }
}

/** Where the first frame of an event stream ends; 0 while it is not whole. */
function eventEnd(bytes) {
  const end = bytes.indexOf("\n\n");
  return end < 0 ? 0 : end + 2;
}

/** Where the first frame of a server's socket ends; 0 while it is not whole. */
function messageEnd(bytes) {
  const short = bytes[1] & 127;
  const header = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (bytes.length < header) return 0;
  const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  return bytes.length < header + length ? 0 : header + length;
}

/** A text as one frame of a server's socket. */
export function message(text) {
  return Buffer.concat([Buffer.from([0x81, Buffer.byteLength(text)]), Buffer.from(text)]);
}
