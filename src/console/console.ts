// The statechart console: what each statechart of this process is doing, live, for people. Read-only. What may be shown is
// listed in context-fields.ts.
//   M2. Nothing is serialised while nobody looks.
//   M3. A page's first message is a whole picture; each later one carries what changed since, and nothing twice.
//   M4. The page takes everything from this server and nothing inline; its policy forbids the browser anything else.
import { readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { InspectionEvent } from "xstate";
import type { Log } from "../domain/log.ts";
import { errorText } from "../errors.ts";
import { ActorLog, type ActorRow, type ChartSummary, LIMITS, type LogLimits, type Step } from "./actor-log.ts";
import { chartOf } from "./chart.ts";
import { drawChart } from "./draw-chart.ts";
import { EventStream } from "./event-stream.ts";

export type Console = {
  /** For `createActor(machine, { inspect })`. Never throws: that would take the actor down. */
  inspect: (event: InspectionEvent) => void;
  /** Answers the request if it is for the console; false (and nothing was done) otherwise. */
  handle(request: IncomingMessage, response: ServerResponse): boolean;
  /** Pages that are open. */
  readonly readers: number;
  /** Ends the open pages. Safe to call twice. */
  close(): void;
};

export type ConsoleOptions = { log: Log; title: string; limits?: Partial<LogLimits>; maxBacklogBytes?: number };

/** What a page gets first, and again whenever it may have missed something. Complete: nothing need be replayed. */
export type Hello = {
  title: string;
  nowMs: number;
  /** Steps kept per chart, by the page too. */
  window: number;
  charts: ChartSummary[];
  actors: ActorRow[];
  steps: Step[];
};
/** What happened since the last message. */
export type Update = { charts: Hello["charts"]; actors: ActorRow[]; gone: number[]; steps: Step[] };

/** Steps are sent together: a page cannot show more pictures a second than this, and a busy server makes many steps. */
const FLUSH_MS = 100;
const KEEP_ALIVE_MS = 15_000;
/** More changes than this between two flushes: the whole picture is smaller. */
const MAX_UPDATE = 1_000;
const ROWS_PER_CHART = 100;

const ASSETS = new URL(import.meta.url.endsWith(".ts") ? "./assets/" : "../../src/console/assets/", import.meta.url);
const FILES: Record<string, { file: string; type: string }> = {
  "/": { file: "index.html", type: "text/html; charset=utf-8" },
  "/console.css": { file: "console.css", type: "text/css; charset=utf-8" },
  "/console.js": { file: "console.js", type: "text/javascript; charset=utf-8" },
  "/dom.js": { file: "dom.js", type: "text/javascript; charset=utf-8" },
  "/picture.js": { file: "picture.js", type: "text/javascript; charset=utf-8" },
  "/view.js": { file: "view.js", type: "text/javascript; charset=utf-8" },
  "/icon.svg": { file: "icon.svg", type: "image/svg+xml" },
};

const HEADERS = {
  "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store",
};

/** The caller serves it (`serveConsole`), passes `inspect` to its actors, and closes it. */
export function createConsole({ log, title, limits = {}, maxBacklogBytes }: ConsoleOptions): Console {
  const actors = new ActorLog({ limits });
  const pictures = new Map<string, Promise<string>>();
  let pending = emptyChanges();
  let flusher: NodeJS.Timeout | undefined;
  let keeper: NodeJS.Timeout | undefined;
  let isFaulty = false;

  const stream = new EventStream({
    onEmpty: () => {
      clearInterval(flusher);
      clearInterval(keeper);
      flusher = undefined;
      actors.listener = undefined;
      pending = emptyChanges();
    },
    ...(maxBacklogBytes !== undefined && { maxBacklogBytes }),
  });

  const hello = (): Hello => {
    actors.look();
    return {
      title,
      nowMs: Date.now(),
      window: limits.stepsPerChart ?? LIMITS.stepsPerChart,
      charts: actors.summary(),
      actors: actors.rows(ROWS_PER_CHART),
      steps: actors.steps(),
    };
  };

  const flush = () => {
    actors.look();
    const { steps, rows, isOverfull } = pending;
    if (rows.size === 0) return;
    pending = emptyChanges();
    if (isOverfull) return stream.broadcast("hello", hello);
    stream.broadcast("update", (): Update => {
      const changed = [...rows].flatMap(([, row]) => (row === undefined ? [] : [row]));
      const gone = [...rows].flatMap(([key, row]) => (row === undefined ? [key] : []));
      return { charts: actors.summary(), actors: changed, gone, steps: [...steps.values()] };
    });
  };

  const watch = () => {
    if (flusher !== undefined) return;
    flusher = setInterval(flush, FLUSH_MS);
    keeper = setInterval(() => stream.keepAlive(), KEEP_ALIVE_MS);
    flusher.unref();
    keeper.unref();
    actors.listener = {
      step: (step) => {
        if (pending.steps.size < MAX_UPDATE) pending.steps.set(step.seq, step);
        else pending.isOverfull = true;
      },
      row: (key, row) => {
        if (pending.rows.size < MAX_UPDATE) pending.rows.set(key, row);
        else pending.isOverfull = true;
      },
    };
  };

  const open = ({ method, headers }: IncomingMessage, response: ServerResponse) => {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    // Another site's page could not read the stream, but it could take up all places.
    const site = headers["sec-fetch-site"] ?? "none";
    if (site !== "same-origin" && site !== "none")
      return send(response, 403, "text/plain; charset=utf-8", "only for pages of this server\n");
    if (method === "HEAD") return send(response, 200, "text/event-stream; charset=utf-8", "");
    flush(); // what the others are still owed is in this page's first picture
    if (!stream.add(response)) return;
    watch();
    stream.send(response, "hello", hello());
  };

  const picture = (chart: string): Promise<string> | undefined => {
    const known = pictures.get(chart);
    const machine = actors.machine(chart);
    if (known !== undefined || machine === undefined) return known;
    const drawing = drawChart(chartOf(machine));
    pictures.set(chart, drawing);
    drawing.catch(() => pictures.delete(chart)); // the next request tries again
    return drawing;
  };

  const answer = async (path: string, response: ServerResponse): Promise<void> => {
    const file = FILES[path];
    const [, chart] = /^\/charts\/([\w-]+)\.svg$/.exec(path) ?? [];
    try {
      if (file !== undefined) send(response, 200, file.type, await readFile(new URL(file.file, ASSETS)));
      else {
        const svg = chart === undefined ? undefined : await picture(chart);
        if (svg === undefined) send(response, 404, "text/plain; charset=utf-8", "no such chart\n");
        else send(response, 200, "image/svg+xml", svg);
      }
    } catch (error) {
      log.warn("console.request.failed", `cannot answer ${path}: ${errorText(error)}`);
      send(response, 500, "text/plain; charset=utf-8", "cannot be shown; the log of the process says why\n");
    }
  };

  return {
    inspect: (event) => {
      try {
        actors.take(event);
      } catch (error) {
        if (!isFaulty) log.warn("console.inspection.failed", `cannot follow an actor: ${errorText(error)}`);
        isFaulty = true;
      }
    },
    handle(request, response) {
      const path = pathOf(request.url);
      if (path === "/events") open(request, response);
      else if (FILES[path] !== undefined || path.startsWith("/charts/")) void answer(path, response);
      else return false;
      return true;
    },
    get readers() {
      return stream.size;
    },
    close: () => stream.close(),
  };
}

function emptyChanges(): { steps: Map<number, Step>; rows: Map<number, ActorRow | undefined>; isOverfull: boolean } {
  return { steps: new Map(), rows: new Map(), isOverfull: false };
}

function pathOf(url: string | undefined): string {
  const path = (url ?? "/").split("?", 1)[0] ?? "/";
  return path === "/index.html" ? "/" : path;
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  response.writeHead(status, { ...HEADERS, "content-type": type, "content-length": Buffer.byteLength(body) });
  response.end(body);
}
