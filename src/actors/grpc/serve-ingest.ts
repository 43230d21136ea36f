// Put and Stream: each call is one walIngest, whose end decides the answer.
import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { ServerDuplexStream, ServerReadableStream, sendUnaryData } from "@grpc/grpc-js";
import { type Actor, type AnyActorRef, type AnyStateMachine, fromPromise, type InputFrom } from "xstate";
import type { FactOf, Report } from "../../domain/facts.ts";
import type { Log } from "../../domain/log.ts";
import { type ErrorCode, errorText, KlioError } from "../../errors.ts";
import {
  type ReceiveOutcome,
  type SealOutcome,
  type WalIngestOutput,
  type WalInterrupted,
  walIngest,
} from "../../machines/wal-ingest.machine.ts";
import {
  type PutAck,
  PutAckSchema,
  type PutResult,
  PutResultSchema,
} from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { decodePut, type PutMessage } from "../../wire/wal-message.ts";
import type { WalStore } from "../spool/wal-store.ts";
import { statusOf } from "./classify.ts";
import { type Call, logRefusal, requireOwnCluster, traceparentOf } from "./handlers.ts";
import { Inbox } from "./inbox.ts";
import { type UploadId, uploadIdOf } from "./upload-id.ts";
import { requireFirst, WalIntake } from "./wal-intake.ts";

/** What ingestion takes of telemetry. */
export type IngestTelemetry = {
  start<M extends AnyStateMachine>(machine: M, options: { id: string; input: InputFrom<M> }): Actor<M>;
  traceparentOf(actor: AnyActorRef): string | undefined;
  record: Report;
};

export type IngestOptions = {
  /** Absent: a server that only reads. */
  store: WalStore | undefined;
  telemetry: IngestTelemetry;
  log: Log;
  /** A file is complete on tier 1. Must not throw. */
  onStored: (fact: FactOf<"wal.stored">) => void;
  /** A file was left unfinished with bytes that are durable. Must not throw. */
  onInterrupted: (fact: WalInterrupted) => void;
};

/** One call that writes a file. `over` resolves when it has let the file go. */
type Sender = { file: string; upload: UploadId | undefined; inbox: Inbox<Buffer>; over: Promise<void> };

type Answer = { kind: "whole" | "early"; receivedBytes: number } | { kind: "empty" };

export class Ingest {
  readonly #options: IngestOptions;
  readonly #intakes = new Map<string, WalIntake>();
  readonly #running = new Map<string, { actor: Actor<typeof walIngest>; ended: Promise<unknown> }>();
  readonly #senders = new Set<Sender>();
  readonly #machine: typeof walIngest;
  #isStopping = false;

  constructor(options: IngestOptions) {
    this.#options = options;
    this.#machine = walIngest.provide({
      actors: {
        receiveWal: fromPromise<ReceiveOutcome, { call: string }>(({ input, signal }) =>
          this.#intake(input.call).receive(signal),
        ),
        drainWal: fromPromise<ReceiveOutcome, { call: string }>(({ input }) => this.#intake(input.call).drain()),
        sealWal: fromPromise<SealOutcome, { call: string }>(({ input }) => this.#intake(input.call).seal()),
      },
    });
  }

  put(call: ServerReadableStream<Buffer, PutResult>, reply: sendUnaryData<PutResult>): void {
    this.#run("Put", call, new Inbox<Buffer>(call), () => undefined).then(
      (answer) => {
        const writtenSize = answer.kind === "empty" ? 0n : BigInt(answer.receivedBytes);
        if (!call.cancelled) reply(null, create(PutResultSchema, { writtenSize }));
      },
      (error: unknown) => {
        logRefusal(this.#options.log, "Put", error);
        if (!call.cancelled) reply(statusOf(error));
      },
    );
  }

  stream(call: ServerDuplexStream<Buffer, PutAck>): void {
    const acknowledge = (rawBytes: number, complete: boolean) => {
      if (call.cancelled || call.writableEnded) return;
      call.write(create(PutAckSchema, { durableSize: BigInt(rawBytes), complete }));
    };
    this.#run("Stream", call, new Inbox<Buffer>(call), (rawBytes) => acknowledge(rawBytes, false)).then(
      (answer) => {
        if (answer.kind === "whole") acknowledge(answer.receivedBytes, true);
        if (!call.cancelled) call.end();
      },
      (error: unknown) => {
        logRefusal(this.#options.log, "Stream", error);
        if (!call.cancelled) call.emit("error", statusOf(error));
      },
    );
  }

  /** Takes no new files; lets what has come of the others become durable and confirmed. Resolves when all have ended. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const { actor } of this.#running.values()) actor.send({ type: "shutdown.requested" });
    await Promise.allSettled([...this.#running.values()].map(({ ended }) => ended));
  }

  #intake(call: string): WalIntake {
    const intake = this.#intakes.get(call);
    if (intake === undefined) throw new KlioError("KLIO-BUG", `there is no call ${call}`);
    return intake;
  }

  async #run(
    method: "Put" | "Stream",
    call: Call,
    inbox: Inbox<Buffer>,
    onDurable: (rawBytes: number) => void,
  ): Promise<Answer> {
    const { store } = this.#options;
    if (store === undefined) throw new KlioError("KLIO-READ-ONLY", "this server does not take WAL");
    if (this.#isStopping) throw new KlioError("KLIO-SERVER-DOWN", "the server is stopping");
    const begun = await inbox.next();
    if (begun.kind !== "message") return { kind: "empty" };
    const first = requireFirst(decodePut(begun.message));
    requireOwnCluster(call, first.cluster);
    const report = this.#options.telemetry.record;
    const over = Promise.withResolvers<void>();
    const file = `${first.cluster}/${first.walName}`;
    const sender: Sender = { file, upload: uploadIdOf(call), inbox, over: over.promise };
    await this.#succeed(sender);
    const intake = new WalIntake({ store, inbox, first, method, report, onDurable });
    try {
      return await this.#ingest(first, intake, traceparentOf(call));
    } finally {
      await intake.close();
      this.#senders.delete(sender);
      over.resolve();
    }
  }

  /**
   * A sender that came back is not kept waiting by its own earlier call, whose link died unnoticed: that one ends with what has
   * come, and lets the file go before the new one may open it.
   */
  async #succeed(sender: Sender): Promise<void> {
    const { file, upload: own } = sender;
    const earlier = [...this.#senders].filter(
      ({ file: other, upload }) =>
        other === file && own !== undefined && upload?.sender === own.sender && upload.turn < own.turn,
    );
    this.#senders.add(sender);
    for (const { inbox } of earlier) inbox.stop();
    await Promise.all(earlier.map(({ over }) => over));
  }

  async #ingest(first: PutMessage, intake: WalIntake, traceparent: string): Promise<Answer> {
    const { telemetry, onStored, onInterrupted } = this.#options;
    const call = randomUUID();
    this.#intakes.set(call, intake);
    try {
      const input = { call, cluster: first.cluster, name: first.walName, traceparent };
      const actor = telemetry.start(this.#machine, { id: `walIngest:${first.cluster}/${first.walName}`, input });
      const own = telemetry.traceparentOf(actor);
      const traced = own === undefined ? {} : { traceparent: own };
      actor.on("wal.stored", (fact) => onStored({ ...fact, ...traced }));
      actor.on("wal.interrupted", (fact) => onInterrupted({ ...fact, ...traced }));
      const ended = outputOf(actor);
      this.#running.set(call, { actor, ended });
      if (this.#isStopping) actor.send({ type: "shutdown.requested" });
      return await this.#answer(await ended, intake);
    } finally {
      this.#running.delete(call);
      this.#intakes.delete(call);
    }
  }

  async #answer(output: WalIngestOutput, intake: WalIntake): Promise<Answer> {
    const { receivedBytes } = intake;
    switch (output.kind) {
      case "stored": {
        await intake.close(); // frees the file before the sender hears that it is complete
        // A sender of `Stream` waits for this answer before it ends its side; one of `Put` ends first.
        const failure = intake.method === "Put" ? await intake.end() : undefined;
        if (failure !== undefined) throw new KlioError(failure.code, failure.reason);
        return { kind: "whole", receivedBytes };
      }
      case "partial":
        return { kind: "early", receivedBytes };
      case "stopped":
        throw new KlioError("KLIO-SERVER-DOWN", "the server is stopping");
      case "retryable":
      case "fatal":
        throw new KlioError(output.code satisfies ErrorCode, output.reason);
      default:
        return output satisfies never;
    }
  }
}

/** What the machine ends with; rejects when it fails, which is a bug. */
function outputOf(actor: Actor<typeof walIngest>): Promise<WalIngestOutput> {
  return new Promise((resolve, reject) => {
    actor.subscribe({
      next: (snapshot) => {
        if (snapshot.status === "done" && snapshot.output !== undefined) resolve(snapshot.output);
      },
      error: (error: unknown) => reject(error instanceof Error ? error : new Error(errorText(error))),
    });
  });
}
