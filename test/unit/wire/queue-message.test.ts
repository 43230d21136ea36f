import fc from "fast-check";
import { expect, test } from "vitest";
import {
  backupTaskOf,
  decodeAdvisory,
  decodeBackupMessage,
  decodeDeadLetter,
  decodeWalMessage,
  encodeMessage,
  messageId,
} from "../../../src/wire/queue-message.ts";
import { clusterOfSubject, queueNames } from "../../../src/wire/subject.ts";

const SEGMENT = "000000010000000000000001";
const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

test("a cluster name is one token and comes back from it, whatever dots it has", () => {
  const names = queueNames("");
  expect(names.subject("wal", "eu.pg-1")).toBe("klio.wal.eu%2Epg-1");
  fc.assert(
    fc.property(fc.stringMatching(/^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,30}$/), (cluster) => {
      const subject = names.subject("backup", cluster);
      expect(subject.split(".").length).toBe(3);
      expect(clusterOfSubject(subject)).toBe(cluster);
    }),
  );
});

test("the names are the published ones, and a namespace keeps servers on one queue apart", () => {
  expect(queueNames("").stream).toEqual({ wal: "klio-wal-stream", backup: "klio-backup-stream" });
  expect(queueNames("").advisory.wal).toBe(
    "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.klio-wal-stream.klio-wal-consumer",
  );
  expect(queueNames("s2").stream.wal).toBe("klio-wal-stream-s2");
  expect(queueNames("s2").subject("wal", "a")).toBe("klio.s2.wal.a");
});

test("messages of older peers are understood", () => {
  expect(decodeWalMessage(bytes({ clusterName: "a", walName: SEGMENT }))).toEqual({
    clusterName: "a",
    walName: SEGMENT,
  });
  const backup = decodeBackupMessage(
    bytes({ clusterName: "a", sendToTier2: true, tier2RetentionPolicy: { keepLatest: 3 } }),
  );
  expect(backupTaskOf(backup)).toEqual({ sendToTier2: true, tier2Retention: { keepLatest: 3 } });
});

test("a message of ours comes back whole", () => {
  const message = {
    clusterName: "a",
    sendToTier2: true,
    backupName: "b1",
    startWal: SEGMENT,
    endWal: SEGMENT,
    segmentSize: 16 << 20,
  };
  expect(decodeBackupMessage(encodeMessage(message))).toEqual(message);
  expect(backupTaskOf(message).range).toEqual({ startWal: SEGMENT, endWal: SEGMENT, segmentBytes: 16 << 20 });
});

test("what is no task is refused as KLIO-QUEUE-MESSAGE or KLIO-NAME-INVALID", () => {
  for (const bad of [
    bytes("x"),
    bytes({ walName: SEGMENT }),
    bytes({ clusterName: "a", walName: "x" }),
    Buffer.from("{"),
  ])
    expect(() => decodeWalMessage(bad)).toThrow(expect.objectContaining({ code: "KLIO-QUEUE-MESSAGE" }));
  expect(() => decodeWalMessage(bytes({ clusterName: "../a", walName: SEGMENT }))).toThrow(
    expect.objectContaining({ code: "KLIO-NAME-INVALID" }),
  );
});

test("dead letters of ours and advisories of the queue server are told apart", () => {
  const letter = {
    kind: "wal",
    clusterName: "a",
    name: SEGMENT,
    code: "KLIO-WAL-DAMAGED",
    error: "bad",
    attempts: 1,
    message: { clusterName: "a", walName: SEGMENT },
  } as const;
  expect(decodeDeadLetter(encodeMessage(letter))).toEqual(letter);
  const advisory = bytes({ type: "io.nats.jetstream.advisory.v1.max_deliver", stream_seq: 7, deliveries: 10 });
  expect(decodeDeadLetter(advisory)).toBeUndefined();
  expect(decodeAdvisory(advisory)).toEqual({ streamSequence: 7, deliveries: 10 });
});

test("a partial file's id changes as it grows, a segment's does not", () => {
  expect(messageId("wal", "a", SEGMENT, 1)).toBe(messageId("wal", "a", SEGMENT, 2));
  expect(messageId("wal", "a", `${SEGMENT}.partial`, 1)).not.toBe(messageId("wal", "a", `${SEGMENT}.partial`, 2));
  expect(messageId("backup", "a", SEGMENT, 1)).not.toBe(messageId("wal", "a", SEGMENT, 1));
});
