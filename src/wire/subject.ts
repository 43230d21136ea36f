// NATS subjects and stream names of the queue. A cluster name is one token: its dots, which would split it, are escaped
// with a character that no cluster name has.

export type TaskKind = "wal" | "backup";
type SubjectFamily = TaskKind | "latest-uploaded-wal";

/** One subject token for a cluster name (letters, digits, '-', '_', '.'). */
function clusterToken(cluster: string): string {
  return cluster.replaceAll(".", "%2E");
}

function clusterOfToken(token: string): string {
  return token.replaceAll("%2E", ".");
}

export type QueueNames = {
  /** Streams of the tasks and of their dead letters. */
  stream: Record<TaskKind, string>;
  consumer: Record<TaskKind, string>;
  deadLetters: Record<TaskKind, string>;
  latest: string;
  /** Subject of one cluster's messages; `*` for all. */
  subject(family: SubjectFamily | `dead-letter.${TaskKind}`, cluster: string): string;
  /** Where the queue server tells that a message was handed out too often. */
  advisory: Record<TaskKind, string>;
};

/**
 * Names of one server's queue. `namespace` is empty on the embedded queue, and one token of its own for each server that
 * shares an external one.
 */
export function queueNames(namespace: string): QueueNames {
  const root = namespace === "" ? "klio" : `klio.${namespace}`;
  const own = (name: string) => (namespace === "" ? name : `${name}-${namespace}`);
  const stream = { wal: own("klio-wal-stream"), backup: own("klio-backup-stream") };
  const consumer = { wal: "klio-wal-consumer", backup: "klio-backup-consumer" };
  const advisory = (kind: TaskKind) => `$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.${stream[kind]}.${consumer[kind]}`;
  return {
    stream,
    consumer,
    deadLetters: { wal: own("klio-dlq-wal-stream"), backup: own("klio-dlq-backup-stream") },
    latest: own("klio-latest-uploaded-wal-per-cluster-stream"),
    subject: (family, cluster) => `${root}.${family}.${cluster === "*" ? "*" : clusterToken(cluster)}`,
    advisory: { wal: advisory("wal"), backup: advisory("backup") },
  };
}

/** Cluster of a subject made by `subject`. */
export function clusterOfSubject(subject: string): string {
  return clusterOfToken(subject.slice(subject.lastIndexOf(".") + 1));
}
