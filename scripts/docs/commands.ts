// The reference page of the command line, walked from the program itself.
import type { Command } from "commander";
import { buildProgram } from "../../src/cli/program.ts";
import { code, generatedFrom, page, table } from "./markdown.ts";

/** Surroundings that are the same everywhere, since defaults are made from them. */
const context = {
  env: { HOME: "~", TMPDIR: "/tmp" },
  argv: ["--help"],
  stdout: process.stdout,
  stderr: process.stderr,
  signal: new AbortController().signal,
  exit: () => undefined,
};

const sentence = (text: string) => (text === "" ? "" : `${text.charAt(0).toUpperCase()}${text.slice(1)}.`);

function defaultText(value: unknown): string {
  return value === undefined || value === false ? "" : code(typeof value === "string" ? value : JSON.stringify(value));
}

function optionsTable(command: Command): string {
  const rows = command.options
    .filter((option) => !option.hidden)
    .map((option) => [
      code(option.flags),
      `${option.description}${option.argChoices === undefined ? "" : ` (${option.argChoices.join(", ")})`}`,
      option.defaultValueDescription ?? defaultText(option.negate ? undefined : option.defaultValue),
      option.mandatory ? "yes" : "",
    ]);
  return rows.length === 0 ? "" : table(["option", "what", "default", "required"], rows);
}

function argumentsTable(command: Command): string {
  const rows = command.registeredArguments.map((argument) => [
    code(argument.name()),
    argument.description,
    defaultText(argument.defaultValue),
    argument.required ? "yes" : "",
  ]);
  return rows.length === 0 ? "" : table(["argument", "what", "default", "required"], rows);
}

function sections(command: Command, name: string): string[] {
  const children = command.commands.filter((child) => child.name() !== "help");
  const inner = children.flatMap((child) => sections(child, `${name} ${child.name()}`));
  if (children.length > 0) return [`## ${name}`, sentence(command.description()), optionsTable(command), ...inner];
  const usage = `${name} ${command.usage()}`.trim();
  return [
    `### ${name}`,
    sentence(command.description()),
    `\`\`\`\n${usage}\n\`\`\``,
    argumentsTable(command),
    optionsTable(command),
  ];
}

export async function commandsPage(): Promise<string> {
  const program = await buildProgram(context);
  const parts = program.commands
    .filter((command) => command.name() !== "help")
    .flatMap((command) =>
      sections(command, `klio ${command.name()}`).map((part) => part.replace(/^### (klio \S+)$/, "## $1")),
    );
  return page(
    generatedFrom("the commands in src/cli"),
    "# Commands",
    sentence(program.description()),
    "Global options stand before or behind the command. Exit statuses: [errors.md](errors.md#exit-statuses); configuration files: [options.md](options.md).",
    optionsTable(program),
    ...parts,
  );
}
