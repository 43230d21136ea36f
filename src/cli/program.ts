// The command line: which command is in which module (loaded only when asked for), usage errors, error messages.
import { Command, CommanderError } from "commander";
import { asKlioError, exitStatus } from "../errors.ts";
import { tuneCollector } from "../roles/collector.ts";
import type { CliContext } from "./context.ts";
import { version } from "./version.ts";

type Register = (program: Command, context: CliContext) => void;

const commands: Readonly<Record<string, () => Promise<Register>>> = {
  server: async () => (await import("./server.ts")).registerServer,
  status: async () => (await import("./status.ts")).registerStatus,
  sidecar: async () => (await import("./sidecar.ts")).registerSidecar,
  "send-wal": async () => (await import("./send-wal.ts")).registerSendWal,
  backup: async () => (await import("./backup.ts")).registerBackup,
  restore: async () => (await import("./restore.ts")).registerRestore,
  "get-wal": async () => (await import("./get-wal.ts")).registerGetWal,
  "get-metadata": async () => (await import("./get-metadata.ts")).registerGetMetadata,
  "reset-lsn": async () => (await import("./reset-lsn.ts")).registerResetLsn,
  slot: async () => (await import("./slot.ts")).registerSlot,
  retention: async () => (await import("./retention.ts")).registerRetention,
  doctor: async () => (await import("./doctor.ts")).registerDoctor,
  admin: async () => (await import("./admin.ts")).registerAdmin,
  "wal-player": async () => (await import("./wal-player.ts")).registerWalPlayer,
  demo: async () => (await import("./demo.ts")).registerDemo,
};

/** The first word that is no option (nor the value of a global one). */
function commandName(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? "";
    if (word === "--config" || word === "--log-level") i++;
    else if (!word.startsWith("-")) return word;
  }
  return undefined;
}

/** The program with the asked command; with all of them when it is unknown or help is wanted. */
export async function buildProgram(context: CliContext): Promise<Command> {
  const program = new Command("klio")
    .description("PostgreSQL backup server and sidecar: WAL streamed as it is written, base backups, two tiers")
    .version(version(), "--version", "print the version")
    .option("--config <file>", "configuration file (default: ~/.klio.yaml)")
    .option("--log-level <level>", "error, warn, info, debug or trace", "info")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => context.stdout.write(text),
      writeErr: (text) => context.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, "Error: ")),
    });
  const name = commandName(context.argv);
  const load = name === undefined ? undefined : commands[name];
  const wanted = load === undefined ? Object.values(commands) : [load];
  for (const register of await Promise.all(wanted.map((one) => one()))) register(program, context);
  return program;
}

/** Runs the command line. Never rejects; the exit status goes to `context.exit`. */
export async function runProgram(context: CliContext): Promise<void> {
  tuneCollector(); // the modules of a command are the first that allocate much
  try {
    const program = await buildProgram(context);
    await program.parseAsync([...context.argv], { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError) {
      context.exit(error.exitCode === 0 ? exitStatus.done : exitStatus.usage);
      return;
    }
    const known = asKlioError(error);
    context.stderr.write(`Error: ${known.message}\n`);
    if (known.hint !== "") context.stderr.write(`Hint: ${known.hint}\n`);
    if (known.kind === "bug" && known.stack !== undefined) context.stderr.write(`${known.code}: ${known.stack}\n`);
    context.exit(known.exit);
  }
}
