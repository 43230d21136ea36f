import { expect, test } from "vitest";
import { reportedError, sourceError } from "../../../../src/actors/postgres/classify.ts";
import { KlioError } from "../../../../src/errors.ts";

const reported = (code: string, message = "x", detail = "") => reportedError({ code, message, detail });

test.each([
  ["28P01", "KLIO-SOURCE-REFUSED"],
  ["28000", "KLIO-SOURCE-REFUSED"],
  ["42501", "KLIO-SOURCE-REFUSED"],
  ["3D000", "KLIO-SOURCE-REFUSED"],
  ["53400", "KLIO-SOURCE-REFUSED"],
  ["58P01", "KLIO-WAL-GAP"],
  ["42704", "KLIO-SOURCE-DOWN"],
  ["57P03", "KLIO-SOURCE-DOWN"],
  ["57P01", "KLIO-SOURCE-DOWN"],
] as const)("SQLSTATE %s is %s", (sqlState, code) => {
  expect(reported(sqlState)).toMatchObject({ code, message: `PostgreSQL answered ${sqlState}: x` });
});

test.each([
  ["requested starting point 0/6000000 on timeline 1 is not in this server's history", "KLIO-TIMELINE"],
  [
    "requested starting point 0/7000000 is ahead of the WAL flush position of this server 0/6000000",
    "KLIO-SERVER-AHEAD",
  ],
  ["requested WAL segment 000000010000000000000001 has already been removed", "KLIO-WAL-GAP"],
  ['can no longer access replication slot "klio"', "KLIO-SLOT-LOST"],
  ["replication slots can only be used if max_replication_slots > 0", "KLIO-SOURCE-REFUSED"],
  ["something new", "KLIO-SOURCE-DOWN"],
] as const)("what has no SQLSTATE of its own is told apart by its text: %s", (message, code) => {
  expect(reported("XX000", message).code).toBe(code);
  expect(reported("55000", "x", message)).toMatchObject({ code, message: `PostgreSQL answered 55000: x (${message})` });
});

test("a handshake that fails is KLIO-SOURCE-REFUSED, a lost connection KLIO-SOURCE-DOWN; our own errors pass", () => {
  const tls = Object.assign(new Error("x"), { code: "ERR_TLS_CERT_ALTNAME_INVALID" });
  expect(sourceError(tls)).toMatchObject({ code: "KLIO-SOURCE-REFUSED", cause: tls });
  expect(sourceError(new Error("The server does not support SSL connections")).code).toBe("KLIO-SOURCE-REFUSED");
  expect(sourceError(Object.assign(new Error("connect"), { code: "ECONNREFUSED" })).code).toBe("KLIO-SOURCE-DOWN");
  expect(sourceError("gone")).toMatchObject({ code: "KLIO-SOURCE-DOWN", message: "gone" });
  const answered = Object.assign(new Error("no entry"), { code: "28000", severity: "FATAL", detail: "for klio" });
  expect(sourceError(answered)).toMatchObject({
    code: "KLIO-SOURCE-REFUSED",
    message: expect.stringContaining("for klio"),
  });
  const own = new KlioError("KLIO-WAL-GAP", "x");
  expect(sourceError(own)).toBe(own);
});
