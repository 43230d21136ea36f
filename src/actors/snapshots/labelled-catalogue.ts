// The catalogue with direct access to the storage, where snapshots of all clusters lie. The repository server admits what a
// user labels as its own (user, host, path), and reads no further: the snapshot's own text, from which the program's listing
// is made, may name any cluster.
//   L1. An entry is believed only when its labels say the same of its source; what does not belongs to nobody.
//   L2. Labels are asked for only when a listing has a snapshot that none did before: an id never gets other labels.
import type { Log } from "../../domain/log.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import type { CatalogueEntry } from "../../domain/snapshot-catalogue.ts";
import { listEntries, type Runner } from "./catalogue.ts";
import { failureOfCommand } from "./classify.ts";
import { parseLabels, type SnapshotLabels } from "./manifest.ts";

/** Of a snapshot that says that it is of another source than it was admitted for. */
export type Mislabelled = { owner: string; says: CatalogueEntry };
export type LabelledCatalogue = { entries: CatalogueEntry[]; mislabelled: Mislabelled[] };
type LabelsById = ReadonlyMap<string, SnapshotLabels>;

/** A pin that is set or taken off between listing and labels replaces an id; more than a few in a row do not. */
const ATTEMPTS = 5;

export class LabelledListing {
  readonly #runner: Runner;
  readonly #log: Log;
  readonly #told = new Set<string>();
  #labels: LabelsById = new Map();

  constructor(runner: Runner, log: Log) {
    this.#runner = runner;
    this.#log = log;
  }

  /** All entries of Klio, oldest first. */
  async read(): Promise<Outcome<LabelledCatalogue>> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const listed = await listEntries(this.#runner, true);
      if (listed.kind !== "ok") return listed;
      const labels = await this.#labelsOf(listed.value);
      if (labels.kind !== "ok") return labels;
      const sorted = sortByLabels(listed.value, labels.value);
      if (sorted === undefined) continue; // one is gone since: what replaced it must not be missed
      this.#tell(sorted.mislabelled);
      return ok(sorted);
    }
    return failure("KLIO-REPOSITORY-DOWN", "the ids of the snapshots change all the time");
  }

  async #labelsOf(entries: readonly CatalogueEntry[]): Promise<Outcome<LabelsById>> {
    if (entries.every(({ id }) => this.#labels.has(id))) return ok(this.#labels); // L2
    const result = await this.#runner.run(["manifest", "list", "--json", "--filter=type:snapshot"]);
    if (result.code !== 0) return failureOfCommand(result, this.#runner.peer, "cannot list the labels of snapshots");
    try {
      this.#labels = parseLabels(result.stdout);
      return ok(this.#labels);
    } catch (error) {
      return failureOf(error);
    }
  }

  /** Once for each user: it may store as many as it likes. */
  #tell(mislabelled: readonly Mislabelled[]): void {
    for (const { owner, says } of mislabelled) {
      if (this.#told.has(owner)) continue;
      this.#told.add(owner);
      this.#log.warn(
        "repository.snapshot.mislabelled",
        `snapshot ${says.id}, which ${owner} stored, says that it is of ${JSON.stringify(`${says.user}@${says.cluster}`)}` +
          " or of another place than it was stored for; it and others of the kind are ignored",
        { owner, id: says.id },
      );
    }
  }
}

/** undefined when an entry's labels are not known. */
function sortByLabels(listed: readonly CatalogueEntry[], labels: LabelsById): LabelledCatalogue | undefined {
  const entries: CatalogueEntry[] = [];
  const mislabelled: Mislabelled[] = [];
  for (const entry of listed) {
    const own = labels.get(entry.id);
    if (own === undefined) return undefined;
    const isTrue = own.user === entry.user && own.cluster === entry.cluster && own.path === entry.path; // L1
    if (isTrue) entries.push(entry);
    else mislabelled.push({ owner: `${own.user}@${own.cluster}`, says: entry });
  }
  return { entries, mislabelled };
}
