// The IO of the segmentOffload machine: a stored file read from tier 1 with its header wrapped for tier 2, put there without
// ever replacing other bytes, and what it supersedes removed. All of it may be repeated.
import { fromPromise } from "xstate";
import { compareContent, type Relation } from "../../domain/compare-content.ts";
import type { Log } from "../../domain/log.ts";
import { walKey } from "../../domain/object-key.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import type { WalReader } from "../../domain/wal-reader.ts";
import { parseWalName } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import type { PutResult, ReadResult } from "../../machines/segment-offload.machine.ts";
import type { ObjectStore } from "./object-store.ts";
import type { PutSource } from "./put-object.ts";

/** A file as tier 2 will have it. Whoever has it closes it. */
type Exported = PutSource & { rawBytes: number; close(): Promise<void> };

export type SegmentUploaderOptions = {
  /** Undefined: tier 1 has no such file. Rejects with KLIO-WAL-DAMAGED and the like. */
  exportFile: (cluster: string, name: string) => Promise<Exported | undefined>;
  tier1: Pick<WalReader, "open">;
  tier2: Pick<WalReader, "open">;
  objects: ObjectStore;
  prefix: string;
  log: Log;
};

type FileInput = { task: number; cluster: string; name: string };
type Loaded = { name: string; file: Exported };
/** `gone`: tier 2 has no such file (any more). `alone`: tier 1 has it no longer, so there is nothing to compare with. */
export type TierRelation = Relation | "gone" | "alone";

const PARTIAL = ".partial";
const stemOf = (name: string) => (name.endsWith(PARTIAL) ? name.slice(0, -PARTIAL.length) : name);

/** Actor logics for segmentOffload, and what is known of partial files on tier 2. */
export function segmentUploader(options: SegmentUploaderOptions) {
  const { objects, prefix, log } = options;
  /** Files between `readSegment` and `putSegment`: their bytes never enter a chart. */
  const loaded = new Map<number, Loaded>();
  /** `cluster/name` of partial files that are known to be on tier 2. */
  const partials = new Set<string>();

  async function guarded<T>(work: () => Promise<Outcome<T>>): Promise<Outcome<T>> {
    try {
      return await work();
    } catch (error) {
      return failureOf(error);
    }
  }

  let reading: Promise<unknown> = Promise.resolve();
  /** One file at a time is checked: it is this process's work, not waiting, and what is packed anew is in memory meanwhile. */
  const exportInTurn = (cluster: string, name: string): Promise<Exported | undefined> => {
    const run = reading.then(() => options.exportFile(cluster, name));
    reading = run.catch(() => undefined); // told to whoever asked
    return run;
  };

  async function read({ task, cluster, name }: FileInput, signal: AbortSignal): Promise<Outcome<ReadResult>> {
    // A partial file may have been completed since its task was written.
    for (const candidate of name.endsWith(PARTIAL) ? [name, stemOf(name)] : [name]) {
      const file = await exportInTurn(cluster, candidate);
      if (file === undefined) continue;
      if (signal.aborted) {
        await file.close(); // nobody will put it
        return failure("KLIO-CANCELLED", `reading ${candidate} was cancelled`);
      }
      loaded.set(task, { name: candidate, file });
      return ok({ kind: "read", name: candidate, bytes: file.bytes, rawBytes: file.rawBytes });
    }
    return ok({ kind: name.endsWith(PARTIAL) ? "nothing" : "gone" }); // O7
  }

  /** How tier 2's object relates to tier 1's file. An object that cannot be decoded is not ours. */
  async function relationOf(cluster: string, name: string, signal?: AbortSignal): Promise<TierRelation> {
    try {
      await using there = await options.tier2.open(cluster, name, signal);
      if (there === undefined) return "gone";
      await using here = await options.tier1.open(cluster, name, signal);
      if (here === undefined) return "alone";
      if (there.segmentBytes !== here.segmentBytes) return "different";
      return await compareContent(there.blocks, here.blocks);
    } catch (error) {
      if (error instanceof KlioError && (error.code === "KLIO-WAL-DAMAGED" || error.code === "KLIO-KEY-MISMATCH"))
        return "different";
      throw error;
    }
  }

  async function put({ task, cluster }: FileInput, signal: AbortSignal): Promise<Outcome<PutResult>> {
    const held = loaded.get(task);
    if (held === undefined) throw new Error(`task ${task} has nothing to put`);
    loaded.delete(task);
    const { name, file } = held;
    const key = walKey(prefix, cluster, name);
    try {
      const answer = await objects.put(key, file, { condition: { kind: "absent" }, signal });
      if (answer.kind !== "ok") return answer;
      if (answer.value.kind === "refused") return await settleConflict(cluster, held, key, signal);
    } finally {
      await file.close();
    }
    if (name.endsWith(PARTIAL)) partials.add(`${cluster}/${name}`);
    return ok({ bytes: file.bytes, wasThere: false });
  }

  /** The key is taken: by the same content, by the beginning of a partial file that has grown, or by something else. */
  async function settleConflict(
    cluster: string,
    { name, file: { bytes } }: Loaded,
    key: string,
    signal: AbortSignal,
  ): Promise<Outcome<PutResult>> {
    const found = await objects.find(key, signal);
    if (found.kind !== "ok") return found;
    const relation = found.value === undefined ? "gone" : await relationOf(cluster, name, signal);
    if (relation === "gone") return failure("KLIO-S3-DOWN", `${key} was there and is gone`);
    if (name.endsWith(PARTIAL)) partials.add(`${cluster}/${name}`);
    const isPartial = name.endsWith(PARTIAL);
    // A partial file was completed meanwhile, and its own task follows; a complete one is no longer wanted on tier 1.
    if (relation === "alone") return ok({ bytes, wasThere: true });
    // Tier 2 never gets less than it has: a longer partial file stays.
    if (relation === "same" || (relation === "extension" && isPartial)) return ok({ bytes, wasThere: true });
    if (relation === "prefix" && isPartial) {
      const exported = await exportInTurn(cluster, name);
      if (exported === undefined) return ok({ bytes, wasThere: true }); // completed meanwhile: its own task follows
      const condition = { kind: "etag", etag: found.value?.etag ?? "" } as const;
      try {
        const again = await objects.put(key, exported, { condition, signal });
        if (again.kind !== "ok") return again;
        if (again.value.kind === "stored") return ok({ bytes: exported.bytes, wasThere: false });
      } finally {
        await exported.close();
      }
      return failure("KLIO-S3-DOWN", `${key} was changed while it was replaced`);
    }
    return failure("KLIO-S3-CONFLICT", `${objects.bucket}/${key} holds other bytes than tier 1; neither was touched`);
  }

  async function find({ cluster, name }: FileInput, signal: AbortSignal): Promise<Outcome<{ isHeld: boolean }>> {
    const found = await objects.find(walKey(prefix, cluster, stemOf(name)), signal);
    return found.kind === "ok" ? ok({ isHeld: found.value !== undefined }) : found;
  }

  async function confirm({ cluster, name }: FileInput): Promise<Outcome<void>> {
    const partial = `${name}${PARTIAL}`;
    if (parseWalName(name)?.kind !== "segment" || !partials.has(`${cluster}/${partial}`)) return ok(undefined);
    const removed = await objects.remove([walKey(prefix, cluster, partial)]);
    if (removed.kind === "ok") partials.delete(`${cluster}/${partial}`);
    else log.debug("segment.partial.kept", removed.reason, { cluster, name: partial });
    return ok(undefined);
  }

  return {
    logics: {
      readSegment: fromPromise<Outcome<ReadResult>, FileInput>(({ input, signal }) =>
        guarded(() => read(input, signal)),
      ),
      putSegment: fromPromise<Outcome<PutResult>, FileInput>(({ input, signal }) => guarded(() => put(input, signal))),
      findSegment: fromPromise<Outcome<{ isHeld: boolean }>, FileInput>(({ input, signal }) =>
        guarded(() => find(input, signal)),
      ),
      confirmSegment: fromPromise<Outcome<void>, FileInput>(({ input }) => guarded(() => confirm(input))),
    },
    relationOf: (cluster: string, name: string) => relationOf(cluster, name),
    /** From a listing: partial files that lie on tier 2. */
    notePartials(cluster: string, names: readonly string[]): void {
      for (const name of names) partials.add(`${cluster}/${name}`);
    },
  };
}
