import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { test } from "vitest";
import { MARKER } from "../../../src/actors/restore/destination.ts";
import { type RecoveryFiles, sealDestination, writeRecoveryFiles } from "../../../src/actors/restore/recovery-files.ts";
import { shellWord } from "../../../src/domain/recovery-settings.ts";
import { backupOf } from "../../support/backups.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

/** As Kopia leaves it: without what is excluded from a backup. */
function restoredTree(root: string): RecoveryFiles {
  const destination = join(root, "data");
  const space = join(root, "space");
  for (const name of ["global", "base", "pg_tblspc"]) mkdirSync(join(destination, name), { recursive: true });
  mkdirSync(space);
  mkdirSync(join(root, "elsewhere"));
  symlinkSync(join(root, "elsewhere"), join(destination, "pg_wal"));
  symlinkSync("/srv/old", join(destination, "pg_tblspc", "16384"));
  writeFileSync(join(destination, "PG_VERSION"), "18\n");
  writeFileSync(join(destination, "standby.signal"), "");
  writeFileSync(join(destination, MARKER), "");
  writeFileSync(join(space, MARKER), "");
  writeFileSync(join(destination, "global", "pg_control"), Buffer.alloc(8192));
  chmodSync(destination, 0o755);
  return {
    destination,
    backup: backupOf({ tablespaceMap: "16384 /srv/old\n", tablespaces: [{ name: "s", oid: 16384, path: "/srv/old" }] }),
    tablespaces: new Map([[16384, space]]),
  };
}

test("label, map, links and directories are what PostgreSQL wants to find; twice is as good as once", async () => {
  await using directory = await temporaryDirectory();
  const files = restoredTree(directory.path);
  const at = (name: string) => join(files.destination, name);
  for (let i = 0; i < 2; i++) assert.deepEqual(await writeRecoveryFiles(files), { kind: "ok", value: null });
  assert.equal(readFileSync(at("backup_label"), "utf8"), files.backup.backupLabel);
  assert.equal(statSync(at("backup_label")).mode & 0o777, 0o600);
  assert.equal(readFileSync(at("tablespace_map"), "utf8"), `16384 ${join(directory.path, "space")}\n`);
  assert.equal(readlinkSync(at("pg_tblspc/16384")), join(directory.path, "space"));
  assert.ok(lstatSync(at("pg_wal")).isDirectory());
  assert.ok(lstatSync(at("pg_wal/archive_status")).isDirectory());
  assert.equal(existsSync(at("standby.signal")), false);
  assert.equal(existsSync(at("recovery.signal")), false);
  assert.deepEqual(await sealDestination(files), { kind: "ok", value: null });
  assert.equal(statSync(files.destination).mode & 0o777, 0o700);
  assert.equal(existsSync(at(MARKER)), false);
  assert.equal(existsSync(join(directory.path, "space", MARKER)), false);
});

test("with settings PostgreSQL recovers by itself", async () => {
  await using directory = await temporaryDirectory();
  const files = restoredTree(directory.path);
  writeFileSync(
    join(files.destination, "postgresql.auto.conf"),
    "work_mem = '8MB'\nrecovery_target_time = 'long ago'\n",
  );
  const settings = {
    restoreCommand: "klio get-wal %f %p",
    timeline: 2,
    target: { kind: "lsn", lsn: "0/3000000" },
  } as const;
  assert.equal((await writeRecoveryFiles({ ...files, settings })).kind, "ok");
  assert.equal(readFileSync(join(files.destination, "recovery.signal"), "utf8"), "");
  assert.equal(
    readFileSync(join(files.destination, "postgresql.auto.conf"), "utf8"),
    "work_mem = '8MB'\nrestore_command = 'klio get-wal %f %p'\nrecovery_target_timeline = '2'\nrecovery_target_lsn = '0/3000000'\nrecovery_target_action = 'promote'\n",
  );
});

test("KLIO-BACKUP-CORRUPT: without a label, or with a control file that is none, nothing is sealed", async () => {
  await using directory = await temporaryDirectory();
  const files = restoredTree(directory.path);
  const unlabelled = await writeRecoveryFiles({ ...files, backup: { ...files.backup, backupLabel: "" } });
  assert.equal(unlabelled.kind === "fatal" && unlabelled.code, "KLIO-BACKUP-CORRUPT");
  writeFileSync(join(files.destination, "global", "pg_control"), "short");
  const cut = await sealDestination(files);
  assert.equal(cut.kind === "fatal" && cut.code, "KLIO-BACKUP-CORRUPT");
  assert.ok(existsSync(join(files.destination, MARKER)));
});

test("a shell reads a word back as it was, after PostgreSQL took its % signs", () => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 1 }).filter((text) => !text.includes("\0")),
      (text) => {
        const command = `printf %s ${shellWord(text).replaceAll("%%", "%")}`;
        assert.equal(execFileSync("/bin/sh", ["-c", command], { encoding: "utf8" }), text);
      },
    ),
    { numRuns: 30 },
  );
});
