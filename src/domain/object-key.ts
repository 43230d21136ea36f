// Where things lie in tier 2's bucket: `<prefix>/base/…` is Kopia's, `<prefix>/wals/…` is the WAL archive with the same
// layout as tier 1.
import { parseWalName, walPath } from "./wal-segment.ts";

/** Key prefix of all WAL files, with a slash at the end. `prefix` has no slash at its ends and may be empty. */
export function walRoot(prefix: string): string {
  return prefix === "" ? "wals/" : `${prefix}/wals/`;
}

export function clusterRoot(prefix: string, cluster: string): string {
  return `${walRoot(prefix)}${cluster}/`;
}

export function walKey(prefix: string, cluster: string, name: string): string {
  return clusterRoot(prefix, cluster) + walPath(name);
}

/** Key of the envelope that holds tier 2's master key. */
export function envelopeKey(prefix: string): string {
  return `${walRoot(prefix)}repository.config`;
}

/** The WAL file a key below the cluster's root stands for; undefined when it is none or lies at the wrong place. */
export function walNameOf(prefix: string, cluster: string, key: string): string | undefined {
  const root = clusterRoot(prefix, cluster);
  const name = key.slice(key.lastIndexOf("/") + 1);
  if (!key.startsWith(root) || parseWalName(name) === undefined) return undefined;
  return key === root + walPath(name) ? name : undefined;
}
