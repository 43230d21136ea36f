// Streams and consumers of the queue: made when missing, brought up to date when there.
import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerUpdateConfig,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "nats";
import { KlioError } from "../../errors.ts";
import type { QueueNames, TaskKind } from "../../wire/subject.ts";
import { isNotFound } from "./classify.ts";

const NANOS_PER_MS = 1_000_000;
const nanos = (ms: number) => ms * NANOS_PER_MS;

/** Within this time a task that is sent twice is kept once. */
const DUPLICATES_MS = 120_000;
/** Dead letters kept per kind: far more than a person can look at. */
const MAX_DEAD_LETTERS = 100_000;

export type ConsumerPolicy = {
  /**
   * Wait after the n-th failed delivery, the last repeats. Asked for with each `nak`: the server's own back-off setting
   * would be added to that wait (seen with 2.15).
   */
  backoffMs: number[];
  maxDeliveries: number;
  /** Tasks handed out and not yet settled. */
  maxPending: number;
};

export const consumerPolicies: Readonly<Record<TaskKind, ConsumerPolicy>> = {
  wal: { backoffMs: [30_000, 60_000, 120_000, 300_000], maxDeliveries: 10, maxPending: 2_048 },
  backup: { backoffMs: [300_000, 600_000, 1_800_000, 3_600_000], maxDeliveries: 5, maxPending: 256 },
};

/** Without a heartbeat for this long a task is handed out again: whoever had it was killed. */
const ACK_WAIT_MS = 30_000;

const kinds: readonly TaskKind[] = ["wal", "backup"];

const OWNER = "klio-owner";

type StreamsOf = { names: QueueNames; replicas: number; owner: string | undefined };

function streamConfigs({ names, replicas, owner }: StreamsOf): (Partial<StreamConfig> & { name: string })[] {
  const metadata = owner === undefined ? {} : { metadata: { [OWNER]: owner } };
  const common = { storage: StorageType.File, num_replicas: replicas, ...metadata };
  return [
    ...kinds.map((kind) => ({
      ...common,
      name: names.stream[kind],
      subjects: [names.subject(kind, "*")],
      retention: RetentionPolicy.Workqueue,
      duplicate_window: nanos(DUPLICATES_MS),
    })),
    ...kinds.map((kind) => ({
      ...common,
      name: names.deadLetters[kind],
      subjects: [names.advisory[kind], names.subject(`dead-letter.${kind}`, "*")],
      retention: RetentionPolicy.Limits,
      max_msgs: MAX_DEAD_LETTERS,
      duplicate_window: nanos(DUPLICATES_MS),
    })),
    {
      ...common,
      name: names.latest,
      subjects: [names.subject("latest-uploaded-wal", "*")],
      retention: RetentionPolicy.Limits,
      max_msgs_per_subject: 1,
    },
  ];
}

function consumerConfig(names: QueueNames, kind: TaskKind): Partial<ConsumerConfig> {
  const { maxDeliveries, maxPending } = consumerPolicies[kind];
  return {
    durable_name: names.consumer[kind],
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(ACK_WAIT_MS),
    max_deliver: maxDeliveries,
    max_ack_pending: maxPending,
  };
}

async function ensureStream(jsm: JetStreamManager, config: Partial<StreamConfig> & { name: string }): Promise<string> {
  try {
    const { created, config: found } = await jsm.streams.info(config.name);
    const [owner, wanted] = [found.metadata?.[OWNER], config.metadata?.[OWNER]];
    if (owner !== undefined && wanted !== undefined && owner !== wanted)
      throw new KlioError("KLIO-QUEUE-REFUSED", `stream ${config.name} belongs to another Klio server`, {
        hint: "give each server a queue.namespace of its own",
      });
    await jsm.streams.update(config.name, config);
    return created;
  } catch (error) {
    if (!isNotFound(error)) throw error;
    const { created } = await jsm.streams.add(config);
    return created;
  }
}

async function ensureConsumer(jsm: JetStreamManager, names: QueueNames, kind: TaskKind, fresh: boolean): Promise<void> {
  const [stream, consumer] = [names.stream[kind], names.consumer[kind]];
  const config = consumerConfig(names, kind);
  try {
    await jsm.consumers.info(stream, consumer);
    if (!fresh) {
      await jsm.consumers.update(stream, consumer, config as Partial<ConsumerUpdateConfig>);
      return;
    }
    await jsm.consumers.delete(stream, consumer);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  await jsm.consumers.add(stream, config);
}

/**
 * Safe to repeat. Rejects with KLIO-QUEUE-REFUSED when the streams are another server's. `fresh`: consumers are made anew, so that what an earlier run held in hand is handed out at once and not
 * after its wait (a restarted queue server forgets what was given back). Returns when the task streams were made: another
 * answer than before means that tasks were lost.
 */
export async function ensureStreams(jsm: JetStreamManager, wanted: StreamsOf, fresh: boolean): Promise<string> {
  const { names } = wanted;
  const created: string[] = [];
  for (const config of streamConfigs(wanted)) created.push(await ensureStream(jsm, config));
  for (const kind of kinds) await ensureConsumer(jsm, names, kind, fresh);
  return created.slice(0, kinds.length).join(" ");
}
