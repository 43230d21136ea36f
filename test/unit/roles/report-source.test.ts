import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import { reportSource } from "../../../src/roles/report-source.ts";
import { testLog } from "../../support/test-log.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** An answer that the limit of its call ends. */
function silence(): Promise<Outcome<null>> {
  const answer = Promise.withResolvers<Outcome<null>>();
  setTimeout(() => answer.resolve(failure("KLIO-SERVER-DOWN", "late")), 5_000);
  return answer.promise;
}

/** A server that answers what `answers` say, one after the other, the last one again and again. */
function reports(...answers: (() => Promise<Outcome<null>>)[]) {
  const lost: string[] = [];
  const made = { asked: 0, lost, flushedLsn: 0n, isStreaming: true };
  const server = {
    address: "server:1",
    reportSource: () => (answers[made.asked++] ?? answers.at(-1) ?? silence)(),
  };
  const stop = reportSource({
    server: () => (made.isStreaming ? server : undefined),
    report: () => ({ endLsn: 9n, flushedLsn: made.flushedLsn, segmentBytes: 1 << 24 }),
    silent: ({ reason }) => lost.push(reason),
    everyMs: 5_000,
    log: testLog(),
  });
  return Object.assign(made, { stop });
}

test("two reports in a row without an answer, and nothing confirmed: the server is gone", async () => {
  const made = reports(silence);
  await vi.advanceTimersByTimeAsync(14_000);
  expect(made.lost).toEqual([]);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(made.lost).toEqual(["server:1 does not answer any more"]);
  made.stop();
});

test("one that is late once, or confirms meanwhile, or refuses at once, is there", async () => {
  const late = reports(silence, () => Promise.resolve(ok(null)));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(late.lost).toEqual([]);
  late.stop();
  const busy = reports(silence);
  for (let at = 0; at < 60; at++) {
    busy.flushedLsn += 1n;
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect(busy.lost).toEqual([]);
  busy.stop();
  const refusing = reports(() => Promise.resolve(failure("KLIO-SERVER-DOWN", "the volume is away")));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(refusing.lost).toEqual([]);
  expect(refusing.asked).toBe(12);
  refusing.stop();
});

test("nobody is asked while there is no stream, nor an older server again", async () => {
  const idle = reports(silence);
  idle.isStreaming = false;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(idle.asked).toBe(0);
  idle.stop();
  const older = reports(() => Promise.resolve(failure("KLIO-SERVER-REFUSED", "no such call")));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(older.asked).toBe(1);
  older.stop();
});
