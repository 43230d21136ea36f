import { once } from "node:events";
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { expect, test, vi } from "vitest";
import { createActor } from "xstate";
import { createConsole, type Hello, type Update } from "../../../src/console/console.ts";
import { MAX_READERS } from "../../../src/console/event-stream.ts";
import { type ConsoleReadiness, serveConsole } from "../../../src/console/serve-console.actor.ts";
import { eventually, settle } from "../../support/eventually.ts";
import { testLog } from "../../support/test-log.ts";
import { small } from "../../unit/console/small-chart.ts";

const ready: ConsoleReadiness = { ready: true, parts: [{ name: "WAL tier 1", ready: true, detail: "127.0.0.1:1" }] };

async function served({
  listenAddress = "127.0.0.1:0",
  readiness = () => ready,
  maxBacklogBytes,
}: {
  listenAddress?: string;
  readiness?: () => ConsoleReadiness;
  maxBacklogBytes?: number;
} = {}) {
  const log = testLog();
  const console = createConsole({
    log,
    title: "Klio <server>",
    ...(maxBacklogBytes !== undefined && { maxBacklogBytes }),
  });
  const server = await serveConsole({ listenAddress, console, readiness, log });
  const start = (id = "small:1", cluster = "main") =>
    createActor(small, { id, input: { cluster }, inspect: console.inspect }).start();
  return {
    log,
    console,
    server,
    start,
    url: `http://${server.address}`,
    [Symbol.asyncDispose]: () => server.close(),
  };
}

type Answer = { status: number; headers: IncomingHttpHeaders; body: string };

/** One request with any headers; `fetch` would not let a test set its host. */
async function ask(url: string, { method = "GET", headers = {} }: { method?: string; headers?: object } = {}) {
  const sent = httpRequest(url, { method, headers: { ...headers }, agent: false });
  sent.end();
  const [response]: IncomingMessage[] = await once(sent, "response");
  let body = "";
  for await (const chunk of response!.setEncoding("utf8")) body += chunk;
  return { status: response!.statusCode ?? 0, headers: response!.headers, body } satisfies Answer;
}

type Message = { event: "hello"; data: Hello } | { event: "update"; data: Update };

/** An open page: what it was sent so far. */
async function openPage(url: string, headers: Record<string, string> = {}) {
  const sent = httpRequest(`${url}/events`, { headers, agent: false });
  sent.end();
  const [response]: IncomingMessage[] = await once(sent, "response");
  const messages: Message[] = [];
  let rest = "";
  response!.setEncoding("utf8").on("data", (chunk: string) => {
    const parts = (rest + chunk).split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) {
      const [, event, data] = /^event: (.*)\ndata: (.*)$/.exec(part) ?? [];
      if (data !== undefined) messages.push({ event, data: JSON.parse(data) } as Message);
    }
  });
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  response!.on("close", resolve);
  response!.on("error", () => undefined); // the server went away
  sent.on("error", () => undefined);
  return {
    status: response!.statusCode,
    headers: response!.headers,
    messages,
    steps: () => messages.flatMap(({ data }) => data.steps),
    ended,
    [Symbol.asyncDispose]: async () => void sent.destroy(),
  };
}

test("M4: the page and all it refers to come from this server, under a policy that allows nothing else", async () => {
  await using it = await served();
  const page = await ask(`${it.url}/`);
  expect(page.status).toBe(200);
  expect(page.headers["content-type"]).toBe("text/html; charset=utf-8");
  const referred = [...page.body.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, path = ""]) => path);
  expect(new Set(referred)).toEqual(new Set(["icon.svg", "console.css", "console.js"]));
  const script = await ask(`${it.url}/console.js`);
  const imported = [...script.body.matchAll(/from "\.\/([^"]*)"/g)].map(([, file = ""]) => file);
  expect(imported).toEqual(["dom.js", "picture.js", "view.js"]);
  for (const path of ["", ...referred, ...imported, "index.html"]) {
    const { status, headers, body } = await ask(`${it.url}/${path}`);
    expect([path, status]).toEqual([path, 200]);
    expect(headers["content-security-policy"]).toMatch(/^default-src 'self';.*frame-ancestors 'none'/);
    expect(headers["x-content-type-options"]).toBe("nosniff");
    expect(headers["cache-control"]).toBe("no-store");
    expect(headers["cross-origin-resource-policy"]).toBe("same-origin");
    expect(body.replace("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:\/\//);
    expect(body).not.toMatch(/innerHTML|insertAdjacentHTML|\beval\b|<style|<script>|\son\w+=/);
  }
});

test("M3: a page gets a whole picture, then each change once", async () => {
  await using it = await served();
  const actor = it.start();
  actor.send({ type: "go", bytes: 200 });
  await using page = await openPage(it.url);
  expect(page.headers).toMatchObject({
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
  });
  const [hello] = await eventually(() => page.messages.length > 0 && page.messages);
  expect(hello).toMatchObject({
    event: "hello",
    data: {
      title: "Klio <server>",
      window: 250,
      charts: [{ chart: "small", living: 1, ended: 0, inState: { "busy.left.on & busy.right.on": 1 } }],
      actors: [{ id: "small:1", state: "busy.left.on & busy.right.on", fields: { cluster: "main", bytes: 200 } }],
      steps: [{ event: "started" }, { event: "go", state: "judging" }, { event: "go" }],
    },
  });
  for (let i = 0; i < 3; i++) actor.send({ type: "tick" });
  actor.send({ type: "stop" });
  const update = await eventually(() => page.messages[1]);
  expect(update).toMatchObject({
    event: "update",
    data: {
      charts: [{ chart: "small", living: 0, ended: 1 }],
      actors: [{ id: "small:1", state: "stopped", status: "done" }],
      gone: [],
      steps: [
        { event: "tick", times: 3 },
        { event: "stop", edges: ["small|stop|0"], status: "done" },
      ],
    },
  });
});

test("M3: a page that comes between two changes gets neither twice", async () => {
  await using it = await served();
  await using first = await openPage(it.url);
  await eventually(() => first.messages.length === 1);
  it.start("small:1");
  await using second = await openPage(it.url);
  it.start("small:2");
  await eventually(() => first.steps().length === 2 && second.steps().length === 2);
  expect(second.messages.map(({ event }) => event)).toEqual(["hello", "update"]);
  for (const page of [first, second]) expect(page.steps().map(({ seq }) => seq)).toEqual([1, 2]);
});

test("M3: more changes at once than a message holds come as a whole picture", async () => {
  await using it = await served();
  await using page = await openPage(it.url);
  await eventually(() => page.messages.length === 1);
  for (let i = 0; i < 1_100; i++) it.start(`small:${i}`);
  const whole = await eventually(() => page.messages.slice(1).find(({ event }) => event === "hello"));
  expect(whole.data.charts).toMatchObject([{ living: 1_100 }]);
  expect(whole.data.actors).toHaveLength(100);
  expect(whole.data.steps).toHaveLength(250);
});

test("M2: nothing runs and nothing is asked of an actor while nobody looks", async () => {
  await using it = await served();
  const made = vi.spyOn(globalThis, "setInterval");
  const cleared = vi.spyOn(globalThis, "clearInterval");
  const running = () => {
    const gone = new Set(cleared.mock.calls.map(([timer]) => timer));
    return made.mock.results.filter(({ value }) => !gone.has(value)).length;
  };
  try {
    it.start().send({ type: "go", bytes: 1 });
    expect(running()).toBe(0);
    for (let visit = 0; visit < 2; visit++) {
      const page = await openPage(it.url);
      await eventually(() => page.messages.length === 1);
      expect(running()).toBe(2);
      await page[Symbol.asyncDispose]();
      await eventually(() => it.console.readers === 0);
      expect(running()).toBe(0);
    }
  } finally {
    vi.restoreAllMocks();
  }
});

test("M1: a reader that does not keep up is dropped, and the others go on", async () => {
  await using it = await served({ maxBacklogBytes: 64 << 10 });
  await using quick = await openPage(it.url);
  const { hostname, port } = new URL(it.url);
  const slow = connect(Number(port), hostname).pause();
  slow.on("error", () => undefined);
  slow.write(`GET /events HTTP/1.1\r\nhost: ${hostname}\r\n\r\n`);
  await eventually(() => it.console.readers === 2);
  let count = 0;
  await eventually(() => {
    for (let i = 0; i < 300; i++) it.start(`small:${count++}`, "x".repeat(300)).send({ type: "stop" });
    return it.console.readers === 1;
  });
  await eventually(() => quick.steps().at(-1)?.id === `small:${count - 1}`);
  slow.destroy();
});

test("M1: no more than so many pages are open, and each that closes makes room", async () => {
  await using it = await served();
  const pages = await Promise.all(Array.from({ length: MAX_READERS }, () => openPage(it.url)));
  expect((await ask(`${it.url}/events`)).status).toBe(503);
  await pages[0]?.[Symbol.asyncDispose]();
  await eventually(() => it.console.readers === MAX_READERS - 1);
  await using late = await openPage(it.url);
  expect(late.status).toBe(200);
  for (const page of pages) await page[Symbol.asyncDispose]();
});

test("M1: a page of another site gets no stream, a request for its headers takes no place", async () => {
  await using it = await served();
  for (const site of ["cross-site", "same-site"])
    expect((await ask(`${it.url}/events`, { headers: { "sec-fetch-site": site } })).status).toBe(403);
  expect(await ask(`${it.url}/events`, { method: "HEAD" })).toMatchObject({ status: 200, body: "" });
  expect(it.console.readers).toBe(0);
  await using own = await openPage(it.url, { "sec-fetch-site": "same-origin" });
  expect(own.status).toBe(200);
});

test("a chart is drawn once it was seen, and only then", async () => {
  await using it = await served();
  expect((await ask(`${it.url}/charts/small.svg`)).status).toBe(404);
  it.start();
  const pictures = await Promise.all([1, 2].map(() => ask(`${it.url}/charts/small.svg`)));
  expect(pictures[0]).toMatchObject({ status: 200, headers: { "content-type": "image/svg+xml" } });
  for (const id of ["small", "small.idle", "small.busy.left.on"])
    expect(pictures[0]?.body).toContain(`data-state="${id}"`);
  expect(pictures[1]?.body).toBe(pictures[0]?.body);
});

test.each(["/nothing", "/charts/", "/charts/other.svg", "/charts/%2e%2e.svg", "/../package.json", "/console.css/x"])(
  "%s is not found",
  async (path) => {
    await using it = await served();
    const { hostname, port } = new URL(it.url);
    const sent = httpRequest({ hostname, port, path, agent: false }).end();
    const [response]: IncomingMessage[] = await once(sent, "response");
    response!.resume();
    expect(response!.statusCode).toBe(404);
  },
);

test("M5: methods other than GET and HEAD are refused everywhere", async () => {
  await using it = await served();
  for (const path of ["/", "/events", "/healthz", "/readyz", "/nothing"])
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]) {
      const { status, headers } = await ask(`${it.url}${path}`, { method });
      expect([path, method, status, headers.allow]).toEqual([path, method, 405, "GET, HEAD"]);
    }
  expect(await ask(`${it.url}/`, { method: "HEAD" })).toMatchObject({ status: 200, body: "" });
});

test("M6: on loopback a foreign host name is refused, addresses and localhost are not", async () => {
  await using it = await served();
  const statusFor = async (host: string) => (await ask(`${it.url}/`, { headers: { host } })).status;
  for (const host of ["evil.example", "evil.example:9474", "localhost.evil.example", "127.0.0.1.evil.example", "1.2.3"])
    expect([host, await statusFor(host)]).toEqual([host, 421]);
  for (const host of ["localhost", "LOCALHOST:9474", "klio.localhost", "127.0.0.1:1", "[::1]:9474", "10.0.0.1"])
    expect([host, await statusFor(host)]).toEqual([host, 200]);
});

test("M6: a console that is open to the network answers to any name", async () => {
  await using it = await served({ listenAddress: "0.0.0.0:0" });
  const url = it.url.replace("0.0.0.0", "127.0.0.1");
  expect((await ask(`${url}/`, { headers: { host: "klio-server.backup.svc" } })).status).toBe(200);
});

test("M7: /healthz is 200, /readyz follows the parts", async () => {
  let state: ConsoleReadiness = { ready: false, parts: [{ name: "queue", ready: false, detail: "restarting" }] };
  await using it = await served({ readiness: () => state });
  expect(await ask(`${it.url}/healthz`)).toMatchObject({ status: 200, body: "ok\n" });
  const unready = await ask(`${it.url}/readyz`);
  expect([unready.status, JSON.parse(unready.body)]).toEqual([503, state]);
  state = ready;
  const answer = await ask(`${it.url}/readyz?verbose`);
  expect([answer.status, JSON.parse(answer.body)]).toEqual([200, ready]);
});

test("M7: a readiness that throws is no readiness, and the process lives on", async () => {
  await using it = await served({
    readiness: () => {
      throw new Error("broken");
    },
  });
  await expect(ask(`${it.url}/readyz`)).rejects.toThrow("socket hang up");
  expect(it.log.events()).toContain("console.request.failed");
  expect((await ask(`${it.url}/healthz`)).status).toBe(200);
});

test("a busy port is KLIO-PORT-BUSY and names the option", async () => {
  await using it = await served();
  await expect(served({ listenAddress: it.server.address })).rejects.toMatchObject({
    code: "KLIO-PORT-BUSY",
    message: `console_listen_address: ${it.server.address} is in use`,
  });
});

test.each(["nonsense", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:x", "192.0.2.1:0", "no-such-host.invalid:0"])(
  "an address such as %j is KLIO-CONFIG",
  async (listenAddress) => {
    await expect(served({ listenAddress })).rejects.toMatchObject({ code: "KLIO-CONFIG" });
  },
);

test("a close ends open pages and frees the port, also when called twice", async () => {
  const it = await served();
  const page = await openPage(it.url);
  const { address } = it.server;
  await Promise.all([it.server.close(), it.server.close()]);
  await page.ended;
  await settle();
  expect(it.console.readers).toBe(0);
  await using again = await served({ listenAddress: address });
  expect(again.server.address).toBe(address);
});

test("no secret of a context reaches a page", async () => {
  await using it = await served();
  await using page = await openPage(it.url);
  it.start("small:1", "main").send({ type: "go", bytes: 1, token: "hunter2" } as never);
  await eventually(() => page.steps().length === 3);
  expect(JSON.stringify(page.messages)).not.toContain("hunter2");
  expect((await ask(`${it.url}/charts/small.svg`)).body).not.toContain("hunter2");
});
