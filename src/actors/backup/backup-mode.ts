// PostgreSQL in backup mode: one session that is kept open from start to stop. When it ends in between, PostgreSQL leaves
// backup mode by itself.
import pg from "pg";
import { type BackupLabel, parseBackupLabel } from "../../domain/backup-label.ts";
import type { Tablespace } from "../../domain/backup-metadata.ts";
import { type Lsn, parseLsn } from "../../domain/lsn.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { errorText, KlioError } from "../../errors.ts";
import type { BackupRole } from "../../machines/base-backup-events.ts";
import { type Row, socketOf } from "../postgres/ask-source.ts";
import { sourceError } from "../postgres/classify.ts";
import { clientConfig, parseConninfo } from "../postgres/conninfo.ts";

/** What a backup must know of its source. Times are epoch seconds on PostgreSQL's clock. */
type BackupSource = {
  role: BackupRole;
  systemId: string;
  pgVersion: number;
  dataDirectory: string;
  segmentBytes: number;
  tablespaces: Tablespace[];
  startedAt: number;
};
export type StoppedBackup = {
  label: BackupLabel;
  labelText: string;
  tablespaceMap: string;
  endLsn: Lsn;
  stoppedAt: number;
};

export interface BackupMode {
  readonly source: BackupSource;
  /** Resolves when the session has ended, whoever ended it; never rejects. */
  readonly gone: Promise<KlioError>;
  /** Leaves backup mode. */
  stop(): Promise<Outcome<StoppedBackup>>;
  /** Ends the session, and with it a backup mode that was not left. Safe to call twice. */
  close(): Promise<void>;
}

/** "Klio" in ASCII; held by the session, so that a second backup of this instance is refused. */
const LOCK = "1265395055, 1";
/** A peer that does not take our goodbye is not waited for. */
const GOODBYE_MS = 1_000;

const SETTINGS =
  "set statement_timeout = 0; set lock_timeout = 0; set idle_session_timeout = 0; set idle_in_transaction_session_timeout = 0; set datestyle = iso";

// A tablespace inside the data directory has a relative location and is copied with it.
const TABLESPACES =
  "select spcname as name, oid::int8::text as oid, pg_tablespace_location(oid) as path from pg_tablespace where pg_tablespace_location(oid) like '/%' order by oid";

const SOURCE = `select pg_is_in_recovery() as standby, current_setting('server_version_num')::int as version,
  current_setting('data_directory') as data_directory, system_identifier::text as system_id, bytes_per_wal_segment::int as segment_bytes
  from pg_control_system(), pg_control_init()`;

/**
 * Connects, takes the lock and brings PostgreSQL into backup mode. ok: the caller closes it. Fails with KLIO-BACKUP-RUNNING when
 * another backup of this instance runs, and with KLIO-SOURCE-… Rejects with KLIO-CONFIG for a string that is none.
 */
export async function enterBackupMode(
  dsn: string,
  options: { name: string; signal: AbortSignal },
): Promise<Outcome<BackupMode>> {
  const { name, signal } = options;
  const client = new pg.Client(clientConfig(parseConninfo(dsn), { applicationName: "klio-backup" }));
  const gone = Promise.withResolvers<KlioError>();
  client.on("error", (error) => gone.resolve(sourceError(error)));
  client.on("end", () => gone.resolve(new KlioError("KLIO-SOURCE-DOWN", "PostgreSQL ended the session of the backup")));
  const abort = () => socketOf(client).destroy(new Error("cancelled"));
  signal.addEventListener("abort", abort, { once: true });
  let closing: Promise<void> | undefined;
  const end = async () => {
    const killer = setTimeout(() => socketOf(client).destroy(), GOODBYE_MS);
    await client.end().catch(errorText); // a session that is gone already has ended, too
    clearTimeout(killer);
  };
  const close = () => {
    closing ??= end();
    return closing;
  };
  const ask = async (sql: string, values: unknown[] = []): Promise<Row> => {
    const { rows }: pg.QueryResult<Row> = await client.query(sql, values);
    return rows[0] ?? {};
  };
  try {
    signal.throwIfAborted();
    await client.connect();
    await client.query(SETTINGS);
    const locked = await ask(`select pg_try_advisory_lock(${LOCK}) as ours`);
    if (locked.ours !== true)
      throw new KlioError("KLIO-BACKUP-RUNNING", "another backup of this PostgreSQL instance is running");
    const row = await ask(SOURCE);
    const tablespaces: pg.QueryResult<{ name: string; oid: string; path: string }> = await client.query(TABLESPACES);
    const started = await ask(
      "select floor(extract(epoch from clock_timestamp()))::int8::text as at, pg_backup_start($1, fast => true)::text as lsn",
      [name],
    );
    signal.removeEventListener("abort", abort);
    return ok({
      source: {
        role: row.standby === true ? "standby" : "primary",
        systemId: String(row.system_id),
        pgVersion: Number(row.version),
        dataDirectory: String(row.data_directory),
        segmentBytes: Number(row.segment_bytes),
        tablespaces: tablespaces.rows.map(({ name, oid, path }) => ({ name, oid: Number(oid), path })),
        startedAt: Number(started.at),
      },
      gone: gone.promise,
      stop: () => stopBackup(ask),
      close,
    });
  } catch (error) {
    signal.removeEventListener("abort", abort);
    await close();
    if (signal.aborted) return { kind: "retryable", code: "KLIO-CANCELLED", reason: "the backup was cancelled" };
    return failureOf(sourceError(error));
  }
}

async function stopBackup(ask: (sql: string) => Promise<Row>): Promise<Outcome<StoppedBackup>> {
  try {
    // WAL is looked for on the server: whether it was archived elsewhere does not matter.
    const stopped = await ask(
      "select lsn::text, labelfile, spcmapfile, floor(extract(epoch from clock_timestamp()))::int8::text as at from pg_backup_stop(wait_for_archive => false)",
    );
    const labelText = String(stopped.labelfile);
    const label = parseBackupLabel(labelText);
    // A standby may have followed its primary to another timeline meanwhile.
    const recovery = await ask(
      "select pg_is_in_recovery() as standby, min_recovery_end_timeline as timeline from pg_control_recovery()",
    );
    if (recovery.standby === true && Number(recovery.timeline) > label.timeline)
      return failure(
        "KLIO-BACKUP-FAILED",
        `the standby went from timeline ${label.timeline} to ${String(recovery.timeline)} during the backup`,
      );
    return ok({
      label,
      labelText,
      tablespaceMap: String(stopped.spcmapfile ?? ""),
      endLsn: parseLsn(String(stopped.lsn)),
      stoppedAt: Number(stopped.at),
    });
  } catch (error) {
    return failureOf(sourceError(error));
  }
}
