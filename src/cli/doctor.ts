// klio doctor: looks at what a server depends on.
import type { Command } from "commander";
import { KlioError } from "../errors.ts";
import { type DoctorReport, examineStore } from "../roles/doctor.ts";
import type { CliContext } from "./context.ts";
import { loadS3Config } from "./load-config.ts";
import { table } from "./table.ts";

export function registerDoctor(program: Command, context: CliContext): void {
  const doctor = program.command("doctor").description("looks at what a server depends on");
  doctor
    .command("s3")
    .description(
      "find out what the object store of tier 2 really does, and which settings suit it; reads tier2.s3 of a server's configuration only, writes below a prefix of its own and removes it again",
    )
    .option("--json", "print JSON")
    .action(async ({ json }: { json?: boolean }, command: Command) => {
      const { config } = command.optsWithGlobals<{ config?: string }>();
      const report = await examineStore(loadS3Config(context, config));
      context.stdout.write(json === true ? `${JSON.stringify(report)}\n` : page(report));
      judge(report);
    });
}

function page({ bucket, endpoint, prefix, roundTripMs, checks, settings, leftOver }: DoctorReport): string {
  return [
    `Bucket ${bucket} at ${endpoint}, prefix "${prefix}", ${roundTripMs} ms for a request\n\n`,
    table(
      ["THE STORE …", "STATUS", "DETAIL"],
      checks.map(({ what, status, detail }) => [what, status, detail]),
    ),
    "\n",
    table(
      ["SETTING", "SAFE", "CONFIGURED", "WHY"],
      settings.map(({ key, value, configured, why }) => [key, value, configured, why]),
    ),
    ...(leftOver.length === 0 ? [] : [`\nCould not be removed again: ${leftOver.join(", ")}\n`]),
  ].join("");
}

/** The exit status: 0 only when the store is fit with what is configured. */
function judge({ verdict, checks, settings }: DoctorReport): void {
  if (verdict === "unfit") {
    const failed = checks.filter(({ status }) => status === "failed");
    throw new KlioError(
      "KLIO-S3-UNFIT",
      `tier 2 cannot rely on this store; not so: ${failed.map(({ what, detail }) => `${what} (${detail})`).join("; ")}`,
    );
  }
  const wrong = settings.filter(({ value, configured }) => value !== configured);
  if (wrong.length > 0)
    throw new KlioError(
      "KLIO-CONFIG",
      wrong.map(({ key, value, configured }) => `${key} = ${configured}: must be ${value} for this store`).join("; "),
    );
}
