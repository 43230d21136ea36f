import { execFileSync } from "node:child_process";
import { chmodSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { formatDescription } from "../../../src/actors/snapshots/description.ts";
import { openSnapshotRepository } from "../../../src/actors/snapshots/open-repository.ts";
import { unwrap } from "../../../src/domain/outcome.ts";
import type { SnapshotDescription } from "../../../src/domain/snapshot-catalogue.ts";
import { openRepositorySession } from "../../support/repository-session.ts";
import { sampleMetadata, sampleTree, storeSample } from "../../support/sample-backup.ts";
import { kopia, repositoryOptions, type SnapshotServer, startSnapshotServer } from "../../support/snapshot-server.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const labels = (hostname: string, path: string) => ({ type: "snapshot", username: "klio", hostname, path });

/** Beta's user, who has beta's password and a program of its own. */
async function hostileBeta({ repository, url, certificates }: SnapshotServer) {
  const access = unwrap(await repository.clusterAccess("klio", "beta"));
  const session = await openRepositorySession(url, access, certificates.caCert);
  const obj = await session.emptyDirectory();
  const manifest = (host: string, path: string, description: SnapshotDescription) => {
    const now = new Date().toISOString();
    const summ = { size: 0, files: 0, symlinks: 0, dirs: 1, maxTime: now, numFailed: 0 };
    return {
      source: { host, userName: "klio", path },
      description: formatDescription(description),
      startTime: now,
      endTime: now,
      rootEntry: { name: "x", type: "d", mode: "0755", mtime: now, obj, summ },
    };
  };
  return {
    session,
    manifest,
    /** Stored for beta, but it says that it is alpha's. */
    lie: (path: string, description: SnapshotDescription, stored = path) =>
      session.putManifest(labels("beta", stored), manifest("alpha", path, description)),
    [Symbol.dispose]: () => session[Symbol.dispose](),
  };
}

test("P6: what a cluster's user stores as another's is refused, and what it stores for itself and calls another's is nobody's", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path, { clusters: ["alpha", "beta"] });
  const { repository, log } = server;
  await using alpha = await server.open("alpha");
  await using beta = await server.open("beta");
  const data = sampleTree(dir.path);
  const stored = await storeSample(alpha, data, sampleMetadata("b1"));
  const own = await storeSample(beta, data, sampleMetadata("own", "beta"));
  using hostile = await hostileBeta(server);
  const tombstone = { backup: "b1", content: "tombstone", host: "h", of: dirname(stored.snapshots[0]!.path) } as const;
  const open = hostile.manifest("alpha", "/x/tombstone", tombstone);
  await expect(hostile.session.putManifest(labels("alpha", "/x/tombstone"), open)).rejects.toThrow("access denied");
  for (const { id } of [...stored.snapshots, ...own.snapshots])
    await expect(hostile.session.deleteManifest(id)).rejects.toThrow("access denied");

  const first = await hostile.lie("/x/tombstone", tombstone);
  const metadata = sampleMetadata("false");
  for (const content of ["pgdata", "controldata", "metadata"] as const)
    await hostile.lie(`/y/${content}`, { backup: "false", content, host: "h", metadata });
  expect(unwrap(await repository.backups("alpha"))).toEqual([stored]);
  expect(unwrap(await repository.backups())).toEqual([stored, own]);
  expect(unwrap(await repository.orphans())).toEqual([]);
  expect(unwrap(await repository.list())).toEqual([...stored.snapshots, ...own.snapshots]);
  expect(unwrap(await alpha.backups())).toEqual([stored]);
  expect(unwrap(await beta.list())).toEqual(own.snapshots);
  expect(log.lines.filter(({ event }) => event === "repository.snapshot.mislabelled")).toMatchObject([
    {
      level: "warn",
      message: `snapshot ${first}, which klio@beta stored, says that it is of "klio@alpha" or of another place than it was stored for; it and others of the kind are ignored`,
      fields: { owner: "klio@beta", id: first, tier: "tier1" },
    },
  ]);
});

test("P6: a backup is of the cluster whose user stored it, whatever its metadata say", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path, { clusters: ["alpha", "beta"] });
  await using beta = await server.open("beta");
  const stored = await storeSample(beta, sampleTree(dir.path), sampleMetadata("b1", "alpha"));
  expect(stored.metadata.clusterName).toBe("beta");
  expect(unwrap(await server.repository.backups())).toEqual([stored]);
});

test("P6: a copy to tier 2 makes nothing another cluster's, also when that is stored while the copy begins", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(join(dir.path, "tier1"), { clusters: ["alpha", "beta"] });
  // The program, waiting for the test before its first copy.
  const gate = join(dir.path, "gate");
  const program = join(dir.path, "kopia");
  execFileSync("mkfifo", [gate]);
  const wait = `case "$*" in *"snapshot migrate"*) if [ -p ${gate} ]; then cat ${gate}; fi;; esac`;
  writeFileSync(program, `#!/bin/sh\n${wait}\nexec ${kopia} "$@"\n`);
  chmodSync(program, 0o755);
  const options = repositoryOptions(join(dir.path, "tier2"), { tier: "tier2", kopia: program });
  await using tier2 = unwrap(await openSnapshotRepository(options));
  await using alpha = await server.open("alpha");
  await using beta = await server.open("beta");
  const data = sampleTree(dir.path);
  const stored = await storeSample(alpha, data, sampleMetadata("b1"));
  const own = await storeSample(beta, data, sampleMetadata("own", "beta"));
  using hostile = await hostileBeta(server);
  const tombstone = { backup: "b1", content: "tombstone", host: "h", of: dirname(stored.snapshots[0]!.path) } as const;

  const copied = server.repository.copyBackupTo(tier2, own);
  const begun = await open(gate, "w");
  rmSync(gate);
  await hostile.lie("/x/tombstone", tombstone, own.snapshots[0]!.path);
  await begun.close();
  expect(await copied).toMatchObject({ kind: "fatal", code: "KLIO-BACKUP-FAILED" });
  expect(await server.repository.copyBackupTo(tier2, own)).toMatchObject({ code: "KLIO-BACKUP-FAILED" });
  unwrap(await server.repository.copyBackupTo(tier2, stored));
  expect(unwrap(await tier2.backups("alpha")).map(({ metadata }) => metadata.name)).toEqual(["b1"]);
  expect(unwrap(await tier2.list()).filter(({ content }) => content === "tombstone")).toEqual([]);
});
