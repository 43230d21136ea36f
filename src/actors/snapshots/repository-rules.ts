// What every repository must say before anybody uses it: keep everything, what is not copied, who may do what, who
// maintains it. Checked each time it is opened for writing, so that a creation that was interrupted is completed.
import { type Failure, type Outcome, ok } from "../../domain/outcome.ts";
import type { TierName } from "../../domain/snapshots.ts";
import type { CommandResult } from "../process/run-command.ts";
import { failureOfCommand, type Peer } from "./classify.ts";

/**
 * Relative to each source; what belongs to the running server and must not be in a restored one. `dir/*` keeps the empty
 * directory. The control file is copied last and alone. `pg_wal` goes whole: where it is a link, a copy of the link would
 * lead a restored server into the WAL of the original.
 */
export const ignoreRules: readonly string[] = [
  "/pg_wal",
  "/pg_xlog",
  "/pg_replslot/*",
  "/pg_dynshmem/*",
  "/pg_notify/*",
  "/pg_serial/*",
  "/pg_snapshots/*",
  "/pg_stat_tmp/*",
  "/pg_subtrans/*",
  "/log/*",
  "/pg_log/*",
  "/global/pg_control",
  "/postmaster.pid",
  "/postmaster.opts",
  "/backup_label*",
  "/tablespace_map*",
  "/backup_manifest*",
  "/current_logfiles*",
  "/postgresql.auto.conf.tmp",
  "/recovery.conf",
  "/recovery.signal",
  "/standby.signal",
  "/.kopiaignore",
  "pgsql_tmp*",
  "pg_internal.init*",
];

/** No file of this name is ever looked for inside a source: what is copied is decided here and nowhere else. */
const NO_IGNORE_FILE = ".klio-ignores-nothing";
/** Deletion is decided on whole backups by Klio; the program itself must never expire anything. */
const KEEP_ALL = 1_000_000;

type Policy = {
  retention?: Record<string, unknown>;
  files?: { ignore?: string[]; ignoreDotFiles?: string[]; ignoreCacheDirs?: boolean };
  errorHandling?: { ignoreFileErrors?: boolean; ignoreDirectoryErrors?: boolean };
  compression?: { compressorName?: string };
};
type AclEntry = { id: string; user: string; access: string; target: Record<string, string> };
type Rule = { target: Record<string, string>; access: string };

/**
 * On tier 1 files of the running server may vanish while they are read, and what else went wrong is looked up in the snapshot.
 * On tier 2 only copies are written: there an ignored error would be a file that is missing without a word.
 */
const ignoresErrors = (tier: TierName) => tier === "tier1";

export function policyIsRight(policy: Policy, tier: TierName): boolean {
  const { retention = {}, files = {}, errorHandling = {} } = policy;
  const same = (a: readonly string[] = [], b: readonly string[]) =>
    a.length === b.length && a.toSorted().join("\n") === b.toSorted().join("\n");
  return (
    Number(retention.keepLatest) >= KEEP_ALL &&
    ["keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepAnnual"].every((rule) => retention[rule] === 0) &&
    retention.ignoreIdenticalSnapshots !== true &&
    same(files.ignore, ignoreRules) &&
    same(files.ignoreDotFiles, [NO_IGNORE_FILE]) &&
    files.ignoreCacheDirs === false &&
    errorHandling.ignoreFileErrors === ignoresErrors(tier) &&
    errorHandling.ignoreDirectoryErrors === ignoresErrors(tier) &&
    policy.compression?.compressorName === "zstd-fastest"
  );
}

function policyArgs(tier: TierName): string[] {
  return [
    "policy",
    "set",
    "--global",
    `--keep-latest=${KEEP_ALL}`,
    ...["hourly", "daily", "weekly", "monthly", "annual"].map((rule) => `--keep-${rule}=0`),
    "--ignore-identical-snapshots=false",
    "--compression=zstd-fastest",
    `--ignore-file-errors=${ignoresErrors(tier)}`,
    `--ignore-dir-errors=${ignoresErrors(tier)}`,
    "--ignore-cache-dirs=false",
    `--add-dot-ignore=${NO_IGNORE_FILE}`,
    ...ignoreRules.map((rule) => `--add-ignore=${rule}`),
  ];
}

/** A cluster's user writes (tier 1 only) and reads what is its own, and nothing else. */
export function accessRules(tier: TierName): Rule[] {
  const own = { username: "OWN_USER", hostname: "OWN_HOST" };
  const write = tier === "tier1" ? "APPEND" : "READ";
  return [
    { target: { type: "content" }, access: write },
    { target: { type: "policy", policyType: "global" }, access: "READ" },
    { target: { type: "policy", ...own }, access: "READ" },
    { target: { type: "snapshot", ...own }, access: write },
  ];
}

const keyOf = (rule: Rule) => JSON.stringify([rule.access, Object.entries(rule.target).toSorted()]);

/** Which rules are missing, and the ids of entries that must not be there. */
export function accessDifference(entries: readonly AclEntry[], tier: TierName): { missing: Rule[]; wrong: string[] } {
  const wanted = new Map(accessRules(tier).map((rule) => [keyOf(rule), rule]));
  const present = new Set(entries.filter((one) => one.user === "*@*").map((one) => keyOf(one)));
  return {
    missing: [...wanted.entries()].filter(([key]) => !present.has(key)).map(([, rule]) => rule),
    wrong: entries.filter((one) => one.user !== "*@*" || !wanted.has(keyOf(one))).map((one) => one.id),
  };
}

/** Runs one command on the repository, with direct access. */
export type RunDirect = (args: readonly string[]) => Promise<CommandResult>;

type Change = { args: readonly string[]; what: string };

const clearPolicy: Change = {
  args: ["policy", "set", "--global", "--clear-ignore", "--clear-dot-ignore"],
  what: "clear the policy",
};
const setPolicy = (tier: TierName): Change => ({ args: policyArgs(tier), what: "set the policy of the repository" });
const own: Change = { args: ["maintenance", "set", "--owner=me"], what: "become the one who maintains the repository" };

function allow({ target, access }: Rule): Change {
  const text = Object.entries(target)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
  return {
    args: ["server", "acl", "add", "--user=*@*", `--target=${text}`, `--access=${access}`],
    what: "set the access rules",
  };
}

/** What a repository that exists lacks. */
async function changesFor(run: RunDirect, tier: TierName, peer: Peer): Promise<Outcome<Change[]>> {
  const ask = async <T>(args: readonly string[], what: string): Promise<Outcome<T>> => {
    const result = await run(args);
    return result.code === 0 ? ok(JSON.parse(result.stdout) as T) : failureOfCommand(result, peer, `cannot ${what}`);
  };
  const policy = await ask<Policy>(["policy", "show", "--global", "--json"], "read the policy of the repository");
  if (policy.kind !== "ok") return policy;
  const listed = await ask<AclEntry[]>(["server", "acl", "list", "--json"], "read the access rules");
  if (listed.kind !== "ok") return listed;
  const info = await ask<{ owner?: string }>(["maintenance", "info", "--json"], "read who maintains the repository");
  if (info.kind !== "ok") return info;
  const { missing, wrong } = accessDifference(listed.value, tier);
  return ok([
    ...(policyIsRight(policy.value, tier) ? [] : [clearPolicy, setPolicy(tier)]),
    ...missing.map(allow),
    ...wrong.map((id) => ({
      args: ["server", "acl", "remove", "--delete", id],
      what: "remove foreign access rules",
    })),
    ...(info.value.owner === REPOSITORY_OWNER ? [] : [own]),
  ]);
}

/**
 * Makes the rules right; the first failure, or undefined. Does nothing where they are right already. `isNew`: it was created a
 * moment ago and has none, so it is not asked.
 */
export async function ensureRules(
  run: RunDirect,
  tier: TierName,
  peer: Peer,
  isNew: boolean,
): Promise<Failure | undefined> {
  const changes = isNew
    ? ok([setPolicy(tier), ...accessRules(tier).map(allow), own])
    : await changesFor(run, tier, peer);
  if (changes.kind !== "ok") return changes;
  for (const { args, what } of changes.value) {
    const result = await run(args);
    if (result.code !== 0) return failureOfCommand(result, peer, `cannot ${what}`);
  }
  return undefined;
}

/** As which user and host the server itself works on a repository; only this one maintains it. */
export const REPOSITORY_USER = "klio";
export const REPOSITORY_HOST = "klio-server";
const REPOSITORY_OWNER = `${REPOSITORY_USER}@${REPOSITORY_HOST}`;
