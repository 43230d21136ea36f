import { Writable } from "node:stream";
import { context, ROOT_CONTEXT } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { beforeAll, expect, test } from "vitest";
import type { LogLevel } from "../../../src/domain/log.ts";
import { createLog } from "../../../src/telemetry/log.ts";
import { contextFrom } from "../../../src/telemetry/traceparent.ts";

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
});

function captured(options: { level?: LogLevel; pretty?: boolean } = {}) {
  let text = "";
  const destination = new Writable({
    write(chunk, _encoding, done) {
      text += String(chunk);
      done();
    },
  });
  const log = createLog({ level: "info", pretty: false, fields: { role: "server" }, ...options, destination });
  return { log, text: () => text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, "<ts>") };
}

test("a line is one JSON object with time, level, event, message and fields", () => {
  const { log, text } = captured();
  log.with({ cluster: "main" }).warn("slot.lagging", "the slot lags", { lagBytes: 3, absent: undefined });
  expect(text()).toBe(
    '{"level":"warn","ts":"<ts>","event.name":"slot.lagging","role":"server","cluster":"main","lagBytes":3,"msg":"the slot lags"}\n',
  );
});

test("a line carries trace and span id of the work that logs", () => {
  const { log, text } = captured();
  const around = contextFrom(ROOT_CONTEXT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  context.with(around, () => log.info("wal.stored", "stored"));
  expect(JSON.parse(text())).toMatchObject({
    trace_id: "0af7651916cd43dd8448eb211c80319c",
    span_id: "b7ad6b7169203331",
  });
});

test("lines below the level are not written", () => {
  const { log, text } = captured({ level: "warn" });
  log.debug("a.b", "x");
  log.info("a.b", "x");
  log.error("a.b", "y");
  expect(text().trim().split("\n")).toHaveLength(1);
});

test("a field cannot pass for one of the line's own", () => {
  const { log, text } = captured();
  log.info("a.b", "x", { level: "fatal", msg: "y", ts: 1 });
  expect(text()).toBe(
    '{"level":"info","ts":"<ts>","event.name":"a.b","role":"server","level_":"fatal","msg_":"y","ts_":1,"msg":"x"}\n',
  );
});

test("on a terminal the line is for people", () => {
  const { log, text } = captured({ pretty: true });
  log.info("child.ready", "nats is ready", { pid: 12, why: "first start" });
  expect(text().replace(/^[\d:.]+/, "<time>")).toBe(
    '<time> \u001b[32minfo \u001b[0m nats is ready \u001b[90mevent.name=child.ready role=server pid=12 why="first start"\u001b[0m\n',
  );
});
