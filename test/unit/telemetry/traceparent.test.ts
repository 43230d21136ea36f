import { ROOT_CONTEXT, trace } from "@opentelemetry/api";
import fc from "fast-check";
import { expect, test } from "vitest";
import { contextFrom, formatTraceparent, parseTraceparent, traceparentIn } from "../../../src/telemetry/traceparent.ts";

const hex = (length: number) =>
  fc.stringMatching(new RegExp(`^[0-9a-f]{${length}}$`)).filter((text) => !/^0+$/.test(text));

test("parse(format(x)) is x", () => {
  fc.assert(
    fc.property(hex(32), hex(16), fc.constantFrom(0, 1), (traceId, spanId, traceFlags) => {
      const text = formatTraceparent({ traceId, spanId, traceFlags });
      expect(parseTraceparent(text)).toEqual({ traceId, spanId, traceFlags, isRemote: true });
      expect(traceparentIn(contextFrom(ROOT_CONTEXT, text))).toBe(text);
    }),
  );
});

test("what is no traceparent is none, and never an exception", () => {
  const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  for (const bad of [
    undefined,
    "",
    "garbage",
    good.slice(0, -1),
    `${good}-extra`,
    good.replace("00-", "ff-"),
    good.replace("0af7651916cd43dd8448eb211c80319c", "0".repeat(32)),
    good.replace("b7ad6b7169203331", "0".repeat(16)),
    good.toUpperCase(),
  ])
    expect(parseTraceparent(bad), String(bad)).toBeUndefined();
  fc.assert(fc.property(fc.string(), (text) => contextFrom(ROOT_CONTEXT, text) === ROOT_CONTEXT));
});

test("a later version may append fields; a trace state travels along", () => {
  const text = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-future";
  expect(parseTraceparent(text)?.spanId).toBe("b7ad6b7169203331");
  const around = contextFrom(ROOT_CONTEXT, text, "vendor=a");
  expect(trace.getSpanContext(around)?.traceState?.serialize()).toBe("vendor=a");
});
