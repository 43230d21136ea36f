// Names of backups: they become part of paths and of one line of text.
import { KlioError } from "../errors.ts";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** Returns the name. Throws KLIO-USAGE. */
export function requireBackupName(name: string): string {
  if (!NAME.test(name))
    throw new KlioError("KLIO-USAGE", `not a name for a backup: ${JSON.stringify(name)}`, {
      hint: "use letters, digits, '.', '_' and '-', at most 100 of them, and begin with a letter or a digit",
    });
  return name;
}

/** `YYYYMMDDhhmmss` in UTC. */
export function timeName(epochMs: number): string {
  return new Date(epochMs).toISOString().replace(/\D/g, "").slice(0, 14);
}

/** `backup-YYYYMMDDhhmmss` in UTC. */
export function defaultBackupName(epochMs: number): string {
  return `backup-${timeName(epochMs)}`;
}
