// Every machine has a unit test of its own with a total table; the checker of the table demands the rest.
import { importsOf, type Source, withoutComments } from "./sources.ts";

/** `test/unit/machines/wal-stream.test.ts`, or a second one, `wal-stream-table.test.ts`. */
function testsOf(machine: Source, tests: readonly Source[]): Source[] {
  return tests.filter((test) => importsOf(test).some(({ to, isType }) => to === machine.path && !isType));
}

/** Names that a file gives to its machines. */
function machineNames({ text }: Source): string[] {
  return [...withoutComments(text).matchAll(/^export const (\w+)(?:: \w+)? = setup\(/gm)].map(([, name = ""]) => name);
}

const fileOf = (path: string) => path.replace(/^.*\//, "").replace(/\.machine\.ts$/, "");
const camel = (kebab: string) => kebab.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

/** `machines`: files `src/machines/*.machine.ts`. `tests`: those in test/unit. */
export function machineViolations(machines: readonly Source[], tests: readonly Source[]): string[] {
  return machines.flatMap((machine) => {
    const { path, text } = machine;
    const names = machineNames(machine);
    const wanted = camel(fileOf(path));
    if (names.length !== 1 || names[0] !== wanted)
      return [`${path}: exports ${names.join(", ") || "no machine"}; one file, one machine: ${wanted}`];
    const own = testsOf(machine, tests);
    const code = own.map((test) => withoutComments(test.text)).join("\n");
    const checked = [...code.matchAll(/\bcheckTransitionTable\(\s*(\w+)/g)].map(([, name = ""]) => name);
    // A variable may stand for the machine with something provided.
    const isChecked = checked.some(
      (name) => name === wanted || new RegExp(`\\bconst ${name} = ${wanted}\\.provide\\(`).test(code),
    );
    const mirror = `test/unit/machines/${fileOf(path)}.test.ts`;
    return [
      ...(new RegExp(`\\bid: "${wanted}"`).test(text) ? [] : [`${path}: the machine's id is not "${wanted}"`]),
      ...(own.some((test) => test.path === mirror) ? [] : [`${path}: ${mirror} does not import it`]),
      ...(isChecked ? [] : [`${path}: no checkTransitionTable(${wanted}, …) in ${mirror}`]),
      ...(/"shutdown\.requested"/.test(text) ? [] : [`${path}: a machine can be stopped: "shutdown.requested"`]),
    ];
  });
}
