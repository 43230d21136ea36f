// What strace wrote (-f -yy -xx -v), read as system calls that begin and end, in the order in which they did.

export type SystemCall = {
  pid: number;
  name: string;
  /** Everything between the brackets. */
  args: string;
};
export type TraceEvent = { kind: "begin"; call: SystemCall } | { kind: "end"; call: SystemCall; result: number };

const BEGIN = /^(\d+) +(\w+)\((.*)$/;
const RESUMED = /^(\d+) +<\.\.\. (\w+) resumed>(.*)$/;
const UNFINISHED = / <unfinished \.\.\.>$/;
const RESULT = /^(.*)\) += (-?\d+)/;

/**
 * The same object tells a call's begin and its end. Lines of signals and exits are passed over. A call that is interrupted by its
 * process's end never ends.
 */
export function* traceEvents(lines: Iterable<string>): Generator<TraceEvent> {
  const open = new Map<string, SystemCall>();
  for (const line of lines) {
    const resumed = RESUMED.exec(line);
    if (resumed !== null) {
      const [, pid = "", name = "", rest = ""] = resumed;
      const call = open.get(`${pid} ${name}`);
      const ended = RESULT.exec(rest);
      if (call === undefined || ended === null) continue;
      open.delete(`${pid} ${name}`);
      call.args += ended[1] ?? ""; // what the system fills in
      yield { kind: "end", call, result: Number(ended[2]) };
      continue;
    }
    const begun = BEGIN.exec(line);
    if (begun === null) continue;
    const [, pid = "", name = "", rest = ""] = begun;
    if (UNFINISHED.test(rest)) {
      const call = { pid: Number(pid), name, args: rest.replace(UNFINISHED, "") };
      open.set(`${pid} ${name}`, call);
      yield { kind: "begin", call };
      continue;
    }
    const ended = RESULT.exec(rest);
    if (ended === null) continue;
    const call = { pid: Number(pid), name, args: ended[1] ?? "" };
    yield { kind: "begin", call };
    yield { kind: "end", call, result: Number(ended[2]) };
  }
}

function unescaped(text: string): Buffer {
  return Buffer.from(text.replaceAll("\\x", ""), "hex");
}

/** Path or socket behind the descriptor that is the first argument: `23</tmp/x>, …`. */
export function descriptorOf({ args }: SystemCall): string {
  const text = /^\d+<(.*?)>(?:,|$)/.exec(args)?.[1] ?? "";
  return text.startsWith("\\x") ? unescaped(text).toString() : text;
}

/** The strings of a call, as far as strace printed them; `isCut` when it left something out. */
export function stringsOf({ args }: SystemCall): { bytes: Buffer; isCut: boolean }[] {
  return [...args.matchAll(/"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?/g)].map(([, hex = "", cut]) => ({
    bytes: unescaped(hex),
    isCut: cut !== undefined,
  }));
}

/** The same as text: paths. */
export function pathsOf(call: SystemCall): string[] {
  return stringsOf(call).map(({ bytes }) => bytes.toString());
}
