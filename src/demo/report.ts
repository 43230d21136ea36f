// The figures of a demo run: as a table for people, as one JSON document for programs.
import type { Comparison } from "./ledger.ts";

export type TierFigures = {
  /** Acknowledged commits that the recovered cluster lacks, has otherwise, or has though nobody was told of them. */
  commitsLost: number;
  rowsDifferent: number;
  rowsUnexpected: number;
  /** The same at the point in time in the middle of the load: rows expected, and whether exactly those were there. */
  pointInTimeRows: number;
  pointInTimeExact: boolean;
  /** Seconds from the loss until this tier held every acknowledged commit. */
  exposureSeconds: number;
  /** Seconds from the start of the restore until the cluster accepted writes (comparisons not counted). */
  recoverySeconds: number;
  storedBytes: number;
};

export type DemoFigures = {
  postgresVersion: number;
  commitsAcknowledged: number;
  commitsPerSecond: number;
  backup: { name: string; seconds: number; databaseBytes: number };
  relaySeconds: number;
  tier1: TierFigures | null;
  tier2: TierFigures | null;
  faults: string[];
  seconds: number;
  ok: boolean;
};

/** Joins the two comparisons of one recovery. */
export function tierFigures(
  atPoint: Comparison,
  atEnd: Comparison,
  measured: Pick<TierFigures, "exposureSeconds" | "recoverySeconds" | "storedBytes">,
): TierFigures {
  return {
    commitsLost: atEnd.lost,
    rowsDifferent: atEnd.different,
    rowsUnexpected: atEnd.unexpected,
    pointInTimeRows: atPoint.expected,
    pointInTimeExact: atPoint.lost === 0 && atPoint.different === 0 && atPoint.unexpected === 0,
    ...measured,
  };
}

export function holds(tier: TierFigures | null): boolean {
  return (
    tier !== null &&
    tier.commitsLost === 0 &&
    tier.rowsDifferent === 0 &&
    tier.rowsUnexpected === 0 &&
    tier.pointInTimeExact
  );
}

const bytes = (n: number) => (n < 1e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(1)} MB`);

/** The table at the end, one line per figure, one column per tier. */
export function formatTable(figures: DemoFigures): string {
  const rows: [string, (tier: TierFigures) => string][] = [
    ["commits lost", (t) => String(t.commitsLost)],
    ["rows different or unexpected", (t) => String(t.rowsDifferent + t.rowsUnexpected)],
    ["point in time", (t) => (t.pointInTimeExact ? `exact, ${t.pointInTimeRows} rows` : "NOT EXACT")],
    ["seconds of exposure", (t) => t.exposureSeconds.toFixed(2)],
    ["seconds to recover", (t) => t.recoverySeconds.toFixed(2)],
    ["bytes stored", (t) => bytes(t.storedBytes)],
  ];
  const cells = rows.map(([name, show]) => [
    name,
    ...[figures.tier1, figures.tier2].map((t) => (t === null ? "not recovered" : show(t))),
  ]);
  const head = ["", "from tier 1 (local)", "from tier 2 (S3)"];
  const widths = [0, 1, 2].map((i) => Math.max(...[head, ...cells].map((row) => (row[i] ?? "").length)));
  const format = (row: string[]) =>
    `  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("   ")}`;
  return [
    "",
    `  PostgreSQL ${figures.postgresVersion}: ${figures.commitsAcknowledged} commits acknowledged (${figures.commitsPerSecond.toFixed(0)}/s, synchronous standby), ` +
      `base backup ${figures.backup.name} of ${bytes(figures.backup.databaseBytes)} in ${figures.backup.seconds.toFixed(1)} s, on tier 2 ${figures.relaySeconds.toFixed(1)} s later`,
    "",
    format(head),
    format(widths.map((width) => "─".repeat(width))),
    ...cells.map(format),
    "",
    ...figures.faults.map((fault) => `  ! ${fault}`),
    figures.ok
      ? `  all checks held, ${figures.seconds.toFixed(0)} s`
      : `  NOT ALL CHECKS HELD, ${figures.seconds.toFixed(0)} s`,
    "",
  ].join("\n");
}
