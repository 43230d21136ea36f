// The connection to the queue: publishing tasks and records, and what is in it. It reconnects for ever; while the queue is
// away every call answers KLIO-QUEUE-DOWN soon.
import { readFileSync } from "node:fs";
import {
  connect,
  credsAuthenticator,
  Events,
  headers,
  type JetStreamClient,
  type JetStreamManager,
  type NatsConnection,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
} from "nats";
import type { Log } from "../../domain/log.ts";
import { type Failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { errorText, KlioError } from "../../errors.ts";
import { type BackupMessage, type DeadLetter, encodeMessage, type WalMessage } from "../../wire/queue-message.ts";
import { clusterOfSubject, type QueueNames, queueNames, type TaskKind } from "../../wire/subject.ts";
import { certificateRefused, classifyConnecting, classifyPreparing, classifyQueue, isNotFound } from "./classify.ts";
import { lookAtServer } from "./look-at-server.ts";
import { ensureStreams } from "./streams.ts";

/** Where the queue is. Embedded: `url` with user and password. External: `url` (comma separated) with what it needs. */
export type QueueAddress = {
  url: string;
  user?: string;
  password?: string;
  /** In place of `password`; read at each connection. */
  passwordFile?: string;
  /** NATS credentials file (JWT and seed), read at each connection. */
  credentialsFile?: string;
  /** File with a token; read at each connection. */
  tokenFile?: string;
  /** Present: TLS is wanted, whatever the server says. */
  tls?: { caFile?: string; certFile?: string; keyFile?: string };
  /** One token; keeps servers on one external queue apart. Empty on the embedded one. */
  namespace: string;
  replicas: number;
  /** Then the first connection is tried once; the embedded server is awaited. */
  isExternal?: boolean;
  /** Names the server whose streams these are; streams of another one are refused. */
  owner?: string;
};

export type QueueStatus = {
  pending: Record<TaskKind, number>;
  dead: Record<TaskKind, number>;
  /** Over all streams. */
  messages: number;
  bytes: number;
  /** Epoch milliseconds of the oldest waiting task of each kind; 0 when none waits. */
  oldestMs: Record<TaskKind, number>;
};

export interface Queue extends AsyncDisposable {
  readonly names: QueueNames;
  readonly connection: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  isUp(): boolean;
  /** Makes streams and consumers; calls the `onLost` listeners when they had been lost. */
  ensure(): Promise<Outcome<void>>;
  onLost(listener: () => void): void;
  /** The next `ensure` hands out every task anew, as after a loss: what the server noted of them cannot be relied on. */
  renew(): void;
  /** After the connection was lost and is back: requests that waited at the server are gone. */
  onReconnected(listener: () => void): void;
  /** ok when the message is fsynced in the queue. `id` drops repetitions. */
  publish(kind: TaskKind, message: WalMessage | BackupMessage, options: PublishOptions): Promise<Outcome<void>>;
  publishDeadLetter(letter: DeadLetter, id: string): Promise<Outcome<void>>;
  recordLatest(cluster: string, walName: string): Promise<Outcome<void>>;
  /** Cluster -> latest recorded file. */
  readLatest(): Promise<Outcome<Record<string, string>>>;
  status(): Promise<Outcome<QueueStatus>>;
  /** Tasks of one cluster that wait or are being worked on. */
  pendingOf(kind: TaskKind, cluster: string): Promise<Outcome<number>>;
}

type PublishOptions = { id: string; headers?: Readonly<Record<string, string>> };

const RECONNECT_WAIT_MS = 250;
const REQUEST_LIMIT_MS = 5_000;

const TLS_OPTIONS: Readonly<Record<string, string>> = {
  caFile: "queue.ca_cert",
  certFile: "queue.client_cert",
  keyFile: "queue.client_key",
};

const serversOf = ({ url }: QueueAddress) => url.split(",").map((one) => one.trim());

function readSecret(file: string, key: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new KlioError("KLIO-CONFIG", `cannot read ${key} ${file}: ${errorText(cause)}`, { cause });
  }
}

/**
 * Resolves once connected (an embedded server may still be starting) with streams and consumers in place. Rejects with
 * KLIO-CONFIG for unreadable files, KLIO-QUEUE-REFUSED for what a person must mend, KLIO-QUEUE-DOWN when an external queue does
 * not answer, KLIO-CANCELLED on abort.
 */
export async function openQueue(address: QueueAddress, options: { log: Log; signal?: AbortSignal }): Promise<Queue> {
  const { log, signal } = options;
  const names = queueNames(address.namespace);
  const { credentialsFile, passwordFile, tokenFile, user } = address;
  const textOf = (file: string, key: string) => new TextDecoder().decode(readSecret(file, key)).trim();
  // Files that cannot be read are told at start.
  for (const [name, file] of Object.entries({ ...address.tls })) readSecret(file, TLS_OPTIONS[name] ?? name);
  if (credentialsFile !== undefined) readSecret(credentialsFile, "queue.credentials_file");
  const passwordNow = () =>
    passwordFile === undefined ? (address.password ?? "") : textOf(passwordFile, "queue.password_file");
  if (passwordFile !== undefined) passwordNow();
  if (tokenFile !== undefined) textOf(tokenFile, "queue.token_file");
  const connecting = connect({
    servers: serversOf(address),
    name: "klio",
    ...(user !== undefined && { authenticator: usernamePasswordAuthenticator(() => user, passwordNow) }),
    ...(credentialsFile !== undefined && {
      authenticator: credsAuthenticator(() => readSecret(credentialsFile, "queue.credentials_file")),
    }),
    ...(tokenFile !== undefined && { authenticator: tokenAuthenticator(() => textOf(tokenFile, "queue.token_file")) }),
    ...(address.tls !== undefined && { tls: address.tls }),
    maxReconnectAttempts: -1,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    reconnectJitter: RECONNECT_WAIT_MS,
    waitOnFirstConnect: address.isExternal !== true,
    ignoreAuthErrorAbort: address.isExternal === true, // rotated credentials are read again
    timeout: REQUEST_LIMIT_MS,
  });
  const connection = await untilAborted(connecting, (error) => whyNot(address, error), signal);
  const js = connection.jetstream({ timeout: REQUEST_LIMIT_MS });
  const jsm = await connection.jetstreamManager({ timeout: REQUEST_LIMIT_MS, checkAPI: false });
  const listeners: (() => void)[] = [];
  const reconnected: (() => void)[] = [];
  let created: string | undefined;
  let isUp = true;
  let isRenewing = false;

  const guarded = async <T>(what: string, act: () => Promise<T>): Promise<Outcome<T>> => {
    // While disconnected the client would keep the request back until its time limit.
    if (!isUp || connection.isClosed()) return classifyQueue(new Error("not connected"), what);
    try {
      return ok(await act());
    } catch (error) {
      return error instanceof KlioError ? failureOf(error) : classifyQueue(error, what);
    }
  };
  const ensure = () =>
    guarded("cannot prepare the queue", async () => {
      const isFirst = created === undefined;
      const wanted = { names, replicas: address.replicas, owner: address.owner };
      const now = await ensureStreams(jsm, wanted, isFirst || isRenewing);
      const isLost = !isFirst && (created !== now || isRenewing);
      isRenewing = false;
      created = now;
      if (isLost) for (const listener of listeners) listener();
    });
  const send = (subject: string, payload: Uint8Array, { id, headers: extra = {} }: PublishOptions) =>
    guarded("cannot send to the queue", async () => {
      const head = headers();
      for (const [key, value] of Object.entries(extra)) head.set(key, value);
      const publish = () => js.publish(subject, payload, { msgID: id, headers: head });
      try {
        await publish();
      } catch (error) {
        // No stream listens to the subject: it was lost together with the queue's directory.
        if ((error as { code?: string }).code !== "503") throw error;
        const ready = await ensure();
        if (ready.kind !== "ok") throw new Error(ready.reason);
        await publish();
      }
    });

  void watchConnection(connection, log, async (isConnected) => {
    isUp = isConnected;
    if (!isConnected) return;
    const made = await ensure();
    if (made.kind !== "ok") log.warn("queue.unready", made.reason);
    for (const listener of reconnected) listener();
  });
  const ready = await ensure();
  if (ready.kind !== "ok") {
    await connection.close();
    const refusal =
      address.isExternal === true ? classifyPreparing(ready.reason, address.url, accessOf(address)) : undefined;
    const { code, reason } = refusal ?? ready;
    throw new KlioError(code, reason);
  }
  return {
    names,
    connection,
    js,
    jsm,
    isUp: () => isUp && !connection.isClosed(),
    ensure,
    onLost: (listener) => void listeners.push(listener),
    renew() {
      isRenewing = true;
    },
    onReconnected: (listener) => void reconnected.push(listener),
    publish: (kind, message, publishOptions) =>
      send(names.subject(kind, message.clusterName), encodeMessage(message), publishOptions),
    publishDeadLetter: (letter, id) =>
      send(names.subject(`dead-letter.${letter.kind}`, letter.clusterName), encodeMessage(letter), { id }),
    recordLatest: (cluster, walName) =>
      send(names.subject("latest-uploaded-wal", cluster), encodeMessage({ clusterName: cluster, walName }), {
        id: `${cluster}/latest/${walName}`,
      }),
    readLatest: () =>
      guarded("cannot read the latest uploaded WAL files", async () => {
        const info = await jsm.streams.info(names.latest, { subjects_filter: ">" });
        const found: [string, string][] = [];
        for (const subject of Object.keys(info.state.subjects ?? {})) {
          const message = await jsm.streams.getMessage(names.latest, { last_by_subj: subject });
          const { walName } = message.json<{ walName?: unknown }>();
          if (typeof walName === "string") found.push([clusterOfSubject(subject), walName]);
        }
        return Object.fromEntries(found);
      }),
    status: () => guarded("cannot read the queue's state", () => readStatus(jsm, names)),
    pendingOf: (kind, cluster) =>
      guarded("cannot read the queue's state", async () => {
        const subject = names.subject(kind, cluster);
        const info = await jsm.streams.info(names.stream[kind], { subjects_filter: subject });
        return info.state.subjects?.[subject] ?? 0;
      }),
    async [Symbol.asyncDispose]() {
      // What was given back must arrive; a queue that is away learns it from the end of its wait.
      if (isUp) await connection.flush().catch(() => undefined);
      await connection.close();
    },
  };
}

/** The options that say who we are. */
function accessOf({ credentialsFile, tokenFile, user }: QueueAddress): string {
  if (credentialsFile !== undefined) return `queue.credentials_file ${credentialsFile}`;
  if (tokenFile !== undefined) return `queue.token_file ${tokenFile}`;
  if (user !== undefined) return `queue.user ${user} with queue.password_file`;
  return "none of queue.credentials_file, queue.token_file, queue.user is set";
}

async function whyNot(address: QueueAddress, error: unknown): Promise<Failure> {
  const known = classifyConnecting(error, accessOf(address));
  if (address.isExternal !== true || known.code !== "KLIO-QUEUE-DOWN") return known;
  const files = Object.entries({ ca: "caFile", cert: "certFile", key: "keyFile" } as const).flatMap(
    ([name, option]) => {
      const file = address.tls?.[option];
      return file === undefined ? [] : [[name, readSecret(file, TLS_OPTIONS[option] ?? option)] as const];
    },
  );
  for (const url of serversOf(address)) {
    const looked = await lookAtServer(url, Object.fromEntries(files));
    if (looked !== undefined) return certificateRefused("reason" in looked ? looked.reason : undefined);
  }
  return known;
}

async function untilAborted(
  connecting: Promise<NatsConnection>,
  classify: (error: unknown) => Promise<Failure>,
  signal?: AbortSignal,
): Promise<NatsConnection> {
  const aborted = Promise.withResolvers<never>();
  const stop = () => aborted.reject(new KlioError("KLIO-CANCELLED", "connecting to the queue was cancelled"));
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted === true) stop();
  try {
    return await Promise.race([connecting, aborted.promise]);
  } catch (error) {
    void connecting.then(
      (connection) => connection.close(),
      () => undefined,
    );
    if (error instanceof KlioError) throw error;
    const { code, reason } = await classify(error);
    throw new KlioError(code, reason, { cause: error });
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

async function watchConnection(
  connection: NatsConnection,
  log: Log,
  onChange: (isConnected: boolean) => Promise<void>,
): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === Events.Disconnect) {
      log.warn("queue.disconnected", "the connection to the queue is lost");
      await onChange(false);
    }
    if (status.type === Events.Reconnect) {
      log.info("queue.reconnected", "the queue is back");
      await onChange(true);
    }
  }
}

async function readStatus(jsm: JetStreamManager, names: QueueNames): Promise<QueueStatus> {
  const status: QueueStatus = {
    pending: { wal: 0, backup: 0 },
    dead: { wal: 0, backup: 0 },
    messages: 0,
    bytes: 0,
    oldestMs: { wal: 0, backup: 0 },
  };
  const stateOf = async (stream: string) => {
    try {
      const { state } = await jsm.streams.info(stream);
      status.messages += state.messages;
      status.bytes += state.bytes;
      return state;
    } catch (error) {
      if (!isNotFound(error)) throw error;
      return undefined; // not made yet: empty
    }
  };
  for (const kind of ["wal", "backup"] as const) {
    const tasks = await stateOf(names.stream[kind]);
    status.pending[kind] = tasks?.messages ?? 0;
    if (tasks !== undefined && tasks.messages > 0) status.oldestMs[kind] = Date.parse(String(tasks.first_ts));
    status.dead[kind] = (await stateOf(names.deadLetters[kind]))?.messages ?? 0;
  }
  await stateOf(names.latest);
  return status;
}
