// Which whole backups a policy keeps. Rules as Kopia has them (the newest backup of each of the last N periods, counted
// from the newest backup), decided on whole backups and never on single snapshots.
import { KlioError } from "../errors.ts";

/** A rule that is undefined takes the default; 0 switches it off. */
export type RetentionRules = {
  keepLatest?: number;
  keepHourly?: number;
  keepDaily?: number;
  keepWeekly?: number;
  keepMonthly?: number;
  keepAnnual?: number;
  /** Any point of the last N days stays recoverable: the backups of that time and the one before them. Default: off. */
  recoveryWindowDays?: number;
};

export type RetentionRule = keyof RetentionRules;

const retentionDefaults: Readonly<Required<RetentionRules>> = {
  keepLatest: 10,
  keepHourly: 48,
  keepDaily: 7,
  keepWeekly: 4,
  keepMonthly: 24,
  keepAnnual: 1,
  recoveryWindowDays: 0,
};

export const retentionRuleNames = Object.keys(retentionDefaults) as RetentionRule[];

/** A backup as far as retention looks at it; times in epoch milliseconds. `hasWal`: all that it needs lies on its tier. */
export type AgedBackup = { name: string; startedAtMs: number; stoppedAtMs: number; isPinned: boolean; hasWal: boolean };

export type RetentionDecision = {
  /** Backup name -> why it stays (`latest-1`, `daily-3`, `pinned`, …). */
  kept: Record<string, string[]>;
  /** Names of the backups to delete, oldest first. */
  expired: string[];
};

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Clocks of the source and of the server that are right differ by less. */
const CLOCK_SKEW_MS = HOUR;

function isoWeek(date: Date): string {
  const thursday = new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()));
  thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7));
  const firstDay = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  const week = Math.ceil(((thursday.getTime() - firstDay) / DAY + 1) / 7);
  return `${thursday.getUTCFullYear()}-W${week}`;
}

function monthsBefore(ms: number, months: number): number {
  const date = new Date(ms);
  date.setUTCMonth(date.getUTCMonth() - months);
  return date.getTime();
}

type Period = {
  rule: RetentionRule;
  label: string;
  bucket: (date: Date) => string;
  cutoff: (newestMs: number, n: number) => number;
};

const PERIODS: readonly Period[] = [
  {
    rule: "keepHourly",
    label: "hourly",
    bucket: (date) => date.toISOString().slice(0, 13),
    cutoff: (newest, n) => newest - n * HOUR,
  },
  {
    rule: "keepDaily",
    label: "daily",
    bucket: (date) => date.toISOString().slice(0, 10),
    cutoff: (newest, n) => newest - n * DAY,
  },
  { rule: "keepWeekly", label: "weekly", bucket: isoWeek, cutoff: (newest, n) => newest - n * 7 * DAY },
  {
    rule: "keepMonthly",
    label: "monthly",
    bucket: (date) => date.toISOString().slice(0, 7),
    cutoff: (newest, n) => monthsBefore(newest, n),
  },
  {
    rule: "keepAnnual",
    label: "annual",
    bucket: (date) => date.toISOString().slice(0, 4),
    cutoff: (newest, n) => monthsBefore(newest, 12 * n),
  },
];

/**
 * What the rules keep of these backups (any order). The newest backup always stays, and when every rule is 0 all do: a
 * policy that keeps nothing is a mistake. Pinned backups stay. A backup whose WAL is not complete takes the place of none
 * that can be restored: what the rules keep of those alone stays, too. Nor does one that says it began later than now,
 * because a clock was wrong: as the newest it would expire whatever is taken after it. It stays until then.
 */
export function decideRetention(
  backups: readonly AgedBackup[],
  rules: RetentionRules,
  nowMs: number,
): RetentionDecision {
  const isAhead = ({ startedAtMs }: AgedBackup) => startedAtMs > nowMs + CLOCK_SKEW_MS;
  const counted = backups.filter((backup) => !isAhead(backup));
  const kept = keptBy(counted, rules, nowMs);
  for (const { name } of backups.filter(isAhead)) kept[name] = [...(kept[name] ?? []), "ahead-of-clock"];
  const restorable = keptBy(
    counted.filter(({ hasWal }) => hasWal),
    rules,
    nowMs,
  );
  for (const [name, reasons] of Object.entries(restorable))
    if (kept[name]?.length === 0) kept[name].push(...reasons.map((reason) => `restorable-${reason}`));
  const expired = backups
    .toSorted((a, b) => newestFirstOrder(b, a))
    .map(({ name }) => name)
    .filter((name) => kept[name]?.length === 0);
  for (const name of expired) delete kept[name];
  return { kept, expired };
}

const newestFirstOrder = (a: AgedBackup, b: AgedBackup) => b.startedAtMs - a.startedAtMs || (a.name < b.name ? 1 : -1);

/** Every name, with why it stays; without a reason when nothing keeps it. */
function keptBy(backups: readonly AgedBackup[], rules: RetentionRules, nowMs: number): Record<string, string[]> {
  const n = { ...retentionDefaults, ...definedRules(rules) };
  const newestFirst = backups.toSorted(newestFirstOrder);
  const newest = newestFirst[0];
  const kept: Record<string, string[]> = Object.fromEntries(newestFirst.map(({ name }) => [name, []]));
  const keep = (name: string, reason: string) => kept[name]?.push(reason);
  if (newest === undefined) return {};
  const isEmpty = retentionRuleNames.every((rule) => n[rule] === 0);
  for (const backup of newestFirst) {
    if (backup.isPinned) keep(backup.name, "pinned");
    if (isEmpty) keep(backup.name, "no rule");
  }
  newestFirst.slice(0, Math.max(1, n.keepLatest)).forEach(({ name }, i) => void keep(name, `latest-${i + 1}`));
  for (const { rule, label, bucket, cutoff } of PERIODS) {
    const oldestMs = cutoff(newest.startedAtMs, n[rule]);
    const seen = new Set<string>();
    for (const backup of newestFirst) {
      const id = bucket(new Date(backup.startedAtMs));
      if (seen.size >= n[rule] || backup.startedAtMs < oldestMs || seen.has(id)) continue;
      seen.add(id);
      keep(backup.name, `${label}-${seen.size}`);
    }
  }
  if (n.recoveryWindowDays > 0) {
    // Like the other rules not from now on: a server whose clock jumps ahead would leave one backup.
    const begin = Math.min(nowMs, newest.stoppedAtMs) - n.recoveryWindowDays * DAY;
    const anchor = newestFirst.find((backup) => backup.stoppedAtMs <= begin);
    for (const backup of newestFirst)
      if (backup.stoppedAtMs > begin || backup === anchor) keep(backup.name, "recovery-window");
  }
  return kept;
}

function definedRules(rules: RetentionRules): RetentionRules {
  return Object.fromEntries(Object.entries(rules).filter(([, value]) => value !== undefined));
}

/**
 * Rules from the JSON of the protocol (`{"keepLatest": 3}`). An empty text gives undefined: do not touch what is set.
 * Throws KLIO-USAGE for anything that is no object of whole numbers.
 */
export function parseRetentionRules(text: string): RetentionRules | undefined {
  if (text.trim() === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KlioError("KLIO-USAGE", `retention policy is not JSON: ${JSON.stringify(text.slice(0, 100))}`, { cause });
  }
  return retentionRulesFrom(value);
}

/** The known keys of a JSON object; unknown ones and null are passed over. Throws KLIO-USAGE. */
export function retentionRulesFrom(value: unknown): RetentionRules {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new KlioError("KLIO-USAGE", `retention policy is no object: ${JSON.stringify(value)}`);
  const rules: RetentionRules = {};
  for (const rule of retentionRuleNames) {
    const count = (value as Record<string, unknown>)[rule] ?? undefined;
    if (count === undefined) continue;
    if (typeof count !== "number" || !Number.isInteger(count) || count < 0)
      throw new KlioError("KLIO-USAGE", `${rule} is no whole number of backups: ${JSON.stringify(count)}`);
    rules[rule] = count;
  }
  return rules;
}
