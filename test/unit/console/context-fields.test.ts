import { expect, test } from "vitest";
import { pickFields } from "../../../src/console/context-fields.ts";

test("J1: what is not listed stays, however it is called", () => {
  const context = { cluster: "a", password: "hunter2", key: "hunter2", dsn: "hunter2", traceparent: "00-1", bytes: 3 };
  expect(pickFields(context)).toEqual({ cluster: "a", bytes: 3 });
});

test("J1: of listed keys only numbers, booleans and short texts are shown", () => {
  const context = { code: { secret: "hunter2" }, name: ["hunter2"], at: 1n, bytes: null, reason: "", complete: false };
  expect(pickFields(context)).toEqual({ complete: false });
  const { reason } = pickFields({ reason: "x".repeat(5_000) });
  expect(reason).toHaveLength(300);
  expect(pickFields(undefined)).toEqual({});
  expect(pickFields("hunter2")).toEqual({});
});

test("J1: inherited keys are none of the context", () => {
  expect(pickFields(Object.create({ cluster: "a" }))).toEqual({});
});
