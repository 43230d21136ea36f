// Texts of a restored data directory: tablespace map and recovery settings.
import { formatTargetTime, type RecoveryTarget } from "./recovery-target.ts";

/** Settings of an earlier recovery; a cluster that was itself restored carries them along in its backups. */
const RECOVERY_SETTING =
  /^\s*(restore_command|recovery_(?:target\w*|end_command|min_apply_delay)|archive_cleanup_command)\s*(?:=|\s)/i;

export type RecoverySettings = {
  restoreCommand: string;
  timeline: number;
  target: RecoveryTarget;
};

const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** postgresql.auto.conf with these recovery settings in place of all others. */
export function withRecoverySettings(text: string, { restoreCommand, timeline, target }: RecoverySettings): string {
  const kept = text.split("\n").filter((line) => !RECOVERY_SETTING.test(line));
  while (kept.at(-1) === "") kept.pop();
  const lines = [
    `restore_command = ${quoted(restoreCommand)}`,
    `recovery_target_timeline = ${quoted(String(timeline))}`,
  ];
  if (target.kind === "time") lines.push(`recovery_target_time = ${quoted(formatTargetTime(target.atUs))}`);
  if (target.kind === "lsn") lines.push(`recovery_target_lsn = ${quoted(target.lsn)}`);
  if (target.kind !== "latest") lines.push("recovery_target_action = 'promote'");
  return `${[...kept, ...lines].join("\n")}\n`;
}

/** A word of a shell command, as PostgreSQL hands restore_command to the shell: its own % signs doubled. */
export function shellWord(text: string): string {
  const escaped = text.replaceAll("%", "%%");
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? escaped : `'${escaped.replaceAll("'", "'\\''")}'`;
}

const escapePath = (path: string) => path.replace(/[\\\n\r]/g, (one) => `\\${one}`);

/**
 * The map that tells PostgreSQL where the tablespaces are, one "oid path" a line: `original` with other paths for some.
 * Characters that end a line are escaped by a backslash, in both.
 */
export function remapTablespaces(original: string, paths: ReadonlyMap<number, string>): string {
  const entries = original.split(/(?<=(?<!\\)(?:\\\\)*\n)/).map((line) => line.replace(/\n$/, ""));
  const lines = entries
    .filter((entry) => entry !== "")
    .map((entry) => {
      const oid = Number(/^\d+/.exec(entry)?.[0] ?? Number.NaN);
      const path = paths.get(oid);
      return path === undefined ? entry : `${oid} ${escapePath(path)}`;
    });
  const told = new Set(lines.map((line) => Number(/^\d+/.exec(line)?.[0])));
  for (const [oid, path] of paths) if (!told.has(oid)) lines.push(`${oid} ${escapePath(path)}`);
  return lines.map((line) => `${line}\n`).join("");
}
