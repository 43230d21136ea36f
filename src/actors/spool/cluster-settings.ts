// What a cluster's sidecar asked for and the server must still know after a restart: whether its WAL goes to tier 2, and
// how long each tier keeps its backups, and how fast they were read. One small JSON file in the cluster's directory of the WAL volume.
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ReadMeasure, ReadPurpose } from "../../domain/cluster-status.ts";
import { type RetentionRules, retentionRulesFrom } from "../../domain/retention-policy.ts";
import type { TierName } from "../../domain/snapshots.ts";
import { errorText, KlioError } from "../../errors.ts";
import { isMissing, storeError } from "./classify.ts";
import { DIRECTORY_MODE, replaceFile } from "./durable-file.ts";
import { clusterDirectory } from "./wal-directory.ts";

export type ClusterSettings = {
  sendToTier2?: boolean;
  /** Absent: nothing was ever set, so nothing expires. */
  tier1Retention?: RetentionRules;
  tier2Retention?: RetentionRules;
  /** How fast backups were read last, by tier and purpose. */
  reads?: Partial<Record<`${TierName}-${ReadPurpose}`, ReadMeasure>>;
};

const NAME = "settings.json";

/** A measure that is damaged is one that was never made. */
function isReads(value: unknown): value is NonNullable<ClusterSettings["reads"]> {
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).every(
    (one: Partial<ReadMeasure> | null) =>
      typeof one?.backup === "string" && [one.bytes, one.seconds, one.at].every((number) => Number.isFinite(number)),
  );
}

function parse(text: string): ClusterSettings {
  const value = JSON.parse(text) as Record<string, unknown>;
  return {
    ...(typeof value.sendToTier2 === "boolean" && { sendToTier2: value.sendToTier2 }),
    ...(value.tier1Retention !== undefined && { tier1Retention: retentionRulesFrom(value.tier1Retention) }),
    ...(value.tier2Retention !== undefined && { tier2Retention: retentionRulesFrom(value.tier2Retention) }),
    ...(isReads(value.reads) && { reads: value.reads }),
  };
}

/** Settings of all clusters below a WAL directory, kept in memory and changed one at a time. */
export class SettingsStore {
  readonly #root: string;
  readonly #known = new Map<string, ClusterSettings>();
  readonly #changes = new Map<string, Promise<unknown>>();

  constructor(root: string) {
    this.#root = root;
  }

  /** Rejects with KLIO-STORE-IO when they are there and cannot be read: guessing could delete backups. */
  async read(cluster: string): Promise<ClusterSettings> {
    const known = this.#known.get(cluster);
    if (known !== undefined) return known;
    const path = join(clusterDirectory(this.#root, cluster), NAME);
    let settings: ClusterSettings = {};
    try {
      settings = parse(await readFile(path, "utf8"));
    } catch (error) {
      if (!isMissing(error))
        throw new KlioError("KLIO-STORE-IO", `cannot read ${path}: ${errorText(error)}`, { cause: error });
    }
    this.#known.set(cluster, settings);
    return settings;
  }

  /** Merges `changed` in; durable when resolved. Does nothing when nothing changes. */
  write(cluster: string, changed: ClusterSettings): Promise<void> {
    return this.#change(cluster, () => changed);
  }

  #change(cluster: string, changed: (before: ClusterSettings) => ClusterSettings): Promise<void> {
    const change = (this.#changes.get(cluster) ?? Promise.resolve())
      .catch(() => undefined) // the one before has its own caller
      .then(() => this.#write(cluster, changed));
    this.#changes.set(cluster, change);
    return change;
  }

  /** Remembers how fast a backup was read; the one before of the same kind is forgotten. */
  writeRead(cluster: string, tier: TierName, purpose: ReadPurpose, measure: ReadMeasure): Promise<void> {
    return this.#change(cluster, ({ reads }) => ({ reads: { ...reads, [`${tier}-${purpose}`]: measure } }));
  }

  async #write(cluster: string, changed: (before: ClusterSettings) => ClusterSettings): Promise<void> {
    const before = await this.read(cluster);
    const after = { ...before, ...changed(before) };
    if (JSON.stringify(after) === JSON.stringify(before)) return;
    const directory = clusterDirectory(this.#root, cluster);
    try {
      await mkdir(directory, { mode: DIRECTORY_MODE, recursive: true });
      await replaceFile(join(directory, NAME), Buffer.from(`${JSON.stringify(after, null, 2)}\n`));
    } catch (error) {
      throw storeError(error, `cannot write the settings of ${cluster}`);
    }
    this.#known.set(cluster, after);
  }
}
