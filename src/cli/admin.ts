// klio admin: queue, backups and tiers of a running server, over its local socket.
import type { Command } from "commander";
import { KlioError } from "../errors.ts";
import { type AdminSession, type FailedList, type ReconcileReport, type TierName, withAdmin } from "../roles/admin.ts";
import type { CliContext } from "./context.ts";
import { defaultAdminSocket } from "./load-config.ts";
import { table } from "./table.ts";

type Options = {
  socketPath: string;
  json?: boolean;
  clusterName?: string;
  cluster?: string;
  tier1?: boolean;
  tier2?: boolean;
  remove?: boolean;
};

const CLUSTER = ["--cluster-name <cluster>", "only of this cluster"] as const;

export function registerAdmin(program: Command, context: CliContext): void {
  const admin = program.command("admin").description("administration of a running server, where it runs");
  const print = (text: string) => void context.stdout.write(text);
  const ask = async <T>(command: Command, act: (session: AdminSession, options: Options) => Promise<T>): Promise<T> => {
    const options = command.optsWithGlobals<Options>();
    return withAdmin(options.socketPath, (session) => act(session, options));
  };
  const under = (parent: Command, name: string, description: string) =>
    parent
      .command(name)
      .description(description)
      .option("--socket-path <path>", "admin socket of the server", defaultAdminSocket(context));

  const queue = admin.command("queue").description("tasks on their way to tier 2");
  under(queue, "status", "how many tasks wait")
    .option("--json", "print JSON")
    .action((_, command: Command) =>
      ask(command, async (session, { json }) => {
        const { pendingBackups, pendingWals } = await session.queueStatus();
        const document = { pending_backups: pendingBackups, pending_wals: pendingWals };
        print(
          json === true
            ? `${JSON.stringify(document)}\n`
            : `Pending backups: ${pendingBackups}\nPending WALs: ${pendingWals}\n`,
        );
      }),
    );
  for (const [kind, title] of [
    ["wal", "WAL files"],
    ["backup", "backups"],
  ] as const) {
    const group = queue.command(kind).description(`${title} among the tasks`);
    under(group, "list-failed", `${title} that were given up, newest first`)
      .option(...CLUSTER)
      .option("--json", "print JSON")
      .action((_, command: Command) =>
        ask(command, async (session, { json, clusterName }) => {
          const list =
            kind === "wal" ? await session.failedWals(clusterName) : await session.failedBackups(clusterName);
          print(json === true ? `${JSON.stringify(list.document)}\n` : failedTable(kind, list));
        }),
      );
  }
  under(queue, "retry", "send the tasks that were given up again")
    .option(...CLUSTER)
    .option("--json", "print JSON")
    .action((_, command: Command) =>
      ask(command, async (session, { json, clusterName }) => {
        const { wals, backups } = await session.retry(clusterName);
        print(
          json === true ? `${JSON.stringify({ wals, backups })}\n` : `Sent again: ${wals} WALs, ${backups} backups\n`,
        );
      }),
    );
  under(queue, "purge", "forget the tasks that were given up")
    .option(...CLUSTER)
    .option("--json", "print JSON")
    .action((_, command: Command) =>
      ask(command, async (session, { json, clusterName }) => {
        const { wals, backups } = await session.purge(clusterName);
        print(json === true ? `${JSON.stringify({ wals, backups })}\n` : `Removed: ${wals} WALs, ${backups} backups\n`);
      }),
    );

  under(admin, "reconcile", "compare the tiers now, and send what tier 2 lacks")
    .option(...CLUSTER)
    .option("--json", "print JSON")
    .action((_, command: Command) =>
      ask(command, async (session, { json, clusterName }) => {
        const report = await session.reconcile(clusterName);
        print(json === true ? `${JSON.stringify(report)}\n` : reconcileTable(report));
        judge(report);
      }),
    );
  under(admin, "refresh", "make the base repository servers see what was changed past them").action(
    (_, command: Command) => ask(command, async (session) => session.refresh()),
  );
  under(admin, "list-backups", "all backups of both tiers, as JSON").action((_, command: Command) =>
    ask(command, async (session) => print(`${await session.listBackups()}\n`)),
  );
  const ofBackup = (name: string, description: string, verb: string) =>
    under(admin, name, description)
      .argument("<name>", "name of the backup")
      .requiredOption("--cluster <cluster>", "cluster it belongs to")
      .option("--tier1", `${verb} on tier 1`)
      .option("--tier2", `${verb} on tier 2`);
  ofBackup("delete-backup", "delete a backup from one tier or both", "delete it").action(
    (name: string, _, command: Command) =>
      ask(command, async (session, options) => {
        await session.deleteBackup(options.cluster ?? "", name, tiersOf(options));
        print(`Backup "${name}" deleted successfully\n`);
      }),
  );
  ofBackup("pin-backup", "keep a backup on one tier or both, whatever the policy says", "keep it")
    .option("--remove", "let the policy decide again")
    .action((name: string, _, command: Command) =>
      ask(command, async (session, options) => {
        const isKept = options.remove !== true;
        await session.pinBackup(options.cluster ?? "", name, tiersOf(options), isKept);
        print(isKept ? `Backup "${name}" is kept\n` : `Backup "${name}" is left to the policy\n`);
      }),
    );
}

function tiersOf({ tier1, tier2 }: Options): TierName[] {
  const tiers: TierName[] = [
    ...(tier1 === true ? ["tier1" as const] : []),
    ...(tier2 === true ? ["tier2" as const] : []),
  ];
  if (tiers.length === 0)
    throw new KlioError("KLIO-USAGE", "no tier is named", { hint: "add --tier1, --tier2, or both" });
  return tiers;
}

function failedTable(kind: "wal" | "backup", { rows }: FailedList): string {
  if (rows.length === 0) return "No results\n";
  return kind === "wal"
    ? table(
        ["SEQUENCE", "CLUSTER", "WAL NAME", "LAST ATTEMPT", "ATTEMPTS", "ERROR"],
        rows.map(({ sequence, cluster, name, lastAttempt, attempts, error }) => [
          sequence,
          cluster,
          name,
          lastAttempt,
          attempts,
          error,
        ]),
      )
    : table(
        ["CLUSTER", "LAST ATTEMPT", "ATTEMPTS", "ERROR"],
        rows.map(({ cluster, lastAttempt, attempts, error }) => [cluster, lastAttempt, attempts, error]),
      );
}

/** The exit status: 0 only when all that was asked for could be compared. */
function judge(report: ReconcileReport): void {
  const failed = [report, ...report.clusters].filter(({ error }) => error !== "");
  const code = failed.find((one) => one.code !== "")?.code;
  if (failed.length === 0) return;
  const reasons = failed.map(({ cluster, error }) => (cluster === "" ? error : `${cluster}: ${error}`));
  throw new KlioError(code || "KLIO-S3-DOWN", `the tiers could not be compared: ${reasons.join("; ")}`);
}

function reconcileTable(report: ReconcileReport): string {
  if (report.clusters.length === 0) return "No results\n";
  return table(
    ["CLUSTER", "MISSING", "SENT", "BACKUPS SENT", "REMOVED", "DIFFERENT", "FOREIGN", "ERROR"],
    report.clusters.map((one) => [
      one.cluster,
      String(one.missing),
      String(one.enqueued),
      String(one.enqueuedBackups),
      String(one.removed),
      String(one.different.length),
      String(one.foreign.length),
      one.error,
    ]),
  );
}
